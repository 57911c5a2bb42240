//! What runs out, or is taken away: descriptors, the disk, the host in the middle of everything.

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
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use support::net::{expect, raise_descriptor_limit, rest};
use support::peers::{Host, Relay};
use support::program::{Program, command, skip};

/// How many times a second the kernel counts a process's time. The same on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// The time that a process has spent on a processor.
fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Behind the name, which may hold anything: state is field 3, user and system time are 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u32 = fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap();
    Duration::from_secs_f64(f64::from(ticks) / TICKS_PER_SECOND)
}

#[test]
fn a_relay_with_few_descriptors_keeps_some_for_the_channels_that_serve_its_clients() {
    raise_descriptor_limit();
    let limited = "ulimit -n 256 && exec \"$0\" relay 0 0 0 --log-format json --assign-timeout 60s";
    let shell = command("sh", &["-c", limited, env!("CARGO_BIN_EXE_relayserver")]);
    let relay = Relay::of(Program::start(shell));
    relay.program.line("that it has lowered its limits", |line| line.contains("limits lowered"));
    let _host = Host::start(&relay, &["-n", "4"]);
    let mut first = relay.client();
    first.write_all(b"served").unwrap();
    expect(&mut first, b"served");
    let crowd: Vec<TcpStream> = (0..600).map(|_| relay.client()).collect();
    // All but those whom the limit lets in are turned away: nobody waits for descriptors that nobody gives back.
    let is_turned_away = |line: &str| line.contains("client_limit");
    relay.program.lines_where("most of the crowd turned away", 600 - 64, is_turned_away);
    first.write_all(b"still").unwrap();
    expect(&mut first, b"still");
    drop((first, crowd));
    let is_over = |line: &str| line.contains("session ended") || line.contains("client refused");
    relay.program.lines_where("the end of each client", 601, is_over);
    assert_eq!(relay.ask(b"recovered"), b"recovered");
}

#[test]
fn a_relay_out_of_descriptors_says_so_once_does_not_spin_and_recovers() {
    raise_descriptor_limit();
    let relay =
        Relay::start(&["--assign-timeout", "60s", "--clients-max", "1000", "--channels-max", "40"]);
    let _host = Host::start(&relay, &["-n", "4"]);
    // Its limits were not made for this.
    let few = Rlimit { current: Some(256), maximum: Some(256) };
    let pid = i32::try_from(relay.program.pid()).ok().and_then(Pid::from_raw);
    prlimit(pid, Resource::Nofile, few).unwrap();
    let silent: Vec<TcpStream> = (0..600).map(|_| relay.client()).collect();
    let warnings =
        || relay.program.lines().iter().filter(|line| line.contains("out of resources")).count();
    relay.program.line("that it is out of resources", |line| line.contains("out of resources"));

    // Not to wait for something, but to measure over.
    const MEASURED: Duration = Duration::from_secs(2);
    let (spent, started) = (processor_time(relay.program.pid()), Instant::now());
    std::thread::sleep(MEASURED);
    let (spent, measured) = (processor_time(relay.program.pid()) - spent, started.elapsed());
    assert!(spent < measured / 10, "{spent:?} on a processor within {measured:?}");
    // One for each port on which somebody waits, and a few more as descriptors come and go.
    assert!((1..=4).contains(&warnings()), "{} warnings:\n{}", warnings(), relay.program.said());

    drop(silent);
    assert_eq!(relay.ask(b"recovered"), b"recovered");
}

#[test]
fn the_limit_of_descriptors_is_raised_to_what_the_system_allows() {
    let limited = |what: &str| {
        let line =
            format!("ulimit -Sn 100 && ulimit -Hn 500 && exec \"$0\" {what} --log-format json");
        Program::start(command("sh", &["-c", &line, env!("CARGO_BIN_EXE_relayserver")]))
    };
    let relay = limited("relay 0 0 0");
    relay.event("relay ready");
    let host = limited("host 127.0.0.1 1 1");
    host.event("host started");
    host.line("a warning", |line| line.contains("WARN"));
    for program in [relay, host] {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", program.pid())).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let numbers: Vec<&str> = line.split_whitespace().skip(3).take(2).collect();
        assert_eq!(numbers, ["500", "500"]);
    }
}

#[test]
fn a_host_out_of_descriptors_goes_on_and_recovers() {
    raise_descriptor_limit();
    let relay = Relay::start(&["--assign-timeout", "60s"]);
    let limited = format!(
        "ulimit -n 64 && exec \"$0\" host 127.0.0.1 {} {} --log-format json -n 4",
        relay.hosts.port(),
        relay.command.port()
    );
    let mut host =
        Program::start(command("sh", &["-c", &limited, env!("CARGO_BIN_EXE_relayserver")]));
    host.event("host ready");
    let mut first = relay.client();
    first.write_all(b"served").unwrap();
    expect(&mut first, b"served");
    let clients: Vec<TcpStream> = (0..100).map(|_| relay.client()).collect();
    let (spent, started) = (processor_time(host.pid()), Instant::now());
    std::thread::sleep(Duration::from_secs(1));
    let (spent, measured) = (processor_time(host.pid()) - spent, started.elapsed());
    assert!(spent < measured / 4, "{spent:?} on a processor within {measured:?}");
    assert!(host.lines().len() < 200, "a flood of {} lines", host.lines().len());
    drop((first, clients));
    assert_eq!(relay.ask(b"recovered"), b"recovered");
    assert!(host.runs());
}

#[test]
fn a_host_killed_amid_a_thousand_sessions_leaves_no_client_hanging() {
    const SESSIONS: usize = 1000;
    let descriptors = raise_descriptor_limit();
    if descriptors < 6000 {
        skip(&format!("{descriptors} descriptors are too few for {SESSIONS} sessions"));
        return;
    }
    let relay = Relay::start(&["--assign-timeout", "60s"]);
    let mut host = Host::start(&relay, &["-n", "50"]);
    let mut clients: Vec<TcpStream> = (0..SESSIONS).map(|_| relay.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.write_all(format!("{number:04}").as_bytes()).unwrap();
    }
    for (number, client) in clients.iter_mut().enumerate() {
        expect(client, format!("{number:04}").as_bytes());
    }
    // In the middle: bytes are on their way in both directions.
    for client in &mut clients {
        client.write_all(&[b'x'; 4096]).unwrap();
    }
    host.program.signal(Signal::KILL);
    host.program.end();
    for client in &mut clients {
        let (said, _) = rest(client);
        assert!(
            said.len() <= 4096 && said.iter().all(|byte| *byte == b'x'),
            "bytes that nobody sent"
        );
    }
    drop(clients);
    assert_eq!(relay.program.events("session ended", SESSIONS).len(), SESSIONS);

    let _next = Host::start(&relay, &[]);
    assert_eq!(relay.ask(b"next"), b"next");
}

#[test]
fn a_full_disk_under_the_recording_does_not_hurt() {
    let mut relay = Relay::start(&["--record", "/dev/full"]);
    let _host = Host::start(&relay, &[]);
    // Each session is a few hundred bytes of recording: enough of them to fill any buffer before the disk.
    for number in 0..200 {
        let line = format!("session {number}");
        assert_eq!(relay.ask(line.as_bytes()), line.as_bytes());
    }
    relay.program.signal(Signal::TERM);
    assert_eq!(relay.program.end().code(), Some(0));
    let complaints = relay.program.lines().iter().filter(|line| line.contains("recording")).count();
    assert_eq!(complaints, 1, "{}", relay.program.said());
}

#[test]
fn a_recording_is_a_file_of_its_decisions() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("recording");
    let mut relay = Relay::start(&["--record", &path.display().to_string()]);
    let _host = Host::start(&relay, &[]);
    assert_eq!(relay.ask(b"hello"), b"hello");
    relay.program.event("session ended");
    relay.program.signal(Signal::TERM);
    assert_eq!(relay.program.end().code(), Some(0));
    let recording = std::fs::read_to_string(path).unwrap();
    let (told, decided) = (recording.matches(" < ").count(), recording.matches(" > ").count());
    assert!(told >= 4 && decided >= 2, "{recording}");
    assert!(recording.ends_with('\n'), "cut short: {recording}");
}

#[test]
fn beyond_the_limit_of_clients_one_is_refused_and_the_others_are_served() {
    let relay = Relay::start(&["--clients-max", "2"]);
    let _host = Host::start(&relay, &[]);
    let mut kept: Vec<TcpStream> = (0..2).map(|_| relay.client()).collect();
    for client in &mut kept {
        client.write_all(b"in").unwrap();
        expect(client, b"in");
    }
    let mut refused = relay.client();
    assert_eq!(refused.read(&mut [0]).unwrap(), 0);
    let said = relay.program.event("client refused");
    assert_eq!(support::peers::text(&said, "reason"), "client_limit");
    for client in &mut kept {
        client.write_all(b"still").unwrap();
        expect(client, b"still");
    }
}
