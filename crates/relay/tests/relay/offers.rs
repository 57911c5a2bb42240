//! Sessions that a host has not accepted: they are offered to others from byte 0, and after `accepted` never.

use std::time::Duration;

use relayserver_relay::ServiceName;
use relayserver_wire::start::Verdict;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::peers::{
    Data, Member, Secure, assert_closed, assert_ended, assert_reset, content, echo, exchange,
    read_exactly, read_rest, reset, within, write,
};

/// What a host may be sent of a session that it has not accepted.
const HELD_MAX: usize = 16 * 1024;

/// Two hosts with an idle channel each, the first of which gets the next client.
async fn two_hosts(relay: &Secure) -> ((Member, Data), (Member, Data)) {
    let one = relay.member("laptop", &["ssh"]).await;
    let channel = one.idle_channel(relay, "ssh").await;
    let other = relay.member("desktop", &["ssh"]).await;
    let its_channel = other.idle_channel(relay, "ssh").await;
    ((one, channel), (other, its_channel))
}

/// A client that has sent `request` and its end, all of which `refusing` got; and then what `refuse` does makes it another's, who
/// gets all of it from the first byte on.
async fn is_offered_to_another(refuse: impl AsyncFnOnce(&Secure, &mut Member, Data)) {
    let relay = Secure::start();
    let ((mut one, mut refusing), (_other, mut accepting)) = two_hosts(&relay).await;
    let mut client = relay.client_of("ssh").await;
    let request = content(3, 12_345);
    write(&mut client, &request).await;
    client.shutdown().await.unwrap();
    let offered = refusing.start().await;
    assert!(read_exactly(&mut refusing.stream, request.len()).await == request);
    refuse(&relay, &mut one, refusing).await;

    let accepted = accepting.accept().await;
    assert_eq!(accepted, offered, "it is the same session");
    assert!(read_rest(&mut accepting.stream).await == request, "from byte 0, and the end");
    write(&mut accepting.stream, b"answer").await;
    accepting.stream.shutdown().await.unwrap();
    assert_eq!(read_rest(&mut client).await, b"answer");
    relay.until_sessions(0).await;
}

#[tokio::test]
async fn a_rejected_session_goes_to_another_host_from_byte_0() {
    is_offered_to_another(async |_, _, mut refusing| {
        refusing.say(Verdict::Rejected { reason: None }).await;
        assert_closed_somehow(&mut refusing).await;
    })
    .await;
}

#[tokio::test]
async fn a_session_whose_host_resets_its_channel_goes_to_another_from_byte_0() {
    is_offered_to_another(async |_, _, refusing| refusing.stream.abort()).await;
}

#[tokio::test]
async fn a_session_whose_host_ends_its_channel_goes_to_another_from_byte_0() {
    is_offered_to_another(async |_, _, mut refusing| {
        refusing.stream.shutdown().await.unwrap();
        assert_closed_somehow(&mut refusing).await;
    })
    .await;
}

#[tokio::test]
async fn a_session_whose_host_answers_nonsense_goes_to_another_from_byte_0() {
    is_offered_to_another(async |_, _, mut refusing| {
        write(&mut refusing.stream, b"SSH-2.0-OpenSSH").await;
        assert_closed_somehow(&mut refusing).await;
    })
    .await;
}

#[tokio::test]
async fn a_session_whose_host_is_revoked_goes_to_another_from_byte_0() {
    is_offered_to_another(async |relay, one, mut refusing| {
        relay.grants.change(|tokens| tokens.get_mut("laptop").unwrap().revoked = true);
        one.assert_closed().await;
        assert_closed_somehow(&mut refusing).await;
    })
    .await;
}

#[tokio::test]
async fn the_end_of_the_command_channel_alone_takes_no_offer_back() {
    let relay = Secure::start();
    let ((mut one, mut accepting), (_other, _idle)) = two_hosts(&relay).await;
    let mut client = relay.client_of("ssh").await;
    write(&mut client, b"request").await;
    accepting.start().await;
    one.command.end_now();
    relay.until("its command channel has ended", |it| it.commands == 1).await;
    // Its word, its answer and its end were on their way, as those of a host that has done its work and goes.
    accepting.say(Verdict::Accepted).await;
    write(&mut accepting.stream, b"answer").await;
    accepting.stream.shutdown().await.unwrap();
    assert_eq!(read_rest(&mut client).await, b"answer");
    assert_eq!(relay.occupancy().idle, 1, "the other was not asked");
}

/// Nothing more comes over the channel, whether by an end or by a reset.
async fn assert_closed_somehow(data: &mut Data) {
    let mut rest = Vec::new();
    let _ended = within("the channel's end", data.stream.read_to_end(&mut rest)).await;
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn a_session_that_its_host_does_not_accept_in_time_goes_to_another() {
    let relay = Secure::with(|config| config.accept_timeout = Duration::from_millis(200));
    let ((_one, mut slow), (_other, mut accepting)) = two_hosts(&relay).await;
    let mut client = relay.client_of("ssh").await;
    write(&mut client, b"request").await;
    let offered = slow.start().await;
    assert_eq!(accepting.accept().await, offered);
    assert_eq!(read_exactly(&mut accepting.stream, 7).await, b"request");
    // Its word comes too late, and whatever it says goes nowhere.
    let _said = slow.stream.write_all(&Verdict::Accepted.encode()).await;
    let _said = slow.stream.write_all(b"late").await;
    echo(&mut client, &mut accepting.stream).await;
}

#[tokio::test]
async fn after_it_was_accepted_a_session_is_never_offered_again() {
    let relay = Secure::start();
    let ((_one, mut accepting), (_other, mut idle)) = two_hosts(&relay).await;
    let mut client = relay.client_of("ssh").await;
    write(&mut client, b"request").await;
    accepting.accept().await;
    assert_eq!(read_exactly(&mut accepting.stream, 7).await, b"request");
    accepting.stream.abort();
    assert_eq!(assert_reset(&mut client).await, b"");
    relay.until_sessions(0).await;
    assert_eq!(relay.occupancy().idle, 1);

    let mut next = relay.client_of("ssh").await;
    idle.accept().await;
    write(&mut next, b"another").await;
    assert_eq!(read_exactly(&mut idle.stream, 7).await, b"another", "nothing came ahead of it");
}

#[tokio::test]
async fn a_host_that_has_not_accepted_gets_no_more_than_the_relay_holds_and_then_the_rest() {
    let relay = Secure::start();
    let host = relay.member("laptop", &["ssh"]).await;
    let mut channel = host.idle_channel(&relay, "ssh").await;
    let mut client = relay.client_of("ssh").await;
    let all = content(5, 300_000);
    let (mut reader, mut writer) = client.split();
    let sending = async {
        writer.write_all(&all).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let hosting = async {
        channel.start().await;
        let mut received = read_exactly(&mut channel.stream, HELD_MAX).await;
        let waiting = tokio::time::timeout(Duration::from_millis(300), channel.stream.read_u8());
        assert!(waiting.await.is_err(), "no byte beyond what is held");
        channel.say(Verdict::Accepted).await;
        received.extend(read_rest(&mut channel.stream).await);
        assert!(received == all, "{} bytes are not what was sent", received.len());
        channel.stream.shutdown().await.unwrap();
    };
    let reading = async {
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
    };
    within("the session", async { tokio::join!(sending, hosting, reading) }).await;
}

#[tokio::test]
async fn a_client_for_whom_every_host_has_rejected_is_reset() {
    let relay = Secure::start();
    let ((mut one, mut spare), (_other, mut second)) = two_hosts(&relay).await;
    let mut first = one.idle_channel(&relay, "ssh").await;
    let mut client = relay.client_of("ssh").await;
    write(&mut client, b"request").await;
    let reason = Some("target_unreachable".to_owned());
    first.start().await;
    first.say(Verdict::Rejected { reason: reason.clone() }).await;
    second.start().await;
    second.say(Verdict::Rejected { reason }).await;
    assert_eq!(assert_reset(&mut client).await, b"");
    relay.until_sessions(0).await;
    assert_eq!(relay.occupancy().idle, 1, "a host that had it is not asked again");

    let mut next = relay.client_of("ssh").await;
    spare.accept().await;
    echo(&mut next, &mut spare.stream).await;
    one.command.end_now();
}

#[tokio::test]
async fn a_client_whose_only_host_is_lost_before_it_accepted_is_reset_when_nobody_comes() {
    let relay = Secure::with(|config| {
        let ssh = config.services.get_mut(&ServiceName::new("ssh")).unwrap();
        ssh.limits.assign_timeout = Duration::from_millis(300);
    });
    let mut host = relay.member("laptop", &["ssh"]).await;
    let mut channel = host.idle_channel(&relay, "ssh").await;
    let mut client = relay.client_of("ssh").await;
    channel.start().await;
    host.command.end_now();
    channel.stream.abort();
    assert_eq!(assert_reset(&mut client).await, b"");
}

#[tokio::test]
async fn a_client_that_its_hosts_fail_of_is_not_offered_to_all_of_them() {
    const HOSTS: usize = 12;
    let relay = Secure::start();
    let (mut hosts, mut offers) = (Vec::new(), tokio::task::JoinSet::new());
    for number in 0..HOSTS {
        let host = relay.member(&format!("host-{number}"), &["ssh"]).await;
        let mut channel = host.idle_channel(&relay, "ssh").await;
        hosts.push(host);
        offers.spawn(async move {
            channel.start().await;
            channel.stream.abort();
        });
    }
    let mut client = relay.client_of("ssh").await;
    assert_eq!(assert_reset(&mut client).await, b"");
    let bound = relayserver_core::limits::OFFERS_MAX;
    assert_eq!(relay.occupancy().idle, HOSTS - bound);
}

#[tokio::test]
async fn a_rejected_client_waits_for_a_host_that_comes() {
    let relay = Secure::start();
    let one = relay.member("laptop", &["ssh"]).await;
    let mut refusing = one.idle_channel(&relay, "ssh").await;
    let other = relay.member("desktop", &["ssh"]).await;
    let mut client = relay.client_of("ssh").await;
    write(&mut client, b"request").await;
    refusing.start().await;
    refusing.say(Verdict::Rejected { reason: None }).await;
    relay.until_waiting(1).await;
    let mut accepting = other.channel(&relay, "ssh").await.unwrap();
    accepting.accept().await;
    assert_eq!(read_exactly(&mut accepting.stream, 7).await, b"request");
    echo(&mut client, &mut accepting.stream).await;
}

#[tokio::test]
async fn a_client_that_is_reset_before_it_was_accepted_ends_its_offer() {
    let relay = Secure::start();
    let host = relay.member("laptop", &["ssh"]).await;
    let mut channel = host.idle_channel(&relay, "ssh").await;
    let mut client = relay.client_of("ssh").await;
    write(&mut client, b"request").await;
    channel.start().await;
    assert_eq!(read_exactly(&mut channel.stream, 7).await, b"request");
    reset(client);
    assert_closed_somehow(&mut channel).await;
    relay.until("nothing is left", |it| (it.sessions, it.waiting, it.idle) == (0, 0, 0)).await;
}

#[tokio::test]
async fn a_client_that_sent_its_end_and_nothing_else_while_offered_is_served_its_end() {
    let relay = Secure::start();
    let host = relay.member("laptop", &["ssh"]).await;
    let mut channel = host.idle_channel(&relay, "ssh").await;
    let mut client = relay.client_of("ssh").await;
    channel.start().await;
    client.shutdown().await.unwrap();
    channel.say(Verdict::Accepted).await;
    assert_ended(&mut channel.stream).await;
    write(&mut channel.stream, b"greeting").await;
    channel.stream.shutdown().await.unwrap();
    assert_eq!(read_rest(&mut client).await, b"greeting");
}

#[tokio::test]
async fn a_host_that_accepts_and_speaks_at_once_loses_no_byte() {
    let relay = Secure::start();
    let host = relay.member("laptop", &["ssh"]).await;
    let mut channel = host.idle_channel(&relay, "ssh").await;
    let mut client = relay.client_of("ssh").await;
    channel.start().await;
    let answer = content(9, 100_000);
    let mut said = Verdict::Accepted.encode();
    said.extend(&answer);
    let (sent, received) =
        tokio::join!(channel.stream.write_all(&said), read_exactly(&mut client, answer.len()));
    sent.unwrap();
    assert!(received == answer);
    exchange((&mut client, b"up"), (&mut channel.stream, b"down")).await;
}

#[tokio::test]
async fn a_service_without_waiting_refuses_a_rejected_client_at_once() {
    let relay = Secure::with(|config| {
        let ssh = config.services.get_mut(&ServiceName::new("ssh")).unwrap();
        ssh.limits.assign_timeout = Duration::ZERO;
    });
    let host = relay.member("laptop", &["ssh"]).await;
    let mut channel = host.idle_channel(&relay, "ssh").await;
    let mut client: TcpStream = relay.client_of("ssh").await;
    channel.start().await;
    channel.say(Verdict::Rejected { reason: None }).await;
    assert_eq!(assert_reset(&mut client).await, b"");
    let mut refused = relay.client_of("ssh").await;
    assert_closed(&mut refused).await;
}
