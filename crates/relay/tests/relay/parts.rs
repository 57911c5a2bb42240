//! Sessions in parts on a data channel, byte by byte: what goes over it, how each direction ends or goes bare, and what is an abort.

use std::net::Ipv4Addr;
use std::time::Duration;

use relayserver_relay::Reason;
use relayserver_wire::command::Announcement;
use relayserver_wire::hello::{AnswerV2, MANY_SESSIONS, Welcome};
use relayserver_wire::start::{Start, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::peers::{
    BARE, Data, END, Knock, Member, Part, Secure, assert_ended, assert_reset, content, exchange,
    in_parts, read_exactly, read_rest, reset, within, write,
};

mod bare;

/// A host with a channel for many sessions that a client has, and has accepted.
struct Scene {
    relay: Secure,
    host: Member,
    channel: Data,
    client: TcpStream,
    start: Start,
}

impl Scene {
    async fn on(relay: Secure) -> Scene {
        let host = relay.member("laptop", &["ssh"]).await;
        let mut channel = host.idle_channel_for_many(&relay, "ssh").await;
        let client = relay.client_of("ssh").await;
        let start = channel.accept().await;
        Scene { relay, host, channel, client, start }
    }

    /// The session is over, and its channel is not in the pool: the next client waits.
    async fn assert_not_used_again(&self) {
        self.relay.until_sessions(0).await;
        let _next = self.relay.client_of("ssh").await;
        self.relay.until_waiting(1).await;
        assert_eq!(self.relay.occupancy().idle, 0);
    }

    /// The channel is in the pool, and carries a session that has nothing of the one before.
    async fn assert_used_again(&mut self) {
        self.relay.until_idle(1).await;
        self.relay.until_sessions(0).await;
        let mut client = self.relay.client_of("ssh").await;
        let start = self.channel.accept().await;
        assert_ne!(start.session_id, self.start.session_id);
        write(&mut client, b"another").await;
        self.channel.assert_comes(b"another").await;
        self.channel.send(b"answer").await;
        self.channel.end().await;
        assert_eq!(read_rest(&mut client).await, b"answer");
        drop(client);
        assert_eq!(self.channel.next_part().await, Part::End);
        self.relay.until_idle(1).await;
    }
}

async fn scenes() -> [Scene; 2] {
    [Scene::on(Secure::plain()).await, Scene::on(Secure::start()).await]
}

#[tokio::test]
async fn the_answer_names_the_feature_where_the_hello_does_and_no_other() {
    for relay in [Secure::plain(), Secure::start()] {
        let token = relay.token("laptop", &["*"]);
        let mut knock = Knock::command(Some(&token), &["ssh"]);
        knock.features = vec![MANY_SESSIONS];
        let host = Member::knock(&relay, Ipv4Addr::LOCALHOST, knock).await.unwrap();
        assert!(host.welcome.features.is_empty(), "it is named on data channels");
        for (said, answered) in [
            (vec![], vec![]),
            (vec![MANY_SESSIONS], vec![MANY_SESSIONS]),
            (vec![7, MANY_SESSIONS, u32::MAX], vec![MANY_SESSIONS]),
            (vec![2], vec![]),
        ] {
            let mut stream = relay.connect_from(host.address).await;
            let knock = Knock::data(host.id, host.key, "ssh");
            let answer = Knock { features: said, ..knock }.say(&mut stream).await.unwrap();
            let welcome = Welcome { features: answered, ..Welcome::default() };
            assert_eq!(answer.v2, Some(AnswerV2::Welcome(welcome)));
        }
    }
}

#[tokio::test]
async fn a_channel_without_the_feature_carries_one_session_without_parts() {
    for relay in [Secure::plain(), Secure::start()] {
        let host = relay.member("laptop", &["ssh"]).await;
        let mut channel = host.idle_channel(&relay, "ssh").await;
        let mut client = relay.client_of("ssh").await;
        channel.accept().await;
        exchange((&mut client, b"request"), (&mut channel.stream, b"answer")).await;
        drop(channel);
        relay.until_sessions(0).await;
        let _next = relay.client_of("ssh").await;
        relay.until_waiting(1).await;
        assert_eq!(relay.occupancy().idle, 0);
    }
}

#[tokio::test]
async fn two_sessions_are_these_bytes() {
    let relay = Secure::plain();
    let mut host = relay.member("laptop", &["ssh"]).await;
    let mut channel = host.idle_channel_for_many(&relay, "ssh").await;
    let mut client = relay.client_of("ssh").await;
    write(&mut client, b"hello").await;
    let first = channel.start().await;
    assert_eq!(first.client_addr, Some(client.local_addr().unwrap()));
    assert_eq!(read_exactly(&mut channel.stream, 9).await, b"\0\0\0\x05hello", "unasked for");
    write(&mut channel.stream, b"\0\0\0\x02\x08\x01\0\0\0\x02hi\0\0\0\0").await;
    assert_eq!(read_rest(&mut client).await, b"hi");
    write(&mut client, b"more").await;
    assert_eq!(read_exactly(&mut channel.stream, 8).await, b"\0\0\0\x04more");
    // The next one waits already, and its start may come right behind the end.
    let mut next = relay.client_of("ssh").await;
    relay.until_waiting(1).await;
    client.shutdown().await.unwrap();
    assert_eq!(read_exactly(&mut channel.stream, 4).await, END);
    let second = channel.start().await;
    assert_ne!(second.session_id, first.session_id);
    assert_eq!(second.client_addr, Some(next.local_addr().unwrap()));
    next.shutdown().await.unwrap();
    write(&mut channel.stream, b"\0\0\0\x02\x08\x01\0\0\0\x03bye").await;
    assert_eq!(read_exactly(&mut channel.stream, 4).await, END);
    assert_eq!(read_exactly(&mut next, 3).await, b"bye");
    write(&mut channel.stream, &END).await;
    assert_ended(&mut next).await;
    relay.until_idle(1).await;
    // Lengths are not counted, and each session has its own bytes.
    host.assert_ended(&first, Reason::Finished, (9, 2)).await;
    host.assert_ended(&second, Reason::Finished, (0, 3)).await;
}

#[tokio::test]
async fn the_end_of_a_client_is_passed_on_and_its_host_goes_on() {
    for mut scene in scenes().await {
        write(&mut scene.client, b"request").await;
        scene.client.shutdown().await.unwrap();
        assert_eq!(scene.channel.rest_in_parts().await, b"request");
        for at in 0..3 {
            let piece = content(at, 10_000);
            scene.channel.send(&piece).await;
            assert!(read_exactly(&mut scene.client, piece.len()).await == piece);
        }
        assert_eq!(scene.relay.occupancy().sessions, 1);
        scene.channel.end().await;
        assert_ended(&mut scene.client).await;
        scene.assert_used_again().await;
    }
}

#[tokio::test]
async fn the_end_of_a_host_is_passed_on_and_its_client_goes_on() {
    for mut scene in scenes().await {
        scene.channel.send(b"greeting").await;
        scene.channel.end().await;
        assert_eq!(read_rest(&mut scene.client).await, b"greeting");
        for at in 0..3 {
            let piece = content(at, 10_000);
            write(&mut scene.client, &piece).await;
            scene.channel.assert_comes(&piece).await;
        }
        assert_eq!(scene.relay.occupancy().sessions, 1);
        scene.client.shutdown().await.unwrap();
        assert_eq!(scene.channel.next_part().await, Part::End);
        scene.assert_used_again().await;
    }
}

#[tokio::test]
async fn what_a_host_sends_byte_by_byte_arrives_as_it_was() {
    let relay = Secure::plain();
    let host = relay.member("laptop", &["ssh"]).await;
    let mut channel = host.idle_channel_for_many(&relay, "ssh").await;
    for round in 1..=3 {
        let mut client = relay.client_of("ssh").await;
        client.shutdown().await.unwrap();
        let answer = content(round as u64, 300);
        let said = [Verdict::Accepted.encode(), in_parts(&answer, round), END.to_vec()].concat();
        channel.start().await;
        for byte in said {
            write(&mut channel.stream, &[byte]).await;
            tokio::task::yield_now().await;
        }
        assert!(read_rest(&mut client).await == answer);
        assert_eq!(channel.next_part().await, Part::End);
        relay.until_idle(1).await;
    }
}

#[tokio::test]
async fn a_host_that_says_all_at_once_loses_no_byte() {
    for relay in [Secure::plain(), Secure::start()] {
        let host = relay.member("laptop", &["ssh"]).await;
        let mut channel = host.idle_channel_for_many(&relay, "ssh").await;
        for (seed, part_len) in [(1, 1_000), (2, 65_536), (3, 7)] {
            let mut client = relay.client_of("ssh").await;
            channel.start().await;
            let answer = content(seed, 100_000);
            let parts = in_parts(&answer, part_len);
            let said = [Verdict::Accepted.encode(), parts, END.to_vec()].concat();
            let ((), received) =
                tokio::join!(write(&mut channel.stream, &said), read_rest(&mut client));
            assert!(received == answer, "{} bytes are not the host's", received.len());
            drop(client);
            assert_eq!(channel.next_part().await, Part::End);
            relay.until_idle(1).await;
        }
    }
}

#[tokio::test]
async fn an_end_of_the_connection_before_that_of_the_session_is_an_abort() {
    for sent in [&b""[..], b"\0\0", b"\0\0\0\x05abc", b"\0\0\0\x05whole"] {
        for mut scene in scenes().await {
            write(&mut scene.channel.stream, sent).await;
            scene.channel.stream.shutdown().await.unwrap();
            let received = assert_reset(&mut scene.client).await;
            assert!(sent.get(4..).unwrap_or_default().starts_with(&received), "{received:?}");
            scene.assert_not_used_again().await;
        }
    }
}

#[tokio::test]
async fn what_is_no_part_fails_the_session() {
    for sent in [&b"\0\x01\0\x01"[..], b"\xff\xff\xff\xfe", b"HTTP/1.1 200 OK\r\n\r\n"] {
        for mut scene in scenes().await {
            write(&mut scene.channel.stream, sent).await;
            assert_eq!(assert_reset(&mut scene.client).await, b"");
            scene.channel.assert_over().await;
            scene.host.assert_ended(&scene.start, Reason::HostAborted, (0, 0)).await;
            scene.assert_not_used_again().await;
        }
    }
}

#[tokio::test]
async fn a_host_that_resets_its_channel_resets_its_client() {
    for mut scene in scenes().await {
        scene.channel.send(b"half an answer").await;
        assert_eq!(read_exactly(&mut scene.client, 14).await, b"half an answer");
        let Scene { relay, mut host, channel, mut client, start } = scene;
        channel.stream.abort();
        assert_eq!(assert_reset(&mut client).await, b"");
        host.assert_ended(&start, Reason::HostAborted, (0, 14)).await;
        relay.until("nothing is left", |it| (it.sessions, it.idle) == (0, 0)).await;
    }
}

#[tokio::test]
async fn a_client_that_is_reset_resets_its_channel() {
    for mut scene in scenes().await {
        write(&mut scene.client, b"half a request").await;
        scene.channel.assert_comes(b"half a request").await;
        let Scene { relay, mut host, mut channel, client, start } = scene;
        reset(client);
        let mut rest = Vec::new();
        let ended = within("the channel's end", channel.stream.read_to_end(&mut rest)).await;
        assert!(ended.is_err() && rest.is_empty(), "an end would say that all was well");
        host.assert_ended(&start, Reason::ClientAborted, (14, 0)).await;
        relay.until("nothing is left", |it| (it.sessions, it.idle) == (0, 0)).await;
    }
}

/// It has sent its end, so nothing is read of it; and its client is silent.
#[tokio::test]
async fn a_host_that_resets_its_channel_behind_its_end_resets_its_client() {
    let mut scene = Scene::on(Secure::plain()).await;
    scene.channel.send(b"greeting").await;
    scene.channel.end().await;
    assert_eq!(read_rest(&mut scene.client).await, b"greeting");
    let Scene { relay, mut host, channel, mut client, start } = scene;
    channel.stream.abort();
    host.assert_ended(&start, Reason::HostAborted, (0, 8)).await;
    let failed = within("the client's failure", async {
        while client.write_all(b"to nobody").await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    failed.await;
    relay.until("nothing is left", |it| (it.sessions, it.idle) == (0, 0)).await;
}

/// Nothing more is read of the host before its client has taken what there is.
#[tokio::test]
async fn a_host_that_resets_its_channel_while_its_client_reads_nothing_resets_its_client() {
    let mut scene = Scene::on(Secure::plain()).await;
    let part = in_parts(&content(1, 50_000), 50_000);
    // Until nobody takes any more: all buffers on the way are full.
    let full = async {
        let bound = Duration::from_millis(500);
        while tokio::time::timeout(bound, scene.channel.stream.write_all(&part)).await.is_ok() {}
    };
    within("full buffers", full).await;
    let Scene { relay, mut host, channel, client, .. } = scene;
    channel.stream.abort();
    let ended = host.next().await;
    let reason = Reason::HostAborted.code();
    assert!(matches!(&ended, Announcement::SessionEnded { reason: it, .. } if it == reason));
    relay.until("nothing is left", |it| (it.sessions, it.idle) == (0, 0)).await;
    drop(client);
}

#[tokio::test]
async fn a_half_closed_session_that_is_silent_is_reset_and_its_channel_too() {
    let bound = Duration::from_millis(300);
    for of_client in [true, false] {
        let relay = Secure::plain_with(|config| config.half_closed_timeout = bound);
        let mut scene = Scene::on(relay).await;
        if of_client {
            scene.client.shutdown().await.unwrap();
            assert_eq!(scene.channel.next_part().await, Part::End);
            assert_eq!(assert_reset(&mut scene.client).await, b"");
        } else {
            scene.channel.end().await;
            assert_ended(&mut scene.client).await;
        }
        assert_eq!(assert_reset(&mut scene.channel.stream).await, b"");
        scene.host.assert_ended(&scene.start, Reason::HalfClosedTimeout, (0, 0)).await;
        scene.assert_not_used_again().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lost_host_had_sent_in_parts_reaches_its_client() {
    for scene in scenes().await {
        let Scene { relay, host, mut channel, mut client, .. } = scene;
        let answer = content(1, 8 << 20);
        let sent = [in_parts(&answer, 65_536), END.to_vec()].concat();
        let sending = tokio::spawn(async move {
            write(&mut channel.stream, &sent).await;
            channel
        });
        let begun = read_exactly(&mut client, 1 << 20).await;
        drop(host);
        relay.until("the host has left", |it| it.hosts == 0).await;
        let received = [begun, read_rest(&mut client).await].concat();
        assert!(received == answer, "{} bytes are not the answer", received.len());
        let mut channel = within("all to be sent", sending).await.unwrap();
        channel.assert_over().await;
        relay.until_empty().await;
    }
}

#[tokio::test]
async fn dropping_the_relays_future_resets_sessions_in_parts() {
    let Scene { mut relay, host, mut channel, mut client, .. } = Scene::on(Secure::plain()).await;
    let mut idle = host.idle_channel_for_many(&relay, "ssh").await;
    channel.send(b"half an answer").await;
    assert_eq!(read_exactly(&mut client, 14).await, b"half an answer");
    relay.relay.cut_off().await;
    assert_eq!(assert_reset(&mut client).await, b"");
    assert_eq!(assert_reset(&mut channel.stream).await, b"");
    assert_ended(&mut idle.stream).await;
    relay.until_empty().await;
}
