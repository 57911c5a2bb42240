//! A relay that does what a test says. It speaks version 1 by the wire crate, as an original does, and as wrongly as is asked.
//!
//! A host asks for a command channel first, in version 2. An original skips what it does not know of that, and has one more idle data
//! channel: here that is the first one.

use std::net::Ipv4Addr;
use std::time::Duration;

use relayserver::{Builder, Error, Event, Listener, Status};
use relayserver_wire::command::Announcement;
use relayserver_wire::hello::{Answer, Hello, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::{rest, status_becomes, within};

pub(crate) struct Relay {
    data: TcpListener,
    command: TcpListener,
}

impl Relay {
    pub(crate) async fn bind() -> Relay {
        let free = (Ipv4Addr::LOCALHOST, 0);
        let data = TcpListener::bind(free).await.unwrap();
        Relay { data, command: TcpListener::bind(free).await.unwrap() }
    }

    pub(crate) fn builder(&self) -> Builder {
        let command = self.command.local_addr().unwrap().port();
        Listener::builder(self.data.local_addr().unwrap().to_string())
            .command_port(command)
            .pool_size(1)
    }

    /// A command channel.
    async fn commanded(&self) -> TcpStream {
        let (stream, _) = within(self.command.accept()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// A connection that asks for a command channel, without a token.
    pub(crate) async fn asked(&self) -> TcpStream {
        let (stream, hello) = self.next_hello().await;
        let Some(Role::Command { token: None, services, .. }) = hello.v2.map(|it| it.role) else {
            panic!("it asks for something else");
        };
        assert_eq!(services, ["default"]);
        stream
    }

    /// A data channel that has said hello, of version 1.
    async fn greeted(&self) -> TcpStream {
        let (stream, hello) = self.next_hello().await;
        assert_eq!(hello.v2, None, "an original is asked for no role again");
        stream
    }

    /// The next connection on the host port, and its hello.
    pub(crate) async fn next_hello(&self) -> (TcpStream, Hello) {
        let (mut stream, _) = within(self.data.accept()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let header = read(&mut stream, 4).await;
        let len = usize::from(header[3]);
        let hello = Hello::decode(&read(&mut stream, len).await).unwrap();
        (stream, hello)
    }

    async fn answered(&self, channel_id: i32) -> TcpStream {
        let mut stream = self.greeted().await;
        stream.write_all(&answer(channel_id)).await.unwrap();
        stream
    }

    /// A listener that this relay has accepted, its command channel, and its first data channel.
    async fn accepted(&self, channel_id: i32) -> (Listener, TcpStream, TcpStream) {
        let relay = async {
            let mut data = self.asked().await;
            data.write_all(&answer(channel_id)).await.unwrap();
            (self.commanded().await, data)
        };
        let (listener, (command, data)) = tokio::join!(within(self.builder().listen()), relay);
        (listener.unwrap(), command, data)
    }
}

fn answer(channel_id: i32) -> Vec<u8> {
    Answer {
        channel_id,
        relay_host: "127.0.0.1".to_owned(),
        relay_port: "8002".to_owned(),
        v2: None,
    }
    .encode()
}

fn open(channel_id: i32) -> Vec<u8> {
    Announcement::Open { channel_id }.encode()
}

async fn read(stream: &mut (impl AsyncReadExt + Unpin), len: usize) -> Vec<u8> {
    let mut received = vec![0; len];
    within(stream.read_exact(&mut received)).await.unwrap();
    received
}

#[tokio::test]
async fn any_number_is_a_channel_id() {
    for channel_id in [i32::MIN, -5, 0, 1, i32::MAX] {
        let relay = Relay::bind().await;
        let (listener, mut command, mut data) = relay.accepted(channel_id).await;
        command.write_all(&open(channel_id)).await.unwrap();
        let mut session = within(listener.accept()).await.unwrap();
        session.write_all(b"hello").await.unwrap();
        assert_eq!(read(&mut data, 5).await, b"hello");
    }
}

#[tokio::test]
async fn an_announcement_that_overtakes_the_answer_opens_the_session() {
    let relay = Relay::bind().await;
    let (listener, mut command, mut first) = relay.accepted(1).await;
    first.write_all(b"x").await.unwrap();
    let mut second = relay.greeted().await;
    command.write_all(&open(2)).await.unwrap();
    // The drop of the first session comes after the open on the same connection: once it is heard, so is the open.
    let mut events = listener.events();
    command.write_all(&Announcement::Drop { channel_id: 1 }.encode()).await.unwrap();
    while !matches!(within(events.next()).await.unwrap(), Event::Dropped { .. }) {}
    second.write_all(&answer(2)).await.unwrap();

    let _first = within(listener.accept()).await.unwrap();
    let mut session = within(listener.accept()).await.unwrap();
    session.write_all(b"who speaks first").await.unwrap();
    assert_eq!(read(&mut second, 16).await, b"who speaks first");
}

#[tokio::test]
async fn bytes_that_come_with_the_answer_are_the_sessions() {
    let relay = Relay::bind().await;
    let serve = async {
        let mut data = relay.asked().await;
        let mut together = answer(1);
        together.extend(b"first bytes");
        data.write_all(&together).await.unwrap();
        data.shutdown().await.unwrap();
        (relay.commanded().await, data)
    };
    let (listener, _connections) = tokio::join!(within(relay.builder().listen()), serve);
    let mut session = within(listener.unwrap().accept()).await.unwrap();
    let mut received = Vec::new();
    within(session.read_to_end(&mut received)).await.unwrap();
    assert_eq!(received, b"first bytes");
}

#[tokio::test]
async fn announcements_may_come_together_or_a_byte_at_a_time() {
    let relay = Relay::bind().await;
    let (listener, mut command, first) = relay.accepted(1).await;
    let mut together = open(77);
    together.extend(Announcement::Unknown { message_type: 9 }.encode());
    together.extend(open(1));
    together.extend(open(78));
    command.write_all(&together).await.unwrap();
    let _first = (within(listener.accept()).await.unwrap(), first);

    let _second = relay.answered(2).await;
    for byte in open(2) {
        command.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    within(listener.accept()).await.unwrap();
}

#[tokio::test]
async fn a_client_that_sent_nothing_but_its_end_is_served() {
    let relay = Relay::bind().await;
    let (listener, mut command, mut data) = relay.accepted(1).await;
    // The end overtakes the announcement.
    data.shutdown().await.unwrap();
    assert!(timeout(Duration::from_millis(100), listener.accept()).await.is_err());
    command.write_all(&open(1)).await.unwrap();
    let mut session = within(listener.accept()).await.unwrap();
    assert_eq!(session.read(&mut [0; 8]).await.unwrap(), 0);
    session.write_all(b"banner").await.unwrap();
    session.shutdown().await.unwrap();
    assert_eq!(rest(&mut data).await, b"banner");
}

#[tokio::test]
async fn an_idle_channel_that_ends_is_replaced_and_no_session() {
    let relay = Relay::bind().await;
    let (listener, mut command, data) = relay.accepted(1).await;
    drop(data);
    let _replacement = relay.answered(2).await;
    command.write_all(&open(2)).await.unwrap();
    within(listener.accept()).await.unwrap();
    assert_eq!(listener.sessions_open(), 0, "the one that ended was none");
}

#[tokio::test]
async fn what_is_no_relay_is_an_error_at_once() {
    for garbage in [
        &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
        b"\x00\x01\x00\x01",         // a frame of 65537 bytes
        b"\x00\x00\x00\x02\xff\xff", // no protobuf
        b"\x00\x00\x00\x00",         // an answer without an address
    ] {
        let relay = Relay::bind().await;
        let serve = async {
            let mut data = relay.asked().await;
            data.write_all(garbage).await.unwrap();
            data
        };
        let (outcome, _connections) = tokio::join!(within(relay.builder().listen()), serve);
        let error = outcome.expect_err("what answers there is no relay");
        assert!(matches!(error, Error::NotARelay { .. }), "{error}");
        assert!(error.is_permanent());
        assert!(!error.to_string().contains('\n'), "{error}");
        let named = format!("{} is not a relay's port for data", relay.data.local_addr().unwrap());
        assert!(error.to_string().starts_with(&named), "{error}");
    }
}

#[tokio::test]
async fn no_command_port_is_an_error_that_names_that_port() {
    let relay = Relay::bind().await;
    let serve = async {
        let mut data = relay.asked().await;
        data.write_all(&answer(1)).await.unwrap();
        let mut command = relay.commanded().await;
        command.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();
        (data, command)
    };
    let (outcome, _connection) = tokio::join!(within(relay.builder().listen()), serve);
    let error = outcome.expect_err("what answers there is no relay").to_string();
    let port = relay.command.local_addr().unwrap().port();
    let named = format!("127.0.0.1:{port} is not a relay's port for command channels: ");
    assert!(error.starts_with(&named), "{error}");
}

#[tokio::test]
async fn what_is_no_answer_later_is_tried_again() {
    let relay = Relay::bind().await;
    let (listener, mut command, mut first) = relay.accepted(1).await;
    first.write_all(b"x").await.unwrap();
    let _session = within(listener.accept()).await.unwrap();
    for garbage in [&b"HTTP/1.1 502 Bad Gateway\r\n"[..], b""] {
        let mut data = relay.greeted().await;
        data.write_all(garbage).await.unwrap();
    }
    let _data = relay.answered(2).await;
    command.write_all(&open(2)).await.unwrap();
    within(listener.accept()).await.unwrap();
}

#[tokio::test]
async fn a_command_channel_that_talks_nonsense_is_replaced_and_idle_channels_stay() {
    for nonsense in [&b"\xff\xff\xff\xff"[..], b"\x00\x01\x00\x01", b"\x00\x00\x00\x02\x08\x07"] {
        let relay = Relay::bind().await;
        let (listener, mut command, mut data) = relay.accepted(1).await;
        command.write_all(nonsense).await.unwrap();
        // Ours is closed; a reset where something was left unread.
        let mut left = Vec::new();
        let _closed = within(command.read_to_end(&mut left)).await;
        assert_eq!(left, b"", "nothing is ever sent on it");

        let lost =
            |status: &Status| matches!(status, Status::Connecting { last_error: Some(_), .. });
        let status = status_becomes(&listener, lost).await.to_string();
        let port = relay.command.local_addr().unwrap().port();
        assert!(status.contains(&format!("127.0.0.1:{port} ")), "{status}");

        // It connects anew, so it asks anew; and has no use for another idle channel.
        let mut again = relay.asked().await;
        again.write_all(&answer(2)).await.unwrap();
        assert_eq!(rest(&mut again).await, b"");
        let mut command = relay.commanded().await;
        command.write_all(&open(1)).await.unwrap();
        let mut session = within(listener.accept()).await.unwrap();
        session.write_all(b"still the first channel").await.unwrap();
        assert_eq!(read(&mut data, 23).await, b"still the first channel");
    }
}

#[tokio::test]
async fn a_relay_that_answers_and_closes_is_not_dialled_in_a_hot_loop() {
    let relay = Relay::bind().await;
    let (_listener, _command, first) = relay.accepted(1).await;
    drop(first);
    let mut dials = 0;
    let hostile = async {
        for id in 2.. {
            drop(relay.answered(id).await);
            dials += 1;
        }
    };
    assert!(timeout(Duration::from_secs(5), hostile).await.is_err());
    // Each is a second of grace for its announcement, and a delay that grows.
    assert!((1..=6).contains(&dials), "{dials} dials in 5 s");
}

#[tokio::test]
async fn a_relay_that_refuses_is_not_dialled_in_a_hot_loop() {
    let relay = Relay::bind().await;
    let listening = tokio::spawn(relay.builder().listen());
    let mut dials = 0;
    let hostile = async {
        loop {
            drop(relay.asked().await);
            dials += 1;
        }
    };
    assert!(timeout(Duration::from_secs(4), hostile).await.is_err());
    assert!((2..=24).contains(&dials), "{dials} dials in 4 s");
    assert!(!listening.is_finished(), "waiting may mend it");
    listening.abort();
}

#[tokio::test]
async fn more_dials_than_one_begin_only_after_an_answer() {
    let relay = Relay::bind().await;
    let listening = tokio::spawn(relay.builder().pool_size(5).listen());
    let mut first = relay.asked().await;
    let more = timeout(Duration::from_millis(300), relay.data.accept()).await;
    assert!(more.is_err(), "one at a time until the relay has answered");
    first.write_all(&answer(1)).await.unwrap();
    let _command = relay.commanded().await;
    let mut channels = vec![first];
    for id in 2..=5 {
        channels.push(relay.answered(id).await);
    }
    let _listener = within(listening).await.unwrap().unwrap();
    let more = timeout(Duration::from_millis(300), relay.data.accept()).await;
    assert!(more.is_err(), "no more than the pool");
}

#[tokio::test]
async fn status_says_what_went_wrong_and_when_the_next_try_is() {
    let relay = Relay::bind().await;
    let (listener, command, data) = relay.accepted(1).await;
    assert!(matches!(listener.status().get(), Status::Ready { .. }));
    drop((relay, command, data));
    let lost = |status: &Status| match status {
        Status::Connecting { last_error, next_try } => {
            next_try.is_some() && last_error.as_ref().is_some_and(|it| it.contains("refused"))
        }
        _ => false,
    };
    status_becomes(&listener, lost).await;
}

#[tokio::test]
async fn a_session_that_opens_while_the_listener_closes_counts_until_it_has_ended() {
    for ticks in 0..250 {
        let relay = Relay::bind().await;
        let (listener, mut command, _data) = relay.accepted(1).await;
        command.write_all(&open(1)).await.unwrap();
        for _ in 0..ticks {
            tokio::task::yield_now().await;
        }
        let draining = listener.drain();
        if let Ok(session) = within(listener.accept()).await {
            assert_ne!(listener.status().get(), Status::Closed, "after {ticks} ticks");
            drop(session);
        }
        within(draining).await;
        assert_eq!(listener.sessions_open(), 0);
    }
}

#[tokio::test]
async fn a_host_that_is_unavailable_has_no_channels_at_an_original() {
    let relay = Relay::bind().await;
    let (listener, mut command, mut data) = relay.accepted(1).await;
    listener.set_available("default", false).unwrap();
    assert_eq!(rest(&mut data).await, b"");
    let more = timeout(Duration::from_millis(300), relay.data.accept()).await;
    assert!(more.is_err(), "nothing is dialled");
    assert!(matches!(listener.status().get(), Status::Ready { .. }));

    listener.set_available("default", true).unwrap();
    let _data = relay.answered(2).await;
    command.write_all(&open(2)).await.unwrap();
    within(listener.accept()).await.unwrap();
}
