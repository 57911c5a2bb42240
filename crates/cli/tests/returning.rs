//! A host whose network goes away and comes back, in namespaces of its own: how soon it is in its relay's pool again.
//!
//! ```text
//! home 192.0.2.2 ── 192.0.2.1 relay
//! ```

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::peers::{Relay, relayserver_in};
use support::program::{Program, command, have, output_of, run, skip};

const RELAY: &str = "192.0.2.1";

/// A network namespace of this test. Taken down when dropped.
struct Namespace(String);

/// The two of them, with a relay and a host that it has accepted.
struct Pair {
    host: Program,
    _relay: Relay,
    home: Namespace,
    relay: Namespace,
}

impl Namespace {
    fn new(role: &str) -> Option<Namespace> {
        let thread = format!("{:?}", std::thread::current().id());
        let thread = thread.replace(|char: char| !char.is_ascii_digit(), "");
        let name = format!("relayserver-{}-{thread}-{role}", std::process::id());
        let added = run(command("ip", &["netns", "add", &name]));
        if !added.status.success() {
            skip(&format!("cannot make a network namespace: {}", added.stderr.trim()));
            return None;
        }
        let namespace = Namespace(name);
        namespace.sh("ip link set lo up");
        Some(namespace)
    }

    fn sh(&self, line: &str) {
        output_of(command("ip", &["netns", "exec", &self.0, "sh", "-ec", line]));
    }

    fn relayserver(&self, args: &[&str]) -> Program {
        Program::start(relayserver_in(&["ip", "netns", "exec", &self.0], args))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _deleted = command("ip", &["netns", "del", &self.0]).status();
    }
}

impl Pair {
    /// `None`, and says why, where they cannot be made.
    fn start() -> Option<Pair> {
        if !have(&["ip"]) {
            return None;
        }
        if !rustix::process::geteuid().is_root() {
            skip("network namespaces need root");
            return None;
        }
        let (home, relay) = (Namespace::new("home")?, Namespace::new("relay")?);
        let ends = ["link", "add", "uplink", "netns", &home.0, "type", "veth", "peer", "name"];
        let mut cable = command("ip", &ends);
        cable.args(["downlink", "netns", &relay.0]);
        output_of(cable);
        home.sh("ip addr add 192.0.2.2/24 dev uplink; ip link set uplink up");
        relay.sh("ip addr add 192.0.2.1/24 dev downlink; ip link set downlink up");
        let network = ["--bind", "0.0.0.0", "--v1-allow", "192.0.2.0/24"];
        let line = [&["relay"], &network[..], &["--log-format", "json"]].concat();
        let started = Relay::of(relay.relayserver(&line));
        let host = home.relayserver(&["host", RELAY, "--log-format", "json"]);
        host.event("host ready");
        Some(Pair { host, _relay: started, home, relay })
    }

    /// How long it takes from now until the host is ready for the `count`th time.
    fn ready(&self, count: usize) -> Duration {
        let begin = Instant::now();
        self.host.events("host ready", count);
        begin.elapsed()
    }
}

#[test]
fn a_host_with_another_address_is_back_within_a_second() {
    let Some(pair) = Pair::start() else { return };
    pair.home.sh("ip link set uplink down; ip addr flush dev uplink");
    pair.home.sh("ip addr add 192.0.2.77/24 dev uplink; ip link set uplink up");
    let took = pair.ready(2);
    assert!(took < Duration::from_secs(1), "after {took:?}");
}

#[test]
fn a_host_whose_link_comes_back_is_back_within_a_second() {
    let Some(pair) = Pair::start() else { return };
    pair.home.sh("ip link set uplink down");
    pair.host.event("relay not heard of for too long, connecting anew");
    // Long enough for the pauses between its tries to have grown.
    sleep(Duration::from_secs(6));
    assert_eq!(pair.host.events_so_far("host ready").len(), 1);
    pair.home.sh("ip link set uplink up");
    let took = pair.ready(2);
    assert!(took < Duration::from_secs(1), "after {took:?}");
}

#[test]
fn a_host_that_cannot_tell_is_back_five_seconds_after_its_relay_can_be_reached() {
    let Some(pair) = Pair::start() else { return };
    pair.relay.sh("ip addr del 192.0.2.1/24 dev downlink");
    pair.host.event("relay not heard of for too long, connecting anew");
    sleep(Duration::from_secs(10));
    assert_eq!(pair.host.events_so_far("host ready").len(), 1);
    pair.relay.sh("ip addr add 192.0.2.1/24 dev downlink");
    let took = pair.ready(2);
    assert!(took < Duration::from_secs(5), "after {took:?}");
}

#[test]
fn a_host_that_thaws_is_back_within_a_second() {
    let Some(pair) = Pair::start() else { return };
    pair.host.signal(Signal::STOP);
    sleep(Duration::from_secs(8));
    pair.host.signal(Signal::CONT);
    let took = pair.ready(2);
    assert!(took < Duration::from_secs(1), "after {took:?}");
}

#[test]
fn a_host_that_thaws_while_its_relay_was_away_is_back_within_a_second() {
    let Some(pair) = Pair::start() else { return };
    pair.relay.sh("ip addr del 192.0.2.1/24 dev downlink");
    pair.host.event("relay not heard of for too long, connecting anew");
    sleep(Duration::from_secs(6));
    pair.host.signal(Signal::STOP);
    pair.relay.sh("ip addr add 192.0.2.1/24 dev downlink");
    sleep(Duration::from_secs(4));
    pair.host.signal(Signal::CONT);
    let took = pair.ready(2);
    assert!(took < Duration::from_secs(1), "after {took:?}");
}
