//! Generated histories of hosts, channels and clients, in any order: after each step the book's own invariants hold, and
//! everything it decided is what a plain reading of the rules decides.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::too_many_lines, reason = "one arm a step, one arm an output")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::prelude::*;
use relayserver_core::{
    Announcement, Book, ChannelId, CommandId, Handles, HostId, Input, Limits, Output, Phase,
    Reason, ServiceName, SessionId, Time,
};

/// Handles that say whose they are, so that a mix-up shows.
struct Named;

impl Handles for Named {
    type Command = CommandId;
    type Channel = ChannelId;
    type Client = SessionId;
    type Stop = SessionId;
}

#[derive(Clone, Debug)]
enum Step {
    CommandUp { host: u8 },
    CommandDown { nth: usize },
    Hello { host: u8 },
    Idle { nth: usize },
    ChannelGone { nth: usize },
    ClientArrives,
    ClientGone { nth: usize },
    ClientFinished { nth: usize },
    HostFinished { nth: usize },
    SessionEnded { nth: usize },
    Pass { millis: u64 },
    Drain,
    EndAll,
}

fn step() -> impl Strategy<Value = Step> {
    let nth = 0..64_usize;
    prop_oneof![
        4 => (1..4_u8).prop_map(|host| Step::CommandUp { host }),
        3 => nth.clone().prop_map(|nth| Step::CommandDown { nth }),
        12 => (1..4_u8).prop_map(|host| Step::Hello { host }),
        12 => nth.clone().prop_map(|nth| Step::Idle { nth }),
        4 => nth.clone().prop_map(|nth| Step::ChannelGone { nth }),
        12 => Just(Step::ClientArrives),
        3 => nth.clone().prop_map(|nth| Step::ClientGone { nth }),
        5 => nth.clone().prop_map(|nth| Step::ClientFinished { nth }),
        5 => nth.clone().prop_map(|nth| Step::HostFinished { nth }),
        6 => nth.prop_map(|nth| Step::SessionEnded { nth }),
        6 => (0..3_000_u64).prop_map(|millis| Step::Pass { millis }),
        1 => Just(Step::Drain),
        1 => Just(Step::EndAll),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    (prop_oneof![Just(0_u64), Just(2_000)], 0..6_usize, 1..12_usize, 1..16_usize, 1..4_usize)
        .prop_map(|(timeout, queue_max, clients_max, channels_max, commands_max)| Limits {
            assign_timeout: Duration::from_millis(timeout),
            queue_max,
            clients_max,
            channels_max,
            commands_max,
            ..Limits::default()
        })
}

fn host_id(host: u8) -> HostId {
    HostId::from_address(Ipv4Addr::new(127, 0, 0, host).into())
}

#[derive(Clone, Debug, Default)]
struct Session {
    channel: Option<ChannelId>,
    since: Time,
    opened: u32,
    dropped: u32,
    client_finished: bool,
    host_finished: bool,
    asked_to_end: u32,
}

/// The rules read plainly: lists, searched from the front.
struct World {
    book: Book<Named>,
    limits: Limits,
    now: Time,
    draining: bool,
    next_command: u64,
    next_session: u128,
    commands: BTreeMap<CommandId, HostId>,
    had_command: BTreeSet<HostId>,
    reserved: Vec<ChannelId>,
    host_of: BTreeMap<ChannelId, HostId>,
    /// In the order of their arrival in the pool.
    idle: Vec<ChannelId>,
    /// In the order of their arrival.
    waiting: Vec<SessionId>,
    sessions: BTreeMap<SessionId, Session>,
}

impl World {
    fn new(limits: Limits) -> World {
        World {
            book: Book::new(limits, ChannelId::new(i32::MAX - 2).unwrap()),
            limits,
            now: Time::ZERO,
            draining: false,
            next_command: 0,
            next_session: 0,
            commands: BTreeMap::new(),
            had_command: BTreeSet::new(),
            reserved: Vec::new(),
            host_of: BTreeMap::new(),
            idle: Vec::new(),
            waiting: Vec::new(),
            sessions: BTreeMap::new(),
        }
    }

    fn running(&self) -> Vec<SessionId> {
        self.sessions.iter().filter(|(_, it)| it.channel.is_some()).map(|(id, _)| *id).collect()
    }

    fn sessions_of(&self, host: HostId) -> usize {
        self.sessions
            .values()
            .filter(|it| it.channel.is_some_and(|channel| self.host_of[&channel] == host))
            .count()
    }

    /// The channel that a client must get now.
    fn next_channel(&self) -> Option<ChannelId> {
        let fewest = self.idle.iter().map(|it| self.sessions_of(self.host_of[it])).min()?;
        self.idle.iter().copied().find(|it| self.sessions_of(self.host_of[it]) == fewest)
    }

    /// Where an announcement about a channel of `host` must go.
    fn audience(&self, host: HostId) -> Vec<CommandId> {
        let own: Vec<CommandId> =
            self.commands.iter().filter(|(_, it)| **it == host).map(|(id, _)| *id).collect();
        if own.is_empty() { self.commands.keys().copied().collect() } else { own }
    }

    fn lost(&self, host: HostId) -> bool {
        if self.had_command.contains(&host) {
            !self.commands.values().any(|it| *it == host)
        } else {
            self.commands.is_empty()
        }
    }

    fn take_step(&mut self, step: Step) {
        let pick = |nth: usize, len: usize| (len > 0).then(|| nth % len);
        let input = match step {
            Step::CommandUp { host } => return self.command_up(host_id(host)),
            Step::CommandDown { nth } => {
                let Some(nth) = pick(nth, self.commands.len()) else {
                    return;
                };
                let command = *self.commands.keys().nth(nth).unwrap();
                return self.command_down(command);
            }
            Step::Hello { host } => return self.hello(host_id(host)),
            Step::Idle { nth } => {
                let Some(nth) = pick(nth, self.reserved.len()) else {
                    return;
                };
                let channel = self.reserved.remove(nth);
                if !self.draining {
                    self.idle.push(channel);
                }
                Input::ChannelIdle { channel, handle: channel }
            }
            Step::ChannelGone { nth } => {
                let Some(nth) = pick(nth, self.host_of.len()) else {
                    return;
                };
                let channel = *self.host_of.keys().nth(nth).unwrap();
                if !self.running().iter().any(|it| self.sessions[it].channel == Some(channel)) {
                    self.reserved.retain(|it| *it != channel);
                    self.idle.retain(|it| *it != channel);
                    self.host_of.remove(&channel);
                }
                Input::ChannelGone { channel }
            }
            Step::ClientArrives => return self.client_arrives(),
            Step::ClientGone { nth } => {
                let Some(nth) = pick(nth, self.sessions.len()) else {
                    return;
                };
                let session = *self.sessions.keys().nth(nth).unwrap();
                Input::ClientGone { session }
            }
            Step::ClientFinished { nth } => {
                let Some(nth) = pick(nth, self.sessions.len()) else {
                    return;
                };
                return self.client_finished(*self.sessions.keys().nth(nth).unwrap());
            }
            Step::HostFinished { nth } => {
                let Some(nth) = pick(nth, self.running().len()) else {
                    return;
                };
                return self.host_finished(self.running()[nth]);
            }
            Step::SessionEnded { nth } => {
                let Some(nth) = pick(nth, self.running().len()) else {
                    return;
                };
                return self.session_ended(self.running()[nth]);
            }
            Step::Pass { millis } => return self.pass(Duration::from_millis(millis)),
            Step::Drain => return self.drain(),
            Step::EndAll => return self.end_all(),
        };
        self.tell(input);
    }

    /// Tells the book, holds everything that it decides against the rules, and gives the outputs of other kinds back.
    fn tell(&mut self, input: Input<Named>) -> Vec<Output<Named>> {
        self.book.handle(self.now, input);
        let mut others = Vec::new();
        let mut opened = Vec::new();
        while let Some(output) = self.book.poll_output() {
            match output {
                Output::Announce { command, to, announcement: Announcement::Open(channel) } => {
                    assert_eq!(command, to);
                    opened.push((to, channel));
                }
                Output::Assigned { assignment, client, channel_handle } => {
                    assert_eq!(self.waiting.first(), Some(&client), "first come, first served");
                    assert_eq!(self.next_channel(), Some(channel_handle), "the next channel");
                    assert_eq!(assignment.session, client);
                    assert_eq!(assignment.channel, channel_handle);
                    assert_eq!(assignment.host, self.host_of[&channel_handle]);
                    assert_eq!(assignment.waited, self.now - self.sessions[&client].since);
                    assert!(!self.commands.is_empty(), "a host is there to be told");
                    let audience = self.audience(assignment.host);
                    let mut told = std::mem::take(&mut opened);
                    told.sort_unstable();
                    let expected: Vec<_> =
                        audience.into_iter().map(|to| (to, channel_handle)).collect();
                    assert_eq!(told, expected, "opened is announced ahead of the assignment");
                    self.waiting.remove(0);
                    self.idle.retain(|it| *it != channel_handle);
                    let session = self.sessions.get_mut(&client).unwrap();
                    session.opened += 1;
                    assert_eq!(session.opened, 1, "a client is assigned once");
                    session.channel = Some(channel_handle);
                }
                Output::Refused { session, client, .. } => {
                    assert_eq!(session, client);
                    assert!(self.sessions[&session].channel.is_none(), "it waited");
                    self.waiting.retain(|it| *it != session);
                    self.sessions.remove(&session);
                    others.push(output);
                }
                Output::CloseChannel { channel, reason, handle } => {
                    assert_eq!((channel, reason), (handle, Reason::Draining));
                    self.idle.retain(|it| *it != channel);
                    self.host_of.remove(&channel);
                }
                Output::EndSession { session, stop, .. } => {
                    assert_eq!(session, stop);
                    let entry = self.sessions.get_mut(&session).unwrap();
                    entry.asked_to_end += 1;
                    assert_eq!(entry.asked_to_end, 1, "a session is asked to end once");
                    others.push(output);
                }
                output => others.push(output),
            }
        }
        assert!(opened.is_empty(), "nothing is announced as opened that was not assigned");
        others
    }

    fn command_up(&mut self, host: HostId) {
        let command = CommandId(self.next_command);
        self.next_command += 1;
        let accepted = !self.draining && self.commands.len() < self.limits.commands_max;
        let first = !self.commands.values().any(|it| *it == host);
        if accepted {
            self.commands.insert(command, host);
            self.had_command.insert(host);
        }
        let outputs = self.tell(Input::CommandUp { command, host, handle: command });
        match outputs.as_slice() {
            [Output::CloseCommand { handle, .. }] => assert!(!accepted && *handle == command),
            [Output::HostJoined { host: joined }] => assert!(accepted && first && *joined == host),
            [] => assert!(accepted && !first),
            _ => panic!("unexpected outputs"),
        }
    }

    fn command_down(&mut self, command: CommandId) {
        self.commands.remove(&command).unwrap();
        let ended = self.ended(|world| world.tell(Input::CommandDown { command }));
        for session in self.running() {
            let it = &self.sessions[&session];
            let host_lost = self.lost(self.host_of[&it.channel.unwrap()]);
            if it.host_finished && host_lost {
                assert_eq!(it.asked_to_end, 1, "nobody is left to read what the client sends");
            }
        }
        assert!(ended.iter().all(|(_, reason)| *reason == Reason::HostLost));
    }

    fn ended(
        &mut self,
        act: impl FnOnce(&mut World) -> Vec<Output<Named>>,
    ) -> Vec<(SessionId, Reason)> {
        let outputs = act(self);
        let of = |output: Output<Named>| match output {
            Output::EndSession { session, reason, .. } => Some((session, reason)),
            _ => None,
        };
        outputs.into_iter().filter_map(of).collect()
    }

    fn hello(&mut self, host: HostId) {
        let outputs = self.tell(Input::ReserveChannel { host, service: ServiceName::default() });
        match outputs.as_slice() {
            [Output::Reserved { channel }] => {
                assert!(!self.draining && self.host_of.len() < self.limits.channels_max);
                assert!(self.host_of.insert(*channel, host).is_none(), "no id is given out twice");
                self.reserved.push(*channel);
            }
            [Output::ReserveRefused { reason: Reason::Draining }] => assert!(self.draining),
            [Output::ReserveRefused { reason: Reason::ChannelLimit }] => {
                assert_eq!(self.host_of.len(), self.limits.channels_max);
            }
            _ => panic!("unexpected outputs"),
        }
    }

    fn client_arrives(&mut self) {
        let session = SessionId(self.next_session);
        self.next_session += 1;
        let expected = if self.draining {
            Some(Reason::Draining)
        } else if self.sessions.len() >= self.limits.clients_max {
            Some(Reason::ClientLimit)
        } else if !self.commands.is_empty() && !self.idle.is_empty() {
            None
        } else if self.limits.assign_timeout.is_zero() {
            Some(if self.commands.is_empty() { Reason::NoHost } else { Reason::NoChannel })
        } else if self.waiting.len() >= self.limits.queue_max {
            Some(Reason::QueueFull)
        } else {
            None
        };
        self.sessions.insert(session, Session { since: self.now, ..Session::default() });
        self.waiting.push(session);
        let service = ServiceName::default();
        let outputs =
            self.tell(Input::ClientArrived { session, service, client: session, stop: session });
        let refused = outputs.iter().find_map(|output| match output {
            Output::Refused { session: refused, reason, .. } if *refused == session => {
                Some(*reason)
            }
            _ => None,
        });
        assert_eq!(refused, expected);
    }

    fn client_finished(&mut self, session: SessionId) {
        let it = self.sessions.get_mut(&session).unwrap();
        let told = it.channel.is_some() && !it.client_finished && !it.host_finished;
        it.client_finished |= it.channel.is_some();
        let audience = it.channel.map(|channel| self.audience(self.host_of[&channel]));
        let channel = self.sessions[&session].channel;
        let outputs = self.tell(Input::ClientFinished { session });
        let mut announced: Vec<_> = outputs
            .iter()
            .map(|output| match output {
                Output::Announce { command: _, to, announcement: Announcement::Drop(channel) } => {
                    (*to, *channel)
                }
                _ => panic!("unexpected output"),
            })
            .collect();
        announced.sort_unstable();
        let expected: Vec<_> = match channel {
            Some(channel) if told => {
                audience.into_iter().flatten().map(|to| (to, channel)).collect()
            }
            _ => Vec::new(),
        };
        assert_eq!(announced, expected, "a drop is announced once, unless the host ended first");
        self.sessions.get_mut(&session).unwrap().dropped += u32::from(told);
    }

    fn host_finished(&mut self, session: SessionId) {
        let it = self.sessions.get_mut(&session).unwrap();
        let first = !std::mem::replace(&mut it.host_finished, true);
        let asked_before = it.asked_to_end > 0;
        let lost = self.lost(self.host_of[&self.sessions[&session].channel.unwrap()]);
        let ended = self.ended(|world| world.tell(Input::HostFinished { session }));
        let expected = (first && lost && !asked_before).then_some((session, Reason::HostLost));
        assert_eq!(ended, Vec::from_iter(expected));
    }

    fn session_ended(&mut self, session: SessionId) {
        let ended = self.sessions.remove(&session).unwrap();
        let channel = ended.channel.unwrap();
        self.host_of.remove(&channel).unwrap();
        assert!(self.tell(Input::SessionEnded { session }).is_empty());
        assert_eq!(self.book.phase(session), None);
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        let due = self.book.poll_timeout();
        let timeout = self.limits.assign_timeout;
        let oldest = self.waiting.first().map(|it| self.sessions[it].since + timeout);
        assert_eq!(due, oldest, "the next deadline is that of whoever waits longest");
        self.tell(Input::TimePassed);
        for session in &self.waiting {
            let since = self.sessions[session].since;
            assert!(since + timeout > self.now, "nobody waits beyond the deadline");
        }
    }

    fn drain(&mut self) {
        self.draining = true;
        self.tell(Input::Drain);
        assert!(self.waiting.is_empty(), "nobody waits for a relay that is leaving");
        assert!(self.idle.is_empty(), "no channel is kept by a relay that is leaving");
    }

    fn end_all(&mut self) {
        self.tell(Input::EndAll { reason: Reason::Drained });
        assert!(self.running().iter().all(|it| self.sessions[it].asked_to_end == 1));
    }

    /// A host of whom nothing is left is a new one should it come back.
    fn forget_hosts(&mut self) {
        let World { had_command, commands, host_of, .. } = self;
        had_command.retain(|host| {
            commands.values().chain(host_of.values()).any(|present| present == host)
        });
    }

    fn check(&self) {
        self.book.check_invariants().unwrap();
        let occupancy = self.book.occupancy();
        assert_eq!(occupancy.idle, self.idle.len());
        assert_eq!(occupancy.waiting, self.waiting.len());
        assert_eq!(occupancy.sessions, self.running().len());
        assert_eq!(occupancy.commands, self.commands.len());
        for (session, it) in &self.sessions {
            let expected = match (it.channel, it.client_finished, it.host_finished) {
                (None, ..) => Phase::Waiting,
                (Some(_), false, false) => Phase::Open,
                (Some(_), true, false) => Phase::ClientFinished,
                (Some(_), false, true) => Phase::HostFinished,
                (Some(_), true, true) => Phase::BothFinished,
            };
            assert_eq!(self.book.phase(*session), Some(expected));
        }
        let can_serve = !self.commands.is_empty() && !self.idle.is_empty();
        assert!(self.waiting.is_empty() || !can_serve, "no client waits while a channel is idle");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn every_history_keeps_the_rules(
        limits in limits(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new(limits);
        for step in steps {
            world.take_step(step);
            world.forget_hosts();
            world.check();
        }
    }
}
