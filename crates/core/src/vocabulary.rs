//! What the [`Book`](crate::Book) is told and what it answers.

#![allow(missing_docs, reason = "the fields of inputs and outputs are named after their types")]

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::grant::Grant;
use crate::ids::{ChannelId, ChannelKey, CommandId, GrantId, HostId, ServiceName, SessionId};
use crate::reason::Reason;

/// How whoever drives the book reaches what stands in it. The book keeps these and gives them back; it never looks inside.
pub trait Handles {
    /// Reaches a command channel; one is given out for each announcement.
    type Command: Clone;
    /// Reaches an idle data channel.
    type Channel;
    /// Reaches a client that waits.
    type Client;
    /// Reaches an assigned session, once: it is to end, or to give its client back.
    type Stop;
}

/// Something that happened.
pub enum Input<H: Handles> {
    /// A host opened a command channel. Hosts of version 2 are members, those of version 1 are not.
    CommandUp {
        command: CommandId,
        host: HostId,
        membership: Option<Membership>,
        handle: H::Command,
    },
    /// A command channel ended.
    CommandDown { command: CommandId },
    /// A host was not heard from for the time that makes it suspect.
    CommandSuspect { command: CommandId },
    /// It was heard from again.
    CommandWell { command: CommandId },
    /// It was not heard from for so long that it is gone, and what it serves with it. Version 1 has no such word: there this is
    /// the command channel's end.
    CommandGone { command: CommandId },
    /// A host of version 2 keeps between so many idle channels of a service from now on. With a `max` of 0 it takes none of its
    /// sessions.
    PoolBounds { command: CommandId, service: ServiceName, min: usize, max: usize },
    /// So many of the idle channels that this host keeps for a service are to be closed.
    PoolSurplus { command: CommandId, service: ServiceName, idle: usize },
    /// A host has answered a ping after so long.
    RoundTrip { command: CommandId, round_trip: Duration },
    /// A host of version 2 is leaving: it wants no new clients, and finishes what it serves.
    CommandLeaving { command: CommandId },
    /// A grant was made or changed, or, where there are no terms, revoked.
    GrantChanged { grant: GrantId, terms: Option<Grant> },
    /// A host said hello on a data channel, which needs an id for the answer. Members present their key.
    ReserveChannel { host: HostId, service: ServiceName, key: Option<ChannelKey> },
    /// The answer is sent: the channel waits for a client.
    ChannelIdle { channel: ChannelId, handle: H::Channel },
    /// Both sides of an assigned session have ended in order, and its channel can carry another: this reaches it from now on. The
    /// session goes on, without the channel, until it has ended. What the book cannot use it gives back, or drops.
    ChannelReturned { session: SessionId, handle: H::Channel },
    /// A channel that no client is assigned to ended.
    ChannelGone { channel: ChannelId },
    /// A client asks for a service.
    ClientArrived { session: SessionId, service: ServiceName, client: H::Client, stop: H::Stop },
    /// A client that was waiting left.
    ClientGone { session: SessionId },
    /// The host has accepted the session that it was offered. Where that was taken back and its client is still there, it counts, if the
    /// host may still serve it; then `stop` reaches the session from now on. [`Book::phase`](crate::Book::phase) tells.
    Accepted { session: SessionId, stop: H::Stop },
    /// The host has not, and will not: its client is to be offered to another.
    OfferFailed { session: SessionId, reason: Reason, client: H::Client, stop: H::Stop },
    /// The client's last byte was read, or its reset.
    ClientFinished { session: SessionId },
    /// The host's last byte was read.
    HostFinished { session: SessionId },
    /// An assigned session is over: both legs are closed.
    SessionEnded { session: SessionId, end: End },
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
    /// The command channel is in the book.
    CommandTaken { command: CommandId },
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
    /// Close this channel, which waits for a client, or was to wait for another.
    CloseChannel { channel: ChannelId, reason: Reason, handle: H::Channel },
    /// Take the client of this session back, which its host has not accepted: [`Input::OfferFailed`] is to follow.
    Withdraw { session: SessionId, reason: Reason, stop: H::Stop },
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
    /// The data channel that carries it. It may carry others, before and after it.
    pub channel: ChannelId,
    /// How long the client had waited.
    pub waited: Duration,
    /// Whether the host has to accept the session first, as hosts of version 2 do.
    pub is_offer: bool,
}

/// What makes a host of version 2 more than an address.
#[derive(Clone, Debug)]
pub struct Membership {
    /// What its token allows; `None` for one that may do without a token.
    pub grant: Option<GrantId>,
    /// The services that it will serve: its grant covers all of them, or it is refused.
    pub services: BTreeSet<ServiceName>,
    /// The key that its data channels are to present from now on.
    pub key: ChannelKey,
    /// The key of its last command channel, where it had one: that it is the same process.
    pub last_key: Option<ChannelKey>,
    /// How much it takes.
    pub capacity: Capacity,
}

/// How much a host takes, beside others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Its share of the sessions: a host of twice the weight gets twice as many. At least 1.
    pub weight: u32,
    /// How many sessions it takes at once, of all its services together.
    pub sessions_max: Option<usize>,
}

impl Default for Capacity {
    /// As the protocol says for a host that does not.
    fn default() -> Capacity {
        Capacity { weight: 100, sessions_max: None }
    }
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Why.
    pub reason: Reason,
    /// How many bytes were written to the host.
    pub bytes_to_host: u64,
    /// How many bytes were written to the client.
    pub bytes_to_client: u64,
}

/// What a host is told on its command channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// To hosts of version 1: a client was assigned to the channel, and the host may speak.
    Open(ChannelId),
    /// To hosts of version 1: the client has sent its last byte.
    Drop(ChannelId),
    /// To hosts of version 2: a session of theirs is over.
    Ended(SessionId, End),
    /// To hosts of version 2: how many idle channels of a service they are to keep.
    PoolWanted(ServiceName, usize),
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
            Announcement::Ended(session, end) => write!(f, "ended {session} {end}"),
            Announcement::PoolWanted(service, idle) => write!(f, "pool_wanted {service} {idle}"),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.reason, self.bytes_to_host, self.bytes_to_client)
    }
}
