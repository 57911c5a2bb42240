//! A relay of version 2 that does what a test says: over TLS, by the wire crate.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use relayserver::{Builder, Error, Join, Listener};
use relayserver_transport::{HostPort, ServerTls, Stream, Token, generate_identity};
use relayserver_wire::command::Announcement;
use relayserver_wire::hello::{Answer, AnswerV2, Hello, Refusal, Role, ServedService, Welcome};
use relayserver_wire::secret::ChannelKey;
use relayserver_wire::{FRAME_MAX, HEADER_LEN, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

use crate::within;

pub(crate) struct Relay {
    pub(crate) listener: TcpListener,
    tls: ServerTls,
}

impl Relay {
    pub(crate) async fn bind() -> Relay {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let identity = generate_identity(&["localhost".to_owned()]).unwrap();
        let (certificate, key) = (identity.certificate_pem, identity.key_pem);
        let tls = ServerTls::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap();
        Relay { listener, tls }
    }

    /// A listener of this relay alone, or after `dead` addresses that serve nobody.
    pub(crate) fn builder(&self, dead: &[SocketAddr]) -> Builder {
        let own = self.listener.local_addr().unwrap();
        let addresses = dead.iter().chain([&own]);
        let addresses =
            addresses.map(|it| HostPort { host: it.ip().to_string(), port: it.port() }).collect();
        let token = Token::generate("host").unwrap();
        let line = relayserver_transport::Join::new(token, addresses, vec![self.tls.pin()]);
        Listener::join(line.unwrap().expose().parse::<Join>().unwrap()).pool_size(1)
    }

    pub(crate) async fn next_hello(&self) -> (Stream, Role) {
        let (stream, _) = within(self.listener.accept()).await.unwrap();
        let mut stream = within(self.tls.accept(stream)).await.unwrap();
        let header: [u8; HEADER_LEN] = read(&mut stream, HEADER_LEN).await.try_into().unwrap();
        let len = frame::payload_len(header, FRAME_MAX).unwrap();
        let hello = Hello::decode(&read(&mut stream, len).await).unwrap();
        (stream, hello.v2.expect("version 2 behind a join line").role)
    }

    /// A command channel that is answered with this key, and the key that it was asked for with.
    pub(crate) async fn commanded(&self, key: u8) -> (Stream, Option<ChannelKey>) {
        self.commanded_with(key, None).await
    }

    /// The same, by a relay that takes a host that is silent for so long for suspect.
    pub(crate) async fn commanded_with(
        &self,
        key: u8,
        suspect_after_ms: Option<u32>,
    ) -> (Stream, Option<ChannelKey>) {
        let (mut stream, role) = self.next_hello().await;
        let Role::Command { token: Some(_), last_key, .. } = role else {
            panic!("no command channel: {role:?}");
        };
        let services = vec![ServedService { name: "default".to_owned(), clients: None }];
        let channel_key = Some(ChannelKey::new([key; 16]));
        let welcome = Welcome { channel_key, services, suspect_after_ms, ..Welcome::default() };
        say(&mut stream, &answer(0, AnswerV2::Welcome(welcome))).await;
        (stream, last_key)
    }

    /// A data channel that was asked for with this key.
    pub(crate) async fn answered(&self, key: u8) -> Stream {
        let (mut stream, role) = self.next_hello().await;
        let Role::Data { channel_key, service } = role else {
            panic!("no data channel: {role:?}");
        };
        assert!(channel_key == ChannelKey::new([key; 16]), "another key");
        assert_eq!(service, "default");
        say(&mut stream, &answer(1, AnswerV2::Welcome(Welcome::default()))).await;
        stream
    }

    async fn refuse(&self, reason: &str, retry_after_ms: Option<u32>) {
        let (mut stream, _) = self.next_hello().await;
        let refusal = Refusal { reason: reason.to_owned(), detail: None, retry_after_ms };
        say(&mut stream, &answer(0, AnswerV2::Refused(refusal))).await;
        stream.shutdown().await.unwrap();
    }
}

pub(crate) fn answer(channel_id: i32, v2: AnswerV2) -> Vec<u8> {
    let (relay_host, relay_port) = ("127.0.0.1".to_owned(), "8002".to_owned());
    Answer { channel_id, relay_host, relay_port, v2: Some(v2) }.encode()
}

pub(crate) async fn say(stream: &mut Stream, frame: &[u8]) {
    stream.write_all(frame).await.unwrap();
    stream.flush().await.unwrap();
}

pub(crate) async fn read(stream: &mut Stream, len: usize) -> Vec<u8> {
    let mut received = vec![0; len];
    within(stream.read_exact(&mut received)).await.unwrap();
    received
}

/// The next frame's payload.
pub(crate) async fn read_frame(stream: &mut Stream) -> Vec<u8> {
    let header: [u8; HEADER_LEN] = read(stream, HEADER_LEN).await.try_into().unwrap();
    let len = frame::payload_len(header, FRAME_MAX).unwrap();
    read(stream, len).await
}

/// What the host says next on its command channel, its pings left out.
pub(crate) async fn heard(command: &mut Stream) -> Announcement {
    loop {
        match Announcement::decode(&read_frame(command).await).unwrap() {
            Announcement::Ping { .. } => {}
            announcement => return announcement,
        }
    }
}

#[tokio::test]
async fn keys_are_new_after_each_reconnect_and_the_last_one_is_shown() {
    let relay = Relay::bind().await;
    let listening = tokio::spawn(relay.builder(&[]).listen());
    let (command, last_key) = relay.commanded(1).await;
    assert!(last_key.is_none());
    let mut idle = relay.answered(1).await;
    let _listener = within(listening).await.unwrap().unwrap();
    drop(command);
    let (_command, last_key) = relay.commanded(2).await;
    assert!(last_key == Some(ChannelKey::new([1; 16])));
    // The old channel stays: no other is dialled for it, and it is not closed.
    let more = timeout(Duration::from_millis(300), relay.listener.accept()).await;
    assert!(more.is_err(), "the pool was full");
    let read = timeout(Duration::from_millis(1), idle.read_u8()).await;
    assert!(read.is_err(), "it was closed");
    drop(idle);
    let _fresh = relay.answered(2).await;
}

#[tokio::test]
async fn a_relay_that_is_leaving_is_not_dialled_before_its_time() {
    let relay = Relay::bind().await;
    let listening = tokio::spawn(relay.builder(&[]).listen());
    let (mut command, _) = relay.commanded(1).await;
    let _idle = relay.answered(1).await;
    let _listener = within(listening).await.unwrap().unwrap();
    let leaving =
        Announcement::Leaving { reason: "draining".to_owned(), retry_after_ms: Some(800) };
    let begin = Instant::now();
    say(&mut command, &leaving.encode()).await;
    command.shutdown().await.unwrap();
    drop(command);
    let (_command, _) = relay.commanded(2).await;
    assert!(begin.elapsed() >= Duration::from_millis(800), "after {:?}", begin.elapsed());
}

#[tokio::test]
async fn a_refusal_that_is_not_for_good_is_tried_again() {
    for (reason, retry_after_ms) in [("host_id_taken", None), ("draining", Some(300))] {
        let relay = Relay::bind().await;
        let listening = tokio::spawn(relay.builder(&[]).listen());
        let begin = Instant::now();
        relay.refuse(reason, retry_after_ms).await;
        let (_command, _) = relay.commanded(1).await;
        let pause = Duration::from_millis(retry_after_ms.unwrap_or_default().into());
        assert!(begin.elapsed() >= pause, "{reason}: after {:?}", begin.elapsed());
        let _idle = relay.answered(1).await;
        within(listening).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn refusals_for_good_give_their_word_and_each_its_own_message() {
    let mut messages = std::collections::BTreeSet::new();
    for reason in ["token_unknown", "token_expired", "role_not_granted", "service_unknown"] {
        let relay = Relay::bind().await;
        let builder = relay.builder(&[]);
        let (outcome, ()) = tokio::join!(within(builder.listen()), relay.refuse(reason, None));
        let error: Error = outcome.unwrap_err();
        assert_eq!(error.reason(), Some(reason), "{error}");
        assert!(error.is_permanent());
        let message = error.to_string();
        let (_, meaning) = message.split_once(&format!("{reason}. ")).expect("an explanation");
        assert!(messages.insert(meaning.to_owned()), "as another: {message}");
    }
}

#[tokio::test]
async fn the_second_address_of_a_join_line_serves_where_the_first_is_dead() {
    let dead = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = dead.local_addr().unwrap();
    drop(dead);
    let relay = Relay::bind().await;
    let listening = tokio::spawn(relay.builder(&[address]).listen());
    let (_command, _) = relay.commanded(1).await;
    let _idle = relay.answered(1).await;
    within(listening).await.unwrap().unwrap();
}
