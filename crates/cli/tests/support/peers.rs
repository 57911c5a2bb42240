//! The command under test as a process: a relay, a host, or with any command line.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use super::net;
use super::program::{Event, Program};

/// `relayserver ARGS`, untouched by the environment that the tests run in.
pub(crate) fn relayserver(args: &[&str]) -> Command {
    relayserver_in(&[], args)
}

/// The same behind a command that runs commands: `ip netns exec NAME`.
pub(crate) fn relayserver_in(prefix: &[&str], args: &[&str]) -> Command {
    let binary = env!("CARGO_BIN_EXE_relayserver");
    let mut command = match prefix {
        [] => Command::new(binary),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(binary);
            command
        }
    };
    command.args(args).env_remove("RUST_LOG").env_remove("NO_COLOR");
    command
}

/// A relay that is ready.
pub(crate) struct Relay {
    pub(crate) program: Program,
    pub(crate) hosts: SocketAddr,
    pub(crate) command: SocketAddr,
    pub(crate) clients: SocketAddr,
}

impl Relay {
    /// On free ports.
    pub(crate) fn start(args: &[&str]) -> Relay {
        Relay::start_on([0; 3], args)
    }

    pub(crate) fn start_on(ports: [u16; 3], args: &[&str]) -> Relay {
        let ports = ports.map(|port| port.to_string());
        let mut line = vec!["relay"];
        line.extend(ports.iter().map(String::as_str));
        line.extend(["--log-format", "json"]);
        line.extend(args);
        Relay::of(Program::start(relayserver(&line)))
    }

    /// On free ports, as one would put it on the open internet and still serve version 1 from here: with TLS and tokens on the same host
    /// port. Its state directory is kept for as long as the second value lives.
    pub(crate) fn start_secure(service: &str) -> (Relay, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("relay.toml");
        let text = format!(
            "[relay]\nlisten = \"127.0.0.1:0\"\nstate_dir = {:?}\n\
             [relay.v1]\ncommand = \"127.0.0.1:0\"\n\
             [services.default]\nlisten = \"127.0.0.1:0\"\n{service}",
            folder.path().join("state")
        );
        std::fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        let line = ["relay", "--config", file, "--log-format", "json"];
        (Relay::of(Program::start(relayserver(&line))), folder)
    }

    /// One that was started and logs JSON.
    pub(crate) fn of(program: Program) -> Relay {
        let ready = program.event("relay ready");
        let address = |field: &str| ready[field].as_str().unwrap().parse().unwrap();
        let (hosts, command, clients) = (address("hosts"), address("command"), address("clients"));
        Relay { program, hosts, command, clients }
    }

    pub(crate) fn client(&self) -> TcpStream {
        net::client(self.clients)
    }

    /// What a client gets that sends nothing, and how it ended.
    pub(crate) fn receive(&self) -> (Vec<u8>, Option<std::io::Error>) {
        net::receive(self.clients)
    }

    /// A client that sends this, ends, and gives all that came back.
    pub(crate) fn ask(&self, question: &[u8]) -> Vec<u8> {
        net::ask(self.clients, question)
    }

    /// Waits until `count` sessions have ended, and gives the reason of the last.
    pub(crate) fn reason_of_session(&self, count: usize) -> String {
        let ended = self.program.events("session ended", count);
        text(&ended[count - 1], "end.reason")
    }
}

/// A host that its relay has accepted.
pub(crate) struct Host {
    pub(crate) program: Program,
}

impl Host {
    pub(crate) fn start(relay: &Relay, args: &[&str]) -> Host {
        let host = Host::spawn(relay, args);
        host.program.event("host ready");
        host
    }

    /// Does not wait for the relay's word.
    pub(crate) fn spawn(relay: &Relay, args: &[&str]) -> Host {
        Host { program: Program::start(host_command(relay.hosts, relay.command, args)) }
    }
}

/// `relayserver host` for the relay on these ports, logging JSON.
pub(crate) fn host_command(hosts: SocketAddr, command: SocketAddr, args: &[&str]) -> Command {
    let (ip, ports) = (hosts.ip().to_string(), [hosts, command].map(|at| at.port().to_string()));
    let mut line = vec!["host", &ip, &ports[0], &ports[1], "--log-format", "json"];
    line.extend(args);
    relayserver(&line)
}

/// A field of an event, as text.
pub(crate) fn text(event: &Event, field: &str) -> String {
    match event.get(field) {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => panic!("expected a field {field} in {event:?}"),
    }
}
