//! Channels that carry one session after another: what the book does with one that is returned, and with the session that returned it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use relayserver_core::{
    Book, Capacity, ChannelId, ChannelKey, CommandId, Grant, Handles, Input, Limits, Output, Phase,
    Policy, Reason, Role, ServiceLimits, ServiceName, SessionId, Time,
};

use crate::steps::ssh;
use crate::world::{Channel, World, grant_id, host_of_v1, member};

impl World {
    /// Gives why the channel is refused; `None` where it is taken, or where none is known.
    pub(crate) fn channel_returned(&mut self, session: SessionId) -> Option<Reason> {
        let it = self.sessions.get(&session).cloned();
        let Some(channel) = it.as_ref().and_then(|it| it.channel) else {
            let handle = ChannelId::MAX;
            assert!(self.tell(Input::ChannelReturned { session, handle }).is_empty(), "late news");
            return None;
        };
        let expected = if !it.is_some_and(|it| it.accepted) {
            Some(Reason::NotAccepted)
        } else {
            self.refusal_of_return(&self.channels[&channel])
        };
        if expected.is_none() {
            let it = self.sessions.get_mut(&session).unwrap();
            (it.channel, it.client_finished, it.host_finished) = (None, true, true);
            self.comes_into_pool(channel);
        }
        self.returning = Some(channel);
        let outputs = self.tell(Input::ChannelReturned { session, handle: channel });
        self.returning = None;
        let refusal = match outputs.as_slice() {
            [] => None,
            [Output::CloseChannel { channel: closed, reason, handle }] => {
                assert_eq!((*closed, *handle), (channel, channel));
                Some(*reason)
            }
            _ => panic!("unexpected outputs"),
        };
        assert_eq!(refusal, expected, "it is authorised as if it had just arrived");
        refusal
    }

    fn refusal_of_return(&self, channel: &Channel) -> Option<Reason> {
        let Channel { host, service, key } = channel;
        if self.draining {
            return Some(Reason::Draining);
        }
        let Some(member) = self.members.get(host) else {
            return Some(Reason::ChannelKeyUnknown);
        };
        let refusal = self.refusal_of_service(*host, service);
        if !self.has_command(*host) || !self.is_key_of(*host, *key) {
            Some(Reason::ChannelKeyUnknown)
        } else if refusal.is_some() {
            refusal
        } else if member.suspect_since.is_some() {
            Some(Reason::HostSuspect)
        } else {
            let is_paused = member.pools.get(service).is_some_and(|bounds| bounds.max == 0);
            is_paused.then_some(Reason::Paused)
        }
    }
}

/// A host of version 2 for `ssh` that takes so many sessions.
fn with_host(sessions_max: Option<usize>) -> World {
    let wait = Duration::from_secs(10);
    let limits = ServiceLimits { assign_timeout: wait, queue_max: 10, sessions_max: None };
    let policy = Policy {
        services: BTreeMap::from([(ServiceName::default(), limits), (ssh(), limits)]),
        open_service: Some(ServiceName::default()),
        mixed: false,
    };
    let limits = Limits { clients_max: 50, channels_max: 3, commands_max: 5, ..Limits::default() };
    let mut world = World::new((limits, policy));
    let services = vec!["*".parse().unwrap()];
    let terms = Grant { role: Role::Host, services, expires: None };
    world.grant_changed(grant_id(1), Some(terms));
    comes_up(&mut world, sessions_max);
    world
}

fn comes_up(world: &mut World, sessions_max: Option<usize>) {
    let capacity = Capacity { sessions_max, ..Capacity::default() };
    let services = BTreeSet::from([ssh()]);
    world.member_up(member(1), Some(grant_id(1)), true, services, capacity);
    world.check();
}

fn command(world: &World) -> CommandId {
    *world.commands.keys().next_back().unwrap()
}

fn channel_waits(world: &mut World) -> ChannelId {
    let key = ChannelKey::new(world.members[&member(1)].key);
    world.hello(member(1), ssh(), Some(key));
    let channel = world.reserved[0];
    world.idle(channel);
    world.check();
    channel
}

fn client_arrives(world: &mut World) -> SessionId {
    world.client_arrives(ssh());
    world.check();
    *world.sessions.keys().next_back().unwrap()
}

/// A session that its host has accepted, on a channel of its own.
fn served(world: &mut World) -> (SessionId, ChannelId) {
    let channel = channel_waits(world);
    let session = client_arrives(world);
    world.accepted(session);
    assert_eq!(world.sessions[&session].channel, Some(channel));
    (session, channel)
}

fn returned(world: &mut World, session: SessionId) -> Option<Reason> {
    let refusal = world.channel_returned(session);
    world.check();
    refusal
}

/// The session goes on, with its channel, and takes it along when it ends.
fn assert_keeps(world: &mut World, session: SessionId, channel: ChannelId) {
    assert_eq!(world.sessions[&session].channel, Some(channel));
    assert!(world.idle.is_empty());
    world.session_ended(session);
    world.check();
    assert!(world.channels.is_empty());
}

#[test]
fn a_returned_channel_waits_for_the_next_client_under_its_id() {
    let mut world = with_host(None);
    let (first, channel) = served(&mut world);
    assert_eq!(returned(&mut world, first), None);
    assert_eq!(world.idle, [channel]);
    assert_eq!(world.book.phase(first), Some(Phase::BothFinished), "its client still reads");
    let second = client_arrives(&mut world);
    assert_eq!(world.sessions[&second].channel, Some(channel));
    assert_eq!(world.book.phase(second), Some(Phase::Offered), "its host is asked again");
}

#[test]
fn a_returned_channel_is_given_to_the_client_that_waits() {
    let mut world = with_host(None);
    let (first, channel) = served(&mut world);
    let (second, third) = (client_arrives(&mut world), client_arrives(&mut world));
    assert_eq!(returned(&mut world, first), None);
    assert_eq!(world.sessions[&second].channel, Some(channel), "the one that came first");
    assert_eq!(world.sessions[&third].channel, None);
    assert_eq!(world.book.occupancy().sessions, 2);
}

#[test]
fn a_channel_carries_one_session_after_another() {
    let mut world = with_host(None);
    let (mut session, channel) = served(&mut world);
    for _ in 0..100 {
        assert_eq!(returned(&mut world, session), None);
        let next = client_arrives(&mut world);
        world.accepted(next);
        assert_eq!(world.sessions[&next].channel, Some(channel));
        world.session_ended(session);
        world.check();
        session = next;
    }
    assert_eq!((world.channels.len(), world.sessions.len()), (1, 1));
}

#[test]
fn a_returned_channel_is_the_next_to_be_given_out() {
    let mut world = with_host(None);
    let (first, channel) = served(&mut world);
    let fresh = channel_waits(&mut world);
    assert_eq!(returned(&mut world, first), None);
    assert_eq!(world.idle, [fresh, channel]);
    let second = client_arrives(&mut world);
    assert_eq!(world.sessions[&second].channel, Some(channel));
}

#[test]
fn a_session_that_ends_after_its_channel_was_returned_leaves_the_channel_alone() {
    let mut world = with_host(None);
    let (first, channel) = served(&mut world);
    returned(&mut world, first);
    let second = client_arrives(&mut world);
    world.session_ended(first);
    world.check();
    assert_eq!(world.sessions[&second].channel, Some(channel));
    world.accepted(second);
    returned(&mut world, second);
    world.session_ended(second);
    world.check();
    assert_eq!(world.idle, [channel]);
}

#[test]
fn a_session_whose_channel_was_returned_counts_until_it_has_ended() {
    let mut world = with_host(Some(1));
    let (first, channel) = served(&mut world);
    returned(&mut world, first);
    let second = client_arrives(&mut world);
    assert_eq!(world.sessions[&second].channel, None, "its host has no room yet");
    assert_eq!(world.book.snapshot().services[&ssh()].sessions, 1);
    world.session_ended(first);
    world.check();
    assert_eq!(world.sessions[&second].channel, Some(channel));
}

#[test]
fn a_returned_channel_counts_once() {
    let mut world = with_host(None);
    let (first, _) = served(&mut world);
    returned(&mut world, first);
    channel_waits(&mut world);
    // Of three.
    channel_waits(&mut world);
    let key = ChannelKey::new(world.members[&member(1)].key);
    world.hello(member(1), ssh(), Some(key));
    assert_eq!((world.channels.len(), world.idle.len(), world.reserved.len()), (3, 3, 0));
}

#[test]
fn a_channel_is_returned_once() {
    let mut world = with_host(None);
    let (first, channel) = served(&mut world);
    assert_eq!(returned(&mut world, first), None);
    assert_eq!(returned(&mut world, first), None, "there is none to close");
    assert_eq!(world.idle, [channel]);
    world.session_ended(first);
    returned(&mut world, first);
    assert_eq!(world.idle, [channel], "nor of a session that has ended");
}

/// Handles that are counted.
struct Counted;

impl Handles for Counted {
    type Command = ();
    type Channel = Rc<()>;
    type Client = ();
    type Stop = ();
}

#[test]
fn the_handle_of_a_channel_that_nobody_knows_is_not_kept() {
    let mut book = Book::<Counted>::new(Limits::default(), Policy::default(), ChannelId::MAX);
    let handle = Rc::new(());
    let session = SessionId(1);
    let input = Input::ChannelReturned { session, handle: Rc::clone(&handle) };
    book.handle(Time::ZERO, input);
    assert!(book.poll_output().is_none());
    assert_eq!(Rc::strong_count(&handle), 1, "its drop closes the channel");
}

#[test]
fn nothing_is_returned_that_was_not_accepted() {
    let mut world = with_host(None);
    let waiting = client_arrives(&mut world);
    assert_eq!(returned(&mut world, waiting), None, "there is none to close");
    let channel = channel_waits(&mut world);
    assert_eq!(returned(&mut world, waiting), Some(Reason::NotAccepted));
    assert_keeps(&mut world, waiting, channel);
}

#[test]
fn a_channel_of_version_1_does_not_come_back() {
    let mut world = with_host(None);
    world.command_up(host_of_v1(1));
    world.hello(host_of_v1(1), ServiceName::default(), None);
    let channel = world.reserved[0];
    world.idle(channel);
    world.client_arrives(ServiceName::default());
    let session = *world.sessions.keys().next_back().unwrap();
    assert_eq!(returned(&mut world, session), Some(Reason::ChannelKeyUnknown));
    assert_keeps(&mut world, session, channel);
}

#[test]
fn a_channel_of_an_old_key_does_not_come_back() {
    let mut world = with_host(None);
    let (session, channel) = served(&mut world);
    comes_up(&mut world, None);
    assert_eq!(returned(&mut world, session), Some(Reason::ChannelKeyUnknown));
    assert_keeps(&mut world, session, channel);
}

#[test]
fn a_channel_does_not_come_back_to_a_host_without_a_command_channel() {
    let mut world = with_host(None);
    let (session, channel) = served(&mut world);
    let command = command(&world);
    world.command_down(command);
    assert_eq!(returned(&mut world, session), Some(Reason::ChannelKeyUnknown));
    assert_keeps(&mut world, session, channel);
}

#[test]
fn a_channel_of_a_suspect_host_does_not_come_back_until_it_is_well() {
    let mut world = with_host(None);
    let (session, channel) = served(&mut world);
    let (other, _) = served(&mut world);
    let command = command(&world);
    world.suspect(command);
    assert_eq!(returned(&mut world, session), Some(Reason::HostSuspect));
    world.well(command);
    assert_eq!(returned(&mut world, other), None);
    assert_eq!(world.sessions[&session].channel, Some(channel));
}

#[test]
fn a_channel_of_a_paused_service_does_not_come_back() {
    let mut world = with_host(None);
    let (session, channel) = served(&mut world);
    let command = command(&world);
    world.bounds(command, ssh(), 0, 0);
    assert_eq!(returned(&mut world, session), Some(Reason::Paused));
    assert_keeps(&mut world, session, channel);
}

#[test]
fn a_channel_of_a_host_that_leaves_does_not_come_back() {
    let mut world = with_host(None);
    let (session, channel) = served(&mut world);
    let command = command(&world);
    world.command_leaving(command);
    assert_eq!(returned(&mut world, session), Some(Reason::Draining));
    assert_keeps(&mut world, session, channel);
}

#[test]
fn no_channel_comes_back_to_a_relay_that_leaves() {
    let mut world = with_host(None);
    let (session, channel) = served(&mut world);
    world.draining = true;
    world.tell(Input::Drain);
    assert_eq!(returned(&mut world, session), Some(Reason::Draining));
    assert_keeps(&mut world, session, channel);
}

#[test]
fn a_channel_does_not_come_back_for_what_its_grant_does_not_cover_any_more() {
    let mut world = with_host(None);
    let (session, channel) = served(&mut world);
    let services = vec!["web".parse().unwrap()];
    let terms = Grant { role: Role::Host, services, expires: None };
    world.grant_changed(grant_id(1), Some(terms));
    assert_eq!(returned(&mut world, session), Some(Reason::ServiceNotGranted));
    assert_keeps(&mut world, session, channel);
}

#[test]
fn a_session_whose_channel_was_returned_outlives_its_host() {
    for is_gone in [false, true] {
        let mut world = with_host(None);
        let (session, channel) = served(&mut world);
        returned(&mut world, session);
        let command = command(&world);
        if is_gone {
            world.command_gone(command);
        } else {
            world.command_down(command);
            world.channel_gone(channel);
        }
        world.check();
        assert!(!world.sessions[&session].asked_to_end, "its client has all but the last bytes");
        assert!(world.channels.is_empty());
        assert!(world.book.snapshot().hosts.contains_key(&member(1)), "it has a session yet");
        world.session_ended(session);
        world.check();
        assert!(world.book.snapshot().hosts.is_empty());
    }
}

#[test]
fn a_session_whose_channel_was_returned_ends_with_the_grant() {
    let mut world = with_host(None);
    let (session, _) = served(&mut world);
    returned(&mut world, session);
    world.grant_changed(grant_id(1), None);
    world.check();
    assert!(world.sessions[&session].asked_to_end);
    assert!(world.channels.is_empty(), "what was idle is closed");
}

#[test]
fn what_becomes_of_a_returned_channel_is_not_the_matter_of_the_session_before() {
    let mut world = with_host(None);
    let (first, channel) = served(&mut world);
    returned(&mut world, first);
    let second = client_arrives(&mut world);
    world.offer_failed(second, Reason::Rejected);
    world.check();
    assert!(!world.channels.contains_key(&channel));
    assert!(!world.sessions[&first].asked_to_end);
    assert_eq!(world.sessions_of(member(1)), 1);
    world.session_ended(first);
    world.check();
}
