//! The word that a session is accepted over plain TCP, which the kernel holds for what is written next: when it is held, and what sends it.
//! Loopback hands over what is sent before the call that sends it returns, so that what is there is there at once.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use relayserver::{Listener, Session};
use relayserver_wire::SessionId;
use relayserver_wire::hello::{AnswerV2, MANY_SESSIONS, Role, ServedService, Welcome};
use relayserver_wire::secret::ChannelKey;
use relayserver_wire::start::{Start, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::member::answer;
use crate::scripted::Relay;
use crate::within;

/// A host of version 2 at a relay that has its channels carry one session after another.
struct Scene {
    listener: Listener,
    _command: tokio::net::TcpStream,
    channel: TcpStream,
}

impl Scene {
    async fn new() -> Scene {
        let relay = Relay::bind().await;
        let serving = async {
            let mut command = relay.asked().await;
            let services = vec![ServedService { name: "default".to_owned(), clients: None }];
            let channel_key = Some(ChannelKey::new([1; 16]));
            let welcome = Welcome { channel_key, services, ..Welcome::default() };
            command.write_all(&answer(0, AnswerV2::Welcome(welcome))).await.unwrap();
            let (mut channel, hello) = relay.next_hello().await;
            assert!(matches!(hello.v2.map(|it| it.role), Some(Role::Data { .. })));
            let welcome = Welcome { features: vec![MANY_SESSIONS], ..Welcome::default() };
            channel.write_all(&answer(1, AnswerV2::Welcome(welcome))).await.unwrap();
            (command, channel.into_std().unwrap())
        };
        let (listener, (_command, channel)) =
            tokio::join!(within(relay.builder().listen()), serving);
        Scene { listener: listener.unwrap(), _command, channel }
    }

    /// A session of whose `len` bytes, all of which came with the offer, the first three were read.
    async fn begun(&mut self, len: u16) -> Session {
        let (service, via) = ("default".to_owned(), "tcp".to_owned());
        let start = Start { session_id: SessionId([7; 16]), service, client_addr: None, via };
        let mut offer = start.encode();
        offer.extend(u32::from(len).to_be_bytes());
        offer.resize(offer.len() + usize::from(len), b'x');
        self.channel.write_all(&offer).unwrap();
        let mut session = within(self.listener.accept()).await.unwrap();
        assert_eq!(within(session.read(&mut [0; 3])).await.unwrap(), 3);
        session
    }

    /// What of the host's there is on the channel.
    fn there(&self) -> Vec<u8> {
        let mut there = vec![0; 64];
        match self.channel.peek(&mut there) {
            Ok(len) => there.truncate(len),
            Err(error) if error.kind() == ErrorKind::WouldBlock => there.clear(),
            Err(error) => panic!("{error}"),
        }
        there
    }
}

/// Killed with bytes unread, the host would reset the channel, and the relay never hear that the session is its.
#[tokio::test]
async fn it_is_sent_at_once_where_more_has_come_than_was_read() {
    let mut scene = Scene::new().await;
    let _session = scene.begun(2_000).await;
    assert_eq!(scene.there(), Verdict::Accepted.encode());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn it_is_held_where_all_was_read_and_a_flush_sends_it_behind_a_write_of_nothing() {
    let mut scene = Scene::new().await;
    let began = Instant::now();
    let mut session = scene.begun(20).await;
    assert_eq!(session.write(b"").await.unwrap(), 0);
    let held = scene.there();
    // Linux lets it go after 200 ms, which may have passed on a machine that stood still.
    if began.elapsed() < Duration::from_millis(100) {
        assert!(held.is_empty(), "{held:?}");
    }
    session.flush().await.unwrap();
    assert_eq!(scene.there(), Verdict::Accepted.encode());
}
