//! Idle connections: what is told of them, and that nothing is lost by asking.

use std::io::ErrorKind;
use std::net::Shutdown;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::*;
use crate::Heard;

async fn heard(stream: &mut Stream) -> Heard {
    timeout(DEADLINE, stream.waits()).await.unwrap()
}

/// Asks once, when something has come in over the socket. `None`: that was nothing to be told.
async fn heard_of_what_came(stream: &mut Stream) -> Option<Heard> {
    let came = timeout(DEADLINE, stream.tcp().unwrap().peek(&mut [0])).await.unwrap().unwrap();
    assert!(came > 0);
    tokio::select! {
        biased;
        heard = stream.waits() => Some(heard),
        () = std::future::ready(()) => None,
    }
}

#[tokio::test]
async fn tickets_and_new_keys_are_nothing_to_be_told() {
    let (mut client, mut server) = pair().await;
    assert!(heard_of_what_came(&mut client).await.is_none(), "tickets");
    for _ in 0..3 {
        let tokio_rustls::TlsStream::Server(inner) = &mut tls_mut(&mut server).inner else {
            panic!("not a server's");
        };
        inner.get_mut().1.refresh_traffic_keys().unwrap();
        server.flush().await.unwrap();
        assert!(heard_of_what_came(&mut client).await.is_none(), "new keys");
    }
    // And both directions are in order behind them.
    server.write_all(b"word").await.unwrap();
    client.write_all(b"answer").await.unwrap();
    let (mut word, mut answer) = ([0; 4], [0; 6]);
    client.read_exact(&mut word).await.unwrap();
    server.read_exact(&mut answer).await.unwrap();
    assert_eq!((&word, &answer), (b"word", b"answer"));
}

#[tokio::test]
async fn what_was_heard_of_stays_to_be_read() {
    let (mut client, mut server) = pair().await;
    let sent = content(100_000, 1);
    let sending = async {
        server.write_all(&sent).await.unwrap();
        server.shutdown().await.unwrap();
    };
    let reading = async {
        let mut received = Vec::new();
        loop {
            // Some are given up halfway.
            let _given_up = timeout(Duration::ZERO, client.waits()).await;
            match heard(&mut client).await {
                Heard::Bytes => {
                    let mut part = [0; 1000];
                    let count = client.read(&mut part).await.unwrap();
                    assert!(count > 0);
                    received.extend_from_slice(&part[..count]);
                }
                Heard::End => break received,
                Heard::Failed(error) => panic!("{error}"),
            }
        }
    };
    let ((), received) = tokio::join!(sending, reading);
    assert!(received == sent, "{} bytes of {}", received.len(), sent.len());
    assert!(matches!(heard(&mut client).await, Heard::End), "an end is one for good");
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn an_end_that_is_not_tls_own_is_a_failure() {
    let (mut client, mut server) = pair().await;
    server.write_all(b"half an ").await.unwrap();
    SockRef::from(server.tcp().unwrap()).shutdown(Shutdown::Write).unwrap();
    let mut received = Vec::new();
    let error = client.read_to_end(&mut received).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    assert_eq!(received, b"half an ");
    let Heard::Failed(error) = heard(&mut client).await else { panic!("taken for an end") };
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn an_abort_is_a_failure_however_it_comes_about() {
    let (mut client, server) = pair().await;
    // Tickets out of the way: what nobody reads makes any close a reset.
    assert!(heard_of_what_came(&mut client).await.is_none());
    server.abort();
    let Heard::Failed(error) = heard(&mut client).await else { panic!("taken for an end") };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    let (client, mut server) = pair().await;
    client.reset_on_close();
    drop(client);
    let error = server.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    // Dropped with no more ado.
    let (mut client, server) = pair().await;
    assert!(heard_of_what_came(&mut client).await.is_none());
    drop(server);
    let Heard::Failed(error) = heard(&mut client).await else { panic!("taken for an end") };
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}
