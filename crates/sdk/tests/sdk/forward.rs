//! Sessions forwarded to a server that listens somewhere.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
#[cfg(target_os = "linux")]
use std::time::Duration;

use relayserver::handlers::Forward;
use relayserver_testing::TestRelay;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
#[cfg(target_os = "linux")]
use tokio::time::timeout;

use crate::{assert_reset, noise, rest, within};

/// Runs a test while sessions are forwarded to `target`.
async fn forwarded(target: &str, test: impl AsyncFnOnce(&TestRelay)) {
    let relay = TestRelay::start();
    let listener = within(relay.listener().listen()).await.unwrap();
    let forward: Forward = target.parse().unwrap();
    tokio::select! {
        () = within(test(&relay)) => {}
        _ended = listener.serve(forward) => panic!("the listener stopped serving"),
    }
}

async fn server() -> (TcpListener, String) {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = server.local_addr().unwrap().port().to_string();
    (server, port)
}

async fn met(relay: &TestRelay, server: &TcpListener) -> (TcpStream, TcpStream) {
    let client = relay.connect().await.unwrap();
    (client, within(server.accept()).await.unwrap().0)
}

#[tokio::test]
async fn bytes_and_half_closes_pass_both_ways() {
    let (server, port) = server().await;
    forwarded(&port, async |relay| {
        let (mut client, mut serving) = met(relay, &server).await;
        serving.write_all(b"220 I speak first\r\n").await.unwrap();
        let mut banner = [0; 19];
        client.read_exact(&mut banner).await.unwrap();
        assert_eq!(&banner, b"220 I speak first\r\n");

        let bulk = noise(3_000_000, 7);
        let sending = async {
            client.write_all(&bulk).await.unwrap();
            client.shutdown().await.unwrap();
        };
        let (received, ()) = tokio::join!(rest(&mut serving), sending);
        assert!(received == bulk, "{} bytes", received.len());
        serving.write_all(b"got it").await.unwrap();
        drop(serving);
        assert_eq!(rest(&mut client).await, b"got it");
    })
    .await;
}

#[tokio::test]
async fn an_abort_passes_both_ways() {
    let (server, port) = server().await;
    forwarded(&port, async |relay| {
        let (mut client, serving) = met(relay, &server).await;
        serving.set_zero_linger().unwrap();
        drop(serving);
        assert_reset(&mut client).await;

        let (client, mut serving) = met(relay, &server).await;
        client.set_zero_linger().unwrap();
        drop(client);
        assert_reset(&mut serving).await;
    })
    .await;
}

#[tokio::test]
async fn nobody_listening_resets_that_client_and_the_next_one_is_tried_again() {
    let (server, port) = server().await;
    let address = server.local_addr().unwrap();
    drop(server);
    forwarded(&port, async |relay| {
        match relay.connect().await {
            Ok(mut client) => assert_reset(&mut client).await,
            // The reset came before the client had seen itself connected.
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        let server = TcpListener::bind(address).await.unwrap();
        let (mut client, mut serving) = met(relay, &server).await;
        serving.write_all(b"now").await.unwrap();
        drop(serving);
        assert_eq!(rest(&mut client).await, b"now");
    })
    .await;
}

#[tokio::test]
async fn an_aborted_listener_aborts_the_server_too() {
    let (server, port) = server().await;
    let relay = TestRelay::start();
    let listener = within(relay.listener().listen()).await.unwrap();
    let forward: Forward = port.parse().unwrap();
    let aborting = async {
        let (mut client, mut serving) = met(&relay, &server).await;
        client.write_all(b"half a requ").await.unwrap();
        let mut received = [0; 11];
        serving.read_exact(&mut received).await.unwrap();
        listener.abort();
        assert_reset(&mut client).await;
        let error = within(serving.read(&mut received)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "half a request is not a whole one");
    };
    let (served, ()) = within(async { tokio::join!(listener.serve(forward), aborting) }).await;
    served.unwrap();
}

/// TCP waits by itself.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_unix_server_that_is_behind_with_accepting_is_waited_for() {
    let path = std::env::temp_dir().join(format!("relayserver-{}-busy", std::process::id()));
    let socket = tokio::net::UnixSocket::new_stream().unwrap();
    socket.bind(&path).unwrap();
    let server = socket.listen(1).unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = tokio::net::UnixStream::connect(&path).await {
        waiting.push(stream);
    }
    let target: Forward = format!("unix:{}", path.display()).parse().unwrap();
    let mut reaching = std::pin::pin!(target.reach());
    let early = timeout(Duration::from_millis(50), &mut reaching).await;
    assert!(early.is_err(), "there is no room: {early:?}");
    within(server.accept()).await.unwrap();
    within(reaching).await.unwrap();
    std::fs::remove_file(&path).unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_is_a_server_too() {
    let folder = std::env::temp_dir().join(format!("relayserver-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("app.sock");
    let server = tokio::net::UnixListener::bind(&path).unwrap();
    forwarded(&format!("unix:{}", path.display()), async |relay| {
        let mut client = relay.connect().await.unwrap();
        let (mut serving, _) = server.accept().await.unwrap();
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut received = Vec::new();
        serving.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"question");
        serving.write_all(b"answer").await.unwrap();
        drop(serving);
        assert_eq!(rest(&mut client).await, b"answer");
    })
    .await;
    std::fs::remove_dir_all(&folder).unwrap();
}
