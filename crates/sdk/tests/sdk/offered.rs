//! Sessions that a scripted relay offers: what the host says to them, and that they outlive a relay that is leaving.

use std::io::ErrorKind;

use relayserver::{Event, Listener};
use relayserver_transport::Stream;
use relayserver_wire::SessionId;
use relayserver_wire::command::Announcement;
use relayserver_wire::hello::Role;
use relayserver_wire::start::{Start, Verdict};
use tokio::io::AsyncWriteExt;
use tokio::time::{Duration, Instant, timeout};

use crate::member::{Relay, heard, read, read_frame, say};
use crate::within;

/// A listener with one idle channel, and its command channel.
async fn member(relay: &Relay) -> (Listener, Stream, Stream) {
    let listening = tokio::spawn(relay.builder(&[]).pool(1..=3).listen());
    let (mut command, _) = relay.commanded(1).await;
    assert!(matches!(heard(&mut command).await, Announcement::PoolBounds { .. }));
    let idle = relay.answered(1).await;
    (within(listening).await.unwrap().unwrap(), command, idle)
}

async fn offer(channel: &mut Stream, id: u8) {
    let (service, via) = ("default".to_owned(), "tcp".to_owned());
    let start = Start { session_id: SessionId([id; 16]), service, client_addr: None, via };
    say(channel, &start.encode()).await;
}

async fn verdict(channel: &mut Stream) -> Verdict {
    Verdict::decode(&read_frame(channel).await).unwrap()
}

fn leaving(retry_after_ms: u32) -> Vec<u8> {
    let (reason, retry_after_ms) = ("draining".to_owned(), Some(retry_after_ms));
    Announcement::Leaving { reason, retry_after_ms }.encode()
}

#[tokio::test]
async fn a_rejected_session_takes_its_word_to_the_relay() {
    let relay = Relay::bind().await;
    let (listener, _command, mut channel) = member(&relay).await;
    offer(&mut channel, 7).await;
    let session = within(listener.accept()).await.unwrap();
    session.reject("not_today");
    let reason = Some("not_today".to_owned());
    assert_eq!(verdict(&mut channel).await, Verdict::Rejected { reason });
}

#[tokio::test]
async fn sessions_go_on_at_a_relay_that_is_leaving_while_the_host_is_at_the_next() {
    let relay = Relay::bind().await;
    let (listener, mut old, mut channel) = member(&relay).await;
    let mut events = listener.events();
    offer(&mut channel, 7).await;
    let mut session = within(listener.accept()).await.unwrap();
    session.write_all(b"before").await.unwrap();
    assert_eq!(verdict(&mut channel).await, Verdict::Accepted);
    assert_eq!(read(&mut channel, 6).await, b"before");
    let mut idle = relay.answered(1).await;

    let told = Instant::now();
    say(&mut old, &leaving(400)).await;
    let (mut new, last_key) = relay.commanded(2).await;
    let waited = told.elapsed();
    assert!(waited >= Duration::from_millis(400), "after {waited:?}");
    assert!(waited < Duration::from_millis(2_000), "after {waited:?}");
    assert!(last_key.is_some());
    assert!(matches!(heard(&mut new).await, Announcement::PoolBounds { .. }));
    let _fresh = relay.answered(2).await;
    // What was idle at the old relay is of no use.
    let mut byte = [0];
    let read_idle = within(tokio::io::AsyncReadExt::read(&mut idle, &mut byte)).await;
    assert!(!matches!(read_idle, Ok(1..)), "{read_idle:?}");

    // The old command channel lives, and tells how its sessions end; what it wants counts no more.
    say(&mut old, &Announcement::Ping { nonce: 5 }.encode()).await;
    assert_eq!(heard(&mut old).await, Announcement::Pong { nonce: 5 });
    let wanted = Announcement::PoolWanted { service: "default".to_owned(), idle: 9 };
    say(&mut old, &wanted.encode()).await;
    session.write_all(b"after").await.unwrap();
    assert_eq!(read(&mut channel, 5).await, b"after");
    let ended = Announcement::SessionEnded {
        session_id: SessionId([7; 16]),
        reason: "finished".to_owned(),
        bytes_to_host: 0,
        bytes_to_client: 11,
    };
    say(&mut old, &ended.encode()).await;
    loop {
        if let Event::Ended { bytes_to_client, .. } = within(events.next()).await.unwrap() {
            assert_eq!(bytes_to_client, 11);
            break;
        }
    }
    // Its end is no loss.
    drop(old);
    let more = timeout(Duration::from_millis(500), relay.listener.accept()).await;
    assert!(more.is_err(), "nothing was dialled");
}

/// A relay that is silent may have given its sessions to others, however well the one is that leaves.
#[tokio::test]
async fn a_session_of_a_silent_relay_is_not_served_though_the_one_before_it_is_heard() {
    let relay = Relay::bind().await;
    let (listener, mut old, _idle) = member(&relay).await;
    say(&mut old, &leaving(0)).await;
    let (_silent, _) = relay.commanded_with(2, Some(300)).await;
    let mut channel = relay.answered(2).await;
    offer(&mut channel, 7).await;
    let mut session = within(listener.accept()).await.unwrap();
    let is_heard = async {
        loop {
            say(&mut old, &Announcement::Ping { nonce: 5 }.encode()).await;
            assert_eq!(heard(&mut old).await, Announcement::Pong { nonce: 5 });
        }
    };
    let is_given_up =
        async { while !matches!(relay.next_hello().await, (_, Role::Command { .. })) {} };
    tokio::select! {
        () = is_heard => unreachable!("it goes on"),
        () = is_given_up => {}
    }
    let error = within(session.accept()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted, "{error}");
}

#[tokio::test]
async fn no_more_than_one_command_channel_of_a_relay_that_left_is_kept() {
    let relay = Relay::bind().await;
    let (_listener, mut first, _idle) = member(&relay).await;
    say(&mut first, &leaving(0)).await;
    let (mut second, _) = relay.commanded(2).await;
    // A dial that is given up as the relay leaves would come before the next command channel.
    let _idle_there = relay.answered(2).await;
    say(&mut second, &leaving(0)).await;
    let (_third, _) = relay.commanded(3).await;
    // What it had said before comes first.
    let mut left = Vec::new();
    let ended = tokio::io::AsyncReadExt::read_to_end(&mut first, &mut left);
    // Sooner than silence would end it.
    assert!(timeout(Duration::from_secs(2), ended).await.is_ok(), "it is kept");
    let open = timeout(Duration::from_millis(1), heard(&mut second)).await;
    assert!(!matches!(open, Ok(Announcement::Leaving { .. })), "{open:?}");
}
