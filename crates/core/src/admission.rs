//! Which connections may be under way to their hello. The relay asks for a place when it has accepted a connection and
//! gives it back when the connection has said who it is, or is closed.
//!
//! A newcomer always gets a place. Where there is none, the connection that has been silent longest loses its own: at the
//! newcomer's address when that has its full share, else at the address that holds the most. A true host says its hello
//! within a round trip, so thousands of silent connections push out each other and not it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use crate::limits::Limits;

/// The handshakes under way. `T` is how a connection is told that it has lost its place; the book drops it then.
pub struct Admission<T> {
    in_all_max: usize,
    per_address_max: usize,
    next: u64,
    origins: BTreeMap<Origin, BTreeMap<u64, T>>,
    /// How many each origin holds, the fullest last.
    ranking: BTreeSet<(usize, Origin)>,
    len: usize,
}

/// A place. Give it back with [`Admission::leave`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    origin: Origin,
    number: u64,
}

/// An address, or for IPv6 the /64 that one customer holds whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Origin(IpAddr);

impl<T> Admission<T> {
    /// Nobody yet.
    pub fn new(limits: &Limits) -> Admission<T> {
        Admission {
            in_all_max: limits.handshakes_max.max(1),
            per_address_max: limits.handshakes_per_address_max.max(1),
            next: 0,
            origins: BTreeMap::new(),
            ranking: BTreeSet::new(),
            len: 0,
        }
    }

    /// Gives a connection from `address` a place, and the handle of the one that lost its own for it, if any.
    pub fn enter(&mut self, address: IpAddr, handle: T) -> (Ticket, Option<T>) {
        let origin = Origin::of(address);
        let full_here =
            self.origins.get(&origin).is_some_and(|it| it.len() >= self.per_address_max);
        let evict_at = if full_here {
            Some(origin)
        } else if self.len >= self.in_all_max {
            self.ranking.last().map(|&(_, fullest)| fullest)
        } else {
            None
        };
        let evicted = evict_at.and_then(|origin| {
            let oldest = *self.origins.get(&origin)?.first_key_value()?.0;
            self.take(origin, oldest)
        });
        let number = self.next;
        self.next += 1;
        self.change(origin, |places| places.insert(number, handle));
        self.len += 1;
        (Ticket { origin, number }, evicted)
    }

    /// Gives a place back. Nothing happens where it was lost already.
    pub fn leave(&mut self, ticket: Ticket) {
        self.take(ticket.origin, ticket.number);
    }

    /// How many handshakes are under way.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn take(&mut self, origin: Origin, number: u64) -> Option<T> {
        if !self.origins.contains_key(&origin) {
            return None;
        }
        let taken = self.change(origin, |places| places.remove(&number));
        self.len -= usize::from(taken.is_some());
        taken
    }

    fn change<R>(&mut self, origin: Origin, apply: impl FnOnce(&mut BTreeMap<u64, T>) -> R) -> R {
        let places = self.origins.entry(origin).or_default();
        self.ranking.remove(&(places.len(), origin));
        let result = apply(places);
        if places.is_empty() {
            self.origins.remove(&origin);
        } else {
            self.ranking.insert((places.len(), origin));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(in_all: usize, per_address: usize) -> Admission<u32> {
        Admission::new(&Limits {
            handshakes_max: in_all,
            handshakes_per_address_max: per_address,
            ..Limits::default()
        })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_newcomer_pushes_out_the_oldest_of_its_own_address_when_that_is_full() {
        let mut admission = admission(10, 2);
        assert_eq!(admission.enter(address("10.0.0.2"), 9).1, None);
        assert_eq!(admission.enter(address("10.0.0.1"), 1).1, None);
        assert_eq!(admission.enter(address("10.0.0.1"), 2).1, None);
        assert_eq!(admission.enter(address("10.0.0.1"), 3).1, Some(1));
        assert_eq!(admission.len(), 3);
    }

    #[test]
    fn a_newcomer_pushes_out_the_oldest_of_the_fullest_address_when_all_are_taken() {
        let mut admission = admission(3, 3);
        admission.enter(address("10.0.0.1"), 1);
        admission.enter(address("10.0.0.2"), 2);
        admission.enter(address("10.0.0.2"), 3);
        assert_eq!(admission.enter(address("10.0.0.3"), 4).1, Some(2));
        assert_eq!(admission.len(), 3);
    }

    #[test]
    fn a_place_given_back_is_free() {
        let mut admission = admission(1, 1);
        let (ticket, _) = admission.enter(address("10.0.0.1"), 1);
        admission.leave(ticket);
        admission.leave(ticket);
        assert!(admission.is_empty());
        assert_eq!(admission.enter(address("10.0.0.1"), 2).1, None);
    }

    #[test]
    fn one_ipv6_network_is_one_address() {
        let mut admission = admission(10, 1);
        admission.enter(address("2001:db8::1"), 1);
        assert_eq!(admission.enter(address("2001:db8::2"), 2).1, Some(1));
        assert_eq!(admission.enter(address("2001:db8:0:1::1"), 3).1, None);
    }
}
