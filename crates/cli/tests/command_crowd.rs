//! Several hosts of one service: those whose server does not answer leave their part to the others.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::thread;

use rustix::process::Signal;
use support::net::{client, expect, free_port, rest};
use support::peers::text;
use support::secure::Secure;

/// A server that says its name to whoever comes, until it is dropped.
struct Server(u16);

impl Server {
    fn on(port: u16, name: &'static str) -> Server {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut word = [0; 4];
                if stream.read_exact(&mut word).is_ok() {
                    if word == *b"quit" {
                        return;
                    }
                    stream.write_all(name.as_bytes()).unwrap();
                }
            }
        });
        Server(port)
    }

    /// Nobody listens there when this returns.
    fn quit(self) {
        let mut stream = client(([127, 0, 0, 1], self.0).into());
        stream.write_all(b"quit").unwrap();
        assert!(rest(&mut stream).0.is_empty());
    }
}

/// What a client is told.
fn asked(secure: &Secure) -> String {
    let mut client = client(([127, 0, 0, 1], secure.ports[2]).into());
    client.write_all(b"name").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let (answer, error) = rest(&mut client);
    assert!(error.is_none(), "{error:?}");
    String::from_utf8(answer).unwrap()
}

#[test]
fn a_server_that_does_not_answer_is_left_out_until_it_does() {
    let secure = Secure::start();
    let join = secure.first_join();
    let port = free_port();
    // It is down from the start.
    let host = secure.host(&join, &["--forward", &port.to_string(), "--check=1s", "-n", "2"]);
    host.event("server does not answer: taking no sessions");
    host.event("host ready");
    let status = secure.operator(&["status", "--json"]).stdout;
    assert!(status.contains("\"idle\":{}"), "{status}");

    let server = Server::on(port, "one");
    host.event("server answers again: taking sessions");
    assert_eq!(asked(&secure), "one");

    server.quit();
    host.events("server does not answer: taking no sessions", 2);
    let lines = host.lines().iter().filter(|line| line.contains("does not answer")).count();
    assert_eq!(lines, 2, "once each time");
}

#[test]
fn what_one_host_cannot_serve_another_does_and_the_clients_notice_nothing() {
    let secure = Secure::start();
    let join = secure.first_join();
    let port = free_port();
    // Not looked after: each client finds out for itself, and is offered to the other.
    let ill = secure.host(&join, &["--forward", &port.to_string()]);
    ill.event("host ready");
    let server = Server::on(0, "two");
    let well = secure.host(&join, &["--forward", &server.0.to_string()]);
    well.event("host ready");
    for _ in 0..20 {
        assert_eq!(asked(&secure), "two");
    }
    let refused = ill.event("server cannot be reached");
    assert!(text(&refused, "error").contains("refused"));
    // Who has just failed is asked last, so it was not asked twenty times.
    let asked = ill.lines().iter().filter(|line| line.contains("server cannot be reached")).count();
    assert!(asked <= 3, "{asked} of 20 clients went there first");
}

#[test]
fn weight_and_bounds_are_what_the_relay_is_told() {
    let secure = Secure::start();
    let join = secure.first_join();
    let more = ["--echo", "-n", "3", "--pool-max", "9", "--weight", "250", "--max-sessions", "2"];
    let mut host = secure.host(&join, &more);
    host.event("host ready");
    let told = |secure: &Secure| {
        let status = secure.operator(&["status", "--json"]).stdout;
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status["hosts"][0].clone()
    };
    let host_of = told(&secure);
    assert_eq!(
        (&host_of["weight"], &host_of["sessions_max"], &host_of["wanted"]["default"]),
        (&250.into(), &2.into(), &3.into())
    );
    let ports = ([127, 0, 0, 1], secure.ports[2]).into();
    let mut clients = [client(ports), client(ports)];
    for client in &mut clients {
        client.write_all(b"x").unwrap();
        expect(client, b"x");
    }
    assert_eq!(told(&secure)["sessions"], 2);
    let mut third = client(ports);
    third.write_all(b"y").unwrap();
    drop(clients);
    expect(&mut third, b"y");
    host.signal(Signal::TERM);
    drop(third);
    assert_eq!(host.end().code(), Some(0));
}
