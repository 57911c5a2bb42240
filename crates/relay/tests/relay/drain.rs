//! How a relay leaves, by request and when it is cut off.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::peers::{
    DEADLINE, TestRelay, assert_closed, assert_ended, assert_reset, echo, exchange, session, silent,
};

#[tokio::test]
async fn with_no_session_a_drain_ends_at_once_and_closes_all() {
    let mut relay = TestRelay::start();
    // The relay accepts in the order of arrival: it has this one when it has the next.
    let mut nameless = silent(relay.hosts).await;
    let mut host = relay.host(1).await;
    let mut idle = host.idle_channels(&relay, 3).await;
    relay.handle().drain();
    relay.ended().await;
    for channel in &mut idle {
        assert_ended(&mut channel.stream).await;
    }
    assert_closed(&mut nameless).await;
    assert_closed(&mut host.command.stream).await;
    assert_refused(&relay).await;
    relay.until_empty().await;
}

#[tokio::test]
async fn a_drain_refuses_those_who_wait_and_those_who_come() {
    let mut relay = TestRelay::start();
    let mut host = relay.host(1).await;
    let (mut client, mut channel) = session(&relay, &mut host).await;
    let mut waiting = relay.client().await;
    relay.until_waiting(1).await;
    relay.handle().drain();
    assert_ended(&mut waiting).await;
    assert_refused(&relay).await;
    // What runs goes on, and with its end the relay ends.
    echo(&mut client, &mut channel.stream).await;
    assert!(relay.is_running());
    exchange((&mut client, b"last words"), (&mut channel.stream, b"farewell")).await;
    relay.ended().await;
    relay.until_empty().await;
}

#[tokio::test]
async fn a_drain_closes_idle_channels_while_sessions_run_and_announces_their_ends() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    let (mut client, channel) = session(&relay, &mut host).await;
    let mut idle = host.idle_channels(&relay, 2).await;
    relay.handle().drain();
    for channel in &mut idle {
        assert_ended(&mut channel.stream).await;
    }
    client.shutdown().await.unwrap();
    host.assert_dropped(&channel).await;
    assert_eq!(relay.occupancy().sessions, 1);
}

#[tokio::test]
async fn when_the_drain_timeout_has_passed_what_still_runs_is_reset() {
    let bound = Duration::from_millis(300);
    let mut relay = TestRelay::with(|config| config.drain_timeout = bound);
    let mut host = relay.host(1).await;
    let (mut client, mut channel) = session(&relay, &mut host).await;
    let begun = Instant::now();
    relay.handle().drain();
    assert_eq!(assert_reset(&mut client).await, b"");
    assert_eq!(assert_reset(&mut channel.stream).await, b"");
    let waited = begun.elapsed();
    assert!(waited >= bound && waited < DEADLINE / 2, "{waited:?}");
    relay.ended().await;
    relay.until_empty().await;
}

#[tokio::test]
async fn an_abort_ends_everything_at_once() {
    let mut relay = TestRelay::start();
    let mut held = Held::by(&relay).await;
    relay.handle().abort();
    relay.ended().await;
    held.assert_over().await;
    relay.until_empty().await;
}

#[tokio::test]
async fn an_abort_cuts_a_drain_short() {
    let mut relay = TestRelay::start();
    let mut host = relay.host(1).await;
    let (mut client, mut channel) = session(&relay, &mut host).await;
    relay.handle().drain();
    assert_refused(&relay).await;
    echo(&mut client, &mut channel.stream).await;
    relay.handle().abort();
    assert_reset(&mut client).await;
    assert_reset(&mut channel.stream).await;
    relay.ended().await;
}

#[tokio::test]
async fn dropping_the_relays_future_ends_everything_at_once() {
    let mut relay = TestRelay::start();
    let mut held = Held::by(&relay).await;
    relay.cut_off().await;
    held.assert_over().await;
    relay.until_empty().await;
}

/// One of everything that a relay may hold.
struct Held {
    session: (TcpStream, TcpStream),
    idle: TcpStream,
    nameless: TcpStream,
    command: TcpStream,
}

impl Held {
    async fn by(relay: &TestRelay) -> Held {
        let nameless = silent(relay.hosts).await;
        let mut host = relay.host(1).await;
        let (client, channel) = session(relay, &mut host).await;
        let idle = host.idle_channels(relay, 1).await.remove(0).stream;
        Held { session: (client, channel.stream), idle, nameless, command: host.command.stream }
    }

    async fn assert_over(&mut self) {
        assert_reset(&mut self.session.0).await;
        assert_reset(&mut self.session.1).await;
        assert_ended(&mut self.idle).await;
        assert_closed(&mut self.nameless).await;
        assert_closed(&mut self.command).await;
    }
}

/// Nobody takes a client any more.
async fn assert_refused(relay: &TestRelay) {
    let connecting = async {
        // What stood in the system's queue when the relay left is closed by the system.
        while let Ok(mut client) = TcpStream::connect(relay.clients).await {
            assert_closed(&mut client).await;
        }
    };
    crate::peers::within("a refused connection", connecting).await;
}
