//! What the [`Book`](crate::Book) is told and what it answers.

#![allow(missing_docs, reason = "the fields of inputs and outputs are named after their types")]

use std::fmt;
use std::time::Duration;

use crate::ids::{ChannelId, CommandId, HostId, ServiceName, SessionId};
use crate::reason::Reason;

/// How whoever drives the book reaches what stands in it. The book keeps these and gives them back; it never looks inside.
pub trait Handles {
    /// Reaches a command channel; one is given out for each announcement.
    type Command: Clone;
    /// Reaches an idle data channel.
    type Channel;
    /// Reaches a client that waits.
    type Client;
    /// Asks a running session to end.
    type Stop;
}

/// Something that happened.
pub enum Input<H: Handles> {
    /// A host opened a command channel.
    CommandUp { command: CommandId, host: HostId, handle: H::Command },
    /// A command channel ended.
    CommandDown { command: CommandId },
    /// A host said hello on a data channel, which needs an id for the answer.
    ReserveChannel { host: HostId, service: ServiceName },
    /// The answer is sent: the channel waits for a client.
    ChannelIdle { channel: ChannelId, handle: H::Channel },
    /// A channel that no client had been assigned to ended.
    ChannelGone { channel: ChannelId },
    /// A client asks for a service.
    ClientArrived { session: SessionId, service: ServiceName, client: H::Client, stop: H::Stop },
    /// A client that was waiting left.
    ClientGone { session: SessionId },
    /// The client's last byte was read, or its reset.
    ClientFinished { session: SessionId },
    /// The host's last byte was read.
    HostFinished { session: SessionId },
    /// An assigned session is over: both legs are closed.
    SessionEnded { session: SessionId },
    /// Time has passed: see [`Book::poll_timeout`](crate::Book::poll_timeout).
    TimePassed,
    /// The relay is leaving: no new clients, no new channels.
    Drain,
    /// The sessions that still run have had their time.
    EndAll { reason: Reason },
}

/// Something to do.
pub enum Output<H: Handles> {
    /// A channel got its id: put it into the answer.
    Reserved { channel: ChannelId },
    /// No channel for this host: close the connection.
    ReserveRefused { reason: Reason },
    /// The first command channel of a host came up.
    HostJoined { host: HostId },
    /// The last command channel of a host ended.
    HostLeft { host: HostId },
    /// Close this command channel.
    CloseCommand { handle: H::Command, reason: Reason },
    /// This client gets this channel.
    Assigned { assignment: Assignment, client: H::Client, channel_handle: H::Channel },
    /// Tell a host.
    Announce { command: CommandId, to: H::Command, announcement: Announcement },
    /// Close this client's connection.
    Refused { session: SessionId, reason: Reason, client: H::Client },
    /// Close this idle channel.
    CloseChannel { channel: ChannelId, reason: Reason, handle: H::Channel },
    /// End this running session.
    EndSession { session: SessionId, reason: Reason, stop: H::Stop },
}

/// Who got whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The session that the client became.
    pub session: SessionId,
    /// Its service.
    pub service: ServiceName,
    /// The host that serves it.
    pub host: HostId,
    /// The data channel that carries it.
    pub channel: ChannelId,
    /// How long the client had waited.
    pub waited: Duration,
}

/// What a host is told about one of its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// A client was assigned to the channel: the host may speak.
    Open(ChannelId),
    /// The client has sent its last byte.
    Drop(ChannelId),
}

/// How much of everything there is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Hosts with a command channel.
    pub hosts: usize,
    /// Command channels.
    pub commands: usize,
    /// Data channels that wait for a client.
    pub idle: usize,
    /// Clients that wait for a channel.
    pub waiting: usize,
    /// Sessions that run.
    pub sessions: usize,
}

impl fmt::Display for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Announcement::Open(channel) => write!(f, "open {channel}"),
            Announcement::Drop(channel) => write!(f, "drop {channel}"),
        }
    }
}
