//! Against code that is not ours: the Twisted host and relay of `interop/`, in both directions.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use support::net::{client, expect, free_port, noise, rest};
use support::peers::{Host, Relay, host_command};
use support::program::{Program, command, run, skip};

/// A Python with what `interop/requirements.txt` names. `None`, and says so, where there is none.
fn python() -> Option<PathBuf> {
    let python =
        std::env::var_os("RELAYSERVER_INTEROP_PYTHON").map_or("python3".into(), PathBuf::from);
    let found = Command::new(&python).args(["-c", "import twisted, google.protobuf"]).output();
    if found.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    let python = python.display();
    skip(&format!("{python} has no Twisted or protobuf; name one in RELAYSERVER_INTEROP_PYTHON"));
    None
}

fn script(python: &Path, name: &str, args: &[&str]) -> Program {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../interop").join(name);
    let mut line = command(python, &["-u", &script.display().to_string()]);
    line.args(args);
    Program::start(line)
}

/// Their host at our relay, ready.
fn their_host(python: &Path, relay: &Relay, args: &[&str]) -> Program {
    let (ip, ports) = (relay.hosts.ip().to_string(), [relay.hosts, relay.command]);
    let ports = ports.map(|address| address.port().to_string());
    let mut line = vec![ip.as_str(), &ports[0], &ports[1]];
    line.extend(args);
    let host = script(python, "host.py", &line);
    host.line("their host to be ready", |line| line == "ready");
    host
}

/// Their relay, on free ports or on these.
struct TheirRelay {
    program: Program,
    hosts: SocketAddr,
    command: SocketAddr,
    clients: SocketAddr,
}

impl TheirRelay {
    fn start(python: &Path, ports: [u16; 3], args: &[&str]) -> TheirRelay {
        let ports = ports.map(|port| port.to_string());
        let mut line: Vec<&str> = ports.iter().map(String::as_str).collect();
        line.extend(args);
        let program = script(python, "relay.py", &line);
        let listening =
            program.line("their relay to listen", |line| line.starts_with("listening "));
        let ports: Vec<u16> =
            listening.split(' ').skip(1).map(|port| port.parse().unwrap()).collect();
        let [hosts, command, clients] =
            [0, 1, 2].map(|at| SocketAddr::from(([127, 0, 0, 1], ports[at])));
        TheirRelay { program, hosts, command, clients }
    }

    /// Our host at it, with a pool of `count` idle channels.
    fn our_host(&self, count: usize, args: &[&str]) -> Host {
        let count = count.to_string();
        let mut line = vec!["-n", &count];
        line.extend(args);
        Host { program: Program::start(host_command(self.hosts, self.command, &line)) }
    }

    /// Waits until so many channels have joined the pool since the start, and the command channel is up. Their relay
    /// refuses a client at once when none is there.
    fn channels(&self, count: usize) {
        self.program.line("our command channel", |line| line == "command up");
        let seen = BTreeSet::new();
        let seen = std::cell::RefCell::new(seen);
        self.program.line(&format!("{count} channels"), |line| {
            let Some(id) = line.strip_prefix("channel ") else { return false };
            seen.borrow_mut().insert(id.to_owned());
            seen.borrow().len() >= count
        });
    }
}

/// Our relay as it is without a configuration, and as one with TLS and tokens that serves version 1 beside them on one port. What the
/// second needs lives beside it.
fn both_relays() -> [(Relay, Option<tempfile::TempDir>); 2] {
    let (secure, folder) = Relay::start_secure("queue = { wait = \"30s\" }\n");
    [(Relay::start(&["--assign-timeout", "30s"]), None), (secure, Some(folder))]
}

#[test]
fn their_host_serves_through_our_relay() {
    let Some(python) = python() else { return };
    for (relay, _folder) in both_relays() {
        serves_every_application(&python, &relay);
    }
}

fn serves_every_application(python: &Path, relay: &Relay) {
    for (app, answer) in [("echo", "abc"), ("upper", "ABC"), ("greet", "welcome\r\nabc")] {
        let host = their_host(python, relay, &["--app", app]);
        let mut client = relay.client();
        client.write_all(b"abc").unwrap();
        expect(&mut client, answer.as_bytes());
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut client).0, b"");
        host.line("the announcement", |line| line.starts_with("open "));
        host.line("the end of the session", |line| line.starts_with("end "));
        drop(host);
        relay.program.events_where("host left", 1, |_| true);
    }
}

#[test]
fn their_host_hears_of_an_open_before_any_byte_and_of_a_drop_after_it() {
    let Some(python) = python() else { return };
    for (relay, _folder) in both_relays() {
        let host = their_host(&python, &relay, &["-n", "1", "--app", "greet"]);
        // Says nothing: their host speaks on the strength of the announcement alone.
        let mut client = relay.client();
        expect(&mut client, b"welcome\r\n");
        drop(client);
        host.line("the end of the session", |line| line.starts_with("end "));
        let dropped = host.line("the drop", |line| line.starts_with("drop "));
        let opened = host.line("the open", |line| line.starts_with("open "));
        assert_eq!(opened.trim_start_matches("open "), dropped.trim_start_matches("drop "));
    }
}

#[test]
fn their_host_may_send_its_hello_a_byte_at_a_time() {
    let Some(python) = python() else { return };
    for (relay, _folder) in both_relays() {
        let _host = their_host(&python, &relay, &["--split", "-n", "3"]);
        assert_eq!(relay.ask(b"one line\n"), b"one line\n");
    }
}

#[test]
fn their_host_replaces_its_channels_under_more_clients_than_it_holds() {
    let Some(python) = python() else { return };
    for (relay, _folder) in both_relays() {
        let _host = their_host(&python, &relay, &["-n", "4"]);
        converse_at_once(relay.clients, 40, 9_973);
        let ended = relay.program.events("session ended", 40);
        assert_eq!(ended.len(), 40);
    }
}

#[test]
fn their_host_returns_when_our_relay_was_away() {
    let Some(python) = python() else { return };
    let ports = [free_port(), free_port(), free_port()];
    let relay = Relay::start_on(ports, &[]);
    let host = their_host(&python, &relay, &["-n", "2"]);
    drop(relay);
    host.line("the loss of the relay", |line| line == "command down");
    let relay = Relay::start_on(ports, &[]);
    relay.program.event("host joined");
    assert_eq!(relay.ask(b"again"), b"again");
}

#[test]
fn our_host_serves_through_their_relay_however_it_sends() {
    let Some(python) = python() else { return };
    // What goes out a byte at a time takes its time.
    for (manner, scale) in [(&[][..], 9_973), (&["--coalesce"], 9_973), (&["--split"], 97)] {
        let relay = TheirRelay::start(&python, [0; 3], manner);
        let _host = relay.our_host(20, &[]);
        relay.channels(20);
        // All at once, so that answers, announcements and first bytes pile up.
        converse_at_once(relay.clients, 20, scale);
    }
}

#[test]
fn our_host_speaks_first_through_their_relay() {
    let Some(python) = python() else { return };
    for manner in [&[][..], &["--coalesce"], &["--split"]] {
        let relay = TheirRelay::start(&python, [0; 3], manner);
        let _host = relay.our_host(2, &["--exec", "--", "sh", "-c", "echo who are you?; cat"]);
        relay.channels(2);
        let mut client = client(relay.clients);
        expect(&mut client, b"who are you?\n");
        client.write_all(b"ada\n").unwrap();
        expect(&mut client, b"ada\n");
    }
}

#[test]
fn our_host_replaces_its_channels_at_their_relay() {
    let Some(python) = python() else { return };
    let relay = TheirRelay::start(&python, [0; 3], &[]);
    let _host = relay.our_host(2, &[]);
    for round in 0..10 {
        // Each session takes one channel of the pool, and one more joins it.
        relay.channels(2 + round);
        let mut client = client(relay.clients);
        let line = format!("round {round}\n");
        client.write_all(line.as_bytes()).unwrap();
        expect(&mut client, line.as_bytes());
    }
    let refused = relay.program.lines().into_iter().find(|line| line.starts_with("refused"));
    assert_eq!(refused, None);
}

#[test]
fn our_host_takes_ids_that_wrap() {
    let Some(python) = python() else { return };
    let relay = TheirRelay::start(&python, [0; 3], &["--first-id", "2147483646"]);
    let _host = relay.our_host(4, &["--exec", "--", "sh", "-c", "echo hello; cat"]);
    relay.channels(4);
    for id in ["2147483646", "2147483647", "1", "2"] {
        let mut client = client(relay.clients);
        expect(&mut client, b"hello\n");
        relay.program.line("this channel's turn", |line| line == format!("open {id}"));
    }
}

#[test]
fn our_host_returns_when_their_relay_was_away() {
    let Some(python) = python() else { return };
    let ports = [free_port(), free_port(), free_port()];
    let relay = TheirRelay::start(&python, ports, &[]);
    let _host = relay.our_host(2, &[]);
    relay.channels(2);
    drop(relay);
    let relay = TheirRelay::start(&python, ports, &[]);
    relay.channels(2);
    let mut client = client(relay.clients);
    client.write_all(b"again").unwrap();
    expect(&mut client, b"again");
}

#[test]
fn the_two_of_them_agree_with_each_other() {
    let Some(python) = python() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../interop/selfcheck.py");
    let ended = run(command(&python, &[&script.display().to_string()]));
    assert!(ended.status.success(), "{}{}", ended.stdout, ended.stderr);
}

/// So many clients at once; each sends its own bytes, more than the one before it, reads as many, and compares them.
fn converse_at_once(clients: SocketAddr, count: usize, scale: usize) {
    thread::scope(|scope| {
        for number in 0..count {
            scope.spawn(move || {
                let question = noise(number * scale + 1, number as u64);
                let mut reader = client(clients);
                let mut writer = reader.try_clone().unwrap();
                let sent = question.clone();
                let sender = thread::spawn(move || writer.write_all(&sent).unwrap());
                let mut answer = vec![0; question.len()];
                std::io::Read::read_exact(&mut reader, &mut answer).unwrap();
                sender.join().unwrap();
                assert!(
                    answer == question,
                    "client {number}: {} bytes came back changed",
                    answer.len()
                );
            });
        }
    });
}
