//! Data channels that come back from their sessions: which the relay takes, which it closes, and that no client gets anything of the
//! one before.

use std::num::NonZeroU64;
use std::time::Duration;

use relayserver_relay::{Rates, Reason, ServiceName};
use relayserver_wire::command::Announcement;
use relayserver_wire::start::Verdict;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::peers::{
    Data, END, Knock, Member, Part, Secure, assert_ended, assert_reset, content, idle_for_many,
    in_parts, read_exactly, read_rest, serve, within, write,
};

/// Ends what a client and a host have: the client first.
async fn finish(client: &mut TcpStream, channel: &mut Data) {
    client.shutdown().await.unwrap();
    assert_eq!(channel.next_part().await, Part::End);
    channel.end().await;
    assert_ended(client).await;
}

#[tokio::test]
async fn a_channel_carries_one_session_after_another() {
    for relay in [Secure::plain(), Secure::start()] {
        let (_host, mut channel) = idle_for_many(&relay, "laptop").await;
        for (at, (up, down)) in
            [(0, 0), (5, 0), (0, 5), (9_000, 70_000), (200_000, 200_000), (1, 1)].iter().enumerate()
        {
            let (request, answer) = (content(at as u64, *up), content(100 + at as u64, *down));
            serve(&relay, &mut channel, &request, &answer).await;
            relay.until("it is back", |it| (it.idle, it.sessions) == (1, 0)).await;
        }
    }
}

#[tokio::test]
async fn inside_tls_the_relay_goes_never_bare_and_a_channel_is_used_again_after_bulk() {
    let relay = Secure::start();
    let (_host, mut channel) = idle_for_many(&relay, "laptop").await;
    for (at, len) in [3_000_000, 10, 1_000_000, 0].into_iter().enumerate() {
        let (request, answer) = (content(at as u64, len), content(100 + at as u64, len / 2));
        serve(&relay, &mut channel, &request, &answer).await;
        relay.until_idle(1).await;
    }
    // And many small ones.
    let mut client = relay.client_of("ssh").await;
    channel.accept().await;
    for at in 0..200_u8 {
        write(&mut client, &[at]).await;
        assert_eq!(channel.next_part().await, Part::Bytes(vec![at]));
        channel.send(&[!at]).await;
        assert_eq!(read_exactly(&mut client, 1).await, [!at]);
    }
    finish(&mut client, &mut channel).await;
    relay.until_idle(1).await;
}

#[tokio::test]
async fn a_service_with_a_rate_has_its_channels_back_too() {
    for relay in [true, false].map(|is_plain| {
        let change = |config: &mut relayserver_relay::Config| {
            let ssh = config.services.get_mut(&ServiceName::new("ssh")).unwrap();
            ssh.rates = Rates { session: NonZeroU64::new(2_000_000), service: None };
        };
        if is_plain { Secure::plain_with(change) } else { Secure::with(change) }
    }) {
        let (_host, mut channel) = idle_for_many(&relay, "laptop").await;
        for seed in 0..3 {
            serve(&relay, &mut channel, &content(seed, 50_000), &content(9 + seed, 50_000)).await;
            relay.until("it is back", |it| (it.idle, it.sessions) == (1, 0)).await;
        }
    }
}

/// It has sent its end, and reads nothing: what it was sent is with the kernels.
async fn slow_client(relay: &Secure) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    let connecting = socket.connect(relay.clients_addr("ssh"));
    within("connecting a client", connecting).await.unwrap()
}

#[tokio::test]
async fn a_client_that_has_not_read_all_keeps_no_channel_from_the_next_one() {
    for relay in [Secure::plain(), Secure::start()] {
        let (mut host, mut channel) = idle_for_many(&relay, "laptop").await;
        let mut slow = slow_client(&relay).await;
        slow.shutdown().await.unwrap();
        let start = channel.accept().await;
        assert_eq!(channel.next_part().await, Part::End);
        let answer = content(1, 60_000);
        channel.send(&answer).await;
        channel.end().await;
        relay.until("the channel is back ahead of it", |it| (it.idle, it.sessions) == (1, 1)).await;

        let mut client = relay.client_of("ssh").await;
        let next = channel.accept().await;
        write(&mut client, b"request").await;
        channel.assert_comes(b"request").await;
        channel.send(b"answer").await;
        finish_after(&mut client, b"answer", &mut channel).await;
        host.assert_ended(&next, Reason::Finished, (7, 6)).await;
        assert_eq!(relay.occupancy().sessions, 1, "the slow one is still there");

        assert!(read_rest(&mut slow).await == answer, "all that its host had sent");
        drop(slow);
        host.assert_ended(&start, Reason::Finished, (0, 60_000)).await;
        relay.until("the channel stays", |it| (it.idle, it.sessions) == (1, 0)).await;
    }
}

async fn finish_after(client: &mut TcpStream, answer: &[u8], channel: &mut Data) {
    assert_eq!(read_exactly(client, answer.len()).await, answer);
    finish(client, channel).await;
}

/// A session in which `act` plays the host's last part, with its client's end still to come; and then the channel is not used again:
/// the client that has waited gets all that it is sent from another.
async fn is_closed_after(relay: Secure, act: impl AsyncFnOnce(&Secure, &mut Member, &mut Data)) {
    let (mut host, mut channel) = idle_for_many(&relay, "laptop").await;
    let mut client = relay.client_of("ssh").await;
    channel.accept().await;
    let mut waiting = relay.client_of("ssh").await;
    relay.until_waiting(1).await;
    write(&mut client, b"request").await;
    channel.assert_comes(b"request").await;
    channel.send(b"answer").await;
    act(&relay, &mut host, &mut channel).await;
    assert_eq!(read_rest(&mut client).await, b"answer");
    client.shutdown().await.unwrap();
    assert_eq!(channel.next_part().await, Part::End);
    channel.assert_over().await;
    relay.until("nothing has it", |it| (it.idle, it.sessions, it.waiting) == (0, 0, 1)).await;

    let other = relay.member("desktop", &["ssh"]).await;
    let mut another = other.channel_for_waiting(&relay, "ssh").await;
    another.accept().await;
    write(&mut waiting, b"another").await;
    another.assert_comes(b"another").await;
    another.send(b"its answer").await;
    another.end().await;
    assert_eq!(read_rest(&mut waiting).await, b"its answer");
}

#[tokio::test]
async fn nothing_that_a_host_says_behind_its_end_reaches_the_next_client() {
    let verdict = Verdict::Accepted.encode();
    let session = [verdict, in_parts(b"leak", 4), END.to_vec()].concat();
    for behind in [b"l".to_vec(), b"leak".to_vec(), END.to_vec(), session] {
        for relay in [Secure::plain(), Secure::start()] {
            is_closed_after(relay, async |_, _, channel| {
                write(&mut channel.stream, &[&END[..], &behind].concat()).await;
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_host_that_has_closed_its_connection_behind_its_end_does_not_get_the_next_client() {
    for relay in [Secure::plain(), Secure::start()] {
        is_closed_after(relay, async |_, _, channel| {
            channel.end().await;
            channel.stream.shutdown().await.unwrap();
        })
        .await;
    }
}

/// An offer on a channel that has ended is one that has failed, of which a client bears only so many.
#[tokio::test]
async fn the_client_that_waits_is_not_offered_on_channels_that_have_ended_behind_their_sessions() {
    for relay in [Secure::plain(), Secure::start()] {
        let host = relay.member("laptop", &["ssh"]).await;
        let mut sessions = Vec::new();
        for _ in 0..3 {
            let mut channel = host.idle_channel_for_many(&relay, "ssh").await;
            let client = relay.client_of("ssh").await;
            channel.accept().await;
            sessions.push((client, channel));
        }
        let mut waiting = relay.client_of("ssh").await;
        relay.until_waiting(1).await;
        for (mut client, mut channel) in sessions {
            channel.end().await;
            channel.stream.shutdown().await.unwrap();
            assert_ended(&mut client).await;
            drop(client);
            assert_eq!(channel.next_part().await, Part::End);
            channel.assert_over().await;
        }
        relay.until("it waits", |it| (it.idle, it.sessions, it.waiting) == (0, 0, 1)).await;
        let mut fresh = host.channel_for_waiting(&relay, "ssh").await;
        fresh.accept().await;
        write(&mut waiting, b"request").await;
        fresh.assert_comes(b"request").await;
    }
}

#[tokio::test]
async fn a_channel_of_an_old_key_is_closed() {
    let relay = Secure::plain();
    let token = relay.token("laptop", &["*"]);
    let mut host = Member::join(&relay, Some(&token), &["ssh"]).await.unwrap();
    let mut channel = host.idle_channel_for_many(&relay, "ssh").await;
    let mut client = relay.client_of("ssh").await;
    channel.accept().await;
    let knock = Knock::command(Some(&token), &["ssh"]).again(host.id, host.key);
    let back = Member::knock(&relay, host.address, knock).await.unwrap();
    host.assert_closed().await;
    write(&mut client, b"it goes on").await;
    channel.assert_comes(b"it goes on").await;
    finish(&mut client, &mut channel).await;
    channel.assert_over().await;
    relay.until("nothing has it", |it| (it.idle, it.sessions) == (0, 0)).await;

    let mut fresh = back.idle_channel_for_many(&relay, "ssh").await;
    serve(&relay, &mut fresh, b"request", b"answer").await;
    relay.until_idle(1).await;
}

#[tokio::test]
async fn a_channel_of_a_host_without_a_command_channel_is_closed() {
    let relay = Secure::plain();
    let (host, mut channel) = idle_for_many(&relay, "laptop").await;
    let mut client = relay.client_of("ssh").await;
    channel.accept().await;
    drop(host);
    relay.until("its command channel has ended", |it| it.commands == 0).await;
    write(&mut client, b"it goes on").await;
    channel.assert_comes(b"it goes on").await;
    finish(&mut client, &mut channel).await;
    channel.assert_over().await;
    relay.until_empty().await;
}

#[tokio::test]
async fn a_relay_that_drains_takes_no_channel_back_and_closes_those_that_it_has() {
    for mut relay in [Secure::plain(), Secure::start()] {
        let (host, mut returned) = idle_for_many(&relay, "laptop").await;
        let mut channel = host.idle_channel_for_many(&relay, "ssh").await;
        let mut client = relay.client_of("ssh").await;
        channel.accept().await;
        serve(&relay, &mut returned, b"request", b"answer").await;
        relay.until("one is back", |it| (it.idle, it.sessions) == (1, 1)).await;
        relay.handle().drain();
        assert_ended(&mut returned.stream).await;
        write(&mut client, b"last words").await;
        channel.assert_comes(b"last words").await;
        finish(&mut client, &mut channel).await;
        channel.assert_over().await;
        relay.relay.ended().await;
        relay.until_empty().await;
    }
}

#[tokio::test]
async fn a_channel_is_closed_when_its_grant_covers_its_service_no_more() {
    let relay = Secure::plain();
    let (host, mut returned) = idle_for_many(&relay, "laptop").await;
    let mut channel = host.idle_channel_for_many(&relay, "ssh").await;
    let mut client = relay.client_of("ssh").await;
    channel.accept().await;
    serve(&relay, &mut returned, b"request", b"answer").await;
    relay.until("one is back", |it| (it.idle, it.sessions) == (1, 1)).await;
    relay.grants.change(|tokens| {
        tokens.get_mut("laptop").unwrap().services = vec!["web".parse().unwrap()];
    });
    assert_ended(&mut returned.stream).await;
    write(&mut client, b"it goes on").await;
    channel.assert_comes(b"it goes on").await;
    finish(&mut client, &mut channel).await;
    channel.assert_over().await;
    relay.until("nothing has it", |it| (it.idle, it.sessions) == (0, 0)).await;
}

#[tokio::test]
async fn a_revoked_grant_takes_channels_that_are_back_and_sessions_that_are_without() {
    let relay = Secure::plain();
    let (mut host, mut channel, slow, _answer) = left_behind(&relay).await;
    relay.grants.change(|tokens| tokens.get_mut("laptop").unwrap().revoked = true);
    assert_ended(&mut channel.stream).await;
    host.assert_closed().await;
    drop(slow);
    relay.until_empty().await;
}

/// Says `word` on the command channel while a session runs, and then its channel is closed.
async fn is_closed_by(word: Announcement) {
    let relay = Secure::plain();
    let (mut host, mut channel) = idle_for_many(&relay, "laptop").await;
    let mut client = relay.client_of("ssh").await;
    channel.accept().await;
    write(&mut host.command, &word.encode()).await;
    host.until_heard().await;
    write(&mut client, b"it goes on").await;
    channel.assert_comes(b"it goes on").await;
    finish(&mut client, &mut channel).await;
    channel.assert_over().await;
    relay.until("nothing has it", |it| (it.idle, it.sessions) == (0, 0)).await;
}

#[tokio::test]
async fn a_channel_of_a_host_that_leaves_is_closed() {
    is_closed_by(Announcement::Leaving { reason: "draining".to_owned(), retry_after_ms: None })
        .await;
}

#[tokio::test]
async fn a_channel_of_a_host_that_takes_no_sessions_for_now_is_closed() {
    let service = "ssh".to_owned();
    is_closed_by(Announcement::PoolBounds { service, idle_min: 0, idle_max: 0 }).await;
}

#[tokio::test]
async fn a_channel_that_is_back_and_ends_or_speaks_leaves_the_pool() {
    for relay in [Secure::plain(), Secure::start()] {
        let host = relay.member("laptop", &["ssh"]).await;
        let mut channels = Vec::new();
        for seed in 0..3 {
            let mut channel = host.idle_channel_for_many(&relay, "ssh").await;
            serve(&relay, &mut channel, &content(seed, 100), b"answer").await;
            relay.until("it is back", |it| (it.idle, it.sessions) == (1, 0)).await;
            channels.push(channel);
            let mut channel = channels.pop().unwrap();
            match seed {
                0 => channel.stream.shutdown().await.unwrap(),
                1 => write(&mut channel.stream, b"hello?").await,
                _ => {
                    channel.stream.abort();
                    relay.until_idle(0).await;
                    continue;
                }
            }
            relay.until_idle(0).await;
            channel.assert_over().await;
        }
        let mut client = relay.client_of("ssh").await;
        relay.until_waiting(1).await;
        let mut fresh = host.channel_for_waiting(&relay, "ssh").await;
        fresh.accept().await;
        write(&mut client, b"request").await;
        fresh.assert_comes(b"request").await;
    }
}

/// A client that has all of its answer still to read, and whose channel is back.
async fn left_behind(relay: &Secure) -> (Member, Data, TcpStream, Vec<u8>) {
    let (host, mut channel) = idle_for_many(relay, "laptop").await;
    let mut slow = slow_client(relay).await;
    slow.shutdown().await.unwrap();
    channel.accept().await;
    assert_eq!(channel.next_part().await, Part::End);
    let answer = content(1, 60_000);
    channel.send(&answer).await;
    channel.end().await;
    relay.until("the channel is back ahead of it", |it| (it.idle, it.sessions) == (1, 1)).await;
    (host, channel, slow, answer)
}

#[tokio::test]
async fn a_drain_waits_for_the_client_whose_channel_is_back_already() {
    let mut relay = Secure::plain();
    let (_host, mut channel, mut slow, answer) = left_behind(&relay).await;
    relay.handle().drain();
    assert_ended(&mut channel.stream).await;
    assert!(relay.is_running());
    assert!(read_rest(&mut slow).await == answer, "all that its host had sent");
    drop(slow);
    relay.relay.ended().await;
    relay.until_empty().await;
}

#[tokio::test]
async fn when_the_drain_timeout_has_passed_a_client_whose_channel_is_back_is_reset() {
    let bound = Duration::from_millis(300);
    let mut relay = Secure::plain_with(|config| config.drain_timeout = bound);
    let (_host, mut channel, mut slow, answer) = left_behind(&relay).await;
    relay.handle().drain();
    assert_ended(&mut channel.stream).await;
    relay.relay.ended().await;
    relay.until_empty().await;
    assert!(answer.starts_with(&assert_reset(&mut slow).await));
}
