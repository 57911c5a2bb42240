//! Which client gets which channel, and which channels are never given out.

use relayserver_wire::command::Announcement;
use tokio::io::AsyncWriteExt;

use crate::peers::{
    Command, TestRelay, assert_closed, assert_ended, assert_reset, echo, read_exactly, reset,
    session, write,
};

#[tokio::test]
async fn the_channel_that_has_waited_longest_is_first() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    let channels = host.idle_channels(&relay, 4).await;
    let mut clients = Vec::new();
    for channel in &channels {
        clients.push(relay.client().await);
        host.assert_opened(channel).await;
    }
    for (client, channel) in clients.iter_mut().zip(channels) {
        let mut stream = channel.stream;
        echo(client, &mut stream).await;
    }
}

#[tokio::test]
async fn channel_ids_are_positive_and_ascend_one_by_one() {
    let relay = TestRelay::start();
    let host = relay.host(1).await;
    let mut expected = None;
    for _ in 0..20 {
        // Also when it is given back at once, an id does not come up again.
        let channel = host.channel(&relay).await;
        assert!(channel.id > 0, "{}", channel.id);
        if let Some(expected) = expected {
            assert_eq!(channel.id, expected);
        }
        expected = Some(channel.id.checked_add(1).unwrap_or(1));
    }
}

#[tokio::test]
async fn the_host_with_fewest_sessions_is_first() {
    let relay = TestRelay::start();
    let mut hosts = Vec::new();
    let mut idle = Vec::new();
    for last in 1..=3 {
        // All channels of the first have waited longer than any of the second, and so on.
        let host = relay.host(last).await;
        idle.push(host.idle_channels(&relay, 4).await.into_iter());
        hosts.push(host);
    }
    let mut sessions = Vec::new();
    for _round in 0..3 {
        for (host, idle) in hosts.iter_mut().zip(&mut idle) {
            let (client, channel) = (relay.client().await, idle.next().unwrap());
            host.assert_opened(&channel).await;
            sessions.push((client, channel));
        }
    }
    // The last host is rid of one, so it is next, although its channel has waited the shortest.
    let (client, channel) = sessions.pop().unwrap();
    reset(client);
    hosts[2].assert_dropped(&channel).await;
    relay.until_sessions(8).await;
    let _client = relay.client().await;
    hosts[2].assert_opened(&idle[2].next().unwrap()).await;
}

#[tokio::test]
async fn a_hosts_departure_disturbs_no_other_hosts_sessions() {
    let relay = TestRelay::start();
    let (mut leaving, mut staying) = (relay.host(1).await, relay.host(2).await);
    let (mut lost_client, lost_channel) = session(&relay, &mut leaving).await;
    let (mut client, mut channel) = session(&relay, &mut staying).await;
    let idle_of_leaving = leaving.idle_channels(&relay, 2).await;
    let idle_of_staying = staying.idle_channels(&relay, 2).await;

    reset(lost_channel.stream);
    drop((leaving, idle_of_leaving));
    assert_reset(&mut lost_client).await;
    relay.until("only the other is left", |it| (it.hosts, it.idle, it.sessions) == (1, 2, 1)).await;
    echo(&mut client, &mut channel.stream).await;
    for channel in &idle_of_staying {
        let client = relay.client().await;
        staying.assert_opened(channel).await;
        reset(client);
        staying.assert_dropped(channel).await;
    }
    echo(&mut client, &mut channel.stream).await;
}

#[tokio::test]
async fn the_end_of_a_command_channel_takes_no_idle_channel_away() {
    let relay = TestRelay::start();
    let host = relay.host(1).await;
    let channels = host.idle_channels(&relay, 2).await;
    drop(host);
    relay.until("the host has left", |it| it.hosts == 0).await;
    assert_eq!(relay.occupancy().idle, 2);
    let mut host = relay.host(1).await;
    let _client = relay.client().await;
    host.assert_opened(&channels[0]).await;
}

#[tokio::test]
async fn no_channel_is_assigned_while_no_command_channel_is_up() {
    let relay = TestRelay::start();
    let host = relay.host(1).await;
    let mut channel = host.idle_channels(&relay, 1).await.remove(0);
    drop(host);
    relay.until("the host has left", |it| it.hosts == 0).await;
    let mut client = relay.client().await;
    relay.until_waiting(1).await;
    assert_eq!(relay.occupancy().idle, 1);
    // Any host's command channel will do: nothing ties one to the other.
    let mut other = Command::open(&relay, [127, 0, 0, 2].into()).await;
    other.assert_next(Announcement::Open { channel_id: channel.id }).await;
    echo(&mut client, &mut channel.stream).await;
}

#[tokio::test]
async fn an_idle_channel_that_ends_is_not_given_out() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    let mut channels = host.idle_channels(&relay, 4).await;
    let good = channels.pop().unwrap();
    reset(channels.pop().unwrap().stream);
    relay.until_idle(3).await;
    drop(channels.pop().unwrap());
    relay.until_idle(2).await;
    let mut half_closed = channels.pop().unwrap();
    half_closed.stream.shutdown().await.unwrap();
    relay.until_idle(1).await;
    assert_ended(&mut half_closed.stream).await;
    let _client = relay.client().await;
    host.assert_opened(&good).await;
}

#[tokio::test]
async fn an_idle_channel_that_speaks_is_closed_and_not_given_out() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    let mut channels = host.idle_channels(&relay, 2).await;
    write(&mut channels[0].stream, b"too early").await;
    assert_closed(&mut channels[0].stream).await;
    relay.until_idle(1).await;
    let _client = relay.client().await;
    host.assert_opened(&channels[1]).await;
}

#[tokio::test]
async fn a_host_may_speak_first_once_the_opening_is_announced() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    for _ in 0..100 {
        let (mut client, mut channel) = session(&relay, &mut host).await;
        write(&mut channel.stream, b"welcome").await;
        assert_eq!(read_exactly(&mut client, 7).await, b"welcome");
        reset(client);
        host.assert_dropped(&channel).await;
    }
}
