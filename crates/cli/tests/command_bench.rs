//! `relayserver bench`: each load brings figures that make sense, straight to its server, through a relay and a host that forwards,
//! and through one that answers itself.

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

use serde_json::Value;
use support::net::{client, free_port, rest};
use support::peers::{Host, Relay, relayserver};
use support::program::{Program, run};

/// A server for loads, and where it listens.
fn server() -> (Program, SocketAddr) {
    let server = Program::start(relayserver(&["bench", "server", "127.0.0.1:0"]));
    let line = server.line("where it listens", |line| line.starts_with("listening "));
    (server, line.strip_prefix("listening ").unwrap().parse().unwrap())
}

/// The figures of a load, which has brought some.
fn figures(line: &[&str], to: SocketAddr) -> Value {
    let to = to.to_string();
    let mut words = vec!["bench", line[0], &to];
    words.extend(&line[1..]);
    words.extend(["--time", "200ms", "--json"]);
    let ended = run(relayserver(&words));
    assert_eq!(ended.status.code(), Some(0), "{line:?}: {}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.stderr, "");
    let figures: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(figures["failed"], 0, "{line:?}: {figures}");
    figures
}

fn number(figures: &Value, name: &str) -> f64 {
    figures[name].as_f64().unwrap_or_else(|| panic!("no {name} in {figures}"))
}

/// Every load, each with what it is to bring.
fn all_loads(to: SocketAddr) {
    let bulk = figures(&["bulk", "--connections", "2"], to);
    assert!(number(&bulk, "bytes") > 0.0, "{bulk}");
    let rate = number(&bulk, "bytes") / number(&bulk, "seconds");
    assert!((number(&bulk, "bytes_per_second") / rate - 1.0).abs() < 0.01, "{bulk}");
    for (line, bytes_of_each) in [
        (&["requests", "--connections", "3", "--size", "4096"][..], 4096.0),
        (&["sessions", "--at-a-time", "4"][..], 0.0),
        (&["sessions", "--at-a-time", "2", "--size", "16000"][..], 0.0),
        (&["first-byte"][..], 0.0),
        (&["fetch", "--size", "100000"][..], 100_000.0),
    ] {
        let figures = figures(line, to);
        let done = number(&figures, "done");
        assert!(done > 0.0, "{line:?}: {figures}");
        assert!((number(&figures, "bytes") - done * bytes_of_each).abs() < 1.0, "{figures}");
        let times = ["p50", "p99", "p99.9", "max"].map(|name| number(&figures["micros"], name));
        assert!(times[0] > 0.0 && times.is_sorted(), "{line:?}: {figures}");
    }
    let at_once = figures(&["first-byte", "--at-once", "20"], to);
    assert_eq!(at_once["done"], 20);
}

#[test]
fn each_load_brings_figures_of_a_direct_connection() {
    let (_server, address) = server();
    all_loads(address);
}

#[test]
fn each_load_brings_figures_through_a_relay_and_a_host_that_forwards() {
    let (_server, address) = server();
    let relay = Relay::start(&[]);
    let _host = Host::start(&relay, &["--forward", &address.to_string()]);
    all_loads(relay.clients);
}

#[test]
fn each_load_brings_figures_of_a_host_that_answers_itself() {
    let relay = Relay::start(&[]);
    let _host = Host::start(&relay, &["--bench-target"]);
    all_loads(relay.clients);
}

#[test]
fn the_processor_time_is_that_of_the_processes_that_were_named() {
    let (server, address) = server();
    let pid = server.pid().to_string();
    let bulk = figures(&["bulk", "--cpu-of", &pid], address);
    // It may be nothing in hundredths of a second, and is no more than both processors have.
    assert!((0.0..10.0).contains(&number(&bulk, "cpu_seconds")), "{bulk}");
    assert_eq!(figures(&["bulk"], address)["cpu_seconds"], Value::Null);
}

#[test]
fn idle_connections_stay_until_standard_input_ends() {
    let (_server, address) = server();
    let line = ["bench", "idle", &address.to_string(), "--connections", "100"];
    let mut idle = Program::start_with_stdin(relayserver(&line));
    let stdin = idle.stdin();
    assert_eq!(idle.line("what is open", |line| line.starts_with("open")), "open 100");
    assert!(idle.runs());
    drop(stdin);
    assert_eq!(idle.end().code(), Some(0));
}

#[test]
fn figures_for_people_have_units() {
    let (_server, address) = server();
    let line = ["bench", "requests", &address.to_string(), "--time", "200ms"];
    let ended = run(relayserver(&line));
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    for word in ["a second", "p50", "p99.9", " ms\n"] {
        assert!(ended.stdout.contains(word), "no {word:?} in {}", ended.stdout);
    }
}

#[test]
fn where_nobody_listens_it_says_so_and_fails() {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    for load in ["bulk", "requests", "idle"] {
        let ended = run(relayserver(&["bench", load, &address.to_string()]));
        assert_eq!(ended.status.code(), Some(1), "{load}: {}", ended.stdout);
        assert!(ended.stderr.contains("refused"), "{load}: {}", ended.stderr);
    }
    // These try again and again, and have nothing to show for it.
    let ended = run(relayserver(&["bench", "sessions", &address.to_string(), "--time", "100ms"]));
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stdout);
    assert!(ended.stderr.contains("nothing came back"), "{}", ended.stderr);
}

#[test]
fn a_port_in_use_is_named() {
    let (_server, address) = server();
    let ended = run(relayserver(&["bench", "server", &address.to_string()]));
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains(&address.to_string()), "{}", ended.stderr);
    assert!(ended.stderr.contains("in use"), "{}", ended.stderr);
}

#[test]
fn garbage_gets_nothing_from_the_server_and_others_are_served() {
    let (_server, address) = server();
    let mut garbage = client(address);
    garbage.write_all(b"\xff\x00garbage").unwrap();
    let (received, _) = rest(&mut garbage);
    assert_eq!(received, b"");
    assert!(number(&figures(&["fetch"], address), "done") > 0.0);
}

#[test]
fn wrong_flags_are_explained() {
    for (line, said) in [
        (&["bench"][..], "Usage"),
        (&["bench", "bulk"][..], "ADDR"),
        (&["bench", "bulk", "127.0.0.1:1", "--connections", "0"][..], "from 1"),
        (&["bench", "requests", "127.0.0.1:1", "--time", "0s"][..], "beyond 0"),
        (&["bench", "link", "--loss", "100"][..], "a part of a hundred"),
        (&["bench", "link", "--mbit", "0"][..], "megabits a second"),
    ] {
        let ended = run(relayserver(line));
        assert_eq!(ended.status.code(), Some(2), "{line:?}");
        assert!(ended.stderr.contains(said), "{line:?}: {}", ended.stderr);
    }
}
