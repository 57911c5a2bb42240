//! `relayserver host --exec`: a program per session, its standard input and output the session, its stderr in the log.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use support::net::{expect, noise, rest};
use support::peers::{Host, Relay, text};
use support::program::{DEADLINE, Program, command, readable};

fn exec(program: &[&str]) -> (Relay, Host) {
    let relay = Relay::start(&[]);
    let mut args = vec!["--exec", "--"];
    args.extend(program);
    let host = Host::start(&relay, &args);
    (relay, host)
}

#[test]
fn cat_sends_a_megabyte_back() {
    let (relay, _host) = exec(&["cat"]);
    let question = noise(1_000_000, 1);
    let answer = std::thread::scope(|scope| {
        let mut client = relay.client();
        let mut writer = client.try_clone().unwrap();
        let question = &question;
        scope.spawn(move || {
            writer.write_all(question).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let (answer, error) = rest(&mut client);
        assert!(error.is_none(), "{error:?}");
        answer
    });
    assert!(answer == question, "{} bytes came back changed", answer.len());
    assert_eq!(relay.reason_of_session(1), "finished");
}

#[test]
fn a_half_close_reaches_the_program_as_the_end_of_its_input() {
    // wc says nothing before its input has ended.
    let (relay, _host) = exec(&["wc", "-c"]);
    assert_eq!(relay.ask(b"twelve bytes").trim_ascii(), b"12");
}

#[test]
fn each_session_has_a_program_of_its_own() {
    let (relay, _host) = exec(&["sh", "-c", "echo $$; cat"]);
    // A waiting client that ends without a byte has left: each sends its end when it was answered.
    let pid = || {
        let mut line = String::new();
        BufReader::new(relay.client()).read_line(&mut line).unwrap();
        line
    };
    let (one, other) = (pid(), pid());
    assert!(one.trim().parse::<u32>().is_ok(), "{one:?}");
    assert_ne!(one, other);
}

#[test]
fn a_program_that_ends_by_itself_ends_its_session_with_all_it_said() {
    let (relay, _host) = exec(&["sh", "-c", "head -c 300000 /dev/zero; exit 3"]);
    let mut client = relay.client();
    let (said, error) = rest(&mut client);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(said.len(), 300_000);
    assert!(said.iter().all(|byte| *byte == 0));
    // Though the client has not ended, nobody is left to read what it might send.
    drop(client);
    relay.reason_of_session(1);
}

/// A program that reads nothing, and that nothing tells of its client's fate. It names the process to watch, and what it said
/// is more than is read of it.
const DEAF: [&str; 3] = ["sh", "-c", "echo $$; echo unread; exec sleep 600"];

/// The same, as the child of a program that waits for it.
const DEAF_CHILD: [&str; 3] = ["sh", "-c", "sleep 600 & echo $!; echo unread; wait"];

/// Waits for a deaf program's first line, and for more of it to lie unread. Gives what its end can be waited for by.
fn deaf_program(client: &mut TcpStream) -> OwnedFd {
    let program = named_process(client);
    client.peek(&mut [0]).unwrap();
    program
}

/// The process that the next line names.
fn named_process(client: &mut TcpStream) -> OwnedFd {
    let mut pid = Vec::new();
    while pid.last() != Some(&b'\n') {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        pid.extend(byte);
    }
    let pid = String::from_utf8(pid).unwrap().trim().parse().unwrap();
    pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap()
}

#[test]
fn a_program_that_ignores_its_input_ends_with_its_session() {
    for deaf in [DEAF, DEAF_CHILD] {
        let (relay, _host) = exec(&deaf);
        let mut client = relay.client();
        let program = deaf_program(&mut client);
        client.write_all(b"is anybody there?").unwrap();
        // With bytes unread: an abort, by which the session is over.
        drop(client);
        assert!(readable(&program, DEADLINE), "{deaf:?} outlived its session by {DEADLINE:?}");
        assert_eq!(relay.reason_of_session(1), "client_aborted");
    }
}

#[test]
fn what_a_program_leaves_running_ends_with_its_session() {
    // The child has the session's end in its hands, and would keep it for ten minutes.
    let (relay, _host) = exec(&["sh", "-c", "sleep 600 & echo $!; echo bye"]);
    let mut client = relay.client();
    let child = named_process(&mut client);
    assert_eq!(rest(&mut client).0, b"bye\n");
    assert!(readable(&child, DEADLINE), "the program's child outlived its session by {DEADLINE:?}");
}

#[test]
fn a_host_that_leaves_takes_its_programs_along() {
    for (signals, deaf) in [(1, DEAF), (2, DEAF), (1, DEAF_CHILD), (2, DEAF_CHILD)] {
        let relay = Relay::start(&[]);
        // One signal and no patience, or much patience and a second signal.
        let patience = if signals == 1 { "0" } else { "60s" };
        let args = [&["--drain-timeout", patience, "--exec", "--"], &deaf[..]].concat();
        let mut host = Host::start(&relay, &args);
        let mut client = relay.client();
        let program = deaf_program(&mut client);
        host.program.signal(Signal::TERM);
        if signals == 2 {
            host.program.event("draining: waiting for sessions to end");
            host.program.signal(Signal::TERM);
        }
        host.program.end();
        assert!(readable(&program, DEADLINE), "{deaf:?} outlived its host after {signals} signals");
    }
}

#[test]
fn what_a_program_says_on_stderr_is_in_the_hosts_log() {
    let (relay, host) = exec(&["sh", "-c", "echo to the log >&2; echo to the client"]);
    assert_eq!(relay.receive().0, b"to the client\n");
    let line = host.program.line("the program's stderr", |line| line.contains("to the log"));
    assert!(line.starts_with('{'), "not in the form of the log: {line}");
}

#[test]
fn a_program_that_does_not_exist_ends_the_session_with_a_reason_and_the_host_goes_on() {
    let (relay, mut host) = exec(&["/nonexistent/program"]);
    for _ in 0..2 {
        assert_eq!(relay.receive().0, b"");
    }
    let why = host.program.event("program cannot be started");
    assert!(text(&why, "program").contains("/nonexistent/program"), "{why:?}");
    assert!(text(&why, "error").contains("No such file"), "{why:?}");
    assert!(host.program.runs());
}

#[test]
fn a_program_has_the_limit_of_descriptors_that_the_host_was_given() {
    let relay = Relay::start(&[]);
    let ports = format!("{} {}", relay.hosts.port(), relay.command.port());
    let line = format!(
        "ulimit -Sn 200; exec \"$0\" host 127.0.0.1 {ports} --log-format json --exec -- sh -c 'ulimit -Sn'"
    );
    let host = Program::start(command("sh", &["-c", &line, env!("CARGO_BIN_EXE_relayserver")]));
    host.event("host ready");
    assert_eq!(relay.receive().0, b"200\n");
}

#[test]
fn the_programs_arguments_are_taken_as_they_are() {
    let (relay, _host) = exec(&["printf", "%s|", "-n", "two words", "--help", ""]);
    let mut client = relay.client();
    expect(&mut client, b"-n|two words|--help||");
}
