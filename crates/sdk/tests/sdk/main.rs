//! The SDK as an application sees it, against the real relay where that will do, and against a scripted one where a real
//! relay would not: garbage, originals, and races that must be lost on purpose.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[cfg(feature = "axum")]
mod axum;
mod blocking;
#[cfg(feature = "tls")]
mod crowds;
#[cfg(all(feature = "exec", target_os = "linux"))]
mod exec;
#[cfg(feature = "tls")]
mod fleets;
mod forward;
mod held;
mod joining;
mod keeping;
mod leaving;
#[cfg(feature = "tls")]
mod member;
#[cfg(feature = "tls")]
mod offered;
#[cfg(feature = "tls")]
mod pools;
#[cfg(feature = "tls")]
mod reuse;
mod scripted;
mod sessions;

use std::io::ErrorKind;
use std::time::Duration;

use relayserver::{Listener, Session, Status};
use relayserver_testing::TestRelay;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long anything may take that takes milliseconds when it works.
const DEADLINE: Duration = Duration::from_secs(20);

/// Waits, but not for ever.
async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(DEADLINE, what).await.expect("it did not happen")
}

/// A relay, a listener, a client and its session.
async fn connected() -> (TestRelay, Listener, TcpStream, Session) {
    let relay = TestRelay::start();
    let listener = within(relay.listener().listen()).await.unwrap();
    let client = relay.connect().await.unwrap();
    let session = within(listener.accept()).await.unwrap();
    (relay, listener, client, session)
}

/// Everything up to the end.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    within(stream.read_to_end(&mut received)).await.unwrap();
    received
}

/// The connection ends with a reset, whatever came before.
async fn assert_reset(stream: &mut TcpStream) {
    let mut received = Vec::new();
    let error = within(stream.read_to_end(&mut received)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

async fn ask(relay: &TestRelay, question: &[u8]) -> Vec<u8> {
    let mut client = relay.connect().await.unwrap();
    client.write_all(question).await.unwrap();
    client.shutdown().await.unwrap();
    rest(&mut client).await
}

async fn status_becomes(listener: &Listener, wanted: impl Fn(&Status) -> bool) -> Status {
    let mut status = listener.status();
    let becomes = async {
        let mut now = status.get();
        while !wanted(&now) {
            now = status.changed().await.expect("the listener is gone");
        }
        now
    };
    within(becomes).await
}

/// Bytes that do not repeat within a test.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..len).map(|_| random.u8(..)).collect()
}
