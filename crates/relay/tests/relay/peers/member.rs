//! A host of version 2 as a set of loose connections: nothing happens on them unless a test does it.

use std::net::Ipv4Addr;

use relayserver_relay::Reason;
use relayserver_transport::{Stream, Token};
use relayserver_wire::FRAME_MAX;
use relayserver_wire::HostId;
use relayserver_wire::command::Announcement;
use relayserver_wire::frame::Decoder;
use relayserver_wire::hello::{
    Answer, AnswerV2, Capacity, Hello, HelloV2, MANY_SESSIONS, Refusal, Role, Welcome,
};
use relayserver_wire::secret::{self, ChannelKey};
use relayserver_wire::start::{Start, Verdict};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{Secure, read_exactly, within, write};

/// A host with its command channel.
pub(crate) struct Member {
    pub(crate) address: Ipv4Addr,
    pub(crate) id: HostId,
    pub(crate) key: ChannelKey,
    pub(crate) welcome: Welcome,
    pub(crate) command: Stream,
    decoder: Decoder,
    chunk: Vec<u8>,
}

/// A data channel that has had its answer.
pub(crate) struct Data {
    pub(crate) stream: Stream,
}

/// A hello of version 2, to be said.
#[derive(Clone)]
pub(crate) struct Knock {
    pub(crate) host: HostId,
    pub(crate) role: Role,
    pub(crate) features: Vec<u32>,
}

impl Knock {
    pub(crate) fn command(token: Option<&Token>, services: &[&str]) -> Knock {
        let token = token.map(|token| secret::Token::new(token.expose()));
        let services = services.iter().map(|it| (*it).to_owned()).collect();
        let mut host = [0; 16];
        fastrand::fill(&mut host);
        Knock {
            host: HostId(host),
            role: Role::Command { token, services, last_key: None, capacity: Capacity::default() },
            features: vec![],
        }
    }

    /// The same process again.
    pub(crate) fn again(mut self, host: HostId, key: ChannelKey) -> Knock {
        self.host = host;
        if let Role::Command { last_key, .. } = &mut self.role {
            *last_key = Some(key);
        }
        self
    }

    pub(crate) fn data(host: HostId, channel_key: ChannelKey, service: &str) -> Knock {
        let role = Role::Data { channel_key, service: service.to_owned() };
        Knock { host, role, features: vec![] }
    }

    /// Says it over `stream`, and reads the answer.
    pub(crate) async fn say(self, stream: &mut Stream) -> Result<Answer, Refusal> {
        let v2 = HelloV2 { host_id: self.host, role: self.role, features: self.features };
        write(stream, &Hello { version: 1, v2: Some(v2) }.encode()).await;
        let answer = Answer::decode(&read_frame(stream).await).unwrap();
        match answer.v2 {
            Some(AnswerV2::Refused(refusal)) => Err(refusal),
            _ => Ok(answer),
        }
    }
}

/// The payload of the next frame, and no byte more.
async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let header: [u8; 4] = read_exactly(stream, 4).await.try_into().unwrap();
    let len = usize::try_from(u32::from_be_bytes(header)).unwrap();
    read_exactly(stream, len).await
}

impl Member {
    pub(crate) async fn join(
        relay: &Secure,
        token: Option<&Token>,
        services: &[&str],
    ) -> Result<Member, Refusal> {
        Member::knock(relay, Ipv4Addr::LOCALHOST, Knock::command(token, services)).await
    }

    pub(crate) async fn knock(
        relay: &Secure,
        address: Ipv4Addr,
        knock: Knock,
    ) -> Result<Member, Refusal> {
        let mut command = relay.connect_from(address).await;
        let id = knock.host;
        let answer = knock.say(&mut command).await?;
        let Some(AnswerV2::Welcome(welcome)) = answer.v2 else { panic!("an answer of version 1") };
        assert_eq!(answer.channel_id, 0);
        let key = welcome.channel_key.unwrap();
        let decoder = Decoder::new(FRAME_MAX);
        Ok(Member { address, id, key, welcome, command, decoder, chunk: Vec::new() })
    }

    pub(crate) async fn channel(&self, relay: &Secure, service: &str) -> Result<Data, Refusal> {
        self.channel_with(relay, service, &[]).await
    }

    /// One that has `features`, and is answered that the relay has the same.
    async fn channel_with(
        &self,
        relay: &Secure,
        service: &str,
        features: &[u32],
    ) -> Result<Data, Refusal> {
        let mut stream = relay.connect_from(self.address).await;
        let knock = Knock::data(self.id, self.key, service);
        let answer = Knock { features: features.to_vec(), ..knock }.say(&mut stream).await?;
        let welcome = Welcome { features: features.to_vec(), ..Welcome::default() };
        assert_eq!(answer.v2, Some(AnswerV2::Welcome(welcome)));
        assert!(answer.channel_id > 0);
        Ok(Data { stream })
    }

    /// A channel that carries one session after another and is in the pool, the only one that comes just now.
    pub(crate) async fn idle_channel_for_many(&self, relay: &Secure, service: &str) -> Data {
        let before = relay.occupancy().idle;
        let channel = self.channel_with(relay, service, &[MANY_SESSIONS]).await.unwrap();
        relay.until_idle(before + 1).await;
        channel
    }

    /// A channel that is in the pool, the only one that comes just now.
    pub(crate) async fn idle_channel(&self, relay: &Secure, service: &str) -> Data {
        let before = relay.occupancy().idle;
        let channel = self.channel(relay, service).await.unwrap();
        relay.until_idle(before + 1).await;
        channel
    }

    /// A channel that carries one session after another, for a client that waits already.
    pub(crate) async fn channel_for_waiting(&self, relay: &Secure, service: &str) -> Data {
        self.channel_with(relay, service, &[MANY_SESSIONS]).await.unwrap()
    }

    /// The next message that is no ping; pings are answered on the way, where `answers_pings`.
    async fn next_of(&mut self, answers_pings: bool) -> Option<Announcement> {
        loop {
            let mut input = self.chunk.as_slice();
            let payload = self.decoder.next(&mut input).unwrap();
            self.chunk = input.to_vec();
            match payload.map(|payload| Announcement::decode(&payload).unwrap()) {
                Some(Announcement::Ping { nonce }) if answers_pings => {
                    write(&mut self.command, &Announcement::Pong { nonce }.encode()).await;
                }
                Some(Announcement::Ping { .. }) => {}
                Some(announcement) => return Some(announcement),
                None => {
                    let read = self.command.read_buf(&mut self.chunk).await;
                    if !read.is_ok_and(|count| count > 0) {
                        return None;
                    }
                }
            }
        }
    }

    pub(crate) async fn next(&mut self) -> Announcement {
        within("a message", self.next_of(true)).await.expect("the command channel has ended")
    }

    /// The relay has read all that was said to it before.
    pub(crate) async fn until_heard(&mut self) {
        let nonce = fastrand::u64(..);
        write(&mut self.command, &Announcement::Ping { nonce }.encode()).await;
        while self.next().await != (Announcement::Pong { nonce }) {}
    }

    /// Answers pings, for ever.
    pub(crate) async fn stay_alive(&mut self) {
        while self.next_of(true).await.is_some() {}
        panic!("the command channel has ended");
    }

    /// Nothing comes but pings, which are not answered, and the end of the command channel.
    pub(crate) async fn assert_closed(&mut self) {
        let last = within("the command channel's end", self.next_of(false)).await;
        assert_eq!(last, None);
    }

    /// The session with this id is over, and how.
    pub(crate) async fn assert_ended(&mut self, start: &Start, reason: Reason, bytes: (u64, u64)) {
        let ended = Announcement::SessionEnded {
            session_id: start.session_id,
            reason: reason.code().to_owned(),
            bytes_to_host: bytes.0,
            bytes_to_client: bytes.1,
        };
        assert_eq!(self.next().await, ended);
    }
}

impl Data {
    /// The start frame of the session that the channel gets.
    pub(crate) async fn start(&mut self) -> Start {
        Start::decode(&read_frame(&mut self.stream).await).unwrap()
    }

    pub(crate) async fn say(&mut self, verdict: Verdict) {
        write(&mut self.stream, &verdict.encode()).await;
    }

    pub(crate) async fn accept(&mut self) -> Start {
        let start = self.start().await;
        self.say(Verdict::Accepted).await;
        start
    }
}
