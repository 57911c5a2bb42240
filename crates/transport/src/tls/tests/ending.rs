//! Half-close and close over TLS, whole and in halves.

use std::io::ErrorKind;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::*;
use crate::{acknowledged, close_politely};

const MEGABYTE: usize = 1 << 20;

/// `first` sends and ends, and only then the other side sends and ends. All of it arrives.
async fn ends_first(mut first: Stream, mut second: Stream) {
    let (question, answer) = (content(MEGABYTE, 1), content(MEGABYTE, 2));
    let (mut got_question, mut got_answer) = (Vec::new(), Vec::new());
    let one = async {
        first.write_all(&question).await.unwrap();
        first.shutdown().await.unwrap();
        first.read_to_end(&mut got_answer).await.unwrap();
    };
    let other = async {
        second.read_to_end(&mut got_question).await.unwrap();
        second.write_all(&answer).await.unwrap();
        second.shutdown().await.unwrap();
    };
    timeout(DEADLINE, async { tokio::join!(one, other) }).await.unwrap();
    assert!(got_question == question, "{} bytes", got_question.len());
    assert!(got_answer == answer, "{} bytes", got_answer.len());
    for stream in [&first, &second] {
        timeout(DEADLINE, acknowledged(stream.tcp())).await.unwrap();
    }
    assert!(first.write(b"more").await.is_err(), "written behind the end");
}

#[tokio::test]
async fn either_side_ends_first_and_still_gets_the_others_megabyte() {
    let (client, server) = pair().await;
    ends_first(client, server).await;
    let (client, server) = pair().await;
    ends_first(server, client).await;
}

#[tokio::test]
async fn halves_work_in_tasks_of_their_own() {
    let (client, server) = pair().await;
    let (from_server, from_client) = (content(MEGABYTE, 3), content(MEGABYTE, 4));
    let echoes =
        [(client, from_client.clone(), from_server.clone()), (server, from_server, from_client)];
    let mut tasks = Vec::new();
    for (stream, sends, expects) in echoes {
        let (mut reader, mut writer) = stream.into_split();
        tasks.push(tokio::spawn(async move {
            for part in sends.chunks(10_007) {
                writer.write_all(part).await.unwrap();
            }
            // Dropping it is the end.
        }));
        tasks.push(tokio::spawn(async move {
            let mut received = Vec::new();
            reader.read_to_end(&mut received).await.unwrap();
            assert!(received == expects, "{} bytes", received.len());
        }));
    }
    for task in tasks {
        timeout(DEADLINE, task).await.unwrap().unwrap();
    }
}

/// Writes until nobody takes any more, for now.
async fn fill(writer: &mut (impl AsyncWrite + Unpin)) -> Vec<u8> {
    let mut sent = Vec::new();
    let chunk = content(64 * 1024, 5);
    while let Ok(count) = timeout(Duration::from_millis(200), writer.write(&chunk)).await {
        sent.extend_from_slice(&chunk[..count.unwrap()]);
    }
    sent
}

async fn read_all(reader: &mut (impl AsyncRead + Unpin)) -> (Vec<u8>, Option<ErrorKind>) {
    let mut received = Vec::new();
    let end = timeout(DEADLINE, reader.read_to_end(&mut received)).await.unwrap();
    (received, end.err().map(|error| error.kind()))
}

#[tokio::test]
async fn an_end_that_the_socket_does_not_take_goes_out_while_the_other_half_is_read() {
    let (client, mut server) = pair().await;
    let (mut reader, mut writer) = client.into_split();
    let sent = fill(&mut writer).await;
    drop(writer);
    let answering = async {
        let received = read_all(&mut server).await;
        server.write_all(b"answer").await.unwrap();
        server.shutdown().await.unwrap();
        received
    };
    let ((received, error), answer) = tokio::join!(answering, read_all(&mut reader));
    assert_eq!(error, None);
    assert!(received == sent, "{} bytes of {}", received.len(), sent.len());
    assert_eq!(answer, (b"answer".to_vec(), None));
}

#[tokio::test]
async fn an_end_that_nobody_was_left_to_send_is_an_abort() {
    let (client, mut server) = pair().await;
    let (mut reader, mut writer) = client.into_split();
    server.write_all(b"!").await.unwrap();
    reader.read_exact(&mut [0]).await.unwrap();
    let sent = fill(&mut writer).await;
    drop((reader, writer));
    let (received, error) = read_all(&mut server).await;
    assert_eq!(error, Some(ErrorKind::UnexpectedEof));
    assert!(sent.starts_with(&received));
}

#[tokio::test]
async fn a_half_that_is_forgotten_sends_no_end() {
    let (client, mut server) = pair().await;
    let (reader, writer) = client.into_split();
    writer.reset_on_close();
    writer.forget();
    drop(reader);
    let (received, error) = read_all(&mut server).await;
    assert_eq!((received, error), (Vec::new(), Some(ErrorKind::ConnectionReset)));
}

#[tokio::test]
async fn who_cannot_wait_can_end_all_the_same() {
    let (mut client, mut server) = pair().await;
    client.write_all(b"last").await.unwrap();
    client.end_now();
    assert_eq!(read_all(&mut server).await, (b"last".to_vec(), None));
    server.write_all(b"word").await.unwrap();
    server.end_now();
    assert_eq!(read_all(&mut client).await, (b"word".to_vec(), None));
}

#[tokio::test]
async fn a_peer_that_still_sends_reads_our_last_bytes() {
    let (mut client, mut server) = pair().await;
    client.write_all(&content(100_000, 6)).await.unwrap();
    server.write_all(b"no").await.unwrap();
    let closing = async move { close_politely(&mut server, DEADLINE, DEADLINE).await };
    let reading = async move {
        let received = read_all(&mut client).await;
        client.shutdown().await.unwrap();
        received
    };
    let ((), received) = tokio::join!(closing, reading);
    assert_eq!(received, (b"no".to_vec(), None));
}

#[tokio::test]
async fn all_of_it_can_go_to_another_task() {
    fn can(_: impl Send) {}
    let (mut client, _server) = pair().await;
    let ((dialled, accepted), server) = (tcp_pair().await, server());
    can(pinning(&server).connect(dialled, "relay.test"));
    can(server.accept(accepted));
    can(client.waits());
    can(client.shutdown());
    can(client.into_split());
}
