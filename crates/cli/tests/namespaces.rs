//! The main job, for real: three networks with no way between client and home but the relay.
//!
//! ```text
//! client 198.51.100.2 ── 198.51.100.1 relay 192.0.2.1 ── 192.0.2.2 home
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

use std::net::IpAddr;

use support::namespace::Namespace;
use support::peers::{Relay, text};
use support::program::{Ended, Program, have, output_of, run};
use support::servers::{Nginx, Sshd};

const RELAY_FOR_CLIENT: &str = "198.51.100.1";
const RELAY_FOR_HOME: &str = "192.0.2.1";
const HOME: &str = "192.0.2.2";
const HOME_NETWORK: &str = "192.0.2.0/24";

/// The three of them, joined. Whatever runs inside must have ended before it is dropped.
struct Networks {
    client: Namespace,
    relay: Namespace,
    home: Namespace,
}

impl Networks {
    /// `None`, and says why, where they cannot be made.
    fn new() -> Option<Networks> {
        let networks = Networks {
            client: Namespace::new("client")?,
            relay: Namespace::new("relay")?,
            home: Namespace::new("home")?,
        };
        let Networks { client, relay, home } = &networks;
        let end = |address: &str| format!("{address}/24");
        let (of_client, of_home) = (end(RELAY_FOR_CLIENT), end(RELAY_FOR_HOME));
        client.join(["uplink", "198.51.100.2/24"], relay, ["client", &of_client]);
        home.join(["uplink", &end(HOME)], relay, ["home", &of_home]);
        Some(networks)
    }

    /// That a server at home can be reached at home, and from nowhere else: neither by the client itself, nor by handing
    /// packets to the relay's machine as to a router.
    fn assert_no_way_to(&self, port: u16) {
        let port = port.to_string();
        let reach = |from: &Namespace| run(from.command("nc", &["-z", "-w", "2", HOME, &port]));
        assert!(reach(&self.home).status.success(), "the server at home is not up");
        assert!(!reach(&self.client).status.success(), "the client can reach home");
        let gateway = ["route", "add", "default", "via", RELAY_FOR_CLIENT];
        output_of(self.client.command("ip", &gateway));
        let way_back = ["route", "add", "default", "via", RELAY_FOR_HOME];
        output_of(self.home.command("ip", &way_back));
        assert!(
            !reach(&self.client).status.success(),
            "the client can reach home by the relay's machine"
        );
        let taken = run(self.client.command("nc", &["-z", "-w", "2", RELAY_FOR_CLIENT, "8002"]));
        assert!(!taken.status.success(), "something else listens where the relay will");
        for namespace in [&self.client, &self.home] {
            output_of(namespace.command("ip", &["route", "del", "default"]));
        }
    }

    /// A relay as in the README: open to clients, and to hosts from the home network.
    fn relay(&self) -> Relay {
        let line =
            ["relay", "--bind", "0.0.0.0", "--v1-allow", HOME_NETWORK, "--log-format", "json"];
        Relay::of(self.relay.relayserver(&line))
    }

    fn host(&self, port: u16) -> Program {
        let line = ["host", RELAY_FOR_HOME, "--forward", &port.to_string(), "--log-format", "json"];
        let host = self.home.relayserver(&line);
        host.event("host ready");
        host
    }
}

fn at_home() -> IpAddr {
    IpAddr::from([0, 0, 0, 0])
}

#[test]
fn ssh_reaches_a_machine_that_cannot_be_reached() {
    if !have(&["ip", "nc", "ssh", "sshd", "ssh-keygen"]) {
        return;
    }
    let Some(networks) = Networks::new() else { return };
    let sshd = Sshd::start_in(&networks.home.prefix(), at_home(), 22);
    networks.assert_no_way_to(22);

    let relay = networks.relay();
    let _host = networks.host(22);
    let mut ssh = sshd.client(&networks.client.prefix(), "ssh", "-p", 8002);
    ssh.arg(format!("{}@{RELAY_FOR_CLIENT}", Sshd::user()))
        .arg("ip -o addr show; echo $SSH_CONNECTION");
    let ended = run(ssh);
    assert!(ended.status.success(), "{}", ended.stderr);
    // It ran at home, and nowhere else.
    assert!(ended.stdout.contains(HOME), "{}", ended.stdout);
    assert!(!ended.stdout.contains("198.51.100."), "{}", ended.stdout);
    let session = relay.program.event("session ended");
    assert_eq!(text(&session, "end.reason"), "finished");
    assert!(text(&session, "client.addr").starts_with("198.51.100.2:"), "{session:?}");
}

#[test]
fn curl_reaches_a_machine_that_cannot_be_reached() {
    if !have(&["ip", "nc", "nginx", "curl"]) {
        return;
    }
    let Some(networks) = Networks::new() else { return };
    let nginx = Nginx::start_in(&networks.home.prefix(), at_home(), 80);
    nginx.put("page", b"from home\n");
    networks.assert_no_way_to(80);

    let _relay = networks.relay();
    let _host = networks.host(80);
    let url = format!("http://{RELAY_FOR_CLIENT}:8002/page");
    assert_eq!(output_of(networks.client.command("curl", &["-sSf", &url])), "from home\n");
}

#[test]
fn a_host_from_a_network_that_was_not_named_is_refused() {
    if !have(&["ip", "nc"]) {
        return;
    }
    let Some(networks) = Networks::new() else { return };
    let relay = networks.relay();
    let stranger = networks.client.relayserver(&["host", RELAY_FOR_CLIENT, "--log-format", "json"]);
    let refused = relay.program.event("host refused");
    assert_eq!(text(&refused, "reason"), "network_not_allowed");
    assert!(text(&refused, "host.addr").starts_with("198.51.100.2:"), "{refused:?}");
    // Whoever asks now is not given to the stranger.
    let answer: Ended = run(networks
        .client
        .command("sh", &["-c", &format!("echo hello | nc -N {RELAY_FOR_CLIENT} 8002")]));
    assert_eq!(answer.stdout, "");
    assert!(stranger.events_so_far("host ready").is_empty());
    assert!(relay.program.events_so_far("host joined").is_empty());
}

/// The README's quick start, word for word: three commands, on three machines.
#[test]
fn the_quick_start_takes_three_commands() {
    if !have(&["ip", "nc", "ssh", "sshd", "ssh-keygen", "script"]) {
        return;
    }
    let Some(networks) = Networks::new() else { return };
    let sshd = Sshd::start_in(&networks.home.prefix(), at_home(), 22);
    networks.assert_no_way_to(22);
    let state = tempfile::tempdir().unwrap();

    // On a terminal, where the join line is shown.
    let first = format!("{} relay --public {RELAY_FOR_HOME}", env!("CARGO_BIN_EXE_relayserver"));
    let mut terminal = networks.relay.command("script", &["-qefc", &first, "/dev/null"]);
    terminal.env("STATE_DIRECTORY", state.path().join("relay"));
    let relay = Program::start(terminal);
    let said = relay.line("the join line", |line| line.contains("relayserver host relayserver://"));
    let second = said.trim().strip_prefix("relayserver ").unwrap();
    assert!(second.ends_with("--forward 22"), "{second}");
    let words: Vec<&str> = second.split(' ').collect();

    let host = networks.home.relayserver(&words);
    let reachable = host.line("where it is reached", |line| line.starts_with("reachable: "));
    assert_eq!(reachable, format!("reachable: {RELAY_FOR_HOME}:8002 -> 127.0.0.1:22"));

    let mut ssh = sshd.client(&networks.client.prefix(), "ssh", "-p", 8002);
    ssh.arg(format!("{}@{RELAY_FOR_CLIENT}", Sshd::user())).arg("ip -o addr show");
    let ended = run(ssh);
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(ended.stdout.contains(HOME), "{}", ended.stdout);
    assert!(!ended.stdout.contains("198.51.100."), "{}", ended.stdout);
}
