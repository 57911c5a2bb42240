//! Getting to a relay, and back to it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use relayserver::{Error, Listener, Served, Status};
use relayserver_testing::TestRelay;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::{rest, status_becomes, within};

#[tokio::test]
async fn what_is_no_address_is_an_error_at_once() {
    for address in ["", "relay:port", "http://relay", "relay:8000:1", "[::1"] {
        let error = within(Listener::builder(address).listen()).await.unwrap_err();
        assert!(error.is_permanent(), "{error}");
        assert!(matches!(error, Error::Address(_)), "{error}");
    }
    let relay = || Listener::builder("127.0.0.1");
    for builder in [relay().hosts_port(0), relay().command_port(0)] {
        let error = within(builder.listen()).await.unwrap_err();
        assert!(matches!(error, Error::Address(_)), "{error}");
    }
}

#[tokio::test]
async fn the_connect_timeout_ends_the_wait_and_says_why() {
    let mut relay = TestRelay::start();
    relay.stop();
    let builder = relay.listener().connect_timeout(Duration::from_millis(700));
    let error = within(builder.listen()).await.unwrap_err();
    assert!(!error.is_permanent(), "{error}");
    assert!(matches!(error, Error::ConnectTimeout { .. }), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_relay_that_comes_later_is_found() {
    let mut relay = TestRelay::start();
    relay.stop();
    let listening = tokio::spawn(relay.listener().listen());
    // Its first dial was refused by the time that this port refuses another one.
    tokio::time::timeout(Duration::from_millis(300), async {
        while !listening.is_finished() {
            tokio::task::yield_now().await
        }
    })
    .await
    .unwrap_err();
    relay.restart();
    let _listener = within(listening).await.unwrap().unwrap();
    relay.wait_until(|now| now.idle == 10 && now.commands == 1).await;
}

#[tokio::test]
async fn the_pool_is_as_large_as_was_said_and_stays_so() {
    let relay = TestRelay::start();
    let listener = within(relay.listener().pool_size(3).listen()).await.unwrap();
    relay.wait_until(|now| now.idle == 3 && now.commands == 1).await;
    let mut kept = Vec::new();
    for sessions in 1..=7 {
        let client = relay.connect().await.unwrap();
        kept.push((client, within(listener.accept()).await.unwrap()));
        relay.wait_until(|now| now.idle == 3 && now.sessions == sessions).await;
    }
    drop(kept);
    relay.wait_until(|now| now.idle == 3 && now.sessions == 0).await;
}

#[tokio::test]
async fn hosts_may_dial_from_different_addresses() {
    let relay = TestRelay::start();
    let mut listeners = Vec::new();
    for last in 2..5 {
        let address = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        listeners.push(within(relay.listener().bind_addr(address).listen()).await.unwrap());
    }
    relay.wait_until(|now| now.hosts == 3 && now.idle == 30).await;
}

#[tokio::test]
async fn a_relay_that_restarts_is_found_again_and_status_tells() {
    let mut relay = TestRelay::start();
    let listener = within(relay.listener().listen()).await.unwrap();
    relay.stop();
    let lost = |status: &Status| matches!(status, Status::Connecting { last_error: Some(_), .. });
    status_becomes(&listener, lost).await;
    relay.restart();
    let Status::Ready { services } =
        status_becomes(&listener, |status| matches!(status, Status::Ready { .. })).await
    else {
        panic!("not ready")
    };
    let clients = Some(relay.clients_addr().to_string());
    assert_eq!(services, [Served { service: "default".to_owned(), clients }]);
    let mut client = relay.connect().await.unwrap();
    let mut session = within(listener.accept()).await.unwrap();
    session.write_all(b"back").await.unwrap();
    drop(session);
    assert_eq!(rest(&mut client).await, b"back");
}

#[tokio::test]
async fn listening_that_is_given_up_leaves_nothing_behind() {
    // An address that does not answer: the future is dropped while it waits.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let builder = Listener::builder(silent.local_addr().unwrap().to_string());
    let listening = tokio::spawn(builder.listen());
    let (mut dialled, _) = within(silent.accept()).await.unwrap();
    listening.abort();
    // Its hello, and the end of it.
    assert!(!rest(&mut dialled).await.is_empty());
}
