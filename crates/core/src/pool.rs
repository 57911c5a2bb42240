//! The relay's book of one service's idle channels, per host. The [`Book`](crate::Book) drives it and tells it how loaded
//! each host is; it never decides whether a client may be served, only which channel is next, and which is last.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{ChannelId, HostId};

/// A place in the order in which things happen: clients come, channels come, and hosts are given a client. Never given twice.
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

/// Which of a host's idle channels is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// The one that has waited longest, which is what version 1 says.
    LongestIdle,
    /// The one that came last: it was heard of last, and is still in the processor's caches. The others are there for a burst.
    LastIdle,
}

/// Which of them is meant, in that order.
#[derive(Clone, Copy)]
enum Which {
    Next,
    Last,
}

/// Idle channels, each with the handle by which the relay reaches it.
pub(crate) struct Pool<T> {
    hosts: BTreeMap<HostId, HostPool<T>>,
    /// The hosts that have an idle channel, best first: the least loaded, then the one whose turn it is.
    ranking: BTreeSet<Rank>,
}

struct HostPool<T> {
    load: Load,
    order: Order,
    /// When it was given a client last, or else when the first of its idle channels came. It is forgotten with the last of these.
    turn: Turn,
    idle: BTreeMap<Turn, (ChannelId, T)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    load: Load,
    turn: Turn,
    host: HostId,
}

impl<T> Default for Pool<T> {
    fn default() -> Pool<T> {
        Pool { hosts: BTreeMap::new(), ranking: BTreeSet::new() }
    }
}

impl<T> Pool<T> {
    /// Puts a channel of `host`, which is so loaded now, into the pool. The order of a host never changes.
    pub(crate) fn add(
        &mut self,
        host: HostId,
        load: Load,
        order: Order,
        turn: Turn,
        channel: ChannelId,
        handle: T,
    ) {
        let new = || HostPool { load, order, turn, idle: BTreeMap::new() };
        self.hosts.entry(host).or_insert_with(new);
        self.change(host, |pool| {
            pool.load = load;
            pool.idle.insert(turn, (channel, handle))
        });
    }

    /// Takes one certain channel out: it was lost.
    pub(crate) fn remove(&mut self, host: HostId, turn: Turn) -> Option<T> {
        self.change(host, |pool| pool.idle.remove(&turn)).flatten().map(|(_, handle)| handle)
    }

    /// Takes the channel that is next: of the least loaded host among those that may have it, the one that is next in its order.
    /// The turns of its channels come from `turns` too.
    pub(crate) fn take(
        &mut self,
        turns: &mut Turn,
        may_serve: impl Fn(HostId) -> bool,
    ) -> Option<(HostId, ChannelId, T)> {
        let best = *self.ranking.iter().find(|rank| may_serve(rank.host))?;
        let turn = turns.next();
        let taken = self.change(best.host, |pool| {
            pool.turn = turn;
            pool.pop(Which::Next)
        });
        let (channel, handle) = taken??;
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

    /// Takes up to `count` channels of `host` out, those that would be given out last, and leaves it `kept`.
    pub(crate) fn take_last_of(
        &mut self,
        host: HostId,
        count: usize,
        kept: usize,
    ) -> Vec<(ChannelId, T)> {
        let taken = self.change(host, |pool| {
            let count = count.min(pool.idle.len().saturating_sub(kept));
            std::iter::from_fn(|| pool.pop(Which::Last)).take(count).collect()
        });
        taken.unwrap_or_default()
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
    /// Takes the channel that is given out next, or last.
    fn pop(&mut self, which: Which) -> Option<(ChannelId, T)> {
        let (_, taken) = match (self.order, which) {
            (Order::LongestIdle, Which::Next) | (Order::LastIdle, Which::Last) => {
                self.idle.pop_first()
            }
            (Order::LongestIdle, Which::Last) | (Order::LastIdle, Which::Next) => {
                self.idle.pop_last()
            }
        }?;
        Some(taken)
    }

    fn rank(&self, host: HostId) -> Option<Rank> {
        let Self { load, turn, .. } = *self;
        (!self.idle.is_empty()).then_some(Rank { load, turn, host })
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

    /// A pool, and the order of the hosts whose channels come from now on.
    struct World {
        pool: Pool<()>,
        turns: Turn,
        order: Order,
    }

    impl World {
        fn new(order: Order) -> World {
            World { pool: Pool::default(), turns: Turn::default(), order }
        }

        fn add(&mut self, of: u8, load: Load, number: i32) -> Turn {
            let turn = self.turns.next();
            self.pool.add(host(of), load, self.order, turn, channel(number), ());
            turn
        }

        fn take(&mut self) -> Option<(HostId, ChannelId, ())> {
            self.pool.take(&mut self.turns, |_| true)
        }
    }

    #[test]
    fn the_least_loaded_host_is_first_and_its_next_channel() {
        for (order, numbers) in [(Order::LongestIdle, [2, 1, 3]), (Order::LastIdle, [3, 1, 2])] {
            let mut world = World::new(order);
            world.add(1, load(2), 1);
            world.add(2, load(1), 2);
            world.add(2, load(1), 3);
            let [first, second, third] = numbers.map(channel);
            assert_eq!(world.take(), Some((host(2), first, ())));
            world.pool.set_load(host(2), load(3));
            assert_eq!(world.take(), Some((host(1), second, ())));
            assert_eq!(world.take(), Some((host(2), third, ())));
            assert_eq!(world.take(), None);
        }
    }

    #[test]
    fn a_host_that_has_failed_is_last() {
        let mut world = World::new(Order::LastIdle);
        world.add(1, Load { has_failed: true, sessions: 0 }, 1);
        world.add(2, load(9), 2);
        assert_eq!(world.take(), Some((host(2), channel(2), ())));
        assert_eq!(world.take(), Some((host(1), channel(1), ())));
    }

    #[test]
    fn equals_take_turns() {
        for (order, numbers) in
            [(Order::LongestIdle, [1, 4, 2, 5]), (Order::LastIdle, [3, 5, 2, 6])]
        {
            let mut world = World::new(order);
            for (of, number) in [(2, 1), (2, 2), (2, 3), (1, 4), (1, 5)] {
                world.add(of, load(0), number);
            }
            let [first, second, third, fourth] = numbers.map(channel);
            assert_eq!(world.take(), Some((host(2), first, ())));
            assert_eq!(world.take(), Some((host(1), second, ())));
            // Neither what comes meanwhile nor how long the others have waited makes it another's turn.
            world.add(1, load(0), 6);
            assert_eq!(world.take(), Some((host(2), third, ())));
            assert_eq!(world.take(), Some((host(1), fourth, ())));
        }
    }

    #[test]
    fn equals_of_both_versions_take_turns() {
        let mut world = World::new(Order::LongestIdle);
        for number in 1..=10 {
            world.add(1, load(0), number);
        }
        world.order = Order::LastIdle;
        world.add(2, load(0), 11);
        for (of, order) in [(1, Order::LongestIdle), (2, Order::LastIdle)].repeat(5) {
            assert_eq!(world.take().map(|(taken, ..)| taken), Some(host(of)));
            world.order = order;
            world.add(of, load(0), 12);
        }
    }

    #[test]
    fn hosts_with_one_channel_each_take_turns() {
        let mut world = World::new(Order::LastIdle);
        world.add(1, load(0), 1);
        world.add(2, load(0), 2);
        for _ in 0..3 {
            for of in [1, 2] {
                assert_eq!(world.take(), Some((host(of), channel(of.into()), ())));
                world.add(of, load(0), of.into());
            }
        }
    }

    #[test]
    fn a_host_that_may_not_serve_is_passed_over() {
        let mut world = World::new(Order::LastIdle);
        world.add(1, load(0), 1);
        world.add(2, load(5), 2);
        let World { pool, turns, .. } = &mut world;
        assert_eq!(pool.take(turns, |it| it != host(1)), Some((host(2), channel(2), ())));
        assert_eq!(pool.take(turns, |it| it != host(1)), None);
        assert_eq!(pool.take_all_of(host(1)), [(channel(1), ())]);
        assert!(pool.is_empty());
    }

    #[test]
    fn what_goes_first_would_be_given_out_last() {
        for (order, last) in [(Order::LongestIdle, [5, 3]), (Order::LastIdle, [1, 3])] {
            let mut world = World::new(order);
            for (of, number) in [(1, 1), (2, 2), (1, 3), (2, 4), (1, 5)] {
                world.add(of, load(0), number);
            }
            let expected = last.map(|number| (channel(number), ()));
            assert_eq!(world.pool.take_last_of(host(1), 9, 3), []);
            assert_eq!(world.pool.take_last_of(host(1), 2, 0), expected);
            assert_eq!(world.pool.take_last_of(host(3), 2, 0), []);
            assert_eq!(world.pool.take_last_of(host(1), 9, 0).len(), 1, "all that there are");
            let left: Vec<HostId> = world.pool.hosts().collect();
            assert_eq!(left, [host(2)]);
        }
    }

    #[test]
    fn a_lost_channel_is_not_given_out() {
        for order in [Order::LongestIdle, Order::LastIdle] {
            let mut world = World::new(order);
            let first = world.add(1, load(0), 1);
            world.add(1, load(0), 2);
            let last = world.add(1, load(0), 3);
            for lost in [first, last] {
                assert_eq!(world.pool.remove(host(1), lost), Some(()));
                assert_eq!(world.pool.remove(host(1), lost), None);
            }
            assert_eq!(world.take(), Some((host(1), channel(2), ())));
            assert!(world.pool.is_empty());
        }
    }
}
