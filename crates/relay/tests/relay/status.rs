//! What the relay says of itself: its snapshot, and the socket that serves it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use relayserver_relay::{Reason, ReasonCounts, STATUS_SOCKET};
use relayserver_wire::HostId;
use relayserver_wire::command::Announcement;
use relayserver_wire::hello::{Capacity, HelloV2, Role};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::peers::{
    TestRelay, assert_closed, assert_reset, connect_from, echo, reset, session, within, write,
};

fn counts<const N: usize>(counts: [(Reason, u64); N]) -> ReasonCounts {
    ReasonCounts::from(counts)
}

/// Sessions that have ended, clients and hosts that were refused.
#[derive(Clone, Debug, Default, PartialEq)]
struct Counted {
    ended: ReasonCounts,
    refused_clients: ReasonCounts,
    refused_hosts: ReasonCounts,
}

async fn until_counts(relay: &TestRelay, expected: &Counted) {
    let what = format!("{expected:?}");
    relay.until(&what, |_| counted(relay) == *expected).await;
}

fn counted(relay: &TestRelay) -> Counted {
    let counts = relay.handle().snapshot().counts;
    Counted {
        ended: counts.ended(),
        refused_clients: counts.refused_clients(),
        refused_hosts: counts.refused_hosts,
    }
}

#[tokio::test]
async fn each_end_and_each_refusal_is_counted_once() {
    let relay = TestRelay::with(|config| {
        config.default_service().limits.queue_max = 1;
        config.limits.commands_max = 1;
    });
    let mut expected = Counted::default();
    assert_eq!(counted(&relay), expected);

    let mut host = relay.host(1).await;
    for _ in 0..2 {
        let (mut client, mut channel) = session(&relay, &mut host).await;
        echo(&mut client, &mut channel.stream).await;
        client.shutdown().await.unwrap();
        host.assert_dropped(&channel).await;
        channel.stream.shutdown().await.unwrap();
        assert_closed(&mut client).await;
        relay.until_sessions(0).await;
    }
    let (client, mut channel) = session(&relay, &mut host).await;
    reset(client);
    assert_reset(&mut channel.stream).await;
    host.assert_dropped(&channel).await;
    expected.ended = counts([(Reason::Finished, 2), (Reason::ClientAborted, 1)]);
    until_counts(&relay, &expected).await;

    let waiting = relay.client().await;
    relay.until_waiting(1).await;
    let mut too_many = relay.client().await;
    assert_closed(&mut too_many).await;
    drop(waiting);
    relay.until_waiting(0).await;
    expected.refused_clients = counts([(Reason::QueueFull, 1), (Reason::ClientGone, 1)]);
    until_counts(&relay, &expected).await;

    let mut stranger = TcpStream::connect(relay.hosts).await.unwrap();
    write(&mut stranger, b"GET / HTTP/1.1\r\n").await;
    let _closed = stranger.read(&mut [0]).await;
    let mut second = connect_from([127, 0, 0, 2].into(), relay.command).await;
    assert_closed(&mut second).await;
    expected.refused_hosts = counts([(Reason::NotOurProtocol, 1), (Reason::CommandLimit, 1)]);
    until_counts(&relay, &expected).await;
}

/// A relay with a status socket, and the directory that it is in.
fn with_socket() -> (TestRelay, PathBuf, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(STATUS_SOCKET);
    let relay = TestRelay::with(|config| config.status_socket = Some(path.clone()));
    (relay, path, directory)
}

async fn read(path: &Path) -> Value {
    let text = within("the status", async {
        let mut text = String::new();
        UnixStream::connect(path).await.unwrap().read_to_string(&mut text).await.unwrap();
        text
    });
    let mut status: Value = serde_json::from_str(&text.await).unwrap();
    assert!(status["relay"]["uptime_ms"].take().is_u64());
    assert!(status["services"][0]["wanted"].take().is_u64());
    status
}

#[tokio::test]
async fn the_socket_tells_what_is_there_and_what_has_been() {
    let (relay, path, _directory) = with_socket();
    let mut host = relay.host(1).await;
    let (client, mut channel) = session(&relay, &mut host).await;
    reset(client);
    assert_reset(&mut channel.stream).await;
    host.assert_dropped(&channel).await;
    let (_client, _channel) = session(&relay, &mut host).await;
    let _idle = host.idle_channels(&relay, 2).await;
    relay.until_sessions(1).await;
    let process = HelloV2 {
        host_id: HostId([0xab; 16]),
        role: Role::Command {
            token: None,
            services: vec!["default".to_owned()],
            last_key: None,
            capacity: Capacity { weight: 250, sessions_max: Some(7) },
        },
        features: Vec::new(),
    };
    let mut member = connect_from([127, 0, 0, 2].into(), relay.hosts).await;
    let hello = relayserver_wire::hello::Hello { version: 1, v2: Some(process) };
    write(&mut member, &hello.encode()).await;
    relay.until("the second host", |it| it.commands == 2).await;
    let service = "default".to_owned();
    let bounds = Announcement::PoolBounds { service, idle_min: 3, idle_max: 3 };
    write(&mut member, &bounds.encode()).await;
    let has_bounds = |host: &relayserver_relay::HostSnapshot| !host.wanted.is_empty();
    relay
        .until("its bounds", |_| relay.handle().snapshot().book.hosts.values().any(has_bounds))
        .await;
    assert_eq!(read(&path).await, two_hosts());
}

/// The status of a relay with a host of each version, whose uptime is not looked at.
fn two_hosts() -> Value {
    json!({
        "format": 1,
        "relay": {
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_ms": null,
            "draining": false,
            "clients_max": 32_768,
            "channels_max": 65_536,
            "commands_max": 4_096,
        },
        "services": [{
            "name": "default",
            "idle": 2,
            "wanted": null,
            "waiting": 0,
            "sessions": 1,
            "sessions_max": null,
            "queue_max": 1024,
            "assign_timeout_ms": 300_000,
        }],
        "hosts": [
            {
                "id": "127.0.0.1",
                "version": 1,
                "token": null,
                "services": null,
                "idle": { "default": 2 },
                "wanted": {},
                "sessions": 1,
                "sessions_max": null,
                "weight": null,
                "has_command": true,
                "suspect": false,
                "suspect_for_ms": null,
                "leaving": false,
                "rtt_us": null,
                "last_refusal": null,
            },
            {
                "id": "ab".repeat(16),
                "version": 2,
                "token": null,
                "services": ["default"],
                "idle": {},
                "wanted": { "default": 3 },
                "sessions": 0,
                "sessions_max": 7,
                "weight": 250,
                "has_command": true,
                "suspect": false,
                "suspect_for_ms": null,
                "leaving": false,
                "rtt_us": null,
                "last_refusal": null,
            },
        ],
        "ended": { "client_aborted": 1 },
        "refused_clients": {},
        "refused_hosts": {},
    })
}

#[tokio::test]
async fn the_socket_is_the_owners_alone_and_goes_with_its_relay() {
    let (mut relay, path, _directory) = with_socket();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // It is there while the relay drains, too.
    let mut host = relay.host(1).await;
    let (client, channel) = session(&relay, &mut host).await;
    relay.handle().drain();
    let status = async {
        loop {
            let status = read(&path).await;
            if status["relay"]["draining"] == true {
                return status;
            }
        }
    };
    assert_eq!(within("the drain", status).await["services"][0]["sessions"], 1);
    drop((client, channel));
    relay.ended().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_dead_relays_socket_is_replaced_and_a_living_ones_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(STATUS_SOCKET);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "it is stale");
    let start = || TestRelay::with(|config| config.status_socket = Some(path.clone()));
    let mut first = start();
    let _host = first.host(1).await;
    let mut second = start();
    assert_eq!(read(&path).await["hosts"].as_array().unwrap().len(), 1, "the first one's");
    second.handle().abort();
    second.ended().await;
    assert_eq!(read(&path).await["hosts"].as_array().unwrap().len(), 1, "and still");
    first.handle().abort();
    first.ended().await;
    assert!(!path.exists());
    // What is no socket stays, and the relay does without.
    std::fs::write(&path, "precious").unwrap();
    let mut third = start();
    let _host = third.host(1).await;
    third.handle().abort();
    third.ended().await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}
