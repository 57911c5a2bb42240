//! Peers that mean harm, or behave as if: whatever they do, others are served and nothing is left behind.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::peers::{
    Channel, Command, DEADLINE, TestRelay, assert_closed, assert_reset, content, echo, reset,
    session, silent, within, write,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_clients_that_come_and_leave_leave_nothing() {
    const CLIENTS: usize = 10_000;
    const AT_ONCE: usize = 50;
    let relay = TestRelay::with(|config| {
        config.default_service().limits.assign_timeout = Duration::from_secs(1)
    });
    let host = relay.host(1).await;
    let mut serving = JoinSet::new();
    for _ in 0..8 {
        let (address, hosts) = (host.address, relay.hosts);
        serving.spawn(async move {
            loop {
                serve_whoever_comes(address, hosts).await;
            }
        });
    }
    let mut coming = JoinSet::new();
    for first in 0..AT_ONCE {
        let clients = relay.clients;
        coming.spawn(async move {
            for number in (first..CLIENTS).step_by(AT_ONCE) {
                let mut client = TcpStream::connect(clients).await.unwrap();
                match number % 4 {
                    0 => drop(client),
                    1 => reset(client),
                    2 => {
                        let _sent = client.write_all(b"never mind").await;
                    }
                    _ => {
                        let _sent = client.write_all(b"never mind").await;
                        reset(client);
                    }
                }
            }
        });
    }
    timeout(DEADLINE * 4, coming.join_all()).await.unwrap();
    // The relay accepts in the order of arrival: when the last one is through, all are.
    let mut last = relay.client().await;
    last.shutdown().await.unwrap();
    assert_closed(&mut last).await;
    relay.until("all clients have gone", |it| (it.waiting, it.sessions) == (0, 0)).await;
    serving.shutdown().await;
    drop(host);
    relay.until_empty().await;

    let mut host = relay.host(1).await;
    let (mut client, mut channel) = session(&relay, &mut host).await;
    echo(&mut client, &mut channel.stream).await;
}

/// One channel from its hello to its end, whatever comes over it.
async fn serve_whoever_comes(address: std::net::Ipv4Addr, hosts: std::net::SocketAddr) {
    use relayserver_wire::hello::Hello;
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((address, 0).into()).unwrap();
    let mut stream = socket.connect(hosts).await.unwrap();
    let _said = stream.write_all(&Hello { version: 1, v2: None }.encode()).await;
    let mut received = Vec::new();
    let _ended = stream.read_to_end(&mut received).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_slows_its_own_host_and_nobody_else() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    let (mut client, mut channel) = session(&relay, &mut host).await;
    assert_back_pressure(&relay, &mut channel.stream, &mut client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_does_not_read_slows_its_own_client_and_nobody_else() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    let (mut client, mut channel) = session(&relay, &mut host).await;
    assert_back_pressure(&relay, &mut client, &mut channel.stream).await;
}

/// `sender` sends without end, `reader` does not read for now: the one is held up, others are not, and no byte is lost.
async fn assert_back_pressure(relay: &TestRelay, sender: &mut TcpStream, reader: &mut TcpStream) {
    let buffers_max = buffers_max();
    let all = content(7, buffers_max + (8 << 20));
    let mut sent = 0;
    // Held up: for as long as nothing else would take.
    while let Ok(written) = timeout(Duration::from_secs(2), sender.write(&all[sent..])).await {
        sent += written.unwrap();
        assert!(sent < buffers_max, "{sent} bytes went into nowhere");
    }

    let mut other = relay.host(2).await;
    let (mut client, mut channel) = session(relay, &mut other).await;
    let begun = Instant::now();
    for _ in 0..100 {
        echo(&mut client, &mut channel.stream).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "took {:?}", begun.elapsed());

    let sending = async {
        sender.write_all(&all[sent..]).await.unwrap();
        sender.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let reading = async { reader.read_to_end(&mut received).await.unwrap() };
    within("the rest", async { tokio::join!(sending, reading) }).await;
    assert!(received == all, "{} bytes are not what was sent", received.len());
}

/// What all buffers between a sender and a reader that does not read hold at the most: the system's for two connections, and
/// 2 MiB for the relay's own.
fn buffers_max() -> usize {
    let most = |setting: &str| -> usize {
        // Least, default and most.
        let sizes = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{setting}"));
        let most = sizes.ok().and_then(|sizes| sizes.split_whitespace().nth(2)?.parse().ok());
        most.unwrap_or(32 << 20)
    };
    2 * (most("tcp_wmem") + most("tcp_rmem")) + (2 << 20)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_host_vanishes_in_the_middle_of_a_thousand_sessions_all_end() {
    const SESSIONS: usize = 1_000;
    let relay = TestRelay::start();
    let host = relay.host(1).await;
    let mut other = relay.host(2).await;
    let (mut other_client, mut other_channel) = session(&relay, &mut other).await;
    let mut channels = Vec::new();
    let mut clients = JoinSet::new();
    for number in 0..SESSIONS {
        let channel = host.channel(&relay).await;
        let mut client = relay.client().await;
        relay.until_sessions(number + 2).await;
        channels.push(channel);
        clients.spawn(async move {
            // Some have asked, some are asking, some have finished.
            match number % 3 {
                0 => {}
                1 => write(&mut client, &content(1, 10_000)).await,
                _ => {
                    write(&mut client, b"question").await;
                    client.shutdown().await.unwrap();
                }
            }
            let mut received = Vec::new();
            let ended = client.read_to_end(&mut received).await;
            // It stays, although it has seen the end.
            (client, received, ended)
        });
    }
    // The system closes a dead process's sockets: with a reset where bytes were unread, with an end where not.
    drop(host);
    drop(channels);
    let mut ended = Vec::new();
    within("the end of all sessions", async {
        while let Some(client) = clients.join_next().await {
            ended.push(client.unwrap());
        }
    })
    .await;
    assert_eq!(ended.len(), SESSIONS);
    for (_client, received, _how) in &ended {
        assert_eq!(received, b"");
    }
    relay.until_sessions(1).await;
    echo(&mut other_client, &mut other_channel.stream).await;
    drop((other, other_client, other_channel));
    relay.until_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_does_not_read_its_announcements_loses_its_command_channel_and_nothing_else() {
    let relay = TestRelay::with(|config| config.user_timeout = Duration::from_secs(2));
    let mut reading = relay.host(2).await;
    let (mut client, mut channel) = session(&relay, &mut reading).await;

    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(1_024).unwrap();
    let _unread = Command::over(within("connecting", socket.connect(relay.command)).await.unwrap());
    relay.until("both hosts are there", |it| it.hosts == 2).await;
    let (mut stuck_client, mut stuck_channel) = stuck_session(&relay).await;
    for _ in 0..1_000 {
        let (client, _channel) = stuck_session(&relay).await;
        reset(client);
        relay.until_sessions(2).await;
    }
    relay.until("the channel is lost", |it| it.hosts == 1).await;
    echo(&mut client, &mut channel.stream).await;
    echo(&mut stuck_client, &mut stuck_channel.stream).await;
    drop((stuck_client, stuck_channel));
    relay.until_sessions(1).await;
}

/// A session of the host that reads no announcements.
async fn stuck_session(relay: &TestRelay) -> (TcpStream, Channel) {
    let before = relay.occupancy().sessions;
    let channel = Channel::open(relay, [127, 0, 0, 1].into()).await;
    let client = relay.client().await;
    relay.until_sessions(before + 1).await;
    (client, channel)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_every_port_hurts_nobody() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    let (mut client, mut channel) = session(&relay, &mut host).await;
    let mut garbage = JoinSet::new();
    for seed in 0..300 {
        let port = [relay.hosts, relay.command, relay.clients][usize::try_from(seed % 3).unwrap()];
        garbage.spawn(async move {
            let mut stream = silent(port).await;
            let mut bytes = content(seed, 20_000);
            // Every other one begins as a frame does.
            if seed % 2 == 0 {
                bytes[..3].fill(0);
            }
            let _sent = stream.write_all(&bytes).await;
            if seed % 5 == 0 {
                reset(stream);
            }
        });
    }
    within("all garbage", garbage.join_all()).await;
    // The relay accepts in the order of arrival: when the last one is through, all are.
    for port in [relay.hosts, relay.command] {
        let mut last = silent(port).await;
        write(&mut last, b"garbage").await;
        assert_closed(&mut last).await;
    }
    relay.until("strangers have gone", |it| (it.commands, it.idle) == (1, 0)).await;
    // Clients may send what they like: those wait, with what they sent, for their hosts.
    echo(&mut client, &mut channel.stream).await;
}

#[tokio::test]
async fn what_a_client_sends_is_never_taken_for_anything_but_its_bytes() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    let (mut client, mut channel) = session(&relay, &mut host).await;
    let hello = relayserver_wire::hello::Hello { version: 1, v2: None }.encode();
    write(&mut client, &hello).await;
    client.shutdown().await.unwrap();
    assert_eq!(crate::peers::read_rest(&mut channel.stream).await, hello);
    reset(channel.stream);
    assert_reset(&mut client).await;
}
