//! Real servers through `--forward`: PostgreSQL, Redis, nginx, one that speaks first, one on a Unix socket.

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
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixListener;
use std::thread;

use support::net::{assert_same_file, expect, noise, rest};
use support::peers::{Host, Relay};
use support::program::{command, have, output_of, run};
use support::servers::{Nginx, Postgres, Redis, Sshd, shown};

/// What curl carries, in each direction.
const FILE_LEN: usize = 100_000_000;

fn forward(to: &str) -> (Relay, Host) {
    let relay = Relay::start(&["--assign-timeout", "30s"]);
    let host = Host::start(&relay, &["--forward", to]);
    (relay, host)
}

#[test]
fn postgresql_keeps_count_under_pgbench() {
    if !have(&["initdb", "postgres", "pgbench", "psql"]) {
        return;
    }
    let postgres = Postgres::start();
    let (relay, _host) = forward(&postgres.port.to_string());
    let port = relay.clients.port();
    output_of(Postgres::client("pgbench", port, &["-i", "-q", "postgres"]));
    let ended =
        run(Postgres::client("pgbench", port, &["-c", "8", "-j", "2", "-t", "200", "postgres"]));
    assert!(ended.status.success(), "{}", ended.stderr);
    for done in [
        "number of transactions actually processed: 1600/1600",
        "number of failed transactions: 0 (0.000%)",
    ] {
        assert!(ended.stdout.contains(done), "no {done:?} in\n{}", ended.stdout);
    }
    // Asked past the relay, so that the relay cannot have made it up.
    let sums = "select (select count(*) from pgbench_history), (select count(*) from pgbench_accounts), \
                (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history)";
    let counted = output_of(Postgres::client("psql", postgres.port, &["-Atc", sums, "postgres"]));
    assert_eq!(counted, "1600|100000|t\n");
}

#[test]
fn redis_answers_redis_benchmark_without_an_error() {
    if !have(&["redis-server", "redis-benchmark", "redis-cli"]) {
        return;
    }
    let redis = Redis::start();
    let (relay, _host) = forward(&redis.port.to_string());
    let port = relay.clients.port().to_string();
    let tests = "ping_inline,ping_mbulk,set,get,incr,lpush,lrange_100,mset";
    // One request a time, pipelined, and with values that need many segments.
    for manner in [&["-d", "3"][..], &["-P", "16"], &["-d", "20000", "-c", "8"]] {
        let mut benchmark =
            command("redis-benchmark", &["-p", &port, "-n", "1000", "-c", "20", "--csv"]);
        benchmark.args(["-t", tests]).args(manner);
        let ended = run(benchmark);
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(ended.status.success(), "{said}");
        assert!(!said.to_lowercase().contains("err"), "{said}");
        // A line for the head, one for each test, one more for LRANGE's preparation.
        assert_eq!(ended.stdout.lines().count(), 1 + 8 + 1, "{said}");
    }
    let value = String::from_utf8(noise(300_000, 2).iter().map(|byte| b'a' + byte % 26).collect());
    let value = value.unwrap();
    let mut set = relay.client();
    let request = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{value}\r\n", value.len());
    set.write_all(request.as_bytes()).unwrap();
    expect(&mut set, b"+OK\r\n");
    let direct = redis.port.to_string();
    assert_eq!(output_of(command("redis-cli", &["-p", &direct, "get", "k"])), format!("{value}\n"));
}

#[test]
fn curl_gets_and_puts_100_mb_whole() {
    if !have(&["nginx", "curl"]) {
        return;
    }
    let nginx = Nginx::start();
    let (relay, _host) = forward(&nginx.port.to_string());
    let served = nginx.put("big", &noise(FILE_LEN, 3));
    let url = |path: &str| format!("http://{}/{path}", relay.clients);
    let fetched = nginx.file("fetched");
    output_of(command("curl", &["-sSf", "-o", &shown(&fetched), &url("big")]));
    assert_same_file(&served, &fetched);
    output_of(command("curl", &["-sSf", "-T", &shown(&served), &url("up/big")]));
    assert_same_file(&served, &nginx.file("up/big"));
}

#[test]
fn curl_keeps_one_connection_for_many_requests() {
    if !have(&["nginx", "curl"]) {
        return;
    }
    let nginx = Nginx::start();
    let (relay, _host) = forward(&nginx.port.to_string());
    nginx.put("page", b"kept alive\n");
    let url = format!("http://{}/page", relay.clients);
    let connects = command("curl", &["-sSf", "-w", "%{num_connects}\n", &url, &url, &url]);
    assert_eq!(output_of(connects), "kept alive\n1\nkept alive\n0\nkept alive\n0\n");
    relay.program.events("session ended", 1);
    assert_eq!(relay.program.events_so_far("session ended").len(), 1);
}

#[test]
fn wrk_sees_no_error_with_more_connections_than_the_pool_holds() {
    if !have(&["nginx", "wrk"]) {
        return;
    }
    let nginx = Nginx::start();
    let (relay, _host) = forward(&nginx.port.to_string());
    nginx.put("page", &noise(4096, 4));
    let url = format!("http://{}/page", relay.clients);
    let said =
        output_of(command("wrk", &["-t", "2", "-c", "40", "-d", "3s", "--timeout", "20s", &url]));
    assert!(!said.contains("Socket errors"), "{said}");
    assert!(!said.contains("Non-2xx"), "{said}");
    let requests = said.lines().find_map(|line| line.trim().split_once(" requests in "));
    let requests: u64 = requests.unwrap().0.parse().unwrap();
    assert!(requests >= 100, "{said}");
    // Each connection had a session of its own: none was left to wait while others ended.
    relay.program.events("session ended", 40);
    assert!(relay.program.events_so_far("client refused").is_empty());
}

#[test]
fn a_server_that_speaks_first_is_heard_by_a_client_that_says_nothing() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let (relay, _host) = forward(&server.local_addr().unwrap().to_string());
    let served = thread::spawn(move || {
        let (mut stream, _peer) = server.accept().unwrap();
        stream.write_all(b"220 who are you?\r\n").unwrap();
        let mut name = String::new();
        BufReader::new(&stream).read_line(&mut name).unwrap();
        stream.write_all(format!("221 bye {name}").as_bytes()).unwrap();
    });
    let mut client = relay.client();
    expect(&mut client, b"220 who are you?\r\n");
    client.write_all(b"ada\r\n").unwrap();
    assert_eq!(rest(&mut client).0, b"221 bye ada\r\n");
    served.join().unwrap();
}

#[test]
fn an_ssh_banner_comes_before_the_client_says_anything() {
    if !have(&["sshd", "ssh-keygen"]) {
        return;
    }
    let sshd = Sshd::start();
    let (relay, _host) = forward(&sshd.port.to_string());
    expect(&mut relay.client(), b"SSH-2.0-OpenSSH");
}

#[test]
fn a_server_on_a_unix_socket_is_reached_and_half_closes() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("socket");
    let server = UnixListener::bind(&path).unwrap();
    let (relay, _host) = forward(&format!("unix:{}", shown(&path)));
    let served = thread::spawn(move || {
        let (mut stream, _peer) = server.accept().unwrap();
        let mut request = Vec::new();
        // Answers only when the request has ended: the client's half-close must have come through.
        stream.read_to_end(&mut request).unwrap();
        request.reverse();
        stream.write_all(&request).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    });
    let question = noise(1_000_000, 5);
    let mut answer = relay.ask(&question);
    answer.reverse();
    assert!(answer == question, "{} bytes came back changed", answer.len());
    served.join().unwrap();
    assert_eq!(relay.reason_of_session(1), "finished");
    fs::remove_file(path).unwrap();
}
