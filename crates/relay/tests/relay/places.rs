//! The queue of waiting clients: who waits, for how long, who loses its place, and what holds when everything is full.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::peers::{
    Channel, DEADLINE, TestRelay, assert_closed, assert_ended, assert_reset, connect_from, echo,
    read_exactly, read_rest, reset, session, write,
};

/// Clients that wait in this order, each having sent its number.
async fn queue(relay: &TestRelay, count: u8) -> Vec<TcpStream> {
    let before = relay.occupancy().waiting;
    let mut clients = Vec::new();
    for number in 0..count {
        let mut client = relay.client().await;
        relay.until_waiting(before + usize::from(number) + 1).await;
        write(&mut client, &[number]).await;
        clients.push(client);
    }
    clients
}

#[tokio::test]
async fn a_client_waits_until_a_channel_comes() {
    let relay = TestRelay::start();
    let host = relay.host(1).await;
    let mut client = relay.client().await;
    relay.until_waiting(1).await;
    let mut channel = host.channel(&relay).await;
    echo(&mut client, &mut channel.stream).await;
}

#[tokio::test]
async fn a_client_waits_until_a_host_comes() {
    let relay = TestRelay::start();
    let mut client = relay.client().await;
    relay.until_waiting(1).await;
    let mut channel = relay.host(1).await.channel(&relay).await;
    echo(&mut client, &mut channel.stream).await;
}

#[tokio::test]
async fn waiting_clients_are_served_in_the_order_of_their_arrival() {
    let relay = TestRelay::start();
    let _clients = queue(&relay, 5).await;
    let host = relay.host(1).await;
    for number in 0..5 {
        let mut channel = host.channel(&relay).await;
        assert_eq!(read_exactly(&mut channel.stream, 1).await, [number]);
    }
}

#[tokio::test]
async fn a_client_that_waited_too_long_reads_an_end_and_not_a_reset() {
    let bound = Duration::from_millis(300);
    let relay = TestRelay::with(|config| config.default_service().limits.assign_timeout = bound);
    let _host = relay.host(1).await;
    let begun = Instant::now();
    let mut silent = relay.client().await;
    let mut speaking = relay.client().await;
    write(&mut speaking, &[7; 10_000]).await;
    assert_ended(&mut silent).await;
    assert_ended(&mut speaking).await;
    let waited = begun.elapsed();
    assert!(waited >= bound && waited < DEADLINE / 2, "{waited:?}");
    relay.until_waiting(0).await;
}

#[tokio::test]
async fn with_an_assign_timeout_of_zero_a_client_is_refused_at_once() {
    let relay =
        TestRelay::with(|config| config.default_service().limits.assign_timeout = Duration::ZERO);
    let mut without_host = relay.client().await;
    write(&mut without_host, &[7; 10_000]).await;
    assert_ended(&mut without_host).await;

    let mut host = relay.host(1).await;
    assert_ended(&mut relay.client().await).await;
    // With a channel that is idle already, it is served.
    let mut channel = host.idle_channels(&relay, 1).await.remove(0);
    let mut client = relay.client().await;
    host.assert_opened(&channel).await;
    echo(&mut client, &mut channel.stream).await;
}

#[tokio::test]
async fn a_client_that_finishes_while_waiting_and_sent_nothing_frees_its_place() {
    let relay = TestRelay::start();
    let mut gone = relay.client().await;
    relay.until_waiting(1).await;
    gone.shutdown().await.unwrap();
    relay.until_waiting(0).await;
    assert_ended(&mut gone).await;
    assert_next_is_served(&relay).await;
}

#[tokio::test]
async fn a_client_that_is_reset_while_waiting_frees_its_place() {
    let relay = TestRelay::start();
    let silent = relay.client().await;
    relay.until_waiting(1).await;
    reset(silent);
    relay.until_waiting(0).await;

    let mut speaking = relay.client().await;
    relay.until_waiting(1).await;
    write(&mut speaking, b"never mind").await;
    reset(speaking);
    relay.until_waiting(0).await;

    let mut half_closed = relay.client().await;
    relay.until_waiting(1).await;
    write(&mut half_closed, b"never mind").await;
    half_closed.shutdown().await.unwrap();
    reset(half_closed);
    relay.until_waiting(0).await;
    assert_next_is_served(&relay).await;
}

#[tokio::test]
async fn a_waiting_client_that_sent_bytes_and_finished_keeps_its_place() {
    let relay = TestRelay::start();
    let mut client = relay.client().await;
    relay.until_waiting(1).await;
    write(&mut client, b"question").await;
    client.shutdown().await.unwrap();
    // One that came later has left already.
    let mut later = relay.client().await;
    relay.until_waiting(2).await;
    later.shutdown().await.unwrap();
    relay.until_waiting(1).await;

    let mut host = relay.host(1).await;
    let mut channel = host.channel(&relay).await;
    host.assert_opened(&channel).await;
    assert_eq!(read_rest(&mut channel.stream).await, b"question");
    host.assert_dropped(&channel).await;
    write(&mut channel.stream, b"answer").await;
    channel.stream.shutdown().await.unwrap();
    assert_eq!(read_rest(&mut client).await, b"answer");
}

#[tokio::test]
async fn the_queue_takes_no_more_than_its_bound() {
    let relay = TestRelay::with(|config| config.default_service().limits.queue_max = 2);
    let _waiting = queue(&relay, 2).await;
    assert_closed(&mut relay.client().await).await;
    assert_eq!(relay.occupancy().waiting, 2);
    let host = relay.host(1).await;
    for number in 0..2 {
        let mut channel = host.channel(&relay).await;
        assert_eq!(read_exactly(&mut channel.stream, 1).await, [number]);
    }
}

#[tokio::test]
async fn clients_are_no_more_than_their_bound() {
    let relay = TestRelay::with(|config| config.limits.clients_max = 2);
    let mut host = relay.host(1).await;
    let (client, channel) = session(&relay, &mut host).await;
    let mut waiting = relay.client().await;
    relay.until_waiting(1).await;
    assert_closed(&mut relay.client().await).await;

    reset(client);
    host.assert_dropped(&channel).await;
    relay.until_sessions(0).await;
    let mut second = host.channel(&relay).await;
    echo(&mut waiting, &mut second.stream).await;
    host.assert_opened(&second).await;
    session(&relay, &mut host).await;
}

#[tokio::test]
async fn channels_are_no_more_than_their_bound() {
    let relay = TestRelay::with(|config| config.limits.channels_max = 2);
    let mut host = relay.host(1).await;
    let (client, _channel) = session(&relay, &mut host).await;
    let idle = host.idle_channels(&relay, 1).await;
    assert_no_answer(&relay, &host.address.to_string()).await;
    drop(idle);
    relay.until_idle(0).await;
    drop(host.idle_channels(&relay, 1).await);
    relay.until_idle(0).await;
    let _second = host.idle_channels(&relay, 1).await;
    assert_no_answer(&relay, "127.0.0.2").await;
    // A session's end makes room as well.
    reset(client);
    relay.until_sessions(0).await;
    host.idle_channels(&relay, 1).await;
}

#[tokio::test]
async fn command_channels_are_no_more_than_their_bound() {
    let relay = TestRelay::with(|config| config.limits.commands_max = 1);
    let mut host = relay.host(1).await;
    let mut refused = connect_from([127, 0, 0, 2].into(), relay.command).await;
    assert_ended(&mut refused).await;
    assert_eq!(relay.occupancy().commands, 1);
    session(&relay, &mut host).await;
    drop(host);
    relay.until("the host has left", |it| it.hosts == 0).await;
    relay.host(2).await;
}

async fn assert_no_answer(relay: &TestRelay, address: &str) {
    let mut stream = connect_from(address.parse().unwrap(), relay.hosts).await;
    write(&mut stream, &relayserver_wire::hello::Hello { version: 1, v2: None }.encode()).await;
    assert_closed(&mut stream).await;
}

/// Those who left have left nothing behind: the next client gets the next channel.
async fn assert_next_is_served(relay: &TestRelay) {
    let mut host = relay.host(1).await;
    let mut channel: Channel = host.idle_channels(relay, 1).await.remove(0);
    let mut client = relay.client().await;
    host.assert_opened(&channel).await;
    echo(&mut client, &mut channel.stream).await;
    reset(client);
    assert_reset(&mut channel.stream).await;
}
