//! `relayserver host` when something is missing: its relay, or the server behind it.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::thread;

use rustix::process::Signal;
use support::net::{expect, free_port, rest};
use support::peers::{Host, Relay, host_command, relayserver, text};
use support::program::Program;

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[test]
fn a_relay_that_is_not_there_is_named_once_with_the_next_try_and_tried_until_it_comes() {
    let ports = [free_port(), free_port(), free_port()];
    let mut host = Program::start(host_command(local(ports[0]), local(ports[1]), &["-n", "3"]));
    let warned = |line: &str| line.contains("\"WARN\"");
    let line = host.line("a warning", warned);
    assert!(
        line.contains(&local(ports[0]).to_string()) || line.contains(&local(ports[1]).to_string()),
        "{line}"
    );
    assert!(line.contains("refused"), "{line}");
    assert!(line.contains("next"), "does not say when it tries again: {line}");
    // Three channels and a command channel failed by now: that is one matter, and one line.
    let relay = Relay::start_on(ports, &[]);
    host.event("host ready");
    let warnings = host.lines().iter().filter(|line| warned(line)).count();
    assert!(warnings <= 4, "{warnings} warnings:\n{}", host.said());
    assert_eq!(relay.ask(b"there you are"), b"there you are");
    host.signal(Signal::TERM);
    assert_eq!(host.end().code(), Some(0));
}

#[test]
fn a_name_that_does_not_exist_is_said_in_a_line() {
    let mut host = Program::start(relayserver(&["host", "relay.invalid"]));
    let line = host.line("a warning", |line| line.contains("WARN"));
    assert!(line.contains("relay.invalid"), "{line}");
    assert!(host.runs());
    host.signal(Signal::INT);
    assert_eq!(host.end().code(), Some(0));
}

#[test]
fn a_host_that_gets_fewer_channels_than_it_wants_is_not_lost_and_complains_once() {
    let relay = Relay::start(&["--channels-max", "3"]);
    let host = Host::start(&relay, &["-n", "6"]);
    host.program.line("a warning", |line| line.contains("\"WARN\""));
    // Those of the first round, and of two more tries.
    relay.program.events("host refused", 5);
    let warnings: Vec<_> =
        host.program.lines().into_iter().filter(|line| line.contains("\"WARN\"")).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("no further channel"), "{warnings:?}");
    assert_eq!(relay.ask(b"served"), b"served");
}

#[test]
fn a_relay_that_comes_back_gets_its_host_back() {
    let ports = [free_port(), free_port(), free_port()];
    let relay = Relay::start_on(ports, &[]);
    let host = Host::start(&relay, &[]);
    assert_eq!(relay.ask(b"one"), b"one");
    drop(relay);
    let relay = Relay::start_on(ports, &[]);
    host.program.events("host ready", 2);
    assert_eq!(relay.ask(b"two"), b"two");
}

#[test]
fn nothing_behind_forward_ends_that_session_and_the_host_serves_once_there_is() {
    let relay = Relay::start(&[]);
    let port = free_port();
    let mut host = Host::start(&relay, &["--forward", &port.to_string()]);
    for count in 1..=2 {
        assert_eq!(relay.receive().0, b"");
        let refused = relay.program.events("client refused", count);
        assert_eq!(text(&refused[count - 1], "reason"), "target_unreachable");
    }
    let why = host.program.event("server cannot be reached");
    assert_eq!(text(&why, "target"), local(port).to_string());
    assert!(text(&why, "error").contains("refused"), "{why:?}");
    assert!(host.program.runs());

    let server = TcpListener::bind(local(port)).unwrap();
    let served = thread::spawn(move || {
        let (mut stream, _peer) = server.accept().unwrap();
        stream.write_all(b"here I am").unwrap();
    });
    expect(&mut relay.client(), b"here I am");
    served.join().unwrap();
}

#[test]
fn a_unix_socket_that_is_not_there_ends_that_session_with_a_reason() {
    let relay = Relay::start(&[]);
    let mut host = Host::start(&relay, &["--forward", "unix:/nonexistent/socket"]);
    assert_eq!(relay.receive().0, b"");
    let why = host.program.event("server cannot be reached");
    assert!(text(&why, "target").contains("/nonexistent/socket"), "{why:?}");
    assert!(text(&why, "error").contains("No such file"), "{why:?}");
    assert!(host.program.runs());
}

#[test]
fn a_server_that_resets_is_a_reset_to_the_client() {
    let relay = Relay::start(&[]);
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap().to_string();
    let _host = Host::start(&relay, &["--forward", &address]);
    let mut client = relay.client();
    client.write_all(b"x").unwrap();
    let (mut stream, _peer) = server.accept().unwrap();
    stream.write_all(b"hello").unwrap();
    expect(&mut client, b"hello");
    // Closing over unread input is an abort.
    stream.peek(&mut [0]).unwrap();
    drop(stream);
    let (_, error) = rest(&mut client);
    assert!(error.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    assert_eq!(relay.reason_of_session(1), "host_aborted");
}

#[test]
fn two_hosts_share_the_clients_and_one_that_leaves_disturbs_none_of_the_others() {
    let relay = Relay::start(&[]);
    let one = Host::start(&relay, &["--exec", "--", "sh", "-c", "echo one; cat"]);
    let other = Host::start(&relay, &["--exec", "--", "sh", "-c", "echo other; cat"]);
    let mut clients: Vec<_> = (0..20)
        .map(|_| {
            let mut client = relay.client();
            let mut name = [0; 3];
            std::io::Read::read_exact(&mut client, &mut name).unwrap();
            (client, name)
        })
        .collect();
    let of_one = clients.iter().filter(|(_, name)| name == b"one").count();
    assert!((1..20).contains(&of_one), "{of_one} of 20 went to the first");
    drop(one);
    for (client, name) in &mut clients {
        if *name == *b"one" {
            rest(client);
        } else {
            expect(client, b"er\n");
            client.write_all(b"still here\n").unwrap();
            expect(client, b"still here\n");
        }
    }
    drop(other);
    let reasons = relay.program.events("session ended", 20);
    assert!(reasons.iter().all(|event| !text(event, "end.reason").is_empty()));
}
