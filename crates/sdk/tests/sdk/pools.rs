//! How many channels a host keeps: what the relay wants, what the application allows.

use std::time::Duration;

use relayserver::{Error, Listener, Status};
use relayserver_transport::Stream;
use relayserver_wire::command::Announcement;
use relayserver_wire::hello::{AnswerV2, Capacity, Role, ServedService, Welcome};
use relayserver_wire::secret::ChannelKey;
use tokio::time::timeout;

use crate::member::{Relay, answer, heard, read, say};
use crate::within;

fn bounds(idle_min: u32, idle_max: u32) -> Announcement {
    Announcement::PoolBounds { service: "default".to_owned(), idle_min, idle_max }
}

async fn want(command: &mut Stream, service: &str, idle: u32) {
    let wanted = Announcement::PoolWanted { service: service.to_owned(), idle };
    say(command, &wanted.encode()).await;
}

async fn assert_no_dial(relay: &Relay) {
    let more = timeout(Duration::from_millis(300), relay.listener.accept()).await;
    assert!(more.is_err(), "no channel more");
}

fn surplus(idle: u32) -> Announcement {
    Announcement::PoolSurplus { service: "default".to_owned(), idle }
}

async fn assert_closed(channel: &mut Stream) {
    let mut byte = [0];
    let read = within(tokio::io::AsyncReadExt::read(channel, &mut byte)).await;
    assert!(!matches!(read, Ok(1..)), "{read:?}");
}

async fn assert_open(channel: &mut Stream) {
    let read = timeout(Duration::from_millis(1), read(channel, 1)).await;
    assert!(read.is_err(), "it was closed");
}

#[tokio::test]
async fn what_a_host_takes_stands_in_its_hello() {
    let relay = Relay::bind().await;
    let builder = relay.builder(&[]).weight(7).max_sessions(3);
    let listening = tokio::spawn(builder.listen());
    let (_stream, role) = relay.next_hello().await;
    let Role::Command { capacity, .. } = role else { panic!("no command channel: {role:?}") };
    assert_eq!(capacity, Capacity { weight: 7, sessions_max: Some(3) });
    listening.abort();
}

#[tokio::test]
async fn bounds_are_said_first_and_what_is_wanted_within_them_is_dialled_at_once() {
    let relay = Relay::bind().await;
    let listening = tokio::spawn(relay.builder(&[]).pool(1..=5).listen());
    let (mut command, _) = relay.commanded(1).await;
    assert_eq!(heard(&mut command).await, bounds(1, 5), "ahead of the first channel");
    let mut channels = vec![relay.answered(1).await];
    let _listener = within(listening).await.unwrap().unwrap();
    assert_no_dial(&relay).await;

    want(&mut command, "default", 3).await;
    channels.extend([relay.answered(1).await, relay.answered(1).await]);
    want(&mut command, "other", 9).await;
    assert_no_dial(&relay).await;
    want(&mut command, "default", u32::MAX).await;
    channels.extend([relay.answered(1).await, relay.answered(1).await]);
    assert_no_dial(&relay).await;
}

#[tokio::test]
async fn what_is_too_many_is_told_to_the_relay_and_not_closed() {
    let relay = Relay::bind().await;
    let listening = tokio::spawn(relay.builder(&[]).pool(1..=5).listen());
    let (mut command, _) = relay.commanded(1).await;
    assert_eq!(heard(&mut command).await, bounds(1, 5));
    let mut channels = vec![relay.answered(1).await];
    let _listener = within(listening).await.unwrap().unwrap();
    want(&mut command, "default", 5).await;
    for _ in 0..4 {
        channels.push(relay.answered(1).await);
    }
    want(&mut command, "default", 0).await;
    for told in [2, 1, 1] {
        assert_eq!(heard(&mut command).await, surplus(told), "half of what is too many");
        for channel in &mut channels {
            assert_open(channel).await;
        }
        channels.drain(..told as usize);
        // A host takes a relay that says nothing for lost.
        say(&mut command, &Announcement::Pong { nonce: 0 }.encode()).await;
    }
    assert_no_dial(&relay).await;
    assert_open(&mut channels[0]).await;
}

#[tokio::test]
async fn what_was_wanted_on_another_command_channel_counts_no_more() {
    let relay = Relay::bind().await;
    let listening = tokio::spawn(relay.builder(&[]).pool(1..=5).listen());
    let (mut command, _) = relay.commanded(1).await;
    let first = relay.answered(1).await;
    let _listener = within(listening).await.unwrap().unwrap();
    want(&mut command, "default", 2).await;
    let _second = relay.answered(1).await;
    drop(command);
    let (mut command, _) = relay.commanded(2).await;
    assert_eq!(heard(&mut command).await, bounds(1, 5), "each is told anew");
    assert_eq!(heard(&mut command).await, surplus(1));
    drop(first);
    assert_no_dial(&relay).await;
}

#[tokio::test]
async fn a_service_that_is_unavailable_has_no_channels_and_the_relay_is_told() {
    let relay = Relay::bind().await;
    let builder = relay.builder(&[]).pool(1..=5).unavailable("default");
    let listening = tokio::spawn(builder.listen());
    let (mut command, _) = relay.commanded(1).await;
    assert_eq!(heard(&mut command).await, bounds(0, 0));
    let listener = within(listening).await.unwrap().unwrap();
    assert!(matches!(listener.status().get(), Status::Ready { .. }));
    assert_no_dial(&relay).await;

    listener.set_available("default", true).unwrap();
    assert_eq!(heard(&mut command).await, bounds(1, 5));
    let mut channel = relay.answered(1).await;
    listener.set_available("default", true).unwrap();
    listener.set_available("default", false).unwrap();
    assert_eq!(heard(&mut command).await, bounds(0, 0));
    assert_closed(&mut channel).await;
    want(&mut command, "default", 5).await;
    assert_no_dial(&relay).await;

    let error = listener.set_available("other", true).unwrap_err();
    assert!(matches!(&error, Error::Service(name) if name == "other"), "{error}");
}

/// The command channel of a host of the services `a` and `b`.
async fn commanded_of_two(relay: &Relay) -> Stream {
    let (mut command, role) = relay.next_hello().await;
    assert!(matches!(role, Role::Command { .. }), "{role:?}");
    let served = ["a", "b"].map(|name| ServedService { name: name.to_owned(), clients: None });
    let channel_key = Some(ChannelKey::new([1; 16]));
    let welcome = Welcome { channel_key, services: served.to_vec(), ..Welcome::default() };
    say(&mut command, &answer(0, AnswerV2::Welcome(welcome))).await;
    command
}

/// Its next data channel, which is for this service.
async fn answered_of(relay: &Relay, name: &str) -> Stream {
    let (mut channel, role) = relay.next_hello().await;
    assert!(matches!(&role, Role::Data { service, .. } if service == name), "{role:?}");
    say(&mut channel, &answer(1, AnswerV2::Welcome(Welcome::default()))).await;
    channel
}

#[tokio::test]
async fn of_several_services_what_is_too_many_of_one_is_told() {
    let relay = Relay::bind().await;
    let builder = relay.builder(&[]).service_with_pool("a", 1..=1).service_with_pool("b", 1..=5);
    let listening = tokio::spawn(builder.unavailable("a").listen());
    let mut command = commanded_of_two(&relay).await;
    for _ in 0..2 {
        assert!(matches!(heard(&mut command).await, Announcement::PoolBounds { .. }));
    }
    let _first = answered_of(&relay, "b").await;
    let _listener = within(listening).await.unwrap().unwrap();
    want(&mut command, "b", 3).await;
    let _others = (answered_of(&relay, "b").await, answered_of(&relay, "b").await);
    want(&mut command, "b", 1).await;
    let surplus = Announcement::PoolSurplus { service: "b".to_owned(), idle: 1 };
    assert_eq!(heard(&mut command).await, surplus);
}

#[tokio::test]
async fn of_several_services_one_may_be_unavailable() {
    let relay = Relay::bind().await;
    let builder = relay.builder(&[]).service_with_pool("a", 1..=1).service_with_pool("b", 2..=2);
    let listening = tokio::spawn(builder.unavailable("b").listen());
    let mut command = commanded_of_two(&relay).await;
    let mut said = Vec::new();
    for _ in 0..2 {
        if let Announcement::PoolBounds { service, idle_min, idle_max } = heard(&mut command).await
        {
            said.push((service, idle_min, idle_max));
        }
    }
    assert_eq!(said, [("a".to_owned(), 1, 1), ("b".to_owned(), 0, 0)]);
    let _channel = answered_of(&relay, "a").await;
    let _listener: Listener = within(listening).await.unwrap().unwrap();
    assert_no_dial(&relay).await;
}
