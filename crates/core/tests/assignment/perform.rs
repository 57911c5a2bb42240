//! Tells the book what happens and holds everything that it decides against the rules.

use std::collections::BTreeSet;

use relayserver_core::{
    Announcement, ChannelId, ChannelKey, CommandId, End, Grant, GrantId, HostId, Input, Membership,
    Output, Reason, Role, ServiceName, SessionId,
};

use crate::steps::{Step, ssh};
use crate::world::{Channel, Member, Named, Session, World, grant_id, host_of_v1, member};

const END: End = End { reason: Reason::Finished, bytes_to_host: 1, bytes_to_client: 2 };

/// No command channel has this key.
const WRONG_KEY: u128 = 0;

/// Acts on one of them, where there is any.
fn with<T: Copy>(nth: usize, from: &[T], act: impl FnOnce(T)) {
    if !from.is_empty() {
        act(from[nth % from.len()]);
    }
}

impl World {
    pub(crate) fn take_step(&mut self, step: Step) {
        let commands: Vec<CommandId> = self.commands.keys().copied().collect();
        let sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        let running = self.running();
        match step {
            Step::CommandUp { host } => self.command_up(host_of_v1(host)),
            Step::MemberUp { host, token, knows_key, services } => {
                let services = services.into_iter().map(ServiceName::new).collect();
                self.member_up(member(host), token.map(grant_id), knows_key, services);
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
            Step::Hello { host } => {
                self.hello(host_of_v1(host), ServiceName::default(), None);
            }
            Step::MemberHello { host, ssh: asks_for_ssh, knows_key } => {
                let service = if asks_for_ssh { ssh() } else { ServiceName::default() };
                let own = self.members.get(&member(host)).map(|member| member.key);
                let key = if knows_key { own } else { Some(WRONG_KEY) };
                self.hello(member(host), service, key.map(ChannelKey::new));
            }
            Step::Idle { nth } => with(nth, &self.reserved.clone(), |it| self.idle(it)),
            Step::ChannelGone { nth } => {
                let channels: Vec<ChannelId> = self.channels.keys().copied().collect();
                with(nth, &channels, |it| self.channel_gone(it));
            }
            Step::ClientArrives { ssh: asks_for_ssh } => {
                self.client_arrives(if asks_for_ssh { ssh() } else { ServiceName::default() });
            }
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
            Step::SessionEnded { nth } => {
                with(nth, &running, |it| self.session_ended(it));
            }
            Step::Pass { millis } => self.pass(millis),
            Step::Drain => self.drain(),
            Step::EndAll => self.end_all(),
        }
    }

    /// Tells the book, holds what concerns channels and sessions against the rules, and gives all outputs but assignments.
    fn tell(&mut self, input: Input<Named>) -> Vec<Output<Named>> {
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
                    assert!(self.idle.contains(channel), "an idle one");
                    self.idle.retain(|it| it != channel);
                    self.channels.remove(channel).unwrap();
                }
                Output::CloseCommand { handle, reason } => {
                    let ended = matches!(reason, Reason::TokenRevoked | Reason::TokenExpired);
                    if ended && self.commands.remove(handle).is_some() {
                        assert!(!self.draining || !self.commands.contains_key(handle));
                    }
                }
                Output::Withdraw { session, stop, .. } => {
                    assert_eq!(session, stop);
                    let entry = self.sessions.get_mut(session).unwrap();
                    assert!(!entry.accepted, "nothing is taken back that a host has accepted");
                    assert!(!entry.asked_to_end, "a session is asked once");
                    (entry.withdrawn, entry.asked_to_end) = (true, true);
                }
                Output::EndSession { session, stop, .. } => {
                    assert_eq!(session, stop);
                    let entry = self.sessions.get_mut(session).unwrap();
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

    fn assigned(&mut self, output: &Output<Named>, mut told: Vec<(CommandId, ChannelId)>) {
        let Output::Assigned { assignment, client, channel_handle } = output else {
            panic!("not an assignment");
        };
        let service = &assignment.service;
        assert_eq!(self.next_match(service), Some((*client, *channel_handle)), "the next in turn");
        assert_eq!((assignment.session, assignment.channel), (*client, *channel_handle));
        assert_eq!(assignment.host, self.channels[channel_handle].host);
        assert_eq!(assignment.waited, self.now - self.sessions[client].since);
        let is_member = matches!(assignment.host, HostId::Process(_));
        assert_eq!(assignment.is_offer, is_member, "hosts of version 2 are asked");
        told.sort_unstable();
        let audience = if is_member { Vec::new() } else { self.audience(assignment.host) };
        let expected: Vec<_> = audience.into_iter().map(|to| (to, *channel_handle)).collect();
        assert_eq!(told, expected, "opened is announced ahead of the assignment");
        assert!(is_member || !told.is_empty(), "a host is there to be told");
        self.idle.retain(|it| it != channel_handle);
        let session = self.sessions.get_mut(client).unwrap();
        assert!(!session.accepted, "nothing is offered again that was accepted");
        session.channel = Some(*channel_handle);
        session.accepted = !is_member;
    }

    fn refused(&mut self, session: SessionId, reason: Reason) {
        let it = &self.sessions[&session];
        assert!(it.channel.is_none(), "it waited");
        let (full, service) = (self.is_full(&it.service), it.service.clone());
        match reason {
            Reason::SessionLimit => assert!(full),
            Reason::NoHost => assert!(!full && !self.anybody_may_serve(&service, &BTreeSet::new())),
            Reason::NoChannel => {
                assert!(!full && self.anybody_may_serve(&service, &BTreeSet::new()));
            }
            _ => {}
        }
        self.sessions.remove(&session);
    }

    fn anybody_may_serve(&self, service: &ServiceName, except: &BTreeSet<HostId>) -> bool {
        let of_channels = self.channels.values().map(|channel| channel.host);
        let mut known = self.commands.values().copied().chain(of_channels);
        known.any(|host| !except.contains(&host) && self.may_serve(host, service))
    }

    fn command_up(&mut self, host: HostId) {
        let refusal = self
            .refusal_of_any_command()
            .or_else(|| self.policy.open_service.is_none().then_some(Reason::Version1Off));
        let command = CommandId(self.number());
        let joins = !self.has_command(host);
        if refusal.is_none() {
            self.commands.insert(command, host);
            self.had_command.insert(host);
        }
        let outputs =
            self.tell(Input::CommandUp { command, host, membership: None, handle: command });
        assert_taken(&outputs, command, refusal, joins.then_some(host), None);
    }

    fn member_up(
        &mut self,
        host: HostId,
        grant: Option<GrantId>,
        knows_key: bool,
        services: BTreeSet<ServiceName>,
    ) {
        let own = self.members.get(&host).cloned();
        let last_key = if knows_key { own.as_ref().map(|it| it.key) } else { Some(WRONG_KEY) };
        let is_another = own.is_some_and(|it| it.grant != grant || !knows_key);
        let refusal = self
            .refusal_of_any_command()
            .or_else(|| self.refusal_of_grant(grant.as_ref()))
            .or_else(|| is_another.then_some(Reason::HostIdTaken))
            .or_else(|| services.iter().find_map(|it| self.refusal_of_member(grant.as_ref(), it)));
        let (command, key) = (CommandId(self.number()), u128::from(self.number()));
        let replaced = self.commands.iter().find(|(_, it)| **it == host).map(|(id, _)| *id);
        if refusal.is_none() {
            replaced.map(|replaced| self.commands.remove(&replaced));
            self.commands.insert(command, host);
            self.had_command.insert(host);
            let (grant, services) = (grant.clone(), services.clone());
            let (suspect, leaving) = (false, false);
            self.members.insert(host, Member { grant, key, services, suspect, leaving });
        }
        let last_key = last_key.map(ChannelKey::new);
        let membership = Some(Membership { grant, services, key: ChannelKey::new(key), last_key });
        let outputs = self.tell(Input::CommandUp { command, host, membership, handle: command });
        let joined = replaced.is_none().then_some(host);
        assert_taken(&outputs, command, refusal, joined, replaced);
    }

    fn refusal_of_any_command(&self) -> Option<Reason> {
        if self.draining {
            Some(Reason::Draining)
        } else if self.commands.len() >= self.limits.commands_max {
            Some(Reason::CommandLimit)
        } else {
            None
        }
    }

    fn command_down(&mut self, command: CommandId) {
        self.commands.remove(&command).unwrap();
        let outputs = self.tell(Input::CommandDown { command });
        for session in self.running() {
            let (it, host) = (&self.sessions[&session], self.host_serving(session));
            if self.is_lost(host) && (it.host_finished || !it.accepted) {
                assert!(
                    it.asked_to_end,
                    "nobody is left to serve it, or to read what the client sends"
                );
            }
        }
        let is_lost = |output: &Output<Named>| match output {
            Output::EndSession { reason, .. } | Output::Withdraw { reason, .. } => {
                *reason == Reason::HostLost
            }
            output => matches!(output, Output::HostLeft { .. }),
        };
        assert!(outputs.iter().all(is_lost));
    }

    /// A host of version 2 is gone with all that it has; nobody else loses anything by it.
    fn command_gone(&mut self, command: CommandId) {
        let host = self.commands.remove(&command).unwrap();
        let is_member = self.members.contains_key(&host);
        let others_asked = |world: &World| -> Vec<SessionId> {
            let running = world.running().into_iter();
            running
                .filter(|it| world.host_serving(*it) != host && world.sessions[it].asked_to_end)
                .collect()
        };
        let asked_before = others_asked(self);
        let outputs = self.tell(Input::CommandGone { command });
        let mut reasons = outputs.iter().filter_map(|output| match output {
            Output::EndSession { reason, .. }
            | Output::Withdraw { reason, .. }
            | Output::CloseChannel { reason, .. } => Some(*reason),
            Output::HostLeft { .. } => None,
            _ => panic!("unexpected output"),
        });
        assert!(reasons.all(|reason| reason == Reason::HostLost));
        if is_member {
            let own = |it: &SessionId| self.host_serving(*it) == host;
            let all = |it: SessionId| self.sessions[&it].asked_to_end;
            assert!(self.running().into_iter().filter(own).all(all), "what it serves ends");
            assert!(self.idle.iter().all(|it| self.channels[it].host != host), "so does its pool");
            assert_eq!(others_asked(self), asked_before, "others go on");
        } else {
            let closes = |it: &Output<Named>| matches!(it, Output::CloseChannel { .. });
            assert!(!outputs.iter().any(closes), "version 1 keeps its pool");
        }
    }

    /// A host of version 2 that leaves has nothing idle any more, and keeps what it serves.
    fn command_leaving(&mut self, command: CommandId) {
        let host = self.commands[&command];
        let own_idle = |world: &World| -> Vec<ChannelId> {
            let own = |it: &&ChannelId| world.channels[it].host == host;
            world.idle.iter().filter(own).copied().collect()
        };
        let mut expected = Vec::new();
        if self.members.contains_key(&host) {
            expected = own_idle(self);
        }
        if let Some(member) = self.members.get_mut(&host) {
            member.leaving = true;
        }
        let outputs = self.tell(Input::CommandLeaving { command });
        let closed = |output: &Output<Named>| match output {
            Output::CloseChannel { channel, reason: Reason::Draining, .. } => *channel,
            _ => panic!("unexpected output"),
        };
        let mut closed: Vec<ChannelId> = outputs.iter().map(closed).collect();
        closed.sort_unstable();
        expected.sort_unstable();
        assert_eq!(closed, expected, "its idle channels are closed, and nothing else is done");
    }

    fn suspect(&mut self, command: CommandId) {
        let host = self.commands[&command];
        if let Some(member) = self.members.get_mut(&host) {
            member.suspect = true;
        }
        self.tell(Input::CommandSuspect { command });
        for session in self.running() {
            let it = &self.sessions[&session];
            assert!(
                it.accepted || it.asked_to_end || self.host_serving(session) != host,
                "a suspect host keeps no session that it has not accepted"
            );
        }
    }

    fn well(&mut self, command: CommandId) {
        if let Some(member) = self.members.get_mut(&self.commands[&command]) {
            member.suspect = false;
        }
        self.tell(Input::CommandWell { command });
    }

    fn grant_changed(&mut self, id: GrantId, terms: Option<Grant>) {
        self.grants.remove(&id);
        self.expired.remove(&id);
        if let Some(grant) = &terms {
            self.grants.insert(id.clone(), grant.clone());
        }
        self.tell(Input::GrantChanged { grant: id, terms });
        self.assert_nobody_acts_without_grant();
    }

    /// Whoever has lost its grant has nothing left.
    fn assert_nobody_acts_without_grant(&self) {
        for (host, it) in &self.members {
            let refusal = it.grant.as_ref().and_then(|id| self.refusal_of_grant(Some(id)));
            let ended = matches!(refusal, Some(Reason::TokenRevoked | Reason::TokenExpired));
            if ended {
                assert!(!self.has_command(*host));
                assert!(self.idle.iter().all(|channel| self.channels[channel].host != *host));
                let running = self.running().into_iter();
                let mut own = running.filter(|it| self.host_serving(*it) == *host);
                assert!(own.all(|it| self.sessions[&it].asked_to_end));
            }
        }
    }

    fn hello(&mut self, host: HostId, service: ServiceName, key: Option<ChannelKey>) {
        let is_member = matches!(host, HostId::Process(_));
        let belongs = !is_member || (self.has_command(host) && self.is_key_of(host, key));
        let refusal = if self.draining {
            Some(Reason::Draining)
        } else if self.channels.len() >= self.limits.channels_max {
            Some(Reason::ChannelLimit)
        } else if !belongs {
            Some(Reason::ChannelKeyUnknown)
        } else {
            self.refusal_of_service(host, &service)
        };
        let outputs = self.tell(Input::ReserveChannel { host, service: service.clone(), key });
        match (outputs.as_slice(), refusal) {
            ([Output::Reserved { channel }], None) => {
                let known = self.channels.insert(*channel, Channel { host, service });
                assert!(known.is_none(), "no id is given out twice");
                self.reserved.push(*channel);
            }
            ([Output::ReserveRefused { reason }], Some(expected)) => assert_eq!(*reason, expected),
            _ => panic!("unexpected outputs, expected {refusal:?}"),
        }
    }

    fn idle(&mut self, channel: ChannelId) {
        self.reserved.retain(|it| *it != channel);
        self.idle.push(channel);
        let Channel { host, service } = self.channels[&channel].clone();
        let refused = self.draining || self.refusal_of_service(host, &service).is_some();
        let outputs = self.tell(Input::ChannelIdle { channel, handle: channel });
        let closed = outputs.iter().any(|it| matches!(it, Output::CloseChannel { .. }));
        assert_eq!(closed, refused, "every channel is authorised when it arrives");
    }

    fn channel_gone(&mut self, channel: ChannelId) {
        if !self.running().iter().any(|it| self.sessions[it].channel == Some(channel)) {
            self.reserved.retain(|it| *it != channel);
            self.idle.retain(|it| *it != channel);
            self.channels.remove(&channel);
        }
        assert!(self.tell(Input::ChannelGone { channel }).is_empty());
    }

    fn client_arrives(&mut self, service: ServiceName) {
        let session = SessionId(u128::from(self.number()));
        let too_many = self.sessions.len() >= self.limits.clients_max;
        let arrived = Session {
            service: service.clone(),
            since: self.now,
            channel: None,
            tried: BTreeSet::new(),
            accepted: false,
            withdrawn: false,
            client_finished: false,
            host_finished: false,
            asked_to_end: false,
        };
        self.sessions.insert(session, arrived);
        let is_served = self.next_match(&service).is_some();
        let limits = self.policy.services[&service];
        let queued =
            self.waiting().iter().filter(|it| self.sessions[it].service == service).count();
        let input = Input::ClientArrived { session, service, client: session, stop: session };
        let refused = self.tell(input).iter().find_map(|output| match output {
            Output::Refused { session: refused, reason, .. } if *refused == session => {
                Some(*reason)
            }
            _ => None,
        });
        match refused {
            Some(Reason::Draining) => assert!(self.draining),
            Some(Reason::ClientLimit) => assert!(!self.draining && too_many),
            Some(Reason::QueueFull) => assert!(!is_served && queued > limits.queue_max),
            Some(_) => assert!(!is_served && limits.assign_timeout.is_zero()),
            None if is_served => {}
            None => {
                assert!(!self.draining && !too_many);
                assert!(queued <= limits.queue_max && !limits.assign_timeout.is_zero());
            }
        }
    }

    fn client_gone(&mut self, session: SessionId) {
        let waited = self.sessions[&session].channel.is_none();
        let refused = !self.tell(Input::ClientGone { session }).is_empty();
        assert_eq!(refused, waited);
    }

    fn accepted(&mut self, session: SessionId) {
        let it = self.sessions.get_mut(&session).unwrap();
        it.accepted |= !it.withdrawn;
        assert!(self.tell(Input::Accepted { session }).is_empty());
    }

    fn offer_failed(&mut self, session: SessionId, reason: Reason) {
        let input = Input::OfferFailed { session, reason, client: session, stop: session };
        if self.sessions[&session].accepted {
            assert!(self.tell(input).is_empty(), "after it was accepted, never");
            return;
        }
        let host = self.host_serving(session);
        let now = self.now;
        let it = self.sessions.get_mut(&session).unwrap();
        let channel = it.channel.take().unwrap();
        assert!(it.tried.insert(host), "never offered to a host twice");
        (it.since, it.withdrawn, it.asked_to_end) = (now, false, false);
        (it.client_finished, it.host_finished) = (false, false);
        let (tried, service) = (it.tried.clone(), it.service.clone());
        self.channels.remove(&channel).unwrap();
        self.tell(input);
        let turned_down = matches!(reason, Reason::Rejected | Reason::TargetUnreachable);
        let hopeless = (turned_down && !self.anybody_may_serve(&service, &tried))
            || tried.len() >= relayserver_core::limits::OFFERS_MAX
            || self.policy.services[&service].assign_timeout.is_zero();
        match self.sessions.get(&session).map(|it| it.channel) {
            Some(Some(_)) => {}
            Some(None) => assert!(!hopeless && !self.draining, "it waits in vain"),
            None => assert!(hopeless || self.draining, "it could have been served yet"),
        }
    }

    fn client_finished(&mut self, session: SessionId) {
        let it = self.sessions.get_mut(&session).unwrap();
        let told = it.channel.is_some() && !it.client_finished && !it.host_finished;
        it.client_finished |= it.channel.is_some();
        let mut expected = Vec::new();
        if let Some(channel) = self.sessions[&session].channel
            && told
            && let host @ HostId::Address(_) = self.host_serving(session)
        {
            expected = self.audience(host).into_iter().map(|to| (to, channel)).collect();
        }
        let outputs = self.tell(Input::ClientFinished { session });
        let dropped = |output: &Output<Named>| match output {
            Output::Announce { to, announcement: Announcement::Drop(channel), .. } => {
                (*to, *channel)
            }
            _ => panic!("unexpected output"),
        };
        let mut announced: Vec<_> = outputs.iter().map(dropped).collect();
        announced.sort_unstable();
        assert_eq!(announced, expected, "a drop is announced once, unless the host ended first");
    }

    fn host_finished(&mut self, session: SessionId) {
        let asked_before = self.sessions[&session].asked_to_end;
        let lost = self.is_lost(self.host_serving(session));
        let it = self.sessions.get_mut(&session).unwrap();
        let first = !std::mem::replace(&mut it.host_finished, true);
        let ended = !self.tell(Input::HostFinished { session }).is_empty();
        assert_eq!(ended, first && lost && !asked_before);
    }

    fn session_ended(&mut self, session: SessionId) {
        let host = self.host_serving(session);
        let told = self.commands.iter().find(|(_, it)| **it == host).map(|(id, _)| *id);
        let ended = self.sessions.remove(&session).unwrap();
        self.channels.remove(&ended.channel.unwrap()).unwrap();
        let outputs = self.tell(Input::SessionEnded { session, end: END });
        match (outputs.as_slice(), host) {
            ([], HostId::Address(_)) => {}
            ([], HostId::Process(_)) => assert_eq!(told, None),
            ([Output::Announce { to, announcement, .. }], HostId::Process(_)) => {
                assert_eq!(Some(*to), told);
                assert_eq!(*announcement, Announcement::Ended(session, END));
            }
            _ => panic!("unexpected outputs"),
        }
        assert_eq!(self.book.phase(session), None);
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now + std::time::Duration::from_millis(millis);
        let timeout = |it: &Session| it.since + self.policy.services[&it.service].assign_timeout;
        let deadlines = self.waiting().into_iter().map(|it| timeout(&self.sessions[&it]));
        let pending = self.grants.iter().filter(|(id, _)| !self.expired.contains(*id));
        let expiries = pending.filter_map(|(_, grant)| grant.expires);
        let expected = deadlines.chain(expiries).min();
        assert_eq!(self.book.poll_timeout(), expected, "the next deadline, or the next expiry");
        let now = self.now;
        let has_expired = |grant: &Grant| grant.expires.is_some_and(|expires| expires <= now);
        let expired = self.grants.iter().filter(|(_, grant)| has_expired(grant));
        self.expired.extend(expired.map(|(id, _)| id.clone()));
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

    fn end_all(&mut self) {
        self.tell(Input::EndAll { reason: Reason::Drained });
        assert!(self.running().iter().all(|it| self.sessions[it].asked_to_end));
    }
}

/// What became of a command channel: refused, or taken, with the host that joined by it and the one that it replaced.
fn assert_taken(
    outputs: &[Output<Named>],
    command: CommandId,
    refusal: Option<Reason>,
    joined: Option<HostId>,
    replaced: Option<CommandId>,
) {
    let mut taken = false;
    let mut seen = (None, None, None);
    for output in outputs {
        match output {
            Output::CommandTaken { command: it } => taken = *it == command,
            Output::CloseCommand { handle, reason } if *handle == command => seen.0 = Some(*reason),
            Output::CloseCommand { handle, reason: Reason::Replaced } => seen.1 = Some(*handle),
            Output::HostJoined { host } => seen.2 = Some(*host),
            // Of services that this hello does not name any more; which, is held against the rules after each step.
            Output::CloseChannel { reason: Reason::ServiceNotGranted, .. } if taken => {}
            _ => panic!("unexpected output"),
        }
    }
    assert_eq!(taken, refusal.is_none());
    let expected = if taken { (None, replaced, joined) } else { (refusal, None, None) };
    assert_eq!(seen, expected);
}
