//! A web application behind the relay.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, State};
use axum::routing::get;
use futures_util::{SinkExt, StreamExt, stream};
use relayserver_testing::TestRelay;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_tungstenite::tungstenite;

use crate::{rest, within};

async fn get_path(client: &mut TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
}

async fn serve(relay: &TestRelay, app: Router) -> tokio::task::JoinHandle<std::io::Result<()>> {
    let listener = within(relay.listener().listen()).await.unwrap().into_axum();
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await })
}

#[tokio::test]
async fn an_application_sees_where_its_client_is() {
    let relay = TestRelay::start();
    let who = async |ConnectInfo(client): ConnectInfo<SocketAddr>| client.to_string();
    let serving = serve(&relay, Router::new().route("/", get(who))).await;
    let mut client = relay.connect().await.unwrap();
    let address = client.local_addr().unwrap();
    get_path(&mut client, "/").await;
    let answer = String::from_utf8(rest(&mut client).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with(&format!("\r\n\r\n{address}")), "{answer}");
    serving.abort();
}

#[tokio::test]
async fn a_connection_is_upgraded_to_a_websocket() {
    async fn echo(mut socket: WebSocket) {
        while let Some(Ok(message)) = socket.recv().await {
            if matches!(message, Message::Text(_) | Message::Binary(_)) {
                socket.send(message).await.unwrap();
            }
        }
    }
    let relay = TestRelay::start();
    let upgrade = async |upgrade: WebSocketUpgrade| upgrade.on_upgrade(echo);
    let serving = serve(&relay, Router::new().route("/ws", get(upgrade))).await;
    let stream = relay.connect().await.unwrap();
    let connected = tokio_tungstenite::client_async("ws://relay/ws", stream);
    let (mut socket, response) = within(connected).await.unwrap();
    assert_eq!(response.status(), 101);
    for text in ["hello", "", "again"] {
        socket.send(tungstenite::Message::text(text)).await.unwrap();
        let answer = within(socket.next()).await.unwrap().unwrap();
        assert_eq!(answer, tungstenite::Message::text(text));
    }
    let bulk = vec![7; 1_000_000];
    socket.send(tungstenite::Message::binary(bulk.clone())).await.unwrap();
    let answer = within(socket.next()).await.unwrap().unwrap();
    assert!(answer.into_data() == bulk, "other bytes");
    socket.close(None).await.unwrap();
    while within(socket.next()).await.is_some_and(|message| message.is_ok()) {}
    serving.abort();
}

#[tokio::test]
async fn a_streaming_answer_is_finished_during_a_graceful_shutdown() {
    type Chunks = Arc<tokio::sync::Mutex<mpsc::Receiver<&'static str>>>;
    async fn slow(State((chunks, begun)): State<(Chunks, Arc<Notify>)>) -> Body {
        begun.notify_one();
        Body::from_stream(stream::unfold(chunks, async |chunks| {
            let chunk = chunks.lock().await.recv().await?;
            Some((Ok::<_, Infallible>(Bytes::from_static(chunk.as_bytes())), chunks))
        }))
    }
    let relay = TestRelay::start();
    let listener = within(relay.listener().listen()).await.unwrap();
    let (send, chunks) = mpsc::channel(1);
    let begun = Arc::new(Notify::new());
    let chunks = Arc::new(tokio::sync::Mutex::new(chunks));
    let app = Router::new().route("/", get(slow)).with_state((chunks, Arc::clone(&begun)));
    let (leave, left) = oneshot::channel::<()>();
    let serving = axum::serve(listener.into_axum(), app).with_graceful_shutdown(async {
        left.await.unwrap();
    });
    let serving = tokio::spawn(async move { serving.await });

    let mut client = relay.connect().await.unwrap();
    get_path(&mut client, "/").await;
    within(begun.notified()).await;
    send.send("first half, ").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"first half, \r\n") {
        assert!(within(client.read_buf(&mut answer)).await.unwrap() > 0, "cut off");
    }
    leave.send(()).unwrap();
    relay.wait_until(|now| now.idle == 0).await;
    assert!(!serving.is_finished(), "an answer is still on its way");
    send.send("second half").await.unwrap();
    drop(send);
    answer.extend(rest(&mut client).await);
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.contains("second half"), "{answer}");
    assert!(answer.ends_with("\r\n0\r\n\r\n"), "the answer is whole: {answer}");
    within(serving).await.unwrap().unwrap();
}
