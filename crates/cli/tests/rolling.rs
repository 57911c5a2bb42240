//! Restarts that were meant, under load: hosts one after the other, with wrk as the judge, and the relay.

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
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use support::checked::{Ledger, Manner, Outcome, Question, ask, serve};
use support::net::{free_port, noise};
use support::peers::{relayserver, text};
use support::program::{DEADLINE, Program, command, find, have, output_of};
use support::servers::Nginx;
use tempfile::TempDir;

/// A relay with TLS and tokens, and the line by which hosts join it.
struct Secure {
    relay: Program,
    clients: SocketAddr,
    join: PathBuf,
    _folder: TempDir,
}

impl Secure {
    fn start() -> Secure {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (hosts, clients) = (free_port(), SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
        let text = format!(
            "[relay]\nlisten = \"127.0.0.1:{hosts}\"\nstate_dir = {:?}\n[relay.limits]\n\
             drain_timeout = \"60s\"\n[services.default]\nlisten = \"{clients}\"\n",
            at("state")
        );
        fs::write(at("relay.toml"), text).unwrap();
        let config = at("relay.toml").display().to_string();
        let relay =
            Program::start(relayserver(&["relay", "--config", &config, "--log-format", "json"]));
        relay.event("relay ready");
        let made = relayserver(&["token", "create", "hosts", "--config", &config]);
        fs::write(at("join"), output_of(made)).unwrap();
        Secure { relay, clients, join: at("join"), _folder: folder }
    }

    /// A host that is ready, and gives its sessions time when it leaves.
    fn host(&self, server: u16) -> Program {
        let (join, server) = (self.join.display().to_string(), server.to_string());
        let mut line = vec!["host", "--join-file", &join, "--forward", &server];
        line.extend(["--drain-timeout", "60s", "--log-format", "json"]);
        let host = Program::start(relayserver(&line));
        host.event("host ready");
        host
    }

    /// How many sessions have ended.
    fn ended(&self) -> usize {
        self.relay.events_so_far("session ended").len()
    }
}

#[test]
fn a_rolling_restart_of_two_hosts_shows_wrk_no_error() {
    /// How many sessions are to be served by those that are there between two steps.
    const MEANWHILE: usize = 200;
    const CONNECTIONS: usize = 20;
    if !have(&["nginx", "wrk"]) {
        return;
    }
    let nginx = Nginx::start();
    nginx.put("page", &noise(4096, 4));
    let secure = Secure::start();
    let mut hosts = [secure.host(nginx.port), secure.host(nginx.port)];
    let url = format!("http://{}/page", secure.clients);
    // A session for each request: those that a host has when it leaves end by themselves.
    let (count, close) = (CONNECTIONS.to_string(), "Connection: close");
    let line = ["-t", "2", "-c", &count, "-d", "15s", "--timeout", "20s", "-H", close, &url];
    let mut wrk = Program::start(command(find("wrk").unwrap(), &line));
    for host in &mut hosts {
        secure.relay.events("session ended", secure.ended() + MEANWHILE);
        host.signal(Signal::TERM);
        assert_eq!(host.end_within(DEADLINE).code(), Some(0), "{}", host.said());
        secure.relay.events("session ended", secure.ended() + MEANWHILE);
        *host = secure.host(nginx.port);
    }
    secure.relay.events("session ended", secure.ended() + MEANWHILE);
    assert!(wrk.runs(), "it was over before the restarts were:\n{}", wrk.said());
    assert!(wrk.end_within(DEADLINE).success(), "{}", wrk.said());
    let said = wrk.lines().join("\n");
    assert!(!said.contains("Socket errors"), "{said}");
    assert!(!said.contains("Non-2xx"), "{said}");
    assert!(said.contains(" requests in "), "{said}");
    assert!(secure.relay.events_so_far("client refused").is_empty());
    // But for those that wrk itself cut off when its time was over.
    let ended = secure.relay.events_so_far("session ended");
    let others: Vec<_> =
        ended.iter().map(|end| text(end, "end.reason")).filter(|it| it != "finished").collect();
    assert!(others.iter().all(|reason| reason == "client_aborted"), "{others:?}");
    assert!(others.len() <= CONNECTIONS, "{others:?}");
}

#[test]
fn a_relay_that_leaves_under_load_finishes_its_sessions_and_takes_no_new_clients() {
    const SESSIONS: u64 = 30;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (server, ledger) =
        (TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(), Arc::new(Ledger::default()));
    let port = server.local_addr().unwrap().port();
    runtime.spawn(serve(server, 0, Arc::clone(&ledger)));
    let mut secure = Secure::start();
    let _hosts = [secure.host(port), secure.host(port)];
    let question = |id| Question {
        id,
        len: 1_000_000,
        lasts: Duration::from_secs(3),
        half_closes: id % 2 == 0,
        patience: DEADLINE,
        manner: Manner::Prompt,
    };
    let sessions: Vec<_> =
        (0..SESSIONS).map(|id| runtime.spawn(ask(secure.clients, question(id)))).collect();
    ledger.wait_for(SESSIONS as usize, DEADLINE);
    secure.relay.signal(Signal::TERM);
    let draining = secure.relay.event("draining: waiting for sessions to end");
    assert_eq!(text(&draining, "sessions"), SESSIONS.to_string());
    let late = runtime.block_on(ask(secure.clients, question(SESSIONS)));
    assert_eq!(late.outcome, Outcome::NotTaken);
    for session in sessions {
        let session = runtime.block_on(session).unwrap();
        assert_eq!(session.outcome, Outcome::Whole { home: 0 }, "{}", secure.relay.said());
    }
    assert_eq!(secure.relay.end_within(DEADLINE).code(), Some(0));
    assert_eq!((ledger.wrong(), ledger.runs()), (0, SESSIONS as usize));
    assert!(secure.relay.events_so_far("client refused").is_empty());
}
