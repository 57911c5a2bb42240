//! The relay's book of one service's idle channels, per host. The [`Book`](crate::Book) drives it and tells it how loaded
//! each host is; it never decides whether a client may be served, only which channel is next.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{ChannelId, HostId};

/// A place in the order of arrival, of channels and of clients alike. Never given twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn(u64);

impl Turn {
    pub(crate) fn next(&mut self) -> Turn {
        let turn = *self;
        self.0 += 1;
        turn
    }
}

/// How much speaks against giving a host another session; the least loaded is first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Load {
    /// It has failed to serve a session of late.
    pub(crate) has_failed: bool,
    /// Its sessions with one more, for what it weighs.
    pub(crate) sessions: u64,
}

/// Idle channels, each with the handle by which the relay reaches it.
pub(crate) struct Pool<T> {
    hosts: BTreeMap<HostId, HostPool<T>>,
    /// The hosts that have an idle channel, best first: the least loaded, then the longest-waiting channel.
    ranking: BTreeSet<Rank>,
}

struct HostPool<T> {
    load: Load,
    idle: BTreeMap<Turn, (ChannelId, T)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    load: Load,
    oldest: Turn,
    host: HostId,
}

impl<T> Default for Pool<T> {
    fn default() -> Pool<T> {
        Pool { hosts: BTreeMap::new(), ranking: BTreeSet::new() }
    }
}

impl<T> Pool<T> {
    /// Puts a channel of `host`, which is so loaded now, into the pool.
    pub(crate) fn add(
        &mut self,
        host: HostId,
        load: Load,
        turn: Turn,
        channel: ChannelId,
        handle: T,
    ) {
        self.hosts.entry(host).or_insert_with(|| HostPool { load, idle: BTreeMap::new() });
        self.change(host, |pool| {
            pool.load = load;
            pool.idle.insert(turn, (channel, handle))
        });
    }

    /// Takes one certain channel out: it was lost.
    pub(crate) fn remove(&mut self, host: HostId, turn: Turn) -> Option<T> {
        self.change(host, |pool| pool.idle.remove(&turn)).flatten().map(|(_, handle)| handle)
    }

    /// Takes the channel that is next: of the least loaded host, among those that may have it, the one that has
    /// waited longest.
    pub(crate) fn take(
        &mut self,
        may_serve: impl Fn(HostId) -> bool,
    ) -> Option<(HostId, ChannelId, T)> {
        let best = *self.ranking.iter().find(|rank| may_serve(rank.host))?;
        let (channel, handle) = self.change(best.host, |pool| pool.idle.remove(&best.oldest))??;
        Some((best.host, channel, handle))
    }

    /// Tells how loaded `host` is now.
    pub(crate) fn set_load(&mut self, host: HostId, load: Load) {
        self.change(host, |pool| pool.load = load);
    }

    /// The hosts that have an idle channel here.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = HostId> {
        self.ranking.iter().map(|rank| rank.host)
    }

    /// How many idle channels each of them has here.
    pub(crate) fn idle_by_host(&self) -> impl Iterator<Item = (HostId, usize)> {
        self.hosts.iter().map(|(host, pool)| (*host, pool.idle.len()))
    }

    /// Takes every channel of `host` out.
    pub(crate) fn take_all_of(&mut self, host: HostId) -> Vec<(ChannelId, T)> {
        let taken = self.change(host, |pool| std::mem::take(&mut pool.idle));
        taken.into_iter().flat_map(BTreeMap::into_values).collect()
    }

    /// Takes every channel out.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = (ChannelId, T)> {
        self.ranking.clear();
        std::mem::take(&mut self.hosts).into_values().flat_map(|pool| pool.idle.into_values())
    }

    pub(crate) fn len(&self) -> usize {
        self.hosts.values().map(|pool| pool.idle.len()).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranking.is_empty()
    }

    /// Changes a host's part and its place in the ranking with it. `None` where the host has no part.
    fn change<R>(&mut self, host: HostId, apply: impl FnOnce(&mut HostPool<T>) -> R) -> Option<R> {
        let pool = self.hosts.get_mut(&host)?;
        if let Some(rank) = pool.rank(host) {
            self.ranking.remove(&rank);
        }
        let result = apply(pool);
        match pool.rank(host) {
            Some(rank) => {
                self.ranking.insert(rank);
            }
            None => {
                self.hosts.remove(&host);
            }
        }
        Some(result)
    }
}

impl<T> HostPool<T> {
    fn rank(&self, host: HostId) -> Option<Rank> {
        let (&oldest, _) = self.idle.first_key_value()?;
        Some(Rank { load: self.load, oldest, host })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(last: u8) -> HostId {
        HostId::from_address(std::net::Ipv4Addr::new(127, 0, 0, last).into())
    }

    fn load(sessions: u64) -> Load {
        Load { has_failed: false, sessions }
    }

    fn channel(number: i32) -> ChannelId {
        ChannelId::new(number).unwrap()
    }

    #[test]
    fn the_least_loaded_host_is_first_and_its_longest_waiting_channel() {
        let mut pool = Pool::default();
        let mut turn = Turn::default();
        pool.add(host(1), load(2), turn.next(), channel(1), ());
        pool.add(host(2), load(1), turn.next(), channel(2), ());
        pool.add(host(2), load(1), turn.next(), channel(3), ());
        assert_eq!(pool.take(|_| true), Some((host(2), channel(2), ())));
        pool.set_load(host(2), load(3));
        assert_eq!(pool.take(|_| true), Some((host(1), channel(1), ())));
        assert_eq!(pool.take(|_| true), Some((host(2), channel(3), ())));
        assert_eq!(pool.take(|_| true), None);
    }

    #[test]
    fn a_host_that_has_failed_is_last() {
        let mut pool = Pool::default();
        let mut turn = Turn::default();
        pool.add(host(1), Load { has_failed: true, sessions: 0 }, turn.next(), channel(1), ());
        pool.add(host(2), load(9), turn.next(), channel(2), ());
        assert_eq!(pool.take(|_| true), Some((host(2), channel(2), ())));
        assert_eq!(pool.take(|_| true), Some((host(1), channel(1), ())));
    }

    #[test]
    fn among_equals_the_channel_that_has_waited_longest_is_first() {
        let mut pool = Pool::default();
        let mut turn = Turn::default();
        pool.add(host(2), load(0), turn.next(), channel(7), ());
        pool.add(host(1), load(0), turn.next(), channel(8), ());
        assert_eq!(pool.take(|_| true), Some((host(2), channel(7), ())));
    }

    #[test]
    fn a_host_that_may_not_serve_is_passed_over() {
        let mut pool = Pool::default();
        let mut turn = Turn::default();
        pool.add(host(1), load(0), turn.next(), channel(1), ());
        pool.add(host(2), load(5), turn.next(), channel(2), ());
        assert_eq!(pool.take(|it| it != host(1)), Some((host(2), channel(2), ())));
        assert_eq!(pool.take(|it| it != host(1)), None);
        assert_eq!(pool.take_all_of(host(1)), [(channel(1), ())]);
        assert!(pool.is_empty());
    }

    #[test]
    fn a_lost_channel_is_not_given_out() {
        let mut pool = Pool::default();
        let mut turn = Turn::default();
        let lost = turn.next();
        pool.add(host(1), load(0), lost, channel(1), ());
        pool.add(host(1), load(0), turn.next(), channel(2), ());
        assert_eq!(pool.remove(host(1), lost), Some(()));
        assert_eq!(pool.remove(host(1), lost), None);
        assert_eq!(pool.take(|_| true), Some((host(1), channel(2), ())));
        assert!(pool.is_empty());
    }
}
