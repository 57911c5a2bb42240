//! Tells the book what happens and holds everything that it decides against the rules.

use relayserver_core::{
    Announcement, ChannelId, ChannelKey, CommandId, Grant, HostId, Input, Output, Reason, Role,
    ServiceName, SessionId,
};

use crate::steps::{Step, ssh};
use crate::world::{Named, Session, World, grant_id, host_of_v1, is_member, member};

/// No command channel has this key.
pub(crate) const WRONG_KEY: u128 = 0;

/// Acts on one of them, where there is any.
fn with<T: Copy>(nth: usize, from: &[T], act: impl FnOnce(T)) {
    if !from.is_empty() {
        act(from[nth % from.len()]);
    }
}

fn service(is_ssh: bool) -> ServiceName {
    if is_ssh { ssh() } else { ServiceName::default() }
}

impl World {
    pub(crate) fn take_step(&mut self, step: Step) {
        let commands: Vec<CommandId> = self.commands.keys().copied().collect();
        let sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        let running = self.running();
        match step {
            Step::CommandUp { host } => self.command_up(host_of_v1(host)),
            Step::MemberUp { host, token, knows_key, services, capacity } => {
                let services = services.into_iter().map(ServiceName::new).collect();
                self.member_up(member(host), token.map(grant_id), knows_key, services, capacity);
            }
            Step::Bounds { nth, ssh, min, more } => {
                with(nth, &commands, |it| self.bounds(it, service(ssh), min, min + more));
            }
            Step::Surplus { nth, ssh, idle } => {
                with(nth, &commands, |it| self.surplus(it, service(ssh), idle));
            }
            Step::RoundTrip { nth, millis } => {
                with(nth, &commands, |it| self.round_trip(it, millis));
            }
            Step::CommandDown { nth } => with(nth, &commands, |it| self.command_down(it)),
            Step::Suspect { nth } => with(nth, &commands, |it| self.suspect(it)),
            Step::Well { nth } => with(nth, &commands, |it| self.well(it)),
            Step::Gone { nth } => with(nth, &commands, |it| self.command_gone(it)),
            Step::Leaving { nth } => with(nth, &commands, |it| self.command_leaving(it)),
            Step::Grant { token, only_ssh, lasts, is_host } => {
                let service = if only_ssh { "ssh" } else { "*" };
                let role = if is_host { Role::Host } else { Role::Client };
                let expires =
                    lasts.map(|millis| self.now + std::time::Duration::from_millis(millis));
                let services = vec![service.parse().unwrap()];
                self.grant_changed(grant_id(token), Some(Grant { role, services, expires }));
            }
            Step::Revoke { token } => self.grant_changed(grant_id(token), None),
            Step::Hello { .. }
            | Step::MemberHello { .. }
            | Step::Idle { .. }
            | Step::ChannelGone { .. } => self.take_step_of_channel(step),
            Step::ClientArrives { ssh } => self.client_arrives(service(ssh)),
            Step::ClientGone { nth } => with(nth, &sessions, |it| self.client_gone(it)),
            Step::Accepted { nth } => with(nth, &running, |it| self.accepted(it)),
            Step::OfferFailed { nth, reason } => {
                with(nth, &running, |it| self.offer_failed(it, reason));
            }
            Step::ClientFinished { nth } => {
                with(nth, &sessions, |it| self.client_finished(it));
            }
            Step::HostFinished { nth } => {
                with(nth, &running, |it| self.host_finished(it));
            }
            Step::Returned { nth } => with(nth, &sessions, |it| {
                self.channel_returned(it);
            }),
            Step::SessionEnded { nth } => {
                with(nth, &running, |it| self.session_ended(it));
            }
            Step::Pass { millis } => self.pass(millis),
            Step::Drain => self.drain(),
            Step::EndAll => self.end_all(),
        }
    }

    fn take_step_of_channel(&mut self, step: Step) {
        match step {
            Step::Hello { host } => {
                self.hello(host_of_v1(host), ServiceName::default(), None);
            }
            Step::MemberHello { host, ssh, knows_key } => {
                let own = self.members.get(&member(host)).map(|member| member.key);
                let key = if knows_key { own } else { Some(WRONG_KEY) };
                self.hello(member(host), service(ssh), key.map(ChannelKey::new));
            }
            Step::Idle { nth } => with(nth, &self.reserved.clone(), |it| self.idle(it)),
            Step::ChannelGone { nth } => {
                let channels: Vec<ChannelId> = self.channels.keys().copied().collect();
                with(nth, &channels, |it| self.channel_gone(it));
            }
            _ => panic!("a step of something else"),
        }
    }

    /// Tells the book, holds what concerns channels and sessions against the rules, and gives all outputs but assignments.
    pub(crate) fn tell(&mut self, input: Input<Named>) -> Vec<Output<Named>> {
        self.book.handle(self.now, input);
        let mut others = Vec::new();
        let mut opened = Vec::new();
        while let Some(output) = self.book.poll_output() {
            match &output {
                Output::Announce { command, to, announcement: Announcement::Open(channel) } => {
                    assert_eq!(command, to);
                    opened.push((*to, *channel));
                    continue;
                }
                Output::Announce {
                    to, announcement: Announcement::PoolWanted(name, idle), ..
                } => {
                    self.pool_wanted(*to, name, *idle);
                    continue;
                }
                Output::Assigned { .. } => {
                    self.assigned(&output, std::mem::take(&mut opened));
                    continue;
                }
                Output::Refused { session, reason, client } => {
                    assert_eq!(session, client);
                    self.refused(*session, *reason);
                }
                Output::CloseChannel { channel, handle, .. } => {
                    assert_eq!(channel, handle);
                    self.closed(*channel);
                }
                Output::CloseCommand { handle, reason } => {
                    let ended = matches!(reason, Reason::TokenRevoked | Reason::TokenExpired);
                    if ended && self.commands.remove(handle).is_some() {
                        assert!(!self.draining || !self.commands.contains_key(handle));
                    }
                }
                Output::Withdraw { session, stop, reason } => {
                    assert_eq!(session, stop);
                    let entry = self.sessions.get_mut(session).unwrap();
                    assert!(!entry.accepted, "nothing is taken back that a host has accepted");
                    assert!(!entry.asked_to_end, "a session is asked once");
                    (entry.withdrawn, entry.asked_to_end) = (true, true);
                    let may_be_well = matches!(reason, Reason::HostSuspect | Reason::Replaced);
                    entry.late_word_counts = may_be_well;
                }
                Output::EndSession { session, stop, reason } => {
                    assert_eq!(session, stop);
                    let entry = self.sessions.get_mut(session).unwrap();
                    let needs_host = entry.channel.is_some();
                    assert!(needs_host || *reason != Reason::HostLost, "it asks nothing of it");
                    assert!(!entry.asked_to_end, "a session is asked once");
                    entry.asked_to_end = true;
                }
                _ => {}
            }
            others.push(output);
        }
        assert!(opened.is_empty(), "nothing is announced as opened that was not assigned");
        others
    }

    fn closed(&mut self, channel: ChannelId) {
        // The one that is not taken back stays the session's.
        if self.returning != Some(channel) {
            assert!(self.idle.contains(&channel), "an idle one");
            self.idle.retain(|it| *it != channel);
            self.channels.remove(&channel).unwrap();
        }
    }

    fn assigned(&mut self, output: &Output<Named>, mut told: Vec<(CommandId, ChannelId)>) {
        let Output::Assigned { assignment, client, channel_handle } = output else {
            panic!("not an assignment");
        };
        let service = &assignment.service;
        assert_eq!(self.next_match(service), Some((*client, *channel_handle)), "the next in turn");
        assert_eq!((assignment.session, assignment.channel), (*client, *channel_handle));
        assert_eq!(assignment.host, self.channels[channel_handle].host);
        assert_eq!(assignment.waited, self.now - self.sessions[client].since);
        let is_member = is_member(assignment.host);
        assert_eq!(assignment.is_offer, is_member, "hosts of version 2 are asked");
        told.sort_unstable();
        let audience = if is_member { Vec::new() } else { self.audience(assignment.host) };
        let expected: Vec<_> = audience.into_iter().map(|to| (to, *channel_handle)).collect();
        assert_eq!(told, expected, "opened is announced ahead of the assignment");
        assert!(is_member || !told.is_empty(), "a host is there to be told");
        self.taken_from_pool(*channel_handle);
        let session = self.sessions.get_mut(client).unwrap();
        assert!(!session.accepted, "nothing is offered again that was accepted");
        (session.host, session.channel) = (Some(assignment.host), Some(*channel_handle));
        session.accepted = !is_member;
    }

    fn refused(&mut self, session: SessionId, reason: Reason) {
        let it = &self.sessions[&session];
        assert!(it.host.is_none(), "it waited");
        let (full, service) = (self.is_full(&it.service), it.service.clone());
        match reason {
            Reason::SessionLimit => {
                let here = self.anybody(|host| self.is_here(host, &service));
                assert!(full || (here && !self.anybody(|host| self.may_serve(host, &service))));
            }
            Reason::NoHost => {
                assert!(!full && !self.anybody(|host| self.is_here(host, &service)));
            }
            Reason::NoChannel => {
                assert!(!full && self.anybody(|host| self.may_serve(host, &service)));
            }
            _ => {}
        }
        self.sessions.remove(&session);
    }

    /// Whether it is so of any host that is known.
    pub(crate) fn anybody(&self, is_so: impl Fn(HostId) -> bool) -> bool {
        let of_channels = self.channels.values().map(|channel| channel.host);
        self.commands.values().copied().chain(of_channels).any(is_so)
    }

    /// A host is told how many idle channels to keep.
    fn pool_wanted(&mut self, command: CommandId, service: &ServiceName, idle: usize) {
        let host = self.commands[&command];
        assert!(self.is_here(host, service), "who takes none is asked for none");
        let bounds = self.members.get_mut(&host).and_then(|it| it.pools.get_mut(service));
        let Some(bounds) = bounds else { panic!("only who has said its bounds is asked") };
        assert!((bounds.min..=bounds.max).contains(&idle));
        assert_ne!(bounds.kept(), idle, "nobody is told what it knows");
        bounds.told = Some(idle);
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now + std::time::Duration::from_millis(millis);
        let timeout = |it: &Session| it.since + self.policy.services[&it.service].assign_timeout;
        let deadlines = self.waiting().into_iter().map(|it| timeout(&self.sessions[&it]));
        let pending = self.grants.iter().filter(|(id, _)| !self.expired.contains(*id));
        let expiries = pending.filter_map(|(_, grant)| grant.expires);
        let recoveries = self.members.values().filter_map(|member| member.failing_until);
        let expected = deadlines.chain(expiries).chain(recoveries).min();
        match (self.book.poll_timeout(), expected) {
            (None, None) => {}
            // Beside those it looks at what is asked for, once a minute.
            (Some(due), expected) => assert!(expected.is_none_or(|expected| due <= expected)),
            (None, Some(_)) => panic!("forgets the next deadline, expiry or recovery"),
        }
        let now = self.now;
        let has_expired = |grant: &Grant| grant.expires.is_some_and(|expires| expires <= now);
        let expired = self.grants.iter().filter(|(_, grant)| has_expired(grant));
        self.expired.extend(expired.map(|(id, _)| id.clone()));
        for member in self.members.values_mut() {
            member.failing_until = member.failing_until.filter(|until| *until > now);
        }
        self.tell(Input::TimePassed);
        for session in self.waiting() {
            let it = &self.sessions[&session];
            let timeout = self.policy.services[&it.service].assign_timeout;
            assert!(it.since + timeout > self.now, "nobody waits beyond the deadline");
        }
        self.assert_nobody_acts_without_grant();
    }

    fn drain(&mut self) {
        self.draining = true;
        self.tell(Input::Drain);
        assert!(self.waiting().is_empty(), "nobody waits for a relay that is leaving");
        assert!(self.idle.is_empty(), "no channel is kept by a relay that is leaving");
    }

    /// What the hosts of these sessions say comes too late, where they were asked to give them back.
    pub(crate) fn void_late_words(&mut self, of: impl Fn(&World, SessionId) -> bool) {
        for session in self.running() {
            if of(self, session) {
                self.sessions.get_mut(&session).unwrap().late_word_counts = false;
            }
        }
    }

    fn end_all(&mut self) {
        self.tell(Input::EndAll { reason: Reason::Drained });
        self.void_late_words(|_, _| true);
        assert!(self.running().iter().all(|it| self.sessions[it].asked_to_end));
    }
}
