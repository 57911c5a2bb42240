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

use std::io::Write;
use std::net::Shutdown;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use support::net::{ask, expect, noise, rest};
use support::peers::{Host, Relay};
use support::program::{DEADLINE, readable};

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
    let pid = || String::from_utf8(ask(relay.clients, b"")).unwrap();
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

#[test]
fn a_program_that_ignores_its_input_ends_with_its_session() {
    // It never reads, and nothing that it could write would tell it that its client has gone.
    let (relay, _host) = exec(&["sh", "-c", "trap '' PIPE; echo $$; exec sleep 600"]);
    let mut client = relay.client();
    let mut pid = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(&client), &mut pid).unwrap();
    let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    let program = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    client.write_all(b"is anybody there?").unwrap();
    drop(client);
    assert!(readable(&program, DEADLINE), "the program outlived its session by {DEADLINE:?}");
    relay.reason_of_session(1);
}

#[test]
fn what_a_program_says_on_stderr_is_in_the_hosts_log() {
    let (relay, host) = exec(&["sh", "-c", "echo to the log >&2; echo to the client"]);
    assert_eq!(relay.ask(b""), b"to the client\n");
    let line = host.program.line("the program's stderr", |line| line.contains("to the log"));
    assert!(line.starts_with('{'), "not in the form of the log: {line}");
}

#[test]
fn a_program_that_does_not_exist_ends_the_session_with_a_reason_and_the_host_goes_on() {
    let (relay, mut host) = exec(&["/nonexistent/program"]);
    for _ in 0..2 {
        let mut client = relay.client();
        assert_eq!(rest(&mut client).0, b"");
    }
    let line = host.program.line("why", |line| line.contains("/nonexistent/program"));
    assert!(line.contains("No such file"), "{line}");
    assert!(host.program.runs());
}

#[test]
fn the_programs_arguments_are_taken_as_they_are() {
    let (relay, _host) = exec(&["printf", "%s|", "-n", "two words", "--help", ""]);
    let mut client = relay.client();
    expect(&mut client, b"-n|two words|--help||");
}
