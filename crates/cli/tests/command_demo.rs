//! `relayserver demo`: what a newcomer runs first.

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
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use support::net::{ask, client, expect};
use support::peers::relayserver;
use support::program::{DEADLINE, Program, command, have, output_of, readable, run};

/// A demo that waits for Ctrl-C, and the address that it invites to.
fn demo() -> (Program, SocketAddr) {
    let demo = Program::start(relayserver(&["demo"]));
    let line = demo.line("the invitation", |line| line.contains("http://"));
    demo.line("that it is done", |line| line.contains("Ctrl-C"));
    let address = line.split("http://").nth(1).unwrap().trim_end_matches('/');
    let address = address.parse().unwrap();
    (demo, address)
}

/// The processes that a process has started.
fn children(pid: u32) -> Vec<(Pid, OwnedFd)> {
    let children = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let pid_of_entry: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?;
        (parent.parse() == Ok(pid)).then_some(pid_of_entry)
    });
    children
        .map(|child| {
            let child = Pid::from_raw(child).unwrap();
            (child, pidfd_open(child, PidfdFlags::empty()).unwrap())
        })
        .collect()
}

/// The text with every number replaced by #: addresses and times differ from run to run.
fn shape(text: &str) -> String {
    let mut shape = String::new();
    for character in text.chars() {
        match character {
            '0'..='9' if shape.ends_with('#') => {}
            '0'..='9' => shape.push('#'),
            other => shape.push(other),
        }
    }
    shape
}

#[test]
fn once_goes_there_and_back_and_says_so() {
    let ended = run(relayserver(&["demo", "--once"]));
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert_eq!(ended.stderr, "");
    let expected = "
  RelayServer  client ──▶ relay ◀── host
  The host only ever dials out; the client needs nothing but TCP.

  ✓ relay    is up, clients connect to #.#.#.#:#  #.# ms
  ✓ host     dialled out and keeps # channels waiting  #.# ms
  ✓ client   sent \"hello through the relay\" and got it back  #.# ms
";
    assert_eq!(shape(&ended.stdout), expected);
}

#[test]
fn it_serves_a_page_to_curl_and_echo_to_nc_until_ctrl_c() {
    if !have(&["curl", "nc"]) {
        return;
    }
    let (mut demo, address) = demo();
    let page = output_of(command("curl", &["-sSfi", &format!("http://{address}/")]));
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(page.contains("This page came through the relay."), "{page}");
    assert!(page.ends_with("</html>\n"), "cut short: {page}");
    let missing = run(command("curl", &["-sSf", &format!("http://{address}/elsewhere")]));
    assert_eq!(missing.status.code(), Some(22), "{}", missing.stderr);
    let (ip, port) = (address.ip(), address.port());
    let nc = format!("printf 'G\\nto and fro\\n' | nc -N {ip} {port}");
    assert_eq!(output_of(command("sh", &["-c", &nc])), "G\nto and fro\n");
    demo.signal(Signal::INT);
    assert_eq!(demo.end().code(), Some(0), "{}", demo.said());
    assert!(demo.lines().iter().any(|line| line == "  Ended."), "{}", demo.said());
}

#[test]
fn a_second_ctrl_c_ends_it_at_once() {
    let (mut demo, address) = demo();
    let children = children(demo.pid());
    // Its session would get the host's drain timeout.
    let mut client = client(address);
    client.write_all(b"to and").unwrap();
    expect(&mut client, b"to and");
    demo.signal(Signal::INT);
    demo.line("that it leaves", |line| line.starts_with("  Leaving"));
    demo.signal(Signal::INT);
    assert_eq!(demo.end().code(), Some(130), "{}", demo.said());
    assert!(!demo.said().contains("Ended"), "{}", demo.said());
    assert!(children.iter().all(|(_, ended)| readable(ended, DEADLINE)), "a child outlives it");
}

#[test]
fn its_end_leaves_no_children() {
    for (signal, code) in [(Signal::INT, Some(0)), (Signal::TERM, Some(0)), (Signal::KILL, None)] {
        let (mut demo, address) = demo();
        assert_eq!(ask(address, b"up"), b"up");
        let children = children(demo.pid());
        assert_eq!(children.len(), 2, "a relay and a host");
        demo.signal(signal);
        assert_eq!(demo.end().code(), code);
        for (child, ended) in &children {
            assert!(
                readable(ended, DEADLINE),
                "child {child:?} outlives a demo ended by {signal:?}"
            );
        }
    }
}

#[test]
fn a_host_that_dies_is_told() {
    let (mut demo, _address) = demo();
    let children = children(demo.pid());
    let of_host = |pid: &Pid| {
        let line = fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap();
        line.contains("--demo-target")
    };
    let (host, _) = children.iter().find(|(pid, _)| of_host(pid)).unwrap();
    rustix::process::kill_process(*host, Signal::KILL).unwrap();
    assert_eq!(demo.end().code(), Some(1));
    assert!(demo.said().contains("the host ended"), "{}", demo.said());
}
