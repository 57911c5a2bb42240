//! Sessions that a host has not accepted, on data channels that carry one after another: they are offered to others from byte 0.

use std::time::Duration;

use relayserver_wire::start::Verdict;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::peers::{
    BARE, Data, END, Part, Secure, assert_ended, assert_reset, content, idle_for_many, in_parts,
    read_exactly, read_rest, reset, serve, write,
};

/// What a host may be sent of a session that it has not accepted.
const HELD_MAX: usize = 16 * 1024;

/// A client that has sent `request` and its end, all of which a channel that is back from another session got in parts; and then what
/// `refuse` does makes it another's, who gets all of it from the first byte on.
async fn is_offered_to_another(relay: Secure, refuse: impl AsyncFnOnce(Data) -> Option<Data>) {
    let (_one, mut refusing) = idle_for_many(&relay, "laptop").await;
    serve(&relay, &mut refusing, b"before", b"answer").await;
    relay.until_idle(1).await;
    let (_other, mut accepting) = idle_for_many(&relay, "desktop").await;
    let mut client = relay.client_of("ssh").await;
    let request = content(3, 12_345);
    write(&mut client, &request).await;
    client.shutdown().await.unwrap();
    let offered = refusing.start().await;
    refusing.assert_comes(&request).await;
    if let Some(mut refused) = refuse(refusing).await {
        refused.assert_over().await;
    }

    let accepted = accepting.accept().await;
    assert_eq!(accepted, offered, "it is the same session");
    assert!(accepting.rest_in_parts().await == request, "from byte 0, and the end");
    accepting.send(b"answer").await;
    accepting.end().await;
    assert_eq!(read_rest(&mut client).await, b"answer");
    drop(client);
    relay.until("the other is back", |it| (it.idle, it.sessions) == (1, 0)).await;
    serve(&relay, &mut accepting, b"after", b"it").await;
}

#[tokio::test]
async fn a_rejected_session_closes_its_channel_and_goes_to_another_from_byte_0() {
    for relay in [Secure::plain(), Secure::start()] {
        is_offered_to_another(relay, async |mut refusing| {
            refusing.say(Verdict::Rejected { reason: None }).await;
            Some(refusing)
        })
        .await;
    }
}

#[tokio::test]
async fn a_session_whose_channel_fails_before_its_verdict_goes_to_another_from_byte_0() {
    for relay in [Secure::plain(), Secure::start()] {
        is_offered_to_another(relay, async |refusing| {
            refusing.stream.abort();
            None
        })
        .await;
    }
    for nonsense in [&END[..], &BARE, b"\0\0\0\x05hello", b"SSH-2.0-OpenSSH"] {
        is_offered_to_another(Secure::plain(), async |mut refusing| {
            write(&mut refusing.stream, nonsense).await;
            Some(refusing)
        })
        .await;
    }
}

#[tokio::test]
async fn a_session_that_is_not_accepted_in_time_goes_to_another_from_byte_0() {
    let bound = Duration::from_millis(300);
    let relay = Secure::plain_with(|config| config.accept_timeout = bound);
    is_offered_to_another(relay, async |mut slow| {
        slow.assert_over().await;
        // Its word comes too late.
        let _said = slow.stream.write_all(&Verdict::Accepted.encode()).await;
        None
    })
    .await;
}

#[tokio::test]
async fn a_session_that_goes_bare_before_its_verdict_is_offered_again_in_parts() {
    let relay = Secure::plain();
    let (_one, mut refusing) = idle_for_many(&relay, "laptop").await;
    let (_other, mut accepting) = idle_for_many(&relay, "desktop").await;
    let mut client = relay.client_of("ssh").await;
    let offered = refusing.start().await;
    let request = content(8, 80);
    let mut is_bare = false;
    for byte in &request {
        write(&mut client, &[*byte]).await;
        let part = if is_bare { Part::Bare } else { refusing.next_part().await };
        match part {
            Part::Bytes(bytes) => assert_eq!(bytes, [*byte]),
            Part::Bare => {
                is_bare = true;
                assert_eq!(read_exactly(&mut refusing.stream, 1).await, [*byte]);
            }
            Part::End => panic!("the client has not ended"),
        }
    }
    assert!(is_bare, "so many parts, and none is bare");
    refusing.say(Verdict::Rejected { reason: None }).await;
    refusing.assert_over().await;
    assert_eq!(accepting.accept().await, offered);
    accepting.assert_comes(&request).await;
    accepting.send(b"answer").await;
    accepting.end().await;
    assert_eq!(read_rest(&mut client).await, b"answer");
}

#[tokio::test]
async fn a_host_that_accepts_what_has_gone_bare_gets_it_whole() {
    let relay = Secure::plain();
    let (_host, mut channel) = idle_for_many(&relay, "laptop").await;
    let mut client = relay.client_of("ssh").await;
    channel.start().await;
    let mut sent = 0;
    while {
        write(&mut client, &[sent]).await;
        sent += 1;
        channel.next_part().await
    } != Part::Bare
    {}
    let rest = content(9, 1_000_000);
    let said = [Verdict::Accepted.encode(), in_parts(b"in a part, ", 3), BARE.to_vec()].concat();
    write(&mut channel.stream, &said).await;
    write(&mut channel.stream, b"and bare").await;
    let ((), received) = tokio::join!(
        async {
            write(&mut client, &rest).await;
            client.shutdown().await.unwrap();
        },
        read_rest(&mut channel.stream)
    );
    assert!(received == [&[sent - 1][..], &rest].concat(), "{} bytes", received.len());
    channel.stream.shutdown().await.unwrap();
    assert_eq!(read_rest(&mut client).await, b"in a part, and bare");
    relay.until("it is not used again", |it| (it.idle, it.sessions) == (0, 0)).await;
}

#[tokio::test]
async fn a_client_that_is_reset_before_it_was_accepted_closes_a_channel_that_was_back() {
    let relay = Secure::plain();
    let (_host, mut channel) = idle_for_many(&relay, "laptop").await;
    serve(&relay, &mut channel, b"request", b"answer").await;
    relay.until_idle(1).await;
    let mut client = relay.client_of("ssh").await;
    write(&mut client, b"request").await;
    channel.start().await;
    channel.assert_comes(b"request").await;
    reset(client);
    assert_eq!(assert_reset(&mut channel.stream).await, b"");
    relay.until("nothing is left", |it| (it.sessions, it.waiting, it.idle) == (0, 0, 0)).await;
}

#[tokio::test]
async fn a_host_that_has_not_accepted_gets_as_much_in_parts_as_the_relay_holds_and_no_byte_more() {
    for relay in [Secure::plain(), Secure::start()] {
        let (_host, mut channel) = idle_for_many(&relay, "laptop").await;
        let mut client = relay.client_of("ssh").await;
        let all = content(5, 200_000);
        let (mut reader, mut writer) = client.split();
        let sending = async {
            writer.write_all(&all).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let hosting = async {
            channel.start().await;
            channel.assert_comes(&all[..HELD_MAX]).await;
            let waiting =
                tokio::time::timeout(Duration::from_millis(300), channel.stream.read_u8());
            assert!(waiting.await.is_err(), "lengths are not counted, and nothing else is sent");
            channel.say(Verdict::Accepted).await;
            assert!(channel.rest_in_parts().await == all[HELD_MAX..], "the rest of it");
            channel.end().await;
        };
        tokio::join!(sending, hosting, assert_ended(&mut reader));
        relay.until("it is back", |it| (it.idle, it.sessions) == (1, 0)).await;
    }
}
