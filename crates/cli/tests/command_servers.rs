//! Servers that a host looks after: a service is out of the relay's pool while its own does not answer.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener};
use std::time::Duration;

use support::net::{free_port, rest};
use support::peers::{Host, Relay, host_command, text};
use support::program::Program;

/// A host of which this is the configuration, and the folder that it is in.
fn host(relay: &Relay, toml: &str) -> (Program, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("host.toml");
    fs::write(&file, toml).unwrap();
    let line = ["--config", file.to_str().unwrap()];
    (Program::start(host_command(relay.hosts, relay.command, &line)), folder)
}

/// Serves one session: gives back what it says. Connections that say nothing are those that look after it.
fn serve_one(server: &TcpListener) -> Vec<u8> {
    loop {
        let (mut stream, _) = server.accept().unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).unwrap();
        if !said.is_empty() {
            stream.write_all(&said).unwrap();
            return said;
        }
    }
}

#[test]
fn a_service_is_offered_once_its_server_answers() {
    let relay = Relay::start(&["--assign-timeout", "30s"]);
    let port = free_port();
    let check =
        format!("[services.default]\nforward = {port}\ncheck = {{ tcp = true, every = \"1s\" }}\n");
    let (host, _folder) = host(&relay, &check);
    let down = host.event("server does not answer: taking no sessions");
    assert_eq!(text(&down, "service"), "default");
    host.event("host ready");
    let mut client = relay.client();
    client.write_all(b"wait for it").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(client.read(&mut [0]).is_err(), "it waits");
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    host.event("server answers again: taking sessions");
    assert_eq!(serve_one(&server), b"wait for it");
    assert_eq!(rest(&mut client).0, b"wait for it");
    assert!(relay.program.events_so_far("session not accepted").is_empty(), "it was never offered");
    assert_eq!(host.events_so_far("server does not answer: taking no sessions").len(), 1);
}

#[test]
fn a_session_that_finds_no_server_goes_to_another_host_and_the_check_comes_at_once() {
    let relay = Relay::start(&["--assign-timeout", "30s"]);
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = server.local_addr().unwrap().port();
    let check = format!("[services.default]\nforward = {port}\ncheck = {{ every = \"1h\" }}\n");
    let (ill, _folder) = host(&relay, &check);
    ill.event("host ready");
    let mut client = relay.client();
    client.write_all(b"first").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(serve_one(&server), b"first");
    assert_eq!(rest(&mut client).0, b"first");

    // It runs, and is none of the check's business.
    let mut running = relay.client();
    running.write_all(b"a").unwrap();
    let (mut at_server, _) = server.accept().unwrap();
    drop(server);
    let mut rejected = relay.client();
    rejected.write_all(b"second").unwrap();
    rejected.shutdown(Shutdown::Write).unwrap();
    ill.event("server does not answer: taking no sessions");
    let _well = Host::start(&relay, &["--echo"]);
    assert_eq!(relay.ask(b"third"), b"third");
    running.write_all(b"b").unwrap();
    let mut both = [0; 2];
    at_server.read_exact(&mut both).unwrap();
    assert_eq!(&both, b"ab");
    let offered = relay.program.events_so_far("session not accepted");
    assert_eq!(offered.len(), 1, "the check was at once: {offered:?}");
}
