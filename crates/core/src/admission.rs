//! Which connections may be under way to saying who they are. The relay enters each that it accepts, lets those go on that are
//! admitted, and takes out those that have said who they are, or have ended.
//!
//! A handshake costs the relay time and memory, and whoever can connect can begin one. So they are bounded, in all and for each
//! address; beyond the bound, connections wait:
//! - Whoever waits is served in turn over the addresses, and at an address in the order of arrival.
//! - Addresses that have an authenticated host have a quarter of all places to themselves.
//! - Where somebody waits for its place, a connection that has not sent a byte for [`SILENCE_MAX`] loses it: a true host speaks
//!   first, within a round trip.
//! - Whoever was refused for what it said (a wrong token) keeps its place until it is told so, which the relay delays; at an
//!   address that has an authenticated host such places are at most half. Whoever exceeds them is closed at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::limits::Limits;
use crate::time::Time;

/// How long a connection may be silent while others wait for its place. The first bytes cross the slowest usable link in less.
pub const SILENCE_MAX: Duration = Duration::from_secs(1);

/// The handshakes under way, and those that wait to begin. `T` is how a connection is reached.
pub struct Admission<T> {
    in_all_max: usize,
    per_address_max: usize,
    waiting_max: usize,
    next: u64,
    origins: BTreeMap<Origin, Places<T>>,
    /// The origins where somebody waits who may be admitted as far as the origin is concerned, the next in turn first.
    turns: VecDeque<Origin>,
    /// The silent ones, the longest silent first.
    silent: BTreeSet<(Time, Ticket)>,
    admitted: usize,
    /// How many of those are at origins without an authenticated host.
    admitted_unknown: usize,
    /// How many wait at each origin, the fullest last.
    waiting_ranking: BTreeSet<(usize, Origin)>,
    waiting: usize,
    outputs: VecDeque<Verdict<T>>,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<T> {
    /// Its handshake may begin.
    Admitted(T),
    /// It is to be closed.
    Closed(T),
}

/// A connection's name here. Take it out with [`Admission::leave`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    number: u64,
    origin: Origin,
}

/// An address, or for IPv6 the /64 that one customer holds whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Origin(IpAddr);

struct Places<T> {
    waiting: BTreeMap<u64, T>,
    admitted: BTreeMap<u64, Admitted<T>>,
    /// Those of them that have not sent a byte, the longest silent first.
    silent: BTreeSet<(Time, Ticket)>,
    /// How many of those are punished.
    punished: usize,
    /// How many authenticated hosts there are.
    hosts: usize,
    /// Whether it stands in `turns`.
    has_turn: bool,
}

struct Admitted<T> {
    handle: T,
    since: Time,
    punished: bool,
}

impl<T> Default for Places<T> {
    fn default() -> Places<T> {
        Places {
            waiting: BTreeMap::new(),
            admitted: BTreeMap::new(),
            silent: BTreeSet::new(),
            punished: 0,
            hosts: 0,
            has_turn: false,
        }
    }
}

impl<T: Clone> Admission<T> {
    /// Nobody yet.
    pub fn new(limits: &Limits) -> Admission<T> {
        let in_all_max = limits.handshakes_max.max(1);
        Admission {
            in_all_max,
            per_address_max: limits.handshakes_per_address_max.max(1),
            // As many again: one that waits costs a descriptor and nothing else.
            waiting_max: in_all_max,
            next: 0,
            origins: BTreeMap::new(),
            turns: VecDeque::new(),
            silent: BTreeSet::new(),
            admitted: 0,
            admitted_unknown: 0,
            waiting_ranking: BTreeSet::new(),
            waiting: 0,
            outputs: VecDeque::new(),
        }
    }

    /// A connection from `address` has come. It waits until it is admitted, which may be at once.
    pub fn enter(&mut self, now: Time, address: IpAddr, handle: T) -> Ticket {
        let ticket = Ticket { number: self.next, origin: Origin::of(address) };
        self.next += 1;
        self.change_waiting(ticket.origin, |waiting| waiting.insert(ticket.number, handle));
        self.settle(ticket.origin);
        self.admit(now);
        if self.waiting > self.waiting_max
            && let Some(&(_, fullest)) = self.waiting_ranking.last()
            && let Some((_, handle)) = self.change_waiting(fullest, BTreeMap::pop_first)
        {
            self.outputs.push_back(Verdict::Closed(handle));
            self.settle(fullest);
        }
        self.make_room(now);
        ticket
    }

    /// The connection has sent its first byte.
    pub fn spoke(&mut self, ticket: Ticket) {
        let admitted = |places: &Places<T>| places.admitted.get(&ticket.number).map(|it| it.since);
        if let Some(since) = self.origins.get(&ticket.origin).and_then(admitted) {
            self.is_silent_no_more(since, ticket);
        }
    }

    /// The connection is refused for what it said, and will be told so later. It is closed now where its address has too many
    /// of those.
    pub fn punish(&mut self, ticket: Ticket) {
        self.spoke(ticket);
        let Some(places) = self.origins.get_mut(&ticket.origin) else {
            return;
        };
        let punished_max = match places.hosts {
            0 => self.per_address_max,
            _ => self.per_address_max / 2,
        };
        let Some(connection) = places.admitted.get_mut(&ticket.number) else {
            return;
        };
        if places.punished >= punished_max {
            self.outputs.push_back(Verdict::Closed(connection.handle.clone()));
        } else if !std::mem::replace(&mut connection.punished, true) {
            places.punished += 1;
        }
    }

    /// The connection has said who it is, or has ended. Nothing happens where it was taken out already.
    pub fn leave(&mut self, now: Time, ticket: Ticket) {
        self.take_out(now, ticket);
        // With a place free at its address, somebody there may wait for a place of another address now.
        self.make_room(now);
    }

    fn take_out(&mut self, now: Time, ticket: Ticket) {
        let Ticket { number, origin } = ticket;
        if self.origins.contains_key(&origin)
            && self.change_waiting(origin, |waiting| waiting.remove(&number)).is_some()
        {
            self.settle(origin);
            return;
        }
        let Some(places) = self.origins.get_mut(&origin) else {
            return;
        };
        let Some(left) = places.admitted.remove(&number) else {
            return;
        };
        places.punished -= usize::from(left.punished);
        self.admitted -= 1;
        self.admitted_unknown -= usize::from(places.hosts == 0);
        self.is_silent_no_more(left.since, ticket);
        self.settle(origin);
        self.admit(now);
    }

    /// An authenticated host is at `address` now.
    pub fn host_joined(&mut self, now: Time, address: IpAddr) {
        let places = self.origins.entry(Origin::of(address)).or_default();
        places.hosts += 1;
        if places.hosts == 1 {
            self.admitted_unknown -= places.admitted.len();
        }
        self.admit(now);
    }

    /// It is no more.
    pub fn host_left(&mut self, address: IpAddr) {
        let origin = Origin::of(address);
        if let Some(places) = self.origins.get_mut(&origin)
            && places.hosts > 0
        {
            places.hosts -= 1;
            if places.hosts == 0 {
                self.admitted_unknown += places.admitted.len();
            }
        }
        self.settle(origin);
    }

    /// When [`Admission::handle_timeout`] is due next.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.longest_silent().map(|(since, _)| since + SILENCE_MAX)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time) {
        self.make_room(now);
    }

    /// What has become of somebody, in order; `None` when all is told.
    pub fn poll_output(&mut self) -> Option<Verdict<T>> {
        self.outputs.pop_front()
    }

    /// How many handshakes are under way.
    pub fn admitted(&self) -> usize {
        self.admitted
    }

    /// How many connections wait for their handshake to begin.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Closes those that have been silent for too long, and whose places somebody waits for.
    fn make_room(&mut self, now: Time) {
        while let Some((_, ticket)) =
            self.longest_silent().filter(|(since, _)| *since + SILENCE_MAX <= now)
        {
            let admitted = self.origins.get(&ticket.origin).map(|places| &places.admitted);
            let handle = admitted.and_then(|it| it.get(&ticket.number)).map(|it| it.handle.clone());
            self.outputs.extend(handle.map(Verdict::Closed));
            self.take_out(now, ticket);
        }
    }

    /// The longest silent of those whose places somebody waits for: at their address, or, where all places are taken, anywhere.
    fn longest_silent(&self) -> Option<(Time, Ticket)> {
        if !self.turns.is_empty() {
            return self.silent.first().copied();
        }
        let full = self.waiting_ranking.iter().filter_map(|(_, origin)| self.origins.get(origin));
        full.filter_map(|places| places.silent.first().copied()).min()
    }

    /// Admits those that are next in turn, while there are places.
    fn admit(&mut self, now: Time) {
        // Origins that may not have another place for the sake of others keep their turn.
        let mut passed_over = VecDeque::new();
        while self.admitted < self.in_all_max
            && let Some(origin) = self.turns.pop_front()
        {
            let is_unknown = self.origins.get(&origin).is_some_and(|places| places.hosts == 0);
            if is_unknown && self.admitted_unknown >= self.unknown_max() {
                passed_over.push_back(origin);
                continue;
            }
            self.admit_one_of(now, origin);
        }
        passed_over.append(&mut self.turns);
        self.turns = passed_over;
    }

    /// Admits the next at `origin`, whose turn it is.
    fn admit_one_of(&mut self, now: Time, origin: Origin) {
        if let Some(places) = self.origins.get_mut(&origin) {
            places.has_turn = false;
        }
        if let Some((number, handle)) = self.change_waiting(origin, BTreeMap::pop_first) {
            let places = self.origins.entry(origin).or_default();
            let admitted = Admitted { handle: handle.clone(), since: now, punished: false };
            places.admitted.insert(number, admitted);
            places.silent.insert((now, Ticket { number, origin }));
            self.silent.insert((now, Ticket { number, origin }));
            self.admitted += 1;
            self.admitted_unknown += usize::from(places.hosts == 0);
            self.outputs.push_back(Verdict::Admitted(handle));
        }
        self.settle(origin);
    }

    fn is_silent_no_more(&mut self, since: Time, ticket: Ticket) {
        self.silent.remove(&(since, ticket));
        if let Some(places) = self.origins.get_mut(&ticket.origin) {
            places.silent.remove(&(since, ticket));
        }
    }

    /// What addresses without an authenticated host may have together.
    fn unknown_max(&self) -> usize {
        (self.in_all_max - self.in_all_max / 4).max(1)
    }

    /// Puts an origin at the end of the line where somebody waits and it has a place left, and forgets it where nothing is left.
    fn settle(&mut self, origin: Origin) {
        let Some(places) = self.origins.get_mut(&origin) else {
            return;
        };
        let may_have = !places.waiting.is_empty() && places.admitted.len() < self.per_address_max;
        let had_turn = std::mem::replace(&mut places.has_turn, may_have);
        if may_have && !had_turn {
            self.turns.push_back(origin);
        } else if had_turn && !may_have {
            self.turns.retain(|it| *it != origin);
        }
        if places.waiting.is_empty() && places.admitted.is_empty() && places.hosts == 0 {
            self.origins.remove(&origin);
        }
    }

    fn change_waiting<R>(
        &mut self,
        origin: Origin,
        change: impl FnOnce(&mut BTreeMap<u64, T>) -> R,
    ) -> R {
        let places = self.origins.entry(origin).or_default();
        let before = places.waiting.len();
        let result = change(&mut places.waiting);
        let after = places.waiting.len();
        self.waiting = self.waiting + after - before;
        self.waiting_ranking.remove(&(before, origin));
        if after > 0 {
            self.waiting_ranking.insert((after, origin));
        }
        result
    }
}

impl Origin {
    fn of(address: IpAddr) -> Origin {
        match address.to_canonical() {
            IpAddr::V4(v4) => Origin(v4.into()),
            IpAddr::V6(v6) => {
                let network = v6.to_bits() & (u128::MAX << 64);
                Origin(Ipv6Addr::from_bits(network).into())
            }
        }
    }
}
