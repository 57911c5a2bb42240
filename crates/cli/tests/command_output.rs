//! What the command prints, and where: logs on standard error, results on standard output, colour only where it is wanted,
//! JSON that is JSON, and no panic when nobody reads.

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
use std::net::SocketAddr;
use std::process::Command;

use rustix::process::Signal;
use support::net::{ask, client, expect, free_port, rest};
use support::peers::{Host, Relay, relayserver, text};
use support::program::{Program, command, have, output_of, run};

const BINARY: &str = env!("CARGO_BIN_EXE_relayserver");

/// A shell's line in which `$R` is the command.
fn shell(line: &str) -> Command {
    let mut shell = command("sh", &["-c", line]);
    shell.env("R", BINARY).env_remove("RUST_LOG").env_remove("NO_COLOR");
    shell
}

#[test]
fn a_closed_standard_output_is_no_panic() {
    for line in [
        "$R demo --once | true",
        "$R demo --once | head -n 1 >/dev/null",
        "$R help relay | true",
        "$R --help >&-",
        "$R demo --once >&-",
        "$R --help >/dev/full",
    ] {
        let ended = run(shell(line));
        assert!(!ended.stderr.contains("panicked"), "{line}: {}", ended.stderr);
    }
}

#[test]
fn a_demo_whose_reader_left_says_nothing_and_ends() {
    let ended = run(shell("{ $R demo --once; echo $? >&2; } | true"));
    assert_eq!(ended.stderr, "0\n");
}

#[test]
fn a_standard_error_that_takes_nothing_stops_nobody() {
    for way in ["2>&-", "2>/dev/full", "a pipe that nobody reads"] {
        let ports = [free_port(), free_port(), free_port()];
        let [hosts, command, clients] = ports.map(|port| port.to_string());
        let redirect = if way.starts_with('2') { way } else { "" };
        let line = format!("exec $R relay {hosts} {command} {clients} -v {redirect}");
        let mut relay = if redirect.is_empty() {
            Program::start_unheard(shell(&line))
        } else {
            Program::start(shell(&line))
        };
        // It has nowhere to say that it is ready; the host finds out.
        let host_line = ["host", "127.0.0.1", &hosts, &command, "--log-format", "json"];
        let host = Program::start(relayserver(&host_line));
        host.event("host ready");
        let clients = SocketAddr::from(([127, 0, 0, 1], ports[2]));
        assert_eq!(ask(clients, b"hello"), b"hello", "{way}");
        relay.signal(Signal::TERM);
        assert_eq!(relay.end().code(), Some(0), "{way}");
    }
}

#[test]
fn every_line_of_a_json_log_is_json() {
    let relay = Relay::start(&["-v"]);
    let host = Host::start(&relay, &["-v"]);
    assert_eq!(relay.ask(b"hello"), b"hello");
    relay.program.event("session ended");
    // A peer that speaks something else.
    client(relay.hosts).write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let refused = relay.program.event("host refused");
    assert_eq!(text(&refused, "reason"), "not_our_protocol");
    let mut programs = [relay.program, host.program];
    for program in &mut programs {
        program.signal(Signal::TERM);
        program.end();
        for line in program.lines() {
            let event: serde_json::Value =
                serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            for field in ["timestamp", "level", "message"] {
                assert!(event[field].is_string(), "no {field} in {line}");
            }
        }
    }
}

#[test]
fn a_session_is_told_in_one_line_with_its_numbers() {
    let relay = Relay::start(&[]);
    let _host = Host::start(&relay, &[]);
    let mut client = relay.client();
    client.write_all(b"12345").unwrap();
    expect(&mut client, b"12345");
    let address = client.local_addr().unwrap().to_string();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(rest(&mut client).1.is_none());
    let ended = relay.program.event("session ended");
    for (field, value) in [
        ("bytes.to_host", "5"),
        ("bytes.to_client", "5"),
        ("end.reason", "finished"),
        ("client.addr", &address),
        ("service", "default"),
    ] {
        assert_eq!(text(&ended, field), value, "{ended:?}");
    }
}

#[test]
fn without_a_terminal_nothing_is_coloured() {
    let mut relay = Program::start(relayserver(&["relay", "0", "0", "0"]));
    relay.line("the relay to be ready", |line| line.contains("relay ready"));
    relay.signal(Signal::TERM);
    relay.end();
    assert!(!relay.said().contains('\x1b'), "{}", relay.said());
    let demo = run(relayserver(&["demo", "--once"]));
    assert!(!demo.stdout.contains('\x1b'), "{}", demo.stdout);
}

#[test]
fn a_terminal_gets_colour_unless_its_user_refuses() {
    if !have(&["script"]) {
        return;
    }
    let on_terminal = |line: &str| output_of(shell(&format!("script -qec '{line}' /dev/null")));
    let demo = "$R demo --once";
    assert!(on_terminal(demo).contains('\x1b'), "no colour on a terminal");
    assert!(
        !on_terminal(&format!("NO_COLOR=1 {demo}")).contains('\x1b'),
        "colour in spite of NO_COLOR"
    );
    let relay = "$R relay 0 0 0 --until-stdin-closes </dev/null";
    let said = on_terminal(relay);
    assert!(
        said.contains('\x1b') && said.contains("relay ready"),
        "no colour on a terminal: {said}"
    );
    let said = on_terminal(&format!("NO_COLOR=1 {relay}"));
    assert!(
        !said.contains('\x1b') && said.contains("relay ready"),
        "colour in spite of NO_COLOR: {said}"
    );
}

#[test]
fn a_relay_and_a_host_say_nothing_on_standard_output() {
    let line = "$R relay 0 0 0 --until-stdin-closes </dev/null 2>/dev/null; \
                $R host 127.0.0.1 1 1 --until-stdin-closes </dev/null 2>/dev/null";
    let ended = run(shell(line));
    assert!(ended.status.success());
    assert_eq!(ended.stdout, "");
}
