//! How the command leaves: Ctrl-C and SIGTERM drain, a second one ends at once, and the exit code tells which it was.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::net::{expect, rest};
use support::peers::{Host, Relay, host_command, relayserver, text};
use support::program::{DEADLINE, Program};

/// Far less than any drain timeout, far more than leaving takes.
const AT_ONCE: Duration = Duration::from_secs(5);

/// The signals that ask to leave, and the exit code of the second one.
const SIGNALS: [(Signal, i32); 2] = [(Signal::INT, 130), (Signal::TERM, 143)];

/// A client whose session is up: a line went there and back.
fn session(relay: &Relay) -> TcpStream {
    let mut client = relay.client();
    client.write_all(b"up?\n").unwrap();
    expect(&mut client, b"up?\n");
    client
}

/// That a session was cut so that its client can tell: half an answer is not to be taken for a whole one.
fn assert_reset(client: &mut TcpStream) {
    let (said, error) = rest(client);
    assert_eq!(said, b"");
    assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::ConnectionReset));
}

/// A minute, so that a test in which the drain timeout strikes has failed long before.
fn patient() -> (Relay, Host) {
    let relay = Relay::start(&["--drain-timeout", "60s"]);
    let host = Host::start(&relay, &["--drain-timeout", "60s"]);
    (relay, host)
}

#[test]
fn a_relay_without_sessions_leaves_at_once() {
    for (signal, _) in SIGNALS {
        let mut relay = Relay::start(&["--drain-timeout", "60s"]);
        let _host = Host::start(&relay, &[]);
        relay.program.signal(signal);
        assert_eq!(relay.program.end_within(AT_ONCE).code(), Some(0), "{signal:?}");
    }
}

#[test]
fn a_host_without_sessions_leaves_at_once() {
    for (signal, _) in SIGNALS {
        let (relay, mut host) = patient();
        host.program.signal(signal);
        assert_eq!(host.program.end_within(AT_ONCE).code(), Some(0), "{signal:?}");
        relay.program.event("host left");
    }
}

#[test]
fn a_host_that_has_not_found_its_relay_leaves_at_once() {
    for (signal, _) in SIGNALS {
        let relay = Relay::start(&[]);
        let (hosts, command) = (relay.hosts, relay.command);
        drop(relay);
        let mut host = Program::start(host_command(hosts, command, &["--drain-timeout", "60s"]));
        host.line("a first try", |line| line.contains("WARN"));
        host.signal(signal);
        assert_eq!(host.end_within(AT_ONCE).code(), Some(0), "{signal:?}: {}", host.said());
    }
}

#[test]
fn a_relay_with_a_session_says_how_many_are_left_and_waits_for_them() {
    let (mut relay, _host) = patient();
    let mut clients = [session(&relay), session(&relay)];
    relay.program.signal(Signal::TERM);
    let draining = relay.program.event("draining: waiting for sessions to end");
    assert_eq!(text(&draining, "sessions"), "2");
    // Running sessions are not disturbed, and nobody new comes in.
    for client in &mut clients {
        client.write_all(b"still?\n").unwrap();
        expect(client, b"still?\n");
    }
    assert!(
        TcpStream::connect(relay.clients)
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    );
    for client in &mut clients {
        client.shutdown(Shutdown::Write).unwrap();
        assert!(rest(client).1.is_none());
    }
    assert_eq!(relay.program.end_within(AT_ONCE).code(), Some(0));
    assert_eq!(relay.reason_of_session(2), "finished");
}

#[test]
fn a_host_with_a_session_says_how_many_are_left_and_waits_for_them() {
    let (relay, mut host) = patient();
    let mut client = session(&relay);
    host.program.signal(Signal::TERM);
    let line = host.program.line("how many are left", |line| line.contains("draining"));
    assert!(line.contains("\"sessions\":1"), "{line}");
    client.write_all(b"still?\n").unwrap();
    expect(&mut client, b"still?\n");
    client.shutdown(Shutdown::Write).unwrap();
    assert!(rest(&mut client).1.is_none());
    assert_eq!(host.program.end_within(AT_ONCE).code(), Some(0));
    assert_eq!(relay.reason_of_session(1), "finished");
}

#[test]
fn a_second_signal_ends_a_relay_at_once() {
    for (signal, code) in SIGNALS {
        let (mut relay, _host) = patient();
        let mut client = session(&relay);
        relay.program.signal(signal);
        relay.program.event("draining: waiting for sessions to end");
        relay.program.signal(signal);
        assert_eq!(relay.program.end_within(AT_ONCE).code(), Some(code));
        assert_reset(&mut client);
    }
}

#[test]
fn a_second_signal_ends_a_host_at_once() {
    for (signal, code) in SIGNALS {
        let (relay, mut host) = patient();
        let mut client = session(&relay);
        host.program.signal(signal);
        host.program.line("how many are left", |line| line.contains("draining"));
        host.program.signal(signal);
        assert_eq!(host.program.end_within(AT_ONCE).code(), Some(code));
        assert_reset(&mut client);
    }
}

#[test]
fn after_the_drain_timeout_a_relay_ends_its_sessions_and_leaves() {
    let mut relay = Relay::start(&["--drain-timeout", "300ms"]);
    let _host = Host::start(&relay, &[]);
    let mut client = session(&relay);
    let signalled = Instant::now();
    relay.program.signal(Signal::TERM);
    assert_eq!(relay.program.end_within(AT_ONCE).code(), Some(0));
    assert!(signalled.elapsed() >= Duration::from_millis(300), "{:?}", signalled.elapsed());
    assert_eq!(relay.reason_of_session(1), "drained");
    assert_reset(&mut client);
}

#[test]
fn after_the_drain_timeout_a_host_ends_its_sessions_and_leaves() {
    let relay = Relay::start(&[]);
    let mut host = Host::start(&relay, &["--drain-timeout", "300ms"]);
    let mut client = session(&relay);
    let signalled = Instant::now();
    host.program.signal(Signal::TERM);
    assert_eq!(host.program.end_within(AT_ONCE).code(), Some(0));
    assert!(signalled.elapsed() >= Duration::from_millis(300), "{:?}", signalled.elapsed());
    assert_reset(&mut client);
    relay.reason_of_session(1);
}

#[test]
fn with_until_stdin_closes_the_end_of_input_is_a_first_signal() {
    let line = ["relay", "0", "0", "0", "--log-format", "json", "--until-stdin-closes"];
    let mut relay = Relay::of(Program::start_with_stdin(relayserver(&line)));
    let stdin = relay.program.stdin();
    let command = host_command(relay.hosts, relay.command, &["--until-stdin-closes"]);
    let mut host = Program::start_with_stdin(command);
    host.event("host ready");
    drop(host.stdin());
    assert_eq!(host.end_within(DEADLINE).code(), Some(0));
    drop(stdin);
    assert_eq!(relay.program.end_within(AT_ONCE).code(), Some(0));
}
