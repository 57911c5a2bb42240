//! `relayserver relay --metrics`: what Prometheus is told, and that it is told nothing that a stranger chose.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use support::net::{client, expect, free_port, rest};
use support::peers::{relayserver, text};
use support::program::{Program, command, have, run};

/// A relay on this machine that tells, and where.
struct Telling {
    _relay: Program,
    metrics: SocketAddr,
    ports: [u16; 3],
}

impl Telling {
    fn start() -> Telling {
        let ports = [free_port(), free_port(), free_port()];
        let [hosts, command, clients] = ports.map(|port| port.to_string());
        let line = ["relay", &hosts, &command, &clients, "--metrics", "127.0.0.1:0"];
        let options = ["--log-format", "json", "--assign-timeout", "100ms"];
        let relay = Program::start(relayserver(&[&line[..], &options[..]].concat()));
        let metrics = text(&relay.event("metrics ready"), "metrics").parse().unwrap();
        relay.event("relay ready");
        Telling { _relay: relay, metrics, ports }
    }

    fn client(&self) -> std::net::TcpStream {
        client(([127, 0, 0, 1], self.ports[2]).into())
    }

    /// The whole answer to a request for `path`.
    fn get(&self, path: &str) -> String {
        let mut stream = client(self.metrics);
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let (answer, error) = rest(&mut stream);
        assert!(error.is_none(), "{error:?}");
        String::from_utf8(answer).unwrap()
    }

    /// Every sample by its name and labels.
    fn samples(&self) -> BTreeMap<String, f64> {
        let answer = self.get("/metrics");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
        parse(body)
    }

    fn until(&self, sample: &str, value: f64) -> BTreeMap<String, f64> {
        let begun = Instant::now();
        loop {
            let samples = self.samples();
            if samples.get(sample) == Some(&value) {
                return samples;
            }
            let found = samples.get(sample);
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "{sample} is {found:?}, not {value}"
            );
        }
    }
}

/// Reads the format as strictly as Prometheus does: each metric is introduced once, and its samples follow.
fn parse(body: &str) -> BTreeMap<String, f64> {
    let (mut samples, mut helped, mut typed) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    let mut current = String::new();
    assert!(body.ends_with('\n'));
    for line in body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, meaning) = help.split_once(' ').unwrap();
            assert!(helped.insert(name.to_owned()), "{name} is explained twice");
            assert!(!meaning.is_empty() && name.starts_with("relayserver_"));
            name.clone_into(&mut current);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(typed.insert(name.to_owned()) && name == current);
            assert!(["counter", "gauge", "histogram", "summary"].contains(&kind));
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            assert!(sample.starts_with(&current), "{sample} stands under {current}");
            let known = samples.insert(sample.to_owned(), value.parse().unwrap());
            assert!(known.is_none(), "{sample} stands there twice");
        }
    }
    assert_eq!(helped, typed);
    samples
}

#[test]
fn sessions_are_counted_and_their_bytes_while_they_run() {
    let telling = Telling::start();
    let opened = "relayserver_sessions_opened_total{service=\"default\"}";
    let samples = telling.samples();
    assert_eq!(samples[opened], 0.0, "what never happened is known to be 0");
    assert_eq!(samples["relayserver_hosts{state=\"up\"}"], 0.0);

    let [hosts, command, _] = telling.ports.map(|port| port.to_string());
    let line = ["host", "127.0.0.1", &hosts, &command, "--echo", "-n", "3", "--pool-max", "3"];
    let host = Program::start(relayserver(&[&line[..], &["--log-format", "json"]].concat()));
    host.event("host ready");
    let samples = telling.until("relayserver_pool_idle{service=\"default\"}", 3.0);
    assert_eq!(samples["relayserver_hosts{state=\"up\"}"], 1.0);
    assert_eq!(samples["relayserver_pool_wanted{service=\"default\"}"], 3.0);
    assert_eq!(samples["relayserver_handshakes_total{result=\"ok\"}"], 4.0);

    let mut client = telling.client();
    client.write_all(b"0123456789").unwrap();
    expect(&mut client, b"0123456789");
    let samples = telling.until("relayserver_bytes_total{direction=\"to_client\"}", 10.0);
    assert_eq!(samples["relayserver_bytes_total{direction=\"to_host\"}"], 10.0);
    assert_eq!(samples["relayserver_sessions_open{service=\"default\"}"], 1.0, "it still runs");
    assert_eq!(samples[opened], 1.0);
    client.shutdown(Shutdown::Write).unwrap();
    assert!(rest(&mut client).0.is_empty());
    let finished = "relayserver_sessions_ended_total{service=\"default\",reason=\"finished\"}";
    let samples = telling.until(finished, 1.0);
    assert_eq!(samples["relayserver_bytes_total{direction=\"to_host\"}"], 10.0);
    assert_eq!(samples["relayserver_sessions_open{service=\"default\"}"], 0.0);
    assert_eq!(samples["relayserver_queue_wait_seconds_count{service=\"default\"}"], 1.0);
    let all = "relayserver_queue_wait_seconds_bucket{service=\"default\",le=\"+Inf\"}";
    assert_eq!(samples[all], 1.0);
    // The host answers the relay's first ping at once.
    let samples = telling.until("relayserver_host_rtt_seconds_count", 1.0);
    assert!(samples["relayserver_host_rtt_seconds{quantile=\"1\"}"] < 1.0);
}

#[test]
fn refusals_are_counted_under_reasons_from_the_list_whatever_strangers_send() {
    let telling = Telling::start();
    let mut refused = telling.client();
    assert!(rest(&mut refused).0.is_empty());
    let no_host = "relayserver_clients_refused_total{service=\"default\",reason=\"no_host\"}";
    telling.until(no_host, 1.0);
    let hosts: SocketAddr = ([127, 0, 0, 1], telling.ports[0]).into();
    for garbage in [&b"GET /{evil=\"label\"} HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01", b"\0\0\0\x01x"]
    {
        let mut stranger = client(hosts);
        stranger.write_all(garbage).unwrap();
        drop(rest(&mut stranger));
    }
    let samples = telling.until("relayserver_handshakes_total{result=\"malformed\"}", 1.0);
    assert_eq!(samples["relayserver_handshakes_total{result=\"not_our_protocol\"}"], 1.0);
    let answer = telling.get("/metrics");
    assert!(!answer.contains("evil") && !answer.contains("127.0.0.1"), "{answer}");
}

#[test]
fn what_else_is_asked_for_is_not_there_and_a_slow_reader_holds_up_nobody() {
    let telling = Telling::start();
    for path in ["/", "/metrics/", "/debug", "/metrics%00"] {
        let answer = telling.get(path);
        assert!(answer.starts_with("HTTP/1.1 404 Not Found"), "{answer}");
        assert!(answer.ends_with("there is nothing here but /metrics\n"), "{answer}");
    }
    // More than there is room for: those beyond are closed, and those that ask are told once there is room.
    let mut idle: Vec<_> = (0..64).map(|_| client(telling.metrics)).collect();
    let mut beyond = client(telling.metrics);
    let ended = beyond.read(&mut [0]);
    assert!(ended.is_err() || ended.is_ok_and(|len| len == 0), "there is no room");
    idle.clear();
    let begun = Instant::now();
    let samples = loop {
        let mut stream = client(telling.metrics);
        drop(stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
        let (answer, _) = rest(&mut stream);
        if !answer.is_empty() {
            break String::from_utf8(answer).unwrap();
        }
        assert!(begun.elapsed() < Duration::from_secs(20));
    };
    assert!(samples.contains("relayserver_info{version="));
}

#[test]
fn a_port_for_metrics_that_is_taken_is_said_in_a_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let [hosts, command, clients] =
        [free_port(), free_port(), free_port()].map(|it| it.to_string());
    let ended = run(relayserver(&["relay", &hosts, &command, &clients, "--metrics", &address]));
    assert_eq!(ended.status.code(), Some(1));
    let expected = format!("cannot listen for metrics on {address}: ");
    assert!(ended.stderr.contains(&expected), "{}", ended.stderr);

    // Before anything is made or shown that is shown once.
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state").to_str().unwrap().to_owned();
    let line =
        ["relay", &hosts, &command, &clients, "--public", "127.0.0.1:1", "--bind", "127.0.0.1"];
    let ended =
        run(relayserver(&[&line[..], &["--state-dir", &state, "--metrics", &address]].concat()));
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains(&expected), "{}", ended.stderr);
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "nothing was made");
}

/// Prometheus's own reading of the format, with its advice on names and types.
#[test]
fn prometheus_has_nothing_to_say_against_it() {
    if !have(&["promtool"]) {
        return;
    }
    let telling = Telling::start();
    let [hosts, of_command, _] = telling.ports.map(|port| port.to_string());
    let line = ["host", "127.0.0.1", &hosts, &of_command, "--echo", "--log-format", "json"];
    let host = Program::start(relayserver(&line));
    host.event("host ready");
    let mut client = telling.client();
    client.write_all(b"x").unwrap();
    expect(&mut client, b"x");
    client.shutdown(Shutdown::Write).unwrap();
    assert!(rest(&mut client).0.is_empty());
    telling.until("relayserver_sessions_open{service=\"default\"}", 0.0);
    telling.until("relayserver_host_rtt_seconds_count", 1.0);
    // And a refusal, so that every metric but that of refused clients has a sample.
    let mut stranger = support::net::client(([127, 0, 0, 1], telling.ports[0]).into());
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    drop(rest(&mut stranger));
    telling.until("relayserver_handshakes_total{result=\"not_our_protocol\"}", 1.0);

    let answer = telling.get("/metrics");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut promtool = Program::start_with_stdin(command("promtool", &["check", "metrics"]));
    let mut stdin = promtool.stdin();
    stdin.write_all(body.as_bytes()).unwrap();
    drop(stdin);
    let status = promtool.end();
    assert!(status.success() && promtool.lines().is_empty(), "{}", promtool.said());
}
