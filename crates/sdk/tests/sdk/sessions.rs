//! Sessions: what an application can do with one, and what others notice of it.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use relayserver::handlers::Echo;
use relayserver::{DropReason, Event, Handler, Listener, Session};
use relayserver_testing::TestRelay;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::{ask, assert_reset, connected, noise, rest, within};

#[test]
fn a_session_is_a_stream_that_any_task_may_own() {
    fn is_stream<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>() {}
    fn is_shared<T: Send + Sync + 'static>() {}
    is_stream::<Session>();
    is_shared::<Session>();
    is_shared::<Listener>();
}

#[tokio::test]
async fn many_clients_get_back_what_they_sent_to_the_byte() {
    let relay = TestRelay::start();
    let listener = within(relay.listener().listen()).await.unwrap();
    let serving = listener.serve(Echo);
    let clients = async {
        let relay = Arc::new(relay);
        let mut asking = JoinSet::new();
        for seed in 0..64 {
            let relay = Arc::clone(&relay);
            asking.spawn(async move {
                let question = noise(usize::try_from(seed).unwrap() * 10_007, seed);
                let client = relay.connect().await.unwrap();
                let (mut reader, mut writer) = client.into_split();
                let mut answer = Vec::new();
                let (sent, read) = tokio::join!(
                    async {
                        writer.write_all(&question).await?;
                        writer.shutdown().await
                    },
                    reader.read_to_end(&mut answer)
                );
                sent.unwrap();
                read.unwrap();
                assert!(answer == question, "{} of {} bytes", answer.len(), question.len());
            });
        }
        while let Some(asked) = asking.join_next().await {
            asked.unwrap();
        }
    };
    tokio::select! {
        () = within(clients) => {}
        _ended = serving => panic!("the listener stopped serving"),
    }
}

#[tokio::test]
async fn a_half_close_leaves_the_other_direction_open() {
    let (_relay, _listener, mut client, mut session) = connected().await;
    session.write_all(b"all I have to say").await.unwrap();
    session.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await, b"all I have to say");
    client.write_all(b"thank you").await.unwrap();
    client.shutdown().await.unwrap();
    let mut received = Vec::new();
    within(session.read_to_end(&mut received)).await.unwrap();
    assert_eq!(received, b"thank you");
}

#[tokio::test]
async fn halves_are_for_two_tasks_and_dropping_the_writer_is_half_close() {
    let (_relay, _listener, mut client, session) = connected().await;
    let (mut reader, mut writer) = session.into_split();
    let writing = tokio::spawn(async move {
        assert!(writer.is_write_vectored());
        writer.write_all(b"hello").await.unwrap();
    });
    assert_eq!(rest(&mut client).await, b"hello");
    writing.await.unwrap();
    client.write_all(b"still there").await.unwrap();
    let mut received = [0; 11];
    within(reader.read_exact(&mut received)).await.unwrap();
    assert_eq!(&received, b"still there");
}

#[tokio::test]
async fn accept_loses_no_session_when_it_is_cancelled() {
    let relay = TestRelay::start();
    let listener = Arc::new(within(relay.listener().listen()).await.unwrap());
    let (served, mut sessions) = tokio::sync::mpsc::unbounded_channel();
    // One that gives up at every chance, beside two that wait.
    let impatient = tokio::spawn({
        let (listener, served) = (Arc::clone(&listener), served.clone());
        async move {
            loop {
                let mut accepting = pin!(listener.accept());
                let once = poll_fn(|cx| Poll::Ready(accepting.as_mut().poll(cx))).await;
                if let Poll::Ready(session) = once {
                    served.send(session.unwrap()).unwrap();
                }
                tokio::task::yield_now().await;
            }
        }
    });
    let patient: Vec<_> = (0..2)
        .map(|_| {
            let (listener, served) = (Arc::clone(&listener), served.clone());
            tokio::spawn(async move {
                while let Ok(session) = listener.accept().await {
                    served.send(session).unwrap();
                }
            })
        })
        .collect();
    let mut clients = Vec::new();
    let mut said = BTreeSet::new();
    for number in 0..100_u8 {
        let mut client = relay.connect().await.unwrap();
        client.write_all(&[number]).await.unwrap();
        clients.push(client);
        let mut session = within(sessions.recv()).await.unwrap();
        said.insert(within(session.read_u8()).await.unwrap());
    }
    assert_eq!(said.len(), 100, "each client was accepted once");
    impatient.abort();
    patient.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_stalled_session_holds_nobody_up() {
    let (relay, listener, _stalled_client, _stalled) = connected().await;
    let serving = listener.serve(Echo);
    tokio::select! {
        answer = ask(&relay, b"and I?") => assert_eq!(answer, b"and I?"),
        _ended = serving => panic!("the listener stopped serving"),
    }
}

#[tokio::test]
async fn clients_that_nobody_accepts_wait_and_are_all_served_in_the_end() {
    let relay = TestRelay::with(|config| {
        config.default_service().limits.assign_timeout = crate::DEADLINE;
    });
    // Of a pool that grows with the crowd, as many may wait here as it holds.
    let listener = within(relay.listener().pool_size(10).listen()).await.unwrap();
    let mut clients = Vec::new();
    for number in 0..200_u32 {
        let mut client = relay.connect().await.unwrap();
        client.write_all(&number.to_be_bytes()).await.unwrap();
        clients.push(client);
    }
    relay.wait_until(|now| now.idle == 0 && now.sessions >= 128 && now.waiting > 0).await;
    assert!(listener.sessions_open() <= 138, "{} wait here", listener.sessions_open());
    let mut said = BTreeSet::new();
    for _ in 0..200 {
        let mut session = within(listener.accept()).await.unwrap();
        said.insert(within(session.read_u32()).await.unwrap());
    }
    assert_eq!(said, (0..200).collect());
}

#[tokio::test]
async fn rejected_and_reset_clients_can_tell_that_it_was_no_end() {
    let (relay, listener, mut client, session) = connected().await;
    session.reject("not today");
    assert_reset(&mut client).await;

    let mut client = relay.connect().await.unwrap();
    let session = within(listener.accept()).await.unwrap();
    session.reset();
    assert_reset(&mut client).await;
}

#[tokio::test]
async fn a_client_that_is_reset_is_an_error_to_read() {
    let (_relay, _listener, client, mut session) = connected().await;
    client.set_zero_linger().unwrap();
    drop(client);
    let error = within(session.read(&mut [0; 8])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_panic_resets_its_own_session_and_no_other() {
    async fn moody(mut session: Session) -> io::Result<()> {
        let mood = session.read_u8().await?;
        session.write_all(b"half an ans").await?;
        match mood {
            b'w' => panic!("whole"),
            b's' => {
                let (reader, _writer) = session.into_split();
                // The other half outlives the panic, but nothing may pass for an end until it is dropped.
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    drop(reader);
                });
                panic!("split")
            }
            _ => session.write_all(b"wer").await,
        }
    }
    let relay = TestRelay::start();
    let listener = within(relay.listener().listen()).await.unwrap();
    let clients = async {
        for mood in [b"w", b"s"] {
            let mut client = relay.connect().await.unwrap();
            client.write_all(mood).await.unwrap();
            assert_reset(&mut client).await;
        }
        assert_eq!(ask(&relay, b"g").await, b"half an answer");
    };
    tokio::select! {
        () = clients => {}
        _ended = listener.serve(moody) => panic!("the listener stopped serving"),
    }
}

#[tokio::test]
async fn handlers_are_types_functions_and_closures() {
    struct Greeter(String);
    impl Handler for Greeter {
        async fn handle(&self, mut session: Session) -> io::Result<()> {
            session.write_all(self.0.as_bytes()).await
        }
    }
    let relay = TestRelay::start();
    let listener = within(relay.listener().listen()).await.unwrap();
    let greets =
        async |serving: &mut (dyn Future<Output = Result<(), relayserver::Error>> + Unpin)| {
            let asked = async {
                let mut client = relay.connect().await.unwrap();
                assert_eq!(rest(&mut client).await, b"hello");
            };
            tokio::select! {
                () = asked => {}
                _ended = serving => panic!("the listener stopped serving"),
            }
        };
    greets(&mut pin!(listener.serve(Greeter("hello".to_owned())))).await;
    let closure = async |mut session: Session| session.write_all(b"hello").await;
    greets(&mut pin!(listener.serve(closure))).await;
    let shared = Arc::new("hello".to_owned());
    let capturing = move |mut session: Session| {
        let shared = Arc::clone(&shared);
        async move { session.write_all(shared.as_bytes()).await }
    };
    greets(&mut pin!(listener.serve(capturing))).await;
}

#[tokio::test]
async fn each_session_opens_and_drops_once_in_the_events() {
    let relay = TestRelay::start();
    let listener = within(relay.listener().listen()).await.unwrap();
    let mut events = listener.events();
    // How the relay saw them end comes on another connection, at its own time.
    let mut next = async || loop {
        match within(events.next()).await.unwrap() {
            Event::Ended { .. } => {}
            event => break event,
        }
    };

    for (end, wanted) in [
        (Session::reset as fn(Session), DropReason::Reset),
        (drop::<Session>, DropReason::Closed),
        (|session| session.reject("no"), DropReason::Rejected("no".to_owned())),
    ] {
        let _client = relay.connect().await.unwrap();
        let mut session = within(listener.accept()).await.unwrap();
        let id = session.id();
        assert_eq!(next().await, Event::Opened { id });
        within(session.accept()).await.unwrap();
        end(session);
        assert_eq!(next().await, Event::Dropped { id, reason: wanted });
    }

    drop(listener);
    while let Some(event) = within(events.next()).await {
        assert!(matches!(event, Event::Ended { .. }), "no second drop, and then the end");
    }
}

#[tokio::test]
async fn the_relay_tells_how_a_session_ended() {
    let relay = TestRelay::start();
    let listener = within(relay.listener().listen()).await.unwrap();
    let mut events = listener.events();
    let mut client = relay.connect().await.unwrap();
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut session = within(listener.accept()).await.unwrap();
    let id = session.id();
    let mut question = Vec::new();
    within(session.read_to_end(&mut question)).await.unwrap();
    assert_eq!(question, b"question");
    session.write_all(b"answer").await.unwrap();
    drop(session);
    assert_eq!(rest(&mut client).await, b"answer");
    drop(client);
    let ended =
        Event::Ended { id, reason: "finished".to_owned(), bytes_to_host: 8, bytes_to_client: 6 };
    let mut told = Vec::new();
    while !told.contains(&ended) {
        told.push(within(events.next()).await.unwrap());
    }
    assert_eq!(
        told,
        [Event::Opened { id }, Event::Dropped { id, reason: DropReason::Closed }, ended]
    );
}

#[tokio::test]
async fn a_slow_watcher_is_told_how_much_it_missed() {
    let relay = TestRelay::start();
    let listener = within(relay.listener().listen()).await.unwrap();
    let mut events = listener.events();
    for _ in 0..600 {
        let _client = relay.connect().await.unwrap();
        drop(within(listener.accept()).await.unwrap());
    }
    drop(listener);
    let (mut kept, mut missed) = (0, 0);
    while let Some(event) = within(events.next()).await {
        match event {
            Event::Lost { count } => missed += count,
            _ => kept += 1,
        }
    }
    assert!(missed > 0, "600 sessions are more than are kept");
    assert_eq!(kept + missed, 1200);
}
