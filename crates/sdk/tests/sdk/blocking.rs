//! The listener without async, and without a runtime of the test's own.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use relayserver::{Error, Status, blocking};
use relayserver_testing::TestRelay;

use crate::{DEADLINE, noise};

fn client(relay: &TestRelay) -> TcpStream {
    let client = TcpStream::connect(relay.clients_addr()).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client
}

#[test]
fn sessions_read_and_write_on_threads_of_their_own() {
    let relay = TestRelay::start();
    let listener = blocking::Listener::listen(relay.listener()).unwrap();
    assert!(matches!(listener.status(), Status::Ready { .. }));
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for _ in 0..4 {
                let mut session = listener.accept().unwrap();
                threads.spawn(move || {
                    let mut question = Vec::new();
                    session.read_to_end(&mut question).unwrap();
                    session.write_all(&question).unwrap();
                    session.flush().unwrap();
                    session.shutdown().unwrap();
                });
            }
        });
        for seed in 0..4 {
            let question = noise(200_000, seed);
            let mut client = client(&relay);
            client.write_all(&question).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            assert!(answer == question, "{} bytes", answer.len());
        }
    });
}

#[test]
fn sessions_outlive_their_listener() {
    // With the last session the whole runtime goes, so all connections end in the same moment, in any order: again and again.
    for _ in 0..20 {
        let relay = TestRelay::start();
        a_session_outlives_its_listener(&relay, relay.listener());
    }
}

/// With TLS its end is more than the kernel's business.
#[test]
#[cfg(feature = "tls")]
fn encrypted_sessions_outlive_their_listener() {
    let relay = TestRelay::secure();
    for _ in 0..20 {
        a_session_outlives_its_listener(&relay, relayserver::Listener::join(relay.join()));
    }
}

fn a_session_outlives_its_listener(relay: &TestRelay, builder: relayserver::Builder) {
    let listener = blocking::Listener::listen(builder).unwrap();
    let mut client = client(relay);
    let mut session = listener.accept().unwrap();
    drop(listener);
    session.write_all(b"still there").unwrap();
    drop(session);
    let mut received = String::new();
    client.read_to_string(&mut received).unwrap();
    assert_eq!(received, "still there");
}

#[test]
fn a_drain_waits_and_accept_ends() {
    let relay = TestRelay::start();
    let listener = blocking::Listener::listen(relay.listener()).unwrap();
    let mut client = client(&relay);
    let session = listener.accept().unwrap();
    std::thread::scope(|threads| {
        let draining = threads.spawn(|| listener.drain());
        let error = listener.accept().unwrap_err();
        assert!(matches!(error, Error::Closed), "{error}");
        assert!(!draining.is_finished());
        session.reset();
        draining.join().unwrap();
    });
    assert!(client.read(&mut [0]).is_err(), "reset");
}

#[test]
fn an_address_that_is_none_is_an_error() {
    let error = blocking::Listener::listen(relayserver::Listener::builder("no:port")).unwrap_err();
    assert!(error.is_permanent(), "{error}");
}
