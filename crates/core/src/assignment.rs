//! Which client gets which idle channel; who waits, who is refused and why; who is told. The relay's only book of hosts,
//! channels and clients: it drives [`Book::handle`] with everything that happens and performs the [`Output`]s in their order.
//!
//! The rules (`docs/wire.md`):
//! - Who may serve what is the [roster](roster)'s to say.
//! - Clients are served in the order of their arrival; each gets a channel of the host with the fewest sessions for its weight. Hosts
//!   that are alike take turns. Of a host's channels the one that came last is next; with version 1, the one that has waited longest.
//!   A host that has just failed to serve a client is the last choice.
//! - A host of version 2 is offered a session. Until it accepts, the session can be taken back, and is offered to another
//!   host: once more to one whose channel failed, and never again to one that turned it down. It keeps its place in the order of arrival.
//!   After that, never.
//! - Of a host of version 2 as many idle channels are closed as it says, those that would be given out last.
//! - A channel carries one session at a time. Where that has ended in order on both sides, a host of version 2 can have it back: authorised
//!   anew, as if it had just arrived, the channel waits for another client. The session stays, without a channel, until it has ended.
//! - An announcement to hosts of version 1 goes to the command channels of the channel's address, or, where that has none, to
//!   all of version 1. Hosts of version 2 are told of their sessions' ends.
//! - A session whose host has sent its last byte and then lost its last command channel ends. One whose channel was returned asks
//!   nothing of its host any more, and goes on without it.
//! - When a grant ends, so do the sessions of those who had it.
//!
//! What must hold after every input is checked by `tests/assignment` over generated histories, through
//! [`Book::check_invariants`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::ids::{ChannelId, ChannelIds, ChannelKey, GrantId, HostId, ServiceName, SessionId};
use crate::limits::{Limits, ServiceLimits};
use crate::policy::Policy;
use crate::pool::{Pool, Turn};
use crate::reason::Reason;
use crate::session::{Phase, Session, State};
use crate::time::Time;
use crate::vocabulary::{Announcement, Handles, Input, Occupancy, Output};
use pools::Demands;
use roster::Roster;

mod clients;
mod grants;
mod hosts;
mod invariants;
mod member;
mod offers;
mod pools;
mod returns;
mod roster;
pub(crate) mod snapshot;

/// The relay's book.
pub struct Book<H: Handles> {
    limits: Limits,
    ids: ChannelIds,
    turn: Turn,
    draining: bool,
    roster: Roster<H>,
    /// Boxed, as sessions are: so many are moved about as others come and go, and the nodes of a tree are half empty.
    channels: BTreeMap<ChannelId, Box<Channel>>,
    services: BTreeMap<ServiceName, Service<H>>,
    sessions: BTreeMap<SessionId, Box<Session<H>>>,
    demands: Demands,
    /// Until when those wait that have no channel.
    deadlines: BTreeSet<(Time, SessionId)>,
    outputs: VecDeque<Output<H>>,
}

struct Channel {
    host: HostId,
    service: ServiceName,
    /// The one that it showed when it arrived.
    key: Option<ChannelKey>,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Reserved,
    Idle(Turn),
    Assigned(SessionId),
}

struct Service<H: Handles> {
    pool: Pool<H::Channel>,
    queue: BTreeMap<Turn, SessionId>,
    /// How many sessions it has.
    sessions: usize,
}

impl<H: Handles> Default for Service<H> {
    fn default() -> Service<H> {
        Service { pool: Pool::default(), queue: BTreeMap::new(), sessions: 0 }
    }
}

impl<H: Handles> Book<H> {
    /// An empty book. `first` is where channel ids start; choose it at random.
    pub fn new(limits: Limits, policy: Policy, first: ChannelId) -> Book<H> {
        Book {
            limits,
            ids: ChannelIds::starting_at(first),
            turn: Turn::default(),
            draining: false,
            roster: Roster::new(policy),
            channels: BTreeMap::new(),
            services: BTreeMap::new(),
            sessions: BTreeMap::new(),
            demands: Demands::default(),
            deadlines: BTreeSet::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes in what happened. Inputs about something that the book no longer knows are late news and change nothing.
    pub fn handle(&mut self, now: Time, input: Input<H>) {
        match input {
            Input::CommandUp { command, host, membership, handle } => {
                self.command_up(now, command, host, membership, handle);
            }
            Input::CommandDown { command } => self.command_down(now, command),
            Input::CommandSuspect { command } => self.command_suspect(now, command),
            Input::CommandWell { command } => self.command_well(now, command),
            Input::CommandGone { command } => self.command_gone(now, command),
            Input::PoolBounds { command, service, min, max } => {
                self.pool_bounds(now, command, &service, min, max);
            }
            Input::PoolSurplus { command, service, idle } => {
                self.pool_surplus(command, &service, idle);
            }
            Input::RoundTrip { command, round_trip } => self.round_trip(command, round_trip),
            Input::CommandLeaving { command } => self.command_leaving(now, command),
            Input::GrantChanged { grant, terms } => self.grant_changed(now, grant, terms),
            Input::ReserveChannel { host, service, key } => {
                let output = match self.reserve(now, host, service, key) {
                    Ok(channel) => Output::Reserved { channel },
                    Err(reason) => Output::ReserveRefused { reason },
                };
                self.outputs.push_back(output);
            }
            Input::ChannelIdle { channel, handle } => self.channel_idle(now, channel, handle),
            Input::ChannelReturned { session, handle } => {
                self.channel_returned(now, session, handle);
            }
            Input::ChannelGone { channel } => self.channel_gone(channel),
            Input::ClientArrived { session, service, client, stop } => {
                self.client_arrived(now, session, service, client, stop);
            }
            Input::ClientGone { session } => self.refuse_waiting(session, Reason::ClientGone),
            Input::Accepted { session, stop } => self.accepted(session, stop),
            Input::OfferFailed { session, reason, client, stop } => {
                self.offer_failed(now, session, reason, client, stop);
            }
            Input::ClientFinished { session } => self.client_finished(session),
            Input::HostFinished { session } => self.host_finished(session),
            Input::SessionEnded { session, end } => self.session_ended(now, session, end),
            Input::TimePassed => self.time_passed(now),
            Input::Drain => self.drain(),
            Input::EndAll { reason } => self.end_all(reason),
        }
    }

    /// What to do next, in order; `None` when all is done. Perform everything before the next input.
    pub fn poll_output(&mut self) -> Option<Output<H>> {
        self.outputs.pop_front()
    }

    /// When [`Input::TimePassed`] is due next.
    pub fn poll_timeout(&self) -> Option<Time> {
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        let of_hosts = self.roster.next_expiry().into_iter().chain(self.roster.next_recovery());
        deadline.into_iter().chain(of_hosts).chain(self.demands.poll_timeout()).min()
    }

    /// How much of everything there is now.
    pub fn occupancy(&self) -> Occupancy {
        Occupancy {
            hosts: self.roster.hosts_present(),
            commands: self.roster.commands(),
            idle: self.services.values().map(|service| service.pool.len()).sum(),
            waiting: self.deadlines.len(),
            sessions: self.sessions(),
        }
    }

    /// How many sessions run.
    pub fn sessions(&self) -> usize {
        self.sessions.len() - self.deadlines.len()
    }

    /// Why `service` may not be served under `grant`, or without one by a host of version 2.
    pub fn refusal_of_service(
        &self,
        now: Time,
        grant: Option<&GrantId>,
        service: &ServiceName,
    ) -> Option<Reason> {
        self.roster.refusal_of(now, Some(grant), service)
    }

    /// The service of a client or session that the book knows.
    pub fn service_of(&self, session: SessionId) -> Option<&ServiceName> {
        self.sessions.get(&session).map(|session| &session.service)
    }

    /// The phase of a client or session that the book knows.
    pub fn phase(&self, session: SessionId) -> Option<Phase> {
        self.sessions.get(&session).map(|session| session.state.phase())
    }
}

/// What the others share.
impl<H: Handles> Book<H> {
    fn limits_of(&self, service: &ServiceName) -> ServiceLimits {
        self.roster.policy.services.get(service).copied().unwrap_or_default()
    }

    /// Announces to a host of version 1.
    fn announce(&mut self, host: HostId, announcement: Announcement) {
        let outputs = self.roster.audience(host).into_iter().map(|(command, to)| {
            let announcement = announcement.clone();
            Output::Announce { command, to, announcement }
        });
        self.outputs.extend(outputs);
    }

    fn end(&mut self, session: SessionId, reason: Reason) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        entry.state.void_late_word();
        if let Some(stop) = entry.stop.take() {
            self.outputs.push_back(Output::EndSession { session, reason, stop });
        }
    }

    /// A session came to `host`, or went from it, or it has failed one.
    fn reweigh(&mut self, host: HostId) {
        let load = self.roster.load_of(host);
        self.services.values_mut().for_each(|service| service.pool.set_load(host, load));
    }

    /// Whether a session waits for a channel.
    fn is_waiting(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|it| matches!(it.state, State::Waiting { .. }))
    }
}
