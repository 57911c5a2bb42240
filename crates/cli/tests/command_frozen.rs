//! A host that stands still while it is given a session: another one serves it, and when the first goes on it runs nothing.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::fs;
use std::io::Write;
use std::net::Shutdown;

use rustix::process::Signal;
use support::net::{client, rest};
use support::peers::{Relay, host_command, text};
use support::program::Program;

#[test]
fn a_host_that_thaws_late_runs_nothing_and_another_has_served_every_byte() {
    let folder = tempfile::tempdir().unwrap();
    let ran = folder.path().join("ran");
    let relay = Relay::start(&["--assign-timeout", "60s"]);
    // Each run leaves its mark before it reads.
    let host = |name: &str, count: &str| {
        let run = format!("echo {name} >> {}; cat", ran.display());
        let line = ["-n", count, "--exec", "--", "sh", "-c", &run];
        let host = Program::start(host_command(relay.hosts, relay.command, &line));
        host.event("host ready");
        host
    };
    let frozen = host("frozen", "1");
    frozen.signal(Signal::STOP);
    let mut client = client(relay.clients);
    client.write_all(b"run this once").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    // The frozen one was alone when the client came, so it was given it.
    let _well = host("well", "2");
    let withdrawn = relay.program.event("session not accepted");
    assert_eq!(text(&withdrawn, "reason"), "host_suspect");
    let (answer, failure) = rest(&mut client);
    assert_eq!(answer, b"run this once");
    assert!(failure.is_none(), "{failure:?}");

    frozen.signal(Signal::CONT);
    frozen.event("relay not heard of for too long, connecting anew");
    frozen.events("host ready", 2);
    assert_eq!(fs::read_to_string(&ran).unwrap(), "well\n");
    assert_eq!(relay.reason_of_session(1), "finished");
}
