//! What becomes of a session whose host loses its command channel, or is lost altogether.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::peers::{
    Channel, Command, TestRelay, assert_ended, assert_reset, content, echo, read_exactly,
    read_rest, session, within, write,
};

#[tokio::test]
async fn the_end_of_the_command_channel_alone_ends_no_open_session() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    let (mut client, mut channel) = session(&relay, &mut host).await;
    drop(host);
    relay.until("the host has left", |it| it.hosts == 0).await;
    echo(&mut client, &mut channel.stream).await;
    // Half-closed by the client it goes on too: the host is there to answer.
    client.shutdown().await.unwrap();
    assert_ended(&mut channel.stream).await;
    write(&mut channel.stream, b"late answer").await;
    assert_eq!(read_exactly(&mut client, 11).await, b"late answer");
    assert_eq!(relay.occupancy().sessions, 1);
}

#[tokio::test]
async fn a_session_whose_host_finished_and_lost_its_last_command_channel_ends() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    let second = Command::open(&relay, host.address).await;
    let (mut client, mut channel) = session(&relay, &mut host).await;
    write(&mut channel.stream, b"all I say").await;
    channel.stream.shutdown().await.unwrap();
    assert_eq!(read_rest(&mut client).await, b"all I say");

    // One of two: the host is still there.
    drop(host);
    relay.until("one command channel has gone", |it| it.commands == 1).await;
    write(&mut client, b"more").await;
    assert_eq!(read_exactly(&mut channel.stream, 4).await, b"more");

    drop(second);
    relay.until_empty().await;
    assert_eq!(assert_reset(&mut channel.stream).await, b"");
}

#[tokio::test]
async fn a_host_without_command_channels_of_its_own_is_lost_with_the_last_of_all() {
    let relay = TestRelay::start();
    let (mut one, two) = (relay.host(1).await, relay.host(2).await);
    let mut channel = Channel::open(&relay, [127, 0, 0, 3].into()).await;
    let mut client = relay.client().await;
    one.assert_opened(&channel).await;
    channel.stream.shutdown().await.unwrap();
    assert_ended(&mut client).await;
    drop(one);
    relay.until("one host has left", |it| it.hosts == 1).await;
    write(&mut client, b"more").await;
    assert_eq!(read_exactly(&mut channel.stream, 4).await, b"more");
    drop(two);
    relay.until_empty().await;
    assert_reset(&mut channel.stream).await;
}

#[tokio::test]
async fn another_hosts_loss_ends_no_finished_session() {
    let relay = TestRelay::start();
    let (mut one, two) = (relay.host(1).await, relay.host(2).await);
    let (mut client, mut channel) = session(&relay, &mut one).await;
    channel.stream.shutdown().await.unwrap();
    assert_ended(&mut client).await;
    drop(two);
    relay.until("one host has left", |it| it.hosts == 1).await;
    write(&mut client, b"more").await;
    assert_eq!(read_exactly(&mut channel.stream, 4).await, b"more");
    assert_eq!(relay.occupancy().sessions, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lost_host_had_sent_reaches_its_client_however_slowly_that_reads() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    let (mut client, mut channel) = session(&relay, &mut host).await;
    let answer = content(1, 32 << 20);
    let sent = answer.clone();
    let sending = tokio::spawn(async move {
        channel.stream.write_all(&sent).await.unwrap();
        channel.stream.shutdown().await.unwrap();
        channel
    });
    let begun = read_exactly(&mut client, 1 << 20).await;
    drop(host);
    relay.until("the host has left", |it| it.hosts == 0).await;
    let received = [begun, read_rest(&mut client).await].concat();
    assert!(received == answer, "{} bytes are not the answer", received.len());
    let mut channel = within("all to be sent", sending).await.unwrap();
    assert_reset(&mut channel.stream).await;
    relay.until_empty().await;
}

/// The relay's socket still holds most of the answer when the session's own work is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lost_host_had_sent_reaches_a_client_that_neither_reads_nor_closes_for_now() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    let (mut client, mut channel) = session(&relay, &mut host).await;
    let answer = content(1, 1 << 20);
    write(&mut channel.stream, &answer).await;
    channel.stream.shutdown().await.unwrap();
    drop(host);
    relay.until_empty().await;
    assert_reset(&mut channel.stream).await;
    let received = read_rest(&mut client).await;
    assert!(received == answer, "{} bytes are not the answer", received.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lost_host_had_sent_reaches_a_client_that_goes_on_sending() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    let (client, mut channel) = session(&relay, &mut host).await;
    let (mut reader, mut writer) = client.into_split();
    let answer = content(1, 1 << 20);
    write(&mut channel.stream, &answer).await;
    channel.stream.shutdown().await.unwrap();
    drop(host);
    relay.until("the host has left", |it| it.hosts == 0).await;
    let sending = tokio::spawn(async move {
        while writer.write_all(b"more of it").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert_reset(&mut channel.stream).await;
    // A reader that takes longer than most: five seconds for what fits into buffers.
    let mut received = Vec::new();
    let mut chunk = [0; 1 << 16];
    let mut pace = tokio::time::interval(Duration::from_millis(300));
    loop {
        pace.tick().await;
        let read = tokio::io::AsyncReadExt::read(&mut reader, &mut chunk);
        match within("the next bytes", read).await.unwrap() {
            0 => break,
            len => received.extend_from_slice(&chunk[..len]),
        }
    }
    assert!(received == answer, "{} bytes are not the answer", received.len());
    drop(reader);
    sending.abort();
    relay.until_empty().await;
}
