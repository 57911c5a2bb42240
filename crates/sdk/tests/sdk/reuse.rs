//! Channels that carry session after session, and how a session ends whose channel is one of these: nobody is held up by who has finished
//! with one, and nobody's answer is cut short.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use relayserver::{Builder, Event, Events, Listener, Session};
use relayserver_testing::TestRelay;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{DEADLINE, ask, noise, rest, within};

/// Over TCP alone, and over TLS.
fn relays() -> [(TestRelay, bool); 2] {
    [(TestRelay::start(), false), (TestRelay::secure(), true)]
}

fn builder((relay, is_secure): &(TestRelay, bool)) -> Builder {
    if *is_secure { Listener::join(relay.join()) } else { relay.listener() }
}

/// All that have ended have ended in order, and so many have.
async fn assert_finished(relay: &TestRelay, sessions: u64) {
    let all_ended = async {
        loop {
            let ended = relay.snapshot().unwrap().counts.ended();
            let ended: BTreeMap<_, _> =
                ended.into_iter().map(|(reason, count)| (reason.code(), count)).collect();
            if ended.values().sum::<u64>() >= sessions {
                return ended;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert_eq!(within(all_ended).await, BTreeMap::from([("finished", sessions)]));
}

/// How many connections of hosts the relay has taken: a command channel, and the data channels.
fn dials(relay: &TestRelay) -> u64 {
    relay.snapshot().unwrap().counts.taken_hosts
}

/// A host with a pool of one keeps two channels at most, and every two seconds may have its relay close one that is too many.
fn assert_used_again(relay: &TestRelay, since: Instant) {
    let (dialled, allowed) = (dials(relay), 3 + since.elapsed().as_secs() / 2);
    assert!(dialled <= allowed, "{dialled} connections of hosts, and not {allowed}");
}

/// A client that takes little at once.
async fn slow_client(relay: &TestRelay) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    within(socket.connect(relay.clients_addr())).await.unwrap()
}

/// Everything up to the end, with time to fill buffers and to close what is closed too soon in between.
async fn rest_slowly(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut received = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    let mut rested_at = 0;
    let reading = async {
        loop {
            match client.read(&mut piece).await? {
                0 => return Ok(()),
                len => received.extend_from_slice(&piece[..len]),
            }
            if received.len() >= rested_at {
                rested_at = received.len() + 200_000;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    within(reading).await.map(|()| received)
}

async fn question(session: &mut Session) -> Vec<u8> {
    let mut question = vec![0; 3];
    within(session.read_exact(&mut question)).await.unwrap();
    question
}

/// The next session that was dropped.
async fn until_dropped(events: &mut Events) {
    while !matches!(within(events.next()).await.unwrap(), Event::Dropped { .. }) {}
}

async fn echo(mut session: Session) -> io::Result<()> {
    let mut question = Vec::new();
    session.read_to_end(&mut question).await?;
    session.write_all(&question).await?;
    session.shutdown().await
}

#[tokio::test]
async fn fifty_sessions_one_after_the_other_need_no_more_channels_than_the_pool_has() {
    for host in relays() {
        let begin = Instant::now();
        let listener = within(builder(&host).pool_size(1).listen()).await.unwrap();
        let relay = &host.0;
        let clients = async {
            for seed in 0..50 {
                let question = noise(1_000, seed);
                assert_eq!(ask(relay, &question).await, question);
            }
            assert_finished(relay, 50).await;
            assert_used_again(relay, begin);
        };
        tokio::select! {
            () = clients => {}
            _ended = listener.serve(echo) => panic!("the listener stopped serving"),
        }
    }
}

/// Its request may have run by then: whatever becomes of the host, the relay has to know that the session is no other host's.
#[tokio::test]
async fn a_session_whose_bytes_were_read_is_accepted_though_its_host_stands_still_from_then_on() {
    for host in relays() {
        let listener = within(builder(&host).pool_size(1).listen()).await.unwrap();
        let relay = &host.0;
        let mut client = within(TcpStream::connect(relay.clients_addr())).await.unwrap();
        client.write_all(b"ask").await.unwrap();
        let mut session = within(listener.accept()).await.unwrap();
        // All of it came with the offer: a read that waits would send the word by itself.
        assert_eq!(question(&mut session).await, b"ask");
        // From here on nothing of the host runs: this is its only thread.
        let until = Instant::now() + DEADLINE;
        loop {
            let counts = relay.snapshot().unwrap().counts;
            assert!(counts.ended().is_empty(), "{counts:?}");
            if counts.services.values().map(|service| service.opened).sum::<u64>() == 1 {
                break;
            }
            assert!(Instant::now() < until, "the relay has not heard that it is accepted");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[tokio::test]
async fn a_session_in_halves_takes_its_channel_along_and_the_next_one_has_another() {
    for host in relays() {
        let listener = within(builder(&host).pool_size(1).listen()).await.unwrap();
        let relay = &host.0;
        let in_halves = async |session: Session| {
            let (mut reader, mut writer) = session.into_split();
            let mut question = Vec::new();
            reader.read_to_end(&mut question).await?;
            writer.write_all(&question).await?;
            writer.shutdown().await
        };
        let clients = async {
            for seed in 0..10 {
                let question = noise(1_000, seed);
                assert_eq!(ask(relay, &question).await, question);
            }
            assert_finished(relay, 10).await;
            assert!(dials(relay) > 10, "{} connections of hosts", dials(relay));
        };
        tokio::select! {
            () = clients => {}
            _ended = listener.serve(in_halves) => panic!("the listener stopped serving"),
        }
    }
}

#[tokio::test]
async fn a_handler_that_goes_on_after_its_session_holds_up_no_client() {
    for host in relays() {
        let begin = Instant::now();
        let listener = within(builder(&host).pool_size(1).listen()).await.unwrap();
        let relay = &host.0;
        let (goes_on, waiting) = (Arc::new(Notify::new()), Arc::new(()));
        let handler = {
            let (goes_on, waiting) = (Arc::clone(&goes_on), Arc::clone(&waiting));
            move |mut session: Session| {
                let (goes_on, waiting) = (Arc::clone(&goes_on), Arc::clone(&waiting));
                async move {
                    let mut question = Vec::new();
                    session.read_to_end(&mut question).await?;
                    session.write_all(&question).await?;
                    session.shutdown().await?;
                    goes_on.notified().await;
                    drop((session, waiting));
                    Ok(())
                }
            }
        };
        let clients = async {
            for seed in 0..8 {
                let question = noise(1_000, seed);
                assert_eq!(ask(relay, &question).await, question);
            }
            assert_finished(relay, 8).await;
            assert_used_again(relay, begin);
            assert_eq!(Arc::strong_count(&waiting), 2 + 8, "none has gone on");
            goes_on.notify_waiters();
            while Arc::strong_count(&waiting) > 2 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = within(clients) => {}
            _ended = listener.serve(handler) => panic!("the listener stopped serving"),
        }
    }
}

#[tokio::test]
async fn an_application_that_keeps_sessions_that_have_ended_holds_up_no_client() {
    for host in relays() {
        let listener = within(builder(&host).pool_size(1).listen()).await.unwrap();
        let relay = &host.0;
        let mut kept = Vec::new();
        for at in 0..8 {
            let mut client = relay.connect().await.unwrap();
            client.write_all(b"ask").await.unwrap();
            let mut session = within(listener.accept()).await.unwrap();
            assert_eq!(question(&mut session).await, b"ask");
            session.write_all(b"answer").await.unwrap();
            let mut end = [0];
            if at % 2 == 0 {
                client.shutdown().await.unwrap();
                assert_eq!(within(session.read(&mut end)).await.unwrap(), 0);
                session.shutdown().await.unwrap();
                assert_eq!(rest(&mut client).await, b"answer");
            } else {
                session.shutdown().await.unwrap();
                assert_eq!(rest(&mut client).await, b"answer");
                client.shutdown().await.unwrap();
                assert_eq!(within(session.read(&mut end)).await.unwrap(), 0);
            }
            drop(client);
            kept.push(session);
        }
        assert_finished(relay, 8).await;
        for session in &mut kept {
            // And nothing of whoever has the channel now.
            assert_eq!(within(session.read(&mut [0; 8])).await.unwrap(), 0);
            let error = within(session.write(b"more")).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        }
        assert_eq!(listener.sessions_open(), 8);
    }
}

/// How an application is done with a session of which it has written the answer.
#[derive(Clone, Copy, Debug)]
enum Done {
    Dropped,
    EndedAndDropped,
    HalvesDropped { reader_first: bool },
    HalvesEndedAndDropped,
}

impl Done {
    const ALL: [Done; 5] = [
        Done::Dropped,
        Done::EndedAndDropped,
        Done::HalvesDropped { reader_first: true },
        Done::HalvesDropped { reader_first: false },
        Done::HalvesEndedAndDropped,
    ];

    async fn answer(self, mut session: Session, answer: &[u8]) {
        match self {
            Done::Dropped => session.write_all(answer).await.unwrap(),
            Done::EndedAndDropped => {
                session.write_all(answer).await.unwrap();
                session.shutdown().await.unwrap();
            }
            Done::HalvesDropped { reader_first } => {
                let (reader, mut writer) = session.into_split();
                writer.write_all(answer).await.unwrap();
                if reader_first {
                    drop(reader);
                    drop(writer);
                } else {
                    drop(writer);
                    drop(reader);
                }
            }
            Done::HalvesEndedAndDropped => {
                let (_reader, mut writer) = session.into_split();
                writer.write_all(answer).await.unwrap();
                writer.shutdown().await.unwrap();
            }
        }
    }
}

/// One client after the other has `answer` from a session that is `done` so, and reads it slowly; where it `has_ended` it did that before.
async fn assert_whole(has_ended: bool, len: usize) {
    for host in relays() {
        let listener = within(builder(&host).pool_size(1).listen()).await.unwrap();
        let (relay, is_secure) = &host;
        let mut events = listener.events();
        for (at, done) in (1..).zip(Done::ALL) {
            let mut client = slow_client(relay).await;
            client.write_all(b"ask").await.unwrap();
            if has_ended {
                client.shutdown().await.unwrap();
            }
            let mut session = within(listener.accept()).await.unwrap();
            assert_eq!(question(&mut session).await, b"ask");
            if has_ended {
                assert_eq!(within(session.read(&mut [0])).await.unwrap(), 0);
            }
            let answer = noise(len, at);
            let sent = answer.clone();
            let serving = tokio::spawn(async move { done.answer(session, &sent).await });
            let received = rest_slowly(&mut client).await;
            let what = format!("{done:?}, over TLS: {is_secure}, client ended: {has_ended}");
            let received = received.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(received == answer, "{what}: {} bytes", received.len());
            within(serving).await.unwrap();
            client.shutdown().await.unwrap();
            drop(client);
            until_dropped(&mut events).await;
            assert_finished(relay, at).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_dropped_before_its_client_has_ended_delivers_a_large_answer_whole() {
    assert_whole(false, 4_000_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_has_ended_and_reads_slowly_gets_a_large_answer_whole() {
    assert_whole(true, 6_000_000).await;
}

/// What is in parts still when it is dropped, over TCP too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_answer_arrives_whole_however_its_session_is_dropped() {
    for len in [1, 10_000, 200_000] {
        assert_whole(false, len).await;
        assert_whole(true, len).await;
    }
}

/// A writer that waits for room while somebody else reads is woken when there is some.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_waits_is_woken_whoever_reads_meanwhile() {
    for host in relays() {
        let listener = within(builder(&host).pool_size(1).listen()).await.unwrap();
        let relay = &host.0;
        for round in 0..3 {
            let (up, down) = (noise(2_000_000, round), noise(12_000_000, 100 + round));
            let (first, second) = up.split_at(up.len() / 2);
            let mut client = slow_client(relay).await;
            client.write_all(b"ask").await.unwrap();
            let session = within(listener.accept()).await.unwrap();
            let (mut reader, mut writer) = tokio::io::split(session);
            let answer = down.clone();
            let writing = tokio::spawn(async move {
                for piece in answer.chunks(50_000) {
                    writer.write_all(piece).await.unwrap();
                }
                writer.shutdown().await.unwrap();
            });
            let (half_read, has_half) = oneshot::channel();
            let reading = tokio::spawn(async move {
                let mut received = vec![0; 3 + 1_000_000];
                // In small bits: each takes its turn at the session.
                for bit in received.chunks_mut(700) {
                    reader.read_exact(bit).await.unwrap();
                }
                half_read.send(()).unwrap();
                let mut buf = [0; 700];
                loop {
                    match reader.read(&mut buf).await.unwrap() {
                        0 => return received,
                        len => received.extend_from_slice(&buf[..len]),
                    }
                }
            });
            // The answer fills all that is on its way, and the reader goes on.
            within(client.write_all(first)).await.unwrap();
            within(has_half).await.unwrap();
            let (mut from_host, mut to_host) = client.split();
            let asking = async {
                for piece in second.chunks(5_000) {
                    to_host.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                to_host.shutdown().await.unwrap();
            };
            let mut answer = Vec::new();
            let (read, ()) =
                within(async { tokio::join!(from_host.read_to_end(&mut answer), asking) }).await;
            read.unwrap();
            assert!(answer == down, "{} bytes are not the host's", answer.len());
            within(writing).await.unwrap();
            let received = within(reading).await.unwrap();
            assert!(received == [b"ask", &up[..]].concat(), "{} bytes", received.len());
            drop(client);
            assert_finished(relay, round + 1).await;
        }
    }
}

#[tokio::test]
async fn a_drain_while_channels_are_given_back_ends_and_cuts_no_answer_short() {
    for round in 0..10 {
        for host in relays() {
            let listener = within(builder(&host).pool_size(2).listen()).await.unwrap();
            let relay = Arc::new(host.0);
            let (answered, mut answers) = mpsc::unbounded_channel();
            let mut clients = JoinSet::new();
            for seed in 0..4 {
                let (relay, answered) = (Arc::clone(&relay), answered.clone());
                clients.spawn(async move {
                    let question = noise(2_000, seed);
                    loop {
                        assert_eq!(ask(&relay, &question).await, question);
                        answered.send(()).unwrap();
                    }
                });
            }
            let draining = async {
                for _ in 0..5 + 3 * round {
                    within(answers.recv()).await.unwrap();
                }
                listener.drain().await;
            };
            let (served, ()) = within(async { tokio::join!(listener.serve(echo), draining) }).await;
            served.unwrap();
            assert_eq!(listener.sessions_open(), 0);
            relay.wait_until(|now| (now.idle, now.sessions, now.commands) == (0, 0, 0)).await;
            clients.abort_all();
            while let Some(client) = clients.join_next().await {
                assert!(client.unwrap_err().is_cancelled(), "an answer was cut short");
            }
            let ended = relay.snapshot().unwrap().counts.ended();
            assert!(ended.keys().all(|reason| reason.code() == "finished"), "{ended:?}");
        }
    }
}

#[tokio::test]
async fn an_application_that_has_ended_and_reads_no_more_holds_up_no_client() {
    for host in relays() {
        let listener = within(builder(&host).pool_size(1).listen()).await.unwrap();
        let relay = &host.0;
        let mut kept = Vec::new();
        for _ in 0..8 {
            let mut client = relay.connect().await.unwrap();
            client.write_all(b"ask").await.unwrap();
            let mut session = within(listener.accept()).await.unwrap();
            assert_eq!(question(&mut session).await, b"ask");
            session.write_all(b"answer").await.unwrap();
            session.shutdown().await.unwrap();
            assert_eq!(rest(&mut client).await, b"answer");
            kept.push(session);
        }
        drop(kept);
        assert_finished(relay, 8).await;
    }
}
