//! A version 1 host as a set of loose connections: nothing happens on them unless a test does it.

use std::net::Ipv4Addr;

use relayserver_wire::FRAME_MAX;
use relayserver_wire::command::Announcement;
use relayserver_wire::frame::Decoder;
use relayserver_wire::hello::{Answer, Hello};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::{TestRelay, connect_from, read_exactly, within, write};

/// A host at an address of its own.
pub(crate) struct Host {
    pub(crate) address: Ipv4Addr,
    pub(crate) command: Command,
}

/// A command channel.
pub(crate) struct Command {
    pub(crate) stream: TcpStream,
    decoder: Decoder,
    chunk: Vec<u8>,
}

/// A data channel that has had its answer.
pub(crate) struct Channel {
    pub(crate) id: i32,
    pub(crate) answer: Answer,
    pub(crate) stream: TcpStream,
}

impl Host {
    pub(super) async fn join(relay: &TestRelay, last: u8) -> Host {
        let address = Ipv4Addr::new(127, 0, 0, last);
        let command = Command::open(relay, address).await;
        Host { address, command }
    }

    /// A data channel that has had its answer; it is idle then, or will be in a moment.
    pub(crate) async fn channel(&self, relay: &TestRelay) -> Channel {
        Channel::open(relay, self.address).await
    }

    /// `count` channels, one after the other, idle in this order.
    pub(crate) async fn idle_channels(&self, relay: &TestRelay, count: usize) -> Vec<Channel> {
        let before = relay.occupancy().idle;
        let mut channels = Vec::new();
        for number in 1..=count {
            channels.push(self.channel(relay).await);
            relay.until_idle(before + number).await;
        }
        channels
    }

    /// The next announcement is that `channel` was opened.
    pub(crate) async fn assert_opened(&mut self, channel: &Channel) {
        self.command.assert_next(Announcement::Open { channel_id: channel.id }).await;
    }

    /// The next announcement is that the client of `channel` has gone.
    pub(crate) async fn assert_dropped(&mut self, channel: &Channel) {
        self.command.assert_next(Announcement::Drop { channel_id: channel.id }).await;
    }
}

impl Command {
    /// A command channel from `address` that is up.
    pub(crate) async fn open(relay: &TestRelay, address: Ipv4Addr) -> Command {
        let before = relay.occupancy().commands;
        let command = Command::over(connect_from(address, relay.command).await);
        relay.until("the command channel is up", |it| it.commands == before + 1).await;
        command
    }

    pub(crate) fn over(stream: TcpStream) -> Command {
        Command { stream, decoder: Decoder::new(FRAME_MAX), chunk: Vec::new() }
    }

    pub(crate) async fn next(&mut self) -> Announcement {
        within("an announcement", async {
            loop {
                let mut input = self.chunk.as_slice();
                let payload = self.decoder.next(&mut input).unwrap();
                self.chunk = input.to_vec();
                if let Some(payload) = payload {
                    return Announcement::decode(&payload).unwrap();
                }
                assert!(self.stream.read_buf(&mut self.chunk).await.unwrap() > 0, "it has ended");
            }
        })
        .await
    }

    pub(crate) async fn assert_next(&mut self, announcement: Announcement) {
        assert_eq!(self.next().await, announcement);
    }
}

impl Channel {
    pub(crate) async fn open(relay: &TestRelay, address: Ipv4Addr) -> Channel {
        let mut stream = connect_from(address, relay.hosts).await;
        write(&mut stream, &Hello { version: 1, v2: None }.encode()).await;
        Channel::answered(stream).await
    }

    /// A channel on which the hello was sent.
    pub(crate) async fn answered(mut stream: TcpStream) -> Channel {
        let header: [u8; 4] = read_exactly(&mut stream, 4).await.try_into().unwrap();
        let len = usize::try_from(u32::from_be_bytes(header)).unwrap();
        let answer = Answer::decode(&read_exactly(&mut stream, len).await).unwrap();
        Channel { id: answer.channel_id, answer, stream }
    }
}

/// A client and the channel of `host` that serves it; `host` has no idle channel besides.
pub(crate) async fn session(relay: &TestRelay, host: &mut Host) -> (TcpStream, Channel) {
    let channel = host.channel(relay).await;
    let client = relay.client().await;
    host.assert_opened(&channel).await;
    (client, channel)
}
