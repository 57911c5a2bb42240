//! Which client gets which idle channel; who waits, who is refused and why; who is told. The relay's only book of hosts,
//! channels and clients: it drives [`Book::handle`] with everything that happens and performs the [`Output`]s in their order.
//!
//! The rules are those of protocol version 1 (`docs/wire.md`):
//! - Channels may be assigned while any command channel is up.
//! - Clients are served in the order of their arrival; each gets a channel of the host with the fewest sessions, and of
//!   that host's channels the one that has waited longest.
//! - An announcement goes to the command channels of the channel's address, or, where that has none, to all.
//! - A session whose host has sent its last byte and then lost its last command channel ends.
//!
//! What must hold after every input is checked by `tests/assignment.rs` over generated histories, through
//! [`Book::check_invariants`].

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::ids::{ChannelId, ChannelIds, CommandId, HostId, ServiceName, SessionId};
use crate::limits::Limits;
use crate::pool::{Pool, Turn};
use crate::reason::Reason;
use crate::session::{Phase, Session, State};
use crate::time::Time;
use crate::vocabulary::{Announcement, Handles, Input, Occupancy, Output};

mod clients;
mod hosts;
mod invariants;

/// The relay's book.
pub struct Book<H: Handles> {
    limits: Limits,
    ids: ChannelIds,
    turn: Turn,
    draining: bool,
    commands: HashMap<CommandId, HostId>,
    hosts: BTreeMap<HostId, Host<H>>,
    channels: HashMap<ChannelId, Channel>,
    services: BTreeMap<ServiceName, Service<H>>,
    sessions: HashMap<SessionId, Session<H>>,
    /// How many of `sessions` wait.
    waiting: usize,
    outputs: VecDeque<Output<H>>,
}

struct Host<H: Handles> {
    commands: BTreeMap<CommandId, H::Command>,
    /// Whether it ever had one: a host whose data and command channels come from different addresses has none here.
    had_command: bool,
    channels: usize,
    sessions: usize,
    /// Its sessions that it has sent the last byte of.
    finished: BTreeSet<SessionId>,
}

struct Channel {
    host: HostId,
    service: ServiceName,
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
}

impl<H: Handles> Default for Host<H> {
    fn default() -> Host<H> {
        Host {
            commands: BTreeMap::new(),
            had_command: false,
            channels: 0,
            sessions: 0,
            finished: BTreeSet::new(),
        }
    }
}

impl<H: Handles> Default for Service<H> {
    fn default() -> Service<H> {
        Service { pool: Pool::default(), queue: BTreeMap::new() }
    }
}

impl<H: Handles> Book<H> {
    /// An empty book. `first` is where channel ids start; choose it at random.
    pub fn new(limits: Limits, first: ChannelId) -> Book<H> {
        Book {
            limits,
            ids: ChannelIds::starting_at(first),
            turn: Turn::default(),
            draining: false,
            commands: HashMap::new(),
            hosts: BTreeMap::new(),
            channels: HashMap::new(),
            services: BTreeMap::new(),
            sessions: HashMap::new(),
            waiting: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Takes in what happened. Inputs about something that the book no longer knows are late news and change nothing.
    pub fn handle(&mut self, now: Time, input: Input<H>) {
        match input {
            Input::CommandUp { command, host, handle } => {
                self.command_up(now, command, host, handle)
            }
            Input::CommandDown { command } => self.command_down(command),
            Input::ReserveChannel { host, service } => {
                let output = match self.reserve(host, service) {
                    Ok(channel) => Output::Reserved { channel },
                    Err(reason) => Output::ReserveRefused { reason },
                };
                self.outputs.push_back(output);
            }
            Input::ChannelIdle { channel, handle } => self.channel_idle(now, channel, handle),
            Input::ChannelGone { channel } => self.channel_gone(channel),
            Input::ClientArrived { session, service, client, stop } => {
                self.client_arrived(now, session, service, client, stop)
            }
            Input::ClientGone { session } => {
                self.refuse_waiting(session, Reason::ClientGone);
            }
            Input::ClientFinished { session } => self.client_finished(session),
            Input::HostFinished { session } => self.host_finished(session),
            Input::SessionEnded { session } => self.session_ended(session),
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
        let fronts = self.services.values().filter_map(|service| service.queue.first_key_value());
        fronts
            .filter_map(|(_, session)| self.waiting_since(session))
            .min()
            .map(|since| since + self.limits.assign_timeout)
    }

    /// How much of everything there is now.
    pub fn occupancy(&self) -> Occupancy {
        Occupancy {
            hosts: self.hosts.values().filter(|host| !host.commands.is_empty()).count(),
            commands: self.commands.len(),
            idle: self.services.values().map(|service| service.pool.len()).sum(),
            waiting: self.waiting,
            sessions: self.sessions(),
        }
    }

    /// How many sessions run.
    pub fn sessions(&self) -> usize {
        self.sessions.len() - self.waiting
    }

    /// The phase of a client or session that the book knows.
    pub fn phase(&self, session: SessionId) -> Option<Phase> {
        self.sessions.get(&session).map(|session| session.state.phase())
    }

    /// How many sessions `host` has.
    pub fn sessions_of(&self, host: HostId) -> usize {
        self.hosts.get(&host).map_or(0, |host| host.sessions)
    }
}

/// What the others share.
impl<H: Handles> Book<H> {
    fn waiting_since(&self, session: &SessionId) -> Option<Time> {
        match self.sessions.get(session)?.state {
            State::Waiting { since, .. } => Some(since),
            State::Assigned { .. } => None,
        }
    }

    fn change_sessions(&mut self, host: HostId, change: impl FnOnce(usize) -> usize) {
        let Some(entry) = self.hosts.get_mut(&host) else {
            return;
        };
        entry.sessions = change(entry.sessions);
        let sessions = entry.sessions;
        self.services.values_mut().for_each(|service| service.pool.set_sessions(host, sessions));
    }

    fn announce(&mut self, host: HostId, announcement: Announcement) {
        let own = self.hosts.get(&host).map(|host| &host.commands).filter(|own| !own.is_empty());
        let to: Vec<(CommandId, H::Command)> = match own {
            Some(own) => own.iter().map(|(id, handle)| (*id, handle.clone())).collect(),
            None => {
                let all = self.hosts.values().flat_map(|host| &host.commands);
                all.map(|(id, handle)| (*id, handle.clone())).collect()
            }
        };
        let outputs =
            to.into_iter().map(|(command, to)| Output::Announce { command, to, announcement });
        self.outputs.extend(outputs);
    }

    /// Whether nobody speaks for `host` any more.
    fn is_lost(&self, host: HostId) -> bool {
        match self.hosts.get(&host) {
            Some(host) if host.had_command => host.commands.is_empty(),
            _ => self.commands.is_empty(),
        }
    }

    fn end(&mut self, session: SessionId, reason: Reason) {
        let stop = self.sessions.get_mut(&session).and_then(|session| session.stop.take());
        if let Some(stop) = stop {
            self.outputs.push_back(Output::EndSession { session, reason, stop });
        }
    }
}
