//! What passes between a client and its host, in what order, and how either's end reaches the other.

use std::time::Duration;

use relayserver_wire::command::Announcement;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, interval};

use crate::peers::{
    Channel, Command, TestRelay, assert_ended, assert_reset, content, echo, exchange, read_exactly,
    read_rest, reset, session, write,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_arrives_in_order_both_ways_at_once() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    for (to_host, to_client) in
        [(0, 0), (1, 0), (0, 1), (70_000, 3), (5, 300_001), (16 << 20, 16 << 20)]
    {
        let (mut client, mut channel) = session(&relay, &mut host).await;
        let (from_client, from_host) = (content(1, to_host), content(2, to_client));
        exchange((&mut client, &from_client), (&mut channel.stream, &from_host)).await;
        // Its client may have been first to end, and then a drop was announced: the next one starts afresh.
        drop(host);
        relay.until_empty().await;
        host = relay.host(1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sessions_at_once_keep_their_bytes_apart() {
    let relay = TestRelay::start();
    let host = relay.host(1).await;
    let channels = host.idle_channels(&relay, 50).await;
    // The channels were idle in this order, and the clients come in this order.
    let mut clients = Vec::new();
    for number in 1..=channels.len() {
        clients.push(relay.client().await);
        relay.until_sessions(number).await;
    }
    let mut sessions = tokio::task::JoinSet::new();
    for (seed, (mut client, mut channel)) in (0..).zip(clients.into_iter().zip(channels)) {
        sessions.spawn(async move {
            let (from_client, from_host) = (content(seed, 200_000), content(!seed, 200_000));
            exchange((&mut client, &from_client), (&mut channel.stream, &from_host)).await;
        });
    }
    assert_eq!(sessions.join_all().await.len(), 50);
    relay.until_sessions(0).await;
}

#[tokio::test]
async fn a_clients_half_close_is_passed_on_and_the_host_answers_after_it() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    let (mut client, mut channel) = session(&relay, &mut host).await;
    write(&mut client, b"question").await;
    client.shutdown().await.unwrap();
    assert_eq!(read_rest(&mut channel.stream).await, b"question");
    let answer = content(1, 1 << 20);
    let answering = tokio::spawn(async move {
        write(&mut channel.stream, &answer).await;
        channel.stream.shutdown().await.unwrap();
        answer
    });
    let received = read_rest(&mut client).await;
    assert!(received == answering.await.unwrap(), "{} bytes are not the answer", received.len());
    relay.until_sessions(0).await;
}

#[tokio::test]
async fn a_hosts_half_close_is_passed_on_and_the_client_goes_on_sending() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    let (mut client, mut channel) = session(&relay, &mut host).await;
    write(&mut channel.stream, b"all I say").await;
    channel.stream.shutdown().await.unwrap();
    assert_eq!(read_rest(&mut client).await, b"all I say");
    let upload = content(1, 1 << 20);
    let uploading = tokio::spawn(async move {
        write(&mut client, &upload).await;
        client.shutdown().await.unwrap();
        upload
    });
    let received = read_rest(&mut channel.stream).await;
    assert!(received == uploading.await.unwrap(), "{} bytes are not the upload", received.len());
    relay.until_sessions(0).await;
}

#[tokio::test]
async fn a_clients_reset_is_a_reset_for_the_host() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    let (client, mut channel) = session(&relay, &mut host).await;
    reset(client);
    assert_eq!(assert_reset(&mut channel.stream).await, b"");
    relay.until_sessions(0).await;
}

#[tokio::test]
async fn a_hosts_reset_is_a_reset_for_the_client() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    let (mut client, channel) = session(&relay, &mut host).await;
    reset(channel.stream);
    assert_eq!(assert_reset(&mut client).await, b"");
    relay.until_sessions(0).await;
}

#[tokio::test]
async fn a_reset_after_the_half_close_is_a_reset_for_the_other_side() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    let (mut client, mut channel) = session(&relay, &mut host).await;
    client.shutdown().await.unwrap();
    assert_ended(&mut channel.stream).await;
    reset(client);
    // The host has read the client's end already: only its writes can tell it.
    let failed = async {
        while channel.stream.write_all(b"answer").await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    crate::peers::within("a failing write", failed).await;
    relay.until_sessions(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_fails_midway_shows_at_the_client_as_a_reset_not_an_end() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    let (mut client, mut channel) = session(&relay, &mut host).await;
    let answer = content(1, 4 << 20);
    let (begun, rest) = answer.split_at(100_000);
    write(&mut channel.stream, begun).await;
    assert!(read_exactly(&mut client, begun.len()).await == begun);
    let reading = tokio::spawn(async move { assert_reset(&mut client).await });
    write(&mut channel.stream, rest).await;
    reset(channel.stream);
    let received = reading.await.unwrap();
    assert!(rest.starts_with(&received), "{} bytes are not the host's", received.len());
    relay.until_sessions(0).await;
}

#[tokio::test]
async fn an_assignment_is_announced_to_all_command_channels_of_the_channels_own_address() {
    let relay = TestRelay::start();
    let mut one = relay.host(1).await;
    let mut second_of_one = Command::open(&relay, one.address).await;
    let mut two = relay.host(2).await;
    let (_client_of_one, channel_of_one) = session(&relay, &mut one).await;
    second_of_one.assert_next(Announcement::Open { channel_id: channel_of_one.id }).await;
    // The first that the other host hears is about its own.
    let (_client_of_two, channel_of_two) = session(&relay, &mut two).await;
    assert_ne!(channel_of_one.id, channel_of_two.id);
    // And nobody else heard that.
    let (_another_client, channel_of_one) = session(&relay, &mut one).await;
    second_of_one.assert_next(Announcement::Open { channel_id: channel_of_one.id }).await;
}

#[tokio::test]
async fn where_a_channels_address_has_no_command_channel_all_hear_of_it() {
    let relay = TestRelay::start();
    let mut one = relay.host(1).await;
    let mut two = relay.host(2).await;
    let channel = Channel::open(&relay, [127, 0, 0, 3].into()).await;
    let client = relay.client().await;
    one.assert_opened(&channel).await;
    two.assert_opened(&channel).await;
    drop(client);
    one.assert_dropped(&channel).await;
    two.assert_dropped(&channel).await;
}

#[tokio::test]
async fn a_drop_is_announced_once_when_the_client_finishes() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    let (mut client, mut channel) = session(&relay, &mut host).await;
    client.shutdown().await.unwrap();
    host.assert_dropped(&channel).await;
    assert_ended(&mut channel.stream).await;
    // The client's reset is no second one.
    reset(client);
    relay.until_sessions(0).await;
    session(&relay, &mut host).await;
}

#[tokio::test]
async fn a_drop_is_announced_once_when_the_client_is_reset() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    let (client, channel) = session(&relay, &mut host).await;
    reset(client);
    host.assert_dropped(&channel).await;
    relay.until_sessions(0).await;
    session(&relay, &mut host).await;
}

#[tokio::test]
async fn no_drop_is_announced_when_the_host_ended_first() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    let (mut client, mut channel) = session(&relay, &mut host).await;
    channel.stream.shutdown().await.unwrap();
    assert_ended(&mut client).await;
    client.shutdown().await.unwrap();
    assert_ended(&mut channel.stream).await;
    relay.until_sessions(0).await;
    let (mut client, channel) = session(&relay, &mut host).await;
    reset(channel.stream);
    assert_reset(&mut client).await;
    drop(client);
    relay.until_sessions(0).await;
    session(&relay, &mut host).await;
}

#[tokio::test]
async fn a_half_closed_session_ends_when_it_was_silent_for_the_bound_and_an_open_one_does_not() {
    let bound = Duration::from_millis(200);
    let relay = TestRelay::with(|config| config.half_closed_timeout = bound);
    let mut host = relay.host(1).await;
    let (mut open_client, mut open_channel) = session(&relay, &mut host).await;
    let (mut client, mut channel) = session(&relay, &mut host).await;
    client.shutdown().await.unwrap();
    assert_ended(&mut channel.stream).await;

    // For as long as bytes move it goes on.
    let mut pace = interval(bound / 5);
    let begun = Instant::now();
    while begun.elapsed() < bound * 4 {
        pace.tick().await;
        write(&mut channel.stream, b"still there").await;
        assert_eq!(read_exactly(&mut client, 11).await, b"still there");
    }
    let silent_from = Instant::now();
    assert_eq!(assert_reset(&mut client).await, b"");
    assert!(silent_from.elapsed() >= bound, "ended after {:?}", silent_from.elapsed());
    relay.until_sessions(1).await;
    echo(&mut open_client, &mut open_channel.stream).await;
}
