//! Leaving: by a drop, a close, a drain, an abort.

use relayserver::handlers::Echo;
use relayserver::{Error, Status};
use relayserver_testing::TestRelay;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{assert_reset, connected, rest, status_becomes, within};

#[tokio::test]
async fn dropping_the_listener_leaves_the_pool_and_lets_sessions_run_on() {
    let (relay, listener, mut client, mut session) = connected().await;
    let mut status = listener.status();
    drop(listener);
    relay.wait_until(|now| now.idle == 0).await;
    client.write_all(b"still there?").await.unwrap();
    let mut received = [0; 12];
    within(session.read_exact(&mut received)).await.unwrap();
    // Its end first, and then the client's: a relay may take a host without a command channel for lost.
    session.write_all(b"yes").await.unwrap();
    session.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await, b"yes");
    assert_eq!(relay.occupancy().commands, 1);
    client.write_all(b"good").await.unwrap();
    client.shutdown().await.unwrap();
    let mut received = Vec::new();
    within(session.read_to_end(&mut received)).await.unwrap();
    assert_eq!(received, b"good");
    drop(session);
    relay.wait_until(|now| now.commands == 0 && now.sessions == 0).await;
    while within(status.changed()).await.is_some() {}
    assert_eq!(status.get(), Status::Closed);
}

#[tokio::test]
async fn a_client_that_nobody_can_accept_any_more_is_reset() {
    let relay = TestRelay::start();
    let listener = within(relay.listener().listen()).await.unwrap();
    let mut events = listener.events();
    let mut client = relay.connect().await.unwrap();
    within(events.next()).await.unwrap();
    drop(listener);
    assert_reset(&mut client).await;
}

#[tokio::test]
async fn a_closed_listener_gives_what_had_come_and_then_only_an_error() {
    let relay = TestRelay::start();
    let listener = within(relay.listener().listen()).await.unwrap();
    let mut events = listener.events();
    let mut client = relay.connect().await.unwrap();
    within(events.next()).await.unwrap();
    listener.close();
    let mut session = within(listener.accept()).await.unwrap();
    session.write_all(b"served").await.unwrap();
    drop(session);
    assert_eq!(rest(&mut client).await, b"served");
    for _ in 0..2 {
        let error = within(listener.accept()).await.unwrap_err();
        assert!(matches!(error, Error::Closed), "{error}");
    }
    assert_eq!(status_becomes(&listener, |it| *it == Status::Closed).await, Status::Closed);
    relay.wait_until(|now| now.idle == 0 && now.commands == 0).await;
}

#[tokio::test]
async fn a_drain_resolves_when_the_last_session_has_ended_and_not_before() {
    let (relay, listener, mut client, mut session) = connected().await;
    let mut draining = Box::pin(listener.drain());
    relay.wait_until(|now| now.idle == 0).await;
    status_becomes(&listener, |it| *it == Status::Draining).await;
    client.write_all(b"x").await.unwrap();
    tokio::select! {
        biased;
        () = &mut draining => panic!("a session still runs"),
        byte = session.read_u8() => assert_eq!(byte.unwrap(), b'x'),
    }
    assert_eq!(listener.sessions_open(), 1);
    drop(session);
    within(draining).await;
    assert_eq!(listener.sessions_open(), 0);
    within(listener.drain()).await;
}

#[tokio::test]
async fn a_drain_while_clients_pour_in_ends_with_all_that_were_taken_served() {
    for _ in 0..20 {
        let relay = TestRelay::start();
        let listener = within(relay.listener().listen()).await.unwrap();
        let serving = listener.serve(Echo);
        let pouring = async {
            let mut answers = Vec::new();
            for _ in 0..8 {
                let mut client = relay.connect().await.unwrap();
                client.write_all(b"whole").await.unwrap();
                client.shutdown().await.unwrap();
                answers.push(client);
            }
            listener.drain().await;
            answers
        };
        let (served, _clients) = within(async { tokio::join!(serving, pouring) }).await;
        served.unwrap();
        assert_eq!(listener.sessions_open(), 0);
        assert_eq!(listener.status().get(), Status::Closed);
    }
}

#[tokio::test]
async fn an_abort_resets_what_runs() {
    let relay = TestRelay::start();
    let listener = within(relay.listener().listen()).await.unwrap();
    let mut client = relay.connect().await.unwrap();
    client.write_all(b"x").await.unwrap();
    let aborting = async {
        assert_eq!(within(client.read_u8()).await.unwrap(), b'x');
        listener.abort();
        assert_reset(&mut client).await;
    };
    let (served, ()) = within(async { tokio::join!(listener.serve(Echo), aborting) }).await;
    served.unwrap();
}
