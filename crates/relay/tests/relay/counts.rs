//! What a relay has counted since it started, service by service: whatever peers do and say, each thing once, under words that the
//! relay knows.

use std::net::Ipv4Addr;
use std::time::Duration;

use relayserver_relay::{Counts, Reason, ReasonCounts, ServiceCounts, ServiceName};
use relayserver_transport::Token;
use relayserver_wire::hello::{Hello, HelloV2};
use relayserver_wire::start::Verdict;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::peers::{
    Data, Knock, Member, Secure, TestRelay, assert_closed, assert_ended, assert_reset,
    connect_from, echo, read_exactly, read_rest, reset, write,
};

fn counts(relay: &TestRelay) -> Counts {
    relay.handle().snapshot().counts
}

fn of_service(relay: &TestRelay, service: &str) -> ServiceCounts {
    counts(relay).services.get(&ServiceName::new(service)).cloned().unwrap_or_default()
}

/// Bytes to hosts, and to clients.
fn bytes(relay: &TestRelay) -> (u64, u64) {
    let counts = counts(relay);
    (counts.bytes_to_host, counts.bytes_to_client)
}

async fn until_ended(relay: &TestRelay, service: &str, expected: &[(Reason, u64)]) {
    let expected: ReasonCounts = expected.iter().copied().collect();
    let what = format!("{service}: {expected:?}");
    relay.until(&what, |_| of_service(relay, service).ended == expected).await;
}

/// A session of `ssh` that its host has accepted and that has carried 5 bytes to it and 8 back.
async fn session(relay: &Secure, host: &Member) -> (TcpStream, Data) {
    let mut channel = host.idle_channel(relay, "ssh").await;
    let mut client = relay.client_of("ssh").await;
    channel.accept().await;
    echo(&mut client, &mut channel.stream).await;
    (client, channel)
}

#[tokio::test]
async fn bytes_count_while_their_session_runs_and_stay_counted_when_it_has_ended() {
    let relay = Secure::start();
    let host = relay.member("laptop", &["ssh"]).await;
    assert_eq!(bytes(&relay), (0, 0));
    let (mut client, mut channel) = session(&relay, &host).await;
    for more in 1..=3 {
        write(&mut client, b"0123456789").await;
        read_exactly(&mut channel.stream, 10).await;
        write(&mut channel.stream, b"x").await;
        read_exactly(&mut client, 1).await;
        let expected = (5 + 10 * more, 8 + more);
        // The count follows the write.
        relay.until("the bytes", |_| bytes(&relay) == expected).await;
        assert_eq!(relay.occupancy().sessions, 1, "it still runs");
    }
    let last = bytes(&relay);
    reset(client);
    until_ended(&relay, "ssh", &[(Reason::ClientAborted, 1)]).await;
    assert_eq!(bytes(&relay), last);
}

#[tokio::test]
async fn each_end_is_counted_at_its_service_for_its_reason() {
    let mut relay = Secure::start();
    let host = relay.member("laptop", &["ssh", "web"]).await;
    let (mut client, mut channel) = session(&relay, &host).await;
    client.shutdown().await.unwrap();
    assert_ended(&mut channel.stream).await;
    channel.stream.shutdown().await.unwrap();
    assert_eq!(read_rest(&mut client).await, b"");
    let mut expected = vec![(Reason::Finished, 1)];
    until_ended(&relay, "ssh", &expected).await;

    let (mut client, channel) = session(&relay, &host).await;
    channel.stream.abort();
    assert_reset(&mut client).await;
    expected.push((Reason::HostAborted, 1));
    until_ended(&relay, "ssh", &expected).await;

    let (client, _channel) = session(&relay, &host).await;
    reset(client);
    expected.push((Reason::ClientAborted, 1));
    until_ended(&relay, "ssh", &expected).await;

    let (_client, _channel) = session(&relay, &host).await;
    relay.handle().abort();
    relay.relay.ended().await;
    expected.push((Reason::Drained, 1));
    until_ended(&relay, "ssh", &expected).await;
    let ssh = of_service(&relay, "ssh");
    assert_eq!((ssh.opened, ssh.waits.count), (4, 4));
    assert_eq!(ssh.refused_clients, ReasonCounts::new());
    assert_eq!(of_service(&relay, "web"), ServiceCounts::default());
}

#[tokio::test]
async fn a_session_that_goes_to_another_host_is_opened_once_and_its_bytes_count_once() {
    let relay = Secure::start();
    let one = relay.member("laptop", &["ssh"]).await;
    let mut refusing = one.idle_channel(&relay, "ssh").await;
    let other = relay.member("desktop", &["ssh"]).await;
    let mut accepting = other.idle_channel(&relay, "ssh").await;
    let mut client = relay.client_of("ssh").await;
    write(&mut client, b"request").await;
    refusing.start().await;
    assert_eq!(read_exactly(&mut refusing.stream, 7).await, b"request");
    assert_eq!(of_service(&relay, "ssh").opened, 0, "nobody has accepted it");
    assert_eq!(bytes(&relay), (0, 0), "they may go to another");
    refusing.say(Verdict::Rejected { reason: None }).await;
    accepting.accept().await;
    assert_eq!(read_exactly(&mut accepting.stream, 7).await, b"request");
    relay.until("its bytes", |_| bytes(&relay) == (7, 0)).await;
    let ssh = of_service(&relay, "ssh");
    assert_eq!((ssh.opened, ssh.waits.count), (1, 2), "it has waited for each of the two");
    assert_eq!(ssh.ended, ReasonCounts::new());
    assert_eq!(ssh.refused_clients, ReasonCounts::new());
}

#[tokio::test]
async fn a_client_that_no_host_accepts_is_refused_and_was_no_session() {
    let relay = Secure::start();
    let host = relay.member("laptop", &["ssh"]).await;
    let mut channel = host.idle_channel(&relay, "ssh").await;
    let mut client = relay.client_of("ssh").await;
    channel.start().await;
    channel.say(Verdict::Rejected { reason: None }).await;
    assert_reset(&mut client).await;
    let refused = ReasonCounts::from([(Reason::Rejected, 1)]);
    relay.until("its refusal", |_| of_service(&relay, "ssh").refused_clients == refused).await;
    let ssh = of_service(&relay, "ssh");
    assert_eq!((ssh.opened, ssh.ended), (0, ReasonCounts::new()));
}

#[tokio::test]
async fn a_client_is_refused_at_its_service() {
    let relay = Secure::with(|config| {
        let web = config.services.get_mut(&ServiceName::new("web")).unwrap();
        web.limits.assign_timeout = Duration::ZERO;
    });
    assert_closed(&mut relay.client_of("web").await).await;
    let refused = ReasonCounts::from([(Reason::NoHost, 1)]);
    let refused_at = |service| of_service(&relay, service).refused_clients;
    relay.until("its refusal", |_| !refused_at("web").is_empty()).await;
    assert_eq!((refused_at("web"), refused_at("ssh")), (refused, ReasonCounts::new()));
}

#[tokio::test]
async fn a_wrong_token_is_counted_as_one_even_of_a_peer_that_does_not_stay_for_the_answer() {
    let relay = Secure::start();
    let host = relay.member("laptop", &["ssh"]).await;
    let _channel = host.idle_channel(&relay, "ssh").await;
    assert_eq!(counts(&relay).taken_hosts, 2);
    let wrong = Token::generate("laptop").unwrap();
    let refusal = Member::join(&relay, Some(&wrong), &["ssh"]).await.err().unwrap();
    assert_eq!(refusal.reason, Reason::TokenUnknown.code());

    let Knock { host, role, .. } = Knock::command(Some(&wrong), &["ssh"]);
    let mut stream = relay.connect_from(Ipv4Addr::LOCALHOST).await;
    let v2 = Some(HelloV2 { host_id: host, role, features: vec![] });
    write(&mut stream, &Hello { version: 1, v2 }.encode()).await;
    // By the time that another host is in, its hello was read too, and it waits for its second to pass.
    let _other = relay.member("desktop", &["ssh"]).await;
    stream.abort();
    let refused = ReasonCounts::from([(Reason::TokenUnknown, 2)]);
    relay.until("both refusals", |_| counts(&relay).refused_hosts == refused).await;
    assert_eq!(counts(&relay).taken_hosts, 3);
}

#[tokio::test]
async fn no_name_that_a_stranger_chooses_is_counted_under() {
    let relay = Secure::start();
    let token = relay.token("laptop", &["*"]);
    let refusal = Member::join(&relay, Some(&token), &["nobodys"]).await.err().unwrap();
    let host = Member::join(&relay, Some(&token), &["ssh"]).await.unwrap();
    let of_channel = host.channel(&relay, "nobodys").await.err().unwrap();
    // What is no name at all is not understood.
    let Knock { host, role, .. } = Knock::command(Some(&token), &["\"} 1\nrelayserver_evil"]);
    let v2 = Some(HelloV2 { host_id: host, role, features: vec![] });
    let mut stream = relay.connect_from(Ipv4Addr::LOCALHOST).await;
    write(&mut stream, &Hello { version: 1, v2 }.encode()).await;
    let _closed = stream.read(&mut [0]).await;
    let mut stranger = connect_from(Ipv4Addr::LOCALHOST, relay.hosts_addr()).await;
    write(&mut stranger, b"GET / HTTP/1.1\r\n\r\n").await;
    let _closed = stranger.read(&mut [0]).await;
    let all = |counts: &Counts| counts.refused_hosts.values().sum::<u64>();
    relay.until("four refusals", |_| all(&counts(&relay)) == 4).await;
    let counts = counts(&relay);
    let refused: Vec<&str> = counts.refused_hosts.keys().map(|reason| reason.code()).collect();
    let malformed = Reason::Malformed.code();
    let stranger = Reason::NotOurProtocol.code();
    for code in [&*refusal.reason, &*of_channel.reason, malformed, stranger] {
        assert!(refused.contains(&code), "{code}: {refused:?}");
    }
    let known = ["default", "ssh", "web"].map(ServiceName::new);
    let snapshot = relay.handle().snapshot();
    assert!(counts.services.keys().all(|name| known.contains(name)), "{counts:?}");
    assert!(snapshot.book.services.keys().eq(known.iter()), "{snapshot:?}");
}
