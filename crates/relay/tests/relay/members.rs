//! Hosts of version 2 inside TLS: their command channels, their data channels, and what ties the two together.

use std::net::Ipv4Addr;

use relayserver_relay::Reason;
use relayserver_wire::command::Announcement;
use relayserver_wire::secret::ChannelKey;
use tokio::io::AsyncWriteExt;

use crate::peers::{
    Knock, Member, Secure, assert_ended, content, echo, exchange, read_exactly, read_rest, write,
};

#[tokio::test]
async fn a_session_begins_with_its_start_and_ends_with_its_reason_and_counts() {
    let relay = Secure::start();
    let mut host = relay.member("laptop", &["ssh"]).await;
    let mut channel = host.idle_channel(&relay, "ssh").await;
    let mut client = relay.client_of("ssh").await;
    let start = channel.accept().await;
    assert_eq!(start.service, "ssh");
    assert_eq!(start.client_addr, Some(client.local_addr().unwrap()));
    assert_eq!(start.via, "tcp");
    echo(&mut client, &mut channel.stream).await;
    client.shutdown().await.unwrap();
    assert_ended(&mut channel.stream).await;
    write(&mut channel.stream, b"bye").await;
    channel.stream.shutdown().await.unwrap();
    assert_eq!(read_rest(&mut client).await, b"bye");
    host.assert_ended(&start, Reason::Finished, (5, 11)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_arrives_in_order_both_ways_at_once_over_tls() {
    let relay = Secure::start();
    let host = relay.member("laptop", &["default"]).await;
    let mut channel = host.idle_channel(&relay, "default").await;
    let mut client = relay.client().await;
    let (up, down) = (content(1, 5 << 20), content(2, 7 << 20));
    channel.accept().await;
    exchange((&mut client, &up), (&mut channel.stream, &down)).await;
}

#[tokio::test]
async fn the_answer_says_where_what_is_served_and_the_times() {
    let relay = Secure::with(|config| config.public_host = Some("vps.example.com".to_owned()));
    let host = relay.member("laptop", &["web", "ssh"]).await;
    let served: Vec<_> = host
        .welcome
        .services
        .iter()
        .map(|it| (it.name.as_str(), it.clients.clone().unwrap()))
        .collect();
    let port = |service| relay.clients_addr(service).port();
    let at = |service| format!("vps.example.com:{}", port(service));
    assert_eq!(served, [("ssh", at("ssh")), ("web", at("web"))]);
    assert_eq!(host.welcome.suspect_after_ms, Some(5_000));
    assert_eq!(host.welcome.gone_after_ms, Some(30_000));
}

#[tokio::test]
async fn a_data_channel_without_the_id_and_the_key_of_a_live_command_channel_gets_nothing() {
    let relay = Secure::start();
    let host = relay.member("laptop", &["ssh"]).await;
    let other = relay.member("desktop", &["ssh"]).await;
    for (id, key) in [
        (host.id, ChannelKey::new([0; 16])),
        (host.id, other.key),
        (other.id, host.key),
        (relayserver_wire::HostId([7; 16]), host.key),
    ] {
        let mut stream = relay.connect_from(Ipv4Addr::LOCALHOST).await;
        let refusal = Knock::data(id, key, "ssh").say(&mut stream).await.unwrap_err();
        assert_eq!(refusal.reason, Reason::ChannelKeyUnknown.code());
        assert_ended(&mut stream).await;
    }
    assert_eq!(relay.occupancy().idle, 0);
    assert!(host.channel(&relay, "ssh").await.is_ok());
}

#[tokio::test]
async fn old_keys_die_with_their_command_channel_and_old_idle_channels_wait_for_the_next() {
    let relay = Secure::start();
    let token = relay.token("laptop", &["*"]);
    let host = Member::join(&relay, Some(&token), &["ssh"]).await.unwrap();
    let mut channel = host.idle_channel(&relay, "ssh").await;
    let Member { command, id, key: old_key, .. } = host;
    drop(command);
    relay.until("the command channel has ended", |it| it.commands == 0).await;
    let mut stream = relay.connect_from(Ipv4Addr::LOCALHOST).await;
    let refusal = Knock::data(id, old_key, "ssh").say(&mut stream).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::ChannelKeyUnknown.code());

    let mut client = relay.client_of("ssh").await;
    relay.until_waiting(1).await;
    assert_eq!(relay.occupancy().idle, 1, "it stays, and is given nobody");

    let knock = Knock::command(Some(&token), &["ssh"]).again(id, old_key);
    let back = Member::knock(&relay, Ipv4Addr::LOCALHOST, knock).await.unwrap();
    assert_ne!(back.key, old_key);
    channel.accept().await;
    echo(&mut client, &mut channel.stream).await;
    let mut stream = relay.connect_from(Ipv4Addr::LOCALHOST).await;
    let refusal = Knock::data(id, old_key, "ssh").say(&mut stream).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::ChannelKeyUnknown.code());
    assert!(back.channel(&relay, "ssh").await.is_ok());
}

#[tokio::test]
async fn a_second_command_channel_replaces_the_first_and_anybody_else_is_refused() {
    let relay = Secure::start();
    let token = relay.token("laptop", &["*"]);
    let mut host = Member::join(&relay, Some(&token), &["ssh"]).await.unwrap();
    let other = relay.token("desktop", &["*"]);
    let knock = |token, key| Knock::command(Some(token), &["ssh"]).again(host.id, key);
    for impostor in [knock(&token, ChannelKey::new([0; 16])), knock(&other, host.key)] {
        let refusal = Member::knock(&relay, Ipv4Addr::LOCALHOST, impostor).await.err().unwrap();
        assert_eq!(refusal.reason, Reason::HostIdTaken.code());
    }
    assert_eq!(relay.occupancy().commands, 1);
    let again = knock(&token, host.key);
    let second = Member::knock(&relay, Ipv4Addr::LOCALHOST, again).await.unwrap();
    host.assert_closed().await;
    assert!(second.channel(&relay, "ssh").await.is_ok());
    assert!(host.channel(&relay, "ssh").await.is_err(), "its key is an old one");
}

#[tokio::test]
async fn a_host_that_missed_its_last_key_comes_back_with_the_one_before() {
    let relay = Secure::start();
    let token = relay.token("laptop", &["*"]);
    let host = Member::join(&relay, Some(&token), &["ssh"]).await.unwrap();
    let knock = Knock::command(Some(&token), &["ssh"]).again(host.id, host.key);
    // The answer with the next key, and the one after it, never arrive.
    for _ in 0..2 {
        let lost = Member::knock(&relay, Ipv4Addr::LOCALHOST, knock.clone()).await;
        assert!(lost.is_ok());
    }
    let back = Member::knock(&relay, Ipv4Addr::LOCALHOST, knock).await.unwrap();
    assert!(back.channel(&relay, "ssh").await.is_ok());
    assert!(host.channel(&relay, "ssh").await.is_err(), "its channels take the key that is");
}

#[tokio::test]
async fn a_host_that_replaces_its_command_channel_leaves_nothing_behind_that_leads_nowhere() {
    let relay = Secure::start();
    let token = relay.token("laptop", &["*"]);
    let host = Member::join(&relay, Some(&token), &["ssh"]).await.unwrap();
    let mut old = host.idle_channel(&relay, "ssh").await;
    let mut offered = host.idle_channel(&relay, "ssh").await;
    let mut client = relay.client_of("ssh").await;
    write(&mut client, b"request").await;
    offered.start().await;
    let other = relay.member("desktop", &["ssh"]).await;
    let mut of_other = other.idle_channel(&relay, "ssh").await;
    // As after a change of address: of what there was before, nothing more is heard.
    let knock = Knock::command(Some(&token), &["ssh"]).again(host.id, host.key);
    let back = Member::knock(&relay, Ipv4Addr::LOCALHOST, knock).await.unwrap();
    assert_ended(&mut old.stream).await;
    of_other.accept().await;
    assert_eq!(read_exactly(&mut of_other.stream, 7).await, b"request");
    echo(&mut client, &mut of_other.stream).await;
    let mut fresh = back.idle_channel(&relay, "ssh").await;
    let mut next = relay.client_of("ssh").await;
    fresh.accept().await;
    echo(&mut next, &mut fresh.stream).await;
}

#[tokio::test]
async fn a_channel_is_for_a_service_that_the_command_channel_named() {
    let relay = Secure::start();
    let host = relay.member("laptop", &["ssh"]).await;
    let refusal = host.channel(&relay, "web").await.err().unwrap();
    assert_eq!(refusal.reason, Reason::ServiceNotGranted.code());
    let refusal = host.channel(&relay, "nothing").await.err().unwrap();
    assert_eq!(refusal.reason, Reason::ServiceUnknown.code());
}

#[tokio::test]
async fn a_host_that_is_leaving_gets_nobody_and_finishes_what_it_has() {
    let relay = Secure::start();
    let mut leaving = relay.member("laptop", &["ssh"]).await;
    let mut serving = leaving.idle_channel(&relay, "ssh").await;
    let mut client = relay.client_of("ssh").await;
    serving.accept().await;
    let mut idle = leaving.idle_channel(&relay, "ssh").await;
    let said = Announcement::Leaving { reason: "draining".to_owned(), retry_after_ms: None };
    write(&mut leaving.command, &said.encode()).await;
    assert_ended(&mut idle.stream).await;
    let refusal = leaving.channel(&relay, "ssh").await.err().unwrap();
    assert_eq!(refusal.reason, Reason::Draining.code());

    let other = relay.member("desktop", &["ssh"]).await;
    let mut channel = other.idle_channel(&relay, "ssh").await;
    let mut second = relay.client_of("ssh").await;
    channel.accept().await;
    echo(&mut second, &mut channel.stream).await;
    echo(&mut client, &mut serving.stream).await;
}

#[tokio::test]
async fn a_relay_that_is_leaving_says_so() {
    let relay = Secure::start();
    let mut host = relay.member("laptop", &["ssh"]).await;
    let mut channel = host.idle_channel(&relay, "ssh").await;
    let mut client = relay.client_of("ssh").await;
    channel.accept().await;
    relay.handle().drain();
    let Announcement::Leaving { reason, retry_after_ms } = host.next().await else {
        panic!("it says something else");
    };
    assert_eq!(reason, Reason::Draining.code());
    assert!(retry_after_ms.is_some_and(|after| after >= 500), "{retry_after_ms:?}");
    echo(&mut client, &mut channel.stream).await;
}

#[tokio::test]
async fn a_host_that_says_what_only_relays_say_is_closed() {
    let relay = Secure::start();
    for said in [
        Announcement::Open { channel_id: 1 },
        Announcement::Drop { channel_id: 1 },
        Announcement::PoolWanted { service: "ssh".to_owned(), idle: 7 },
    ] {
        let mut host = relay.member("laptop", &["ssh"]).await;
        write(&mut host.command, &said.encode()).await;
        host.assert_closed().await;
    }
    let mut host = relay.member("laptop", &["ssh"]).await;
    write(&mut host.command, &Announcement::Unknown { message_type: 99 }.encode()).await;
    write(&mut host.command, &Announcement::Ping { nonce: 7 }.encode()).await;
    assert_eq!(host.next().await, Announcement::Pong { nonce: 7 }, "what is unknown is ignored");
}

#[tokio::test]
async fn of_the_idle_channels_that_are_too_many_those_are_closed_that_have_waited_longest() {
    let relay = Secure::start();
    let mut host = relay.member("laptop", &["ssh", "web"]).await;
    let mut of_web = host.idle_channel(&relay, "web").await;
    let other = relay.member("desktop", &["ssh"]).await;
    let mut of_other = other.idle_channel(&relay, "ssh").await;
    let mut channels = Vec::new();
    for _ in 0..3 {
        channels.push(host.idle_channel(&relay, "ssh").await);
    }
    let surplus = |idle| Announcement::PoolSurplus { service: "ssh".to_owned(), idle };
    write(&mut host.command, &surplus(2).encode()).await;
    for mut closed in channels.drain(..2) {
        assert_ended(&mut closed.stream).await;
    }
    assert_eq!(relay.occupancy().idle, 3);

    let mut serving = Vec::new();
    for channel in [&mut of_other, &mut channels[0]] {
        let client = relay.client_of("ssh").await;
        channel.accept().await;
        serving.push(client);
    }
    // What has a client is not closed, however many are too many.
    write(&mut host.command, &surplus(u32::MAX).encode()).await;
    host.until_heard().await;
    echo(&mut serving[0], &mut of_other.stream).await;
    echo(&mut serving[1], &mut channels[0].stream).await;
    let mut to_web = relay.client_of("web").await;
    of_web.accept().await;
    echo(&mut to_web, &mut of_web.stream).await;
}

#[tokio::test]
async fn services_are_kept_apart() {
    let relay = Secure::start();
    let host = relay.member("laptop", &["ssh", "web"]).await;
    let mut of_ssh = host.idle_channel(&relay, "ssh").await;
    let mut to_web = relay.client_of("web").await;
    relay.until_waiting(1).await;
    let mut of_web = host.channel(&relay, "web").await.unwrap();
    assert_eq!(of_web.accept().await.service, "web");
    echo(&mut to_web, &mut of_web.stream).await;
    let mut to_ssh = relay.client_of("ssh").await;
    assert_eq!(of_ssh.accept().await.service, "ssh");
    echo(&mut to_ssh, &mut of_ssh.stream).await;
    assert!(relay.occupancy().sessions == 2);
}
