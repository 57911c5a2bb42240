//! Who gets in on the host ports: hellos of all shapes, strangers, and those who say nothing.

use std::time::Duration;

use relayserver_wire::hello::Hello;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};

use crate::peers::{
    Channel, Command, DEADLINE, TestRelay, assert_closed, connect_from, content, echo,
    read_exactly, session, silent, within, write,
};

/// `payload` behind its length.
fn frame(payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap();
    [&len.to_be_bytes(), payload].concat()
}

#[tokio::test]
async fn the_answer_names_the_address_that_the_host_came_to_and_the_port_for_clients() {
    let relay = TestRelay::start();
    let channel = relay.host(1).await.channel(&relay).await;
    assert_eq!(channel.answer.relay_host, "127.0.0.1");
    assert_eq!(channel.answer.relay_port, relay.clients.port().to_string());
}

#[tokio::test]
async fn what_is_no_hello_is_closed_at_once() {
    let relay = TestRelay::start();
    let client_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice();
    let hellos: [(&str, Vec<u8>); 11] = [
        ("a hello of 4 GiB", b"\xff\xff\xff\xff".to_vec()),
        ("a hello of 16 MiB", b"\x00\xff\xff\xff".to_vec()),
        ("the header of a hello beyond 4,096 bytes", b"\x00\x00\x10\x01".to_vec()),
        ("a hello beyond 4,096 bytes", frame(&[0x08; 4_097])),
        ("text", b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n".to_vec()),
        ("the first byte of a text", b"S".to_vec()),
        ("TLS", [client_hello, &content(1, 501)].concat()),
        ("no protobuf", frame(b"\x08")),
        ("another message", frame(b"\x0a\x01")),
        ("an empty hello", frame(b"")),
        ("version 2", Hello { version: 2, v2: None }.encode()),
    ];
    for (what, hello) in hellos {
        let mut stream = silent(relay.hosts).await;
        write(&mut stream, &hello).await;
        let closed = timeout(DEADLINE / 3, assert_closed(&mut stream)).await;
        assert!(closed.is_ok(), "not closed: {what}");
    }
    relay.until_empty().await;
    session(&relay, &mut relay.host(1).await).await;
}

#[tokio::test]
async fn unknown_fields_in_a_hello_are_ignored() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    // Field 2 as a text, field 15 as 8 bytes, field 17 as a text; and version 1 in the middle.
    let unknown = b"\x12\x04text\x79\x01\x02\x03\x04\x05\x06\x07\x08\x08\x01\x8a\x01\x03new";
    let longest = [b"\x08\x01\x12\xfb\x1f".as_slice(), &[b'x'; 4_091]].concat();
    assert_eq!(longest.len(), 4_096);
    for payload in [unknown.as_slice(), &longest] {
        let mut stream = silent(relay.hosts).await;
        write(&mut stream, &frame(payload)).await;
        let mut channel = Channel::answered(stream).await;
        let mut client = relay.client().await;
        host.assert_opened(&channel).await;
        echo(&mut client, &mut channel.stream).await;
        drop(client);
        host.assert_dropped(&channel).await;
    }
}

#[tokio::test]
async fn a_hello_that_comes_a_byte_at_a_time_is_accepted() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    let mut stream = silent(relay.hosts).await;
    for byte in (Hello { version: 1, v2: None }).encode() {
        write(&mut stream, &[byte]).await;
        // Time for the relay to take it off, so that each byte is a read of its own. Nothing waits for it.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut channel = Channel::answered(stream).await;
    let mut client = relay.client().await;
    host.assert_opened(&channel).await;
    echo(&mut client, &mut channel.stream).await;
}

#[tokio::test]
async fn who_does_not_finish_its_hello_is_closed_at_the_hello_timeout_and_not_before() {
    let bound = Duration::from_millis(300);
    let relay = TestRelay::with(|config| config.hello_timeout = bound);
    for begun in [b"".as_slice(), b"\x00", b"\x00\x00\x00\x02\x08"] {
        // Whoever has said it may be idle for longer.
        let idle = relay.host(1).await.channel(&relay).await;
        let connected = Instant::now();
        let mut stream = silent(relay.hosts).await;
        write(&mut stream, begun).await;
        assert_closed(&mut stream).await;
        let waited = connected.elapsed();
        assert!(waited >= bound && waited < DEADLINE / 2, "{begun:?}: {waited:?}");
        assert_eq!(relay.occupancy().idle, 1);
        drop(idle);
        relay.until_empty().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_thousand_silent_connections_delay_nobody_and_leave_nothing() {
    const SILENT: usize = 4_000;
    assert!(descriptors() >= 3 * u64::try_from(SILENT).unwrap(), "too few file descriptors");
    let hello_timeout = Duration::from_secs(5);
    // No place is lost: all of them may be silent at the same time.
    let relay = TestRelay::with(|config| {
        config.hello_timeout = hello_timeout;
        config.limits.handshakes_max = SILENT * 2;
        config.limits.handshakes_per_address_max = SILENT * 2;
    });
    let mut crowd = Vec::new();
    let begun = Instant::now();
    for _ in 0..SILENT {
        crowd.push(silent(relay.hosts).await);
    }
    assert_served_quickly(&relay).await;
    let all_there = begun.elapsed() < hello_timeout;
    assert!(all_there, "this machine took {:?} for it: nothing was shown", begun.elapsed());
    for stream in &mut crowd {
        assert_closed(stream).await;
    }
    relay.until_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_beyond_the_bound_are_closed_and_hold_up_no_host() {
    let relay = TestRelay::with(|config| config.limits.handshakes_max = 100);
    let mut crowd = Vec::new();
    for _ in 0..2_000 {
        crowd.push(silent(relay.hosts).await);
    }
    assert_served_quickly(&relay).await;
    // The hello timeout is far away: these have lost their places, or had never one. Those left keep nobody waiting.
    for stream in &mut crowd[..1_900] {
        assert_closed(stream).await;
    }
    drop(crowd);
    relay.until_empty().await;
}

#[tokio::test]
async fn a_newcomer_waits_for_the_place_of_the_connection_that_was_silent_longest() {
    let relay = TestRelay::with(|config| {
        config.limits.handshakes_per_address_max = 3;
        config.hello_timeout = DEADLINE;
    });
    let mut oldest = silent(relay.hosts).await;
    let mut others = [silent(relay.hosts).await, silent(relay.hosts).await];
    for other in &mut others {
        // No longer silent, and not done either.
        write(other, &[0]).await;
    }
    let mut newcomer = silent(relay.hosts).await;
    write(&mut newcomer, &Hello { version: 1, v2: None }.encode()).await;
    read_exactly(&mut newcomer, 4).await;
    assert_closed(&mut oldest).await;
    for other in &mut others {
        write(other, &Hello { version: 1, v2: None }.encode()[1..]).await;
        read_exactly(other, 4).await;
    }
}

#[tokio::test]
async fn a_full_address_takes_no_place_from_another() {
    let relay = TestRelay::with(|config| config.limits.handshakes_per_address_max = 2);
    let mut other = connect_from([127, 0, 0, 2].into(), relay.hosts).await;
    let mut crowd = Vec::new();
    for _ in 0..10 {
        crowd.push(silent(relay.hosts).await);
    }
    for stream in &mut crowd[..8] {
        assert_closed(stream).await;
    }
    write(&mut other, &Hello { version: 1, v2: None }.encode()).await;
    Channel::answered(other).await;
}

#[tokio::test]
async fn a_command_channel_that_speaks_is_closed() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    let mut speaking = Command::open(&relay, [127, 0, 0, 2].into()).await;
    write(&mut speaking.stream, b"\x00").await;
    assert_closed(&mut speaking.stream).await;
    relay.until("only the host is left", |it| (it.hosts, it.commands) == (1, 1)).await;
    session(&relay, &mut host).await;
}

#[tokio::test]
async fn a_half_closed_command_channel_has_ended() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    host.command.stream.shutdown().await.unwrap();
    relay.until("the host has left", |it| it.hosts == 0).await;
    assert_closed(&mut host.command.stream).await;
}

/// A host joins and serves a client within a second, and leaves.
async fn assert_served_quickly(relay: &TestRelay) {
    let begun = Instant::now();
    let serving = async {
        let mut host = relay.host(2).await;
        let (mut client, mut channel) = session(relay, &mut host).await;
        echo(&mut client, &mut channel.stream).await;
    };
    within("a session", serving).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "took {:?}", begun.elapsed());
    relay.until("it has left", |it| (it.hosts, it.sessions, it.idle) == (0, 0, 0)).await;
}

/// Raises the bound on file descriptors as far as it goes, and gives it.
fn descriptors() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    maximum.unwrap_or(u64::MAX)
}
