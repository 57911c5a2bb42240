//! Whatever happens, in any order.

use std::time::Duration;

use proptest::prelude::*;
use relayserver_core::Time;
use relayserver_core::keeper::{Failure, PoolBounds, Slot};

use crate::host::{Host, dice, millis};

/// What may happen to a host; the numbers choose among what there is.
#[derive(Clone, Debug)]
enum Happening {
    CommandUp,
    CommandAnswered,
    Silence,
    Pause(u64),
    RelayLeaves(u64),
    ComesBack,
    Wanted(usize, usize),
    PoolPaused(usize, bool),
    Adopted,
    CommandFails(bool),
    CommandLost,
    Answered(usize),
    Fails(usize, bool),
    Announced(usize),
    AnnouncedEarly(usize),
    Stranger(i32),
    FirstByte(usize),
    Returned(usize),
    Ended(usize),
    Lost(usize),
    Closes,
    Accept(usize),
    Passes(u64),
    Drain,
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    prop_oneof![
        3 => Just(CommandUp),
        2 => Just(CommandAnswered),
        1 => Just(Silence),
        1 => (0..60_000_u64).prop_map(Pause),
        1 => (0..10_000_u64).prop_map(RelayLeaves),
        1 => Just(ComesBack),
        4 => (0..3_usize, 0..120_usize).prop_map(|(pool, idle)| Wanted(pool, idle)),
        1 => (0..2_usize, any::<bool>()).prop_map(|(pool, paused)| PoolPaused(pool, paused)),
        2 => Just(Adopted),
        1 => any::<bool>().prop_map(CommandFails),
        1 => Just(CommandLost),
        12 => any::<usize>().prop_map(Answered),
        2 => any::<(usize, bool)>().prop_map(|(which, away)| Fails(which, away)),
        6 => any::<usize>().prop_map(Announced),
        1 => any::<usize>().prop_map(AnnouncedEarly),
        1 => any::<i32>().prop_map(Stranger),
        4 => any::<usize>().prop_map(FirstByte),
        4 => any::<usize>().prop_map(Returned),
        2 => any::<usize>().prop_map(Ended),
        2 => any::<usize>().prop_map(Lost),
        2 => Just(Closes),
        4 => (0..20_usize).prop_map(Accept),
        6 => (0..40_000_u64).prop_map(Passes),
    ]
}

fn failure(away: bool) -> Failure {
    if away { Failure::Away } else { Failure::Rejected }
}

fn pick(slots: &[Slot], which: usize) -> Option<Slot> {
    slots.get(which.checked_rem(slots.len())?).copied()
}

impl Host {
    fn live(&mut self, happening: Happening) {
        let opened = self.opened.len();
        match happening {
            Happening::CommandUp if self.command_dialling => self.command_comes_up(),
            Happening::CommandAnswered if self.command_dialling => self.command_answers(),
            Happening::Silence => self.silence(),
            Happening::Pause(pause) => self.pause(millis(pause)),
            Happening::RelayLeaves(pause) if self.command_up => self.relay_leaves(millis(pause)),
            Happening::ComesBack => self.comes_back(),
            Happening::Wanted(pool, idle) if pool < self.bounds.len() => {
                self.relay_wants(pool, idle)
            }
            Happening::PoolPaused(pool, is_paused) if pool < self.bounds.len() => {
                self.pool_paused(pool, is_paused);
            }
            Happening::Adopted if self.command_dialling => drop(self.adopts()),
            Happening::CommandFails(away) if self.command_dialling => {
                self.command_fails(failure(away));
            }
            Happening::CommandLost if self.command_up => self.command_lost(),
            Happening::Closes => self.relay_closes_surplus(),
            Happening::Accept(count) => self.backlog(self.backlog.saturating_sub(count)),
            Happening::Passes(time) => self.passes(millis(time)),
            Happening::Drain if !self.leaving => self.drain(),
            of_channels => self.live_of_channels(of_channels),
        }
        if self.opened.len() > opened {
            self.backlog(self.backlog);
        }
        let most: usize = self.bounds.iter().map(|bounds| 2 * bounds.max).sum();
        assert!(self.idle.len() + self.dialling.len() <= most);
    }

    fn live_of_channels(&mut self, happening: Happening) {
        match happening {
            Happening::Answered(which) => {
                pick(&self.dialling, which).into_iter().for_each(|slot| self.answered(slot));
            }
            Happening::Fails(which, away) => {
                let slot = pick(&self.dialling, which);
                slot.into_iter().for_each(|slot| self.fails(slot, failure(away)));
            }
            Happening::Announced(which) if self.command_up => {
                pick(&self.idle, which).into_iter().for_each(|slot| self.announced(slot));
            }
            Happening::AnnouncedEarly(which) if self.command_up => {
                pick(&self.dialling, which).into_iter().for_each(|slot| self.announced(slot));
            }
            Happening::Stranger(id) => {
                self.tell(|keeper, now| keeper.handle_announced(now, id | i32::MIN));
            }
            Happening::FirstByte(which) => {
                pick(&self.idle, which).into_iter().for_each(|slot| self.first_byte(slot));
            }
            Happening::Returned(which) => {
                if let Some(slot) = pick(&self.serving, which) {
                    self.returns(slot);
                }
            }
            Happening::Ended(which) => {
                pick(&self.idle, which).into_iter().for_each(|slot| self.ended(slot));
            }
            Happening::Lost(which) => {
                pick(&self.idle, which).into_iter().for_each(|slot| self.lost(slot));
            }
            _ => {}
        }
    }

    /// So many sessions run that the relay gave while it was a good one.
    fn serves(&mut self, sessions: usize) {
        self.command_answers();
        while self.serving.len() < sessions {
            self.answered(self.dialling[0]);
            self.first_byte(self.idle[0]);
            self.backlog(0);
        }
    }

    /// What carried one of them is returned, carries another, and is closed when it is returned again.
    fn loses_a_returned_one(&mut self) {
        let slot = *self.serving.last().unwrap();
        if let Some(again) = self.returns(slot) {
            self.first_byte(again);
            self.backlog(0);
            let again = self.returns(again).unwrap();
            self.lost(again);
        }
    }

    /// From now on the relay, which speaks version 2 or not, takes everything, and sessions are accepted.
    fn all_is_well(&mut self, is_version_2: bool) {
        self.backlog(0);
        for pool in 0..self.bounds.len() {
            self.pool_paused(pool, false);
        }
        for _ in 0..10_000 {
            if self.command_dialling && is_version_2 {
                self.command_answers();
            } else if self.command_dialling {
                self.command_comes_up();
            } else if let Some(&slot) = self.dialling.first() {
                self.answered(slot);
            } else if let Some(next) = self.keeper.poll_timeout() {
                self.passes(next - self.now);
            } else {
                break;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happened_the_pool_is_full_again_when_all_is_well(
        pool_size in 1..50_usize,
        seed in any::<u64>(),
        is_version_2 in any::<bool>(),
        wanted in 0..150_usize,
        relay_is_prompt in any::<bool>(),
        happenings in prop::collection::vec(happening(), 0..200),
    ) {
        let bounds = vec![PoolBounds::new(pool_size, 2 * pool_size), PoolBounds::new(3, 3)];
        let mut host = Host::with_bounds(bounds, dice(seed));
        host.relay_is_prompt = relay_is_prompt;
        for happening in happenings {
            host.live(happening);
        }
        host.relay_is_prompt = true;
        host.all_is_well(is_version_2);
        // What it wants counts until there is another relay.
        host.relay_wants(0, wanted);
        host.all_is_well(is_version_2);
        let pool_size = wanted.clamp(pool_size, 2 * pool_size);
        let early = host.opened.len();
        prop_assert!(host.command_up && host.keeper.is_ready());
        for (pool, size) in [(0, pool_size), (1, 3)] {
            let idle = host.idle_in(pool);
            prop_assert!(idle >= size, "{} of {}, {} opened", idle, size, early);
            // A relay of version 1 closes none of those that are too many.
            let most = if host.is_version_2 { size } else { 2 * host.bounds[pool].max };
            prop_assert!(idle <= most, "{} of {}", idle, most);
        }
    }

    #[test]
    fn who_leaves_dials_nothing_whatever_happens(
        seed in any::<u64>(),
        before in prop::collection::vec(happening(), 0..100),
        after in prop::collection::vec(happening(), 0..50),
    ) {
        let mut host = Host::with_dice(10, dice(seed));
        for happening in before.into_iter().chain([Happening::Drain]).chain(after) {
            // `perform` refuses every dial after the drain.
            host.live(happening);
        }
        prop_assert!(host.idle.is_empty() && host.dialling.is_empty());
    }

    #[test]
    fn a_hostile_relay_is_never_dialled_in_a_hot_loop(
        pool_size in 1..50_usize,
        seed in any::<u64>(),
        tricks in prop::collection::vec(0..10_u8, 1..20),
    ) {
        let bounds = vec![PoolBounds::new(pool_size, 2 * pool_size)];
        let mut host = Host::with_bounds(bounds, dice(seed));
        host.serves(50);
        let dials_before = host.dials;
        let (mut trick, minute) = (tricks.iter().cycle(), Time::ZERO + Duration::from_secs(60));
        while host.now < minute {
            if host.command_dialling {
                match trick.next() {
                    Some(0) => host.command_fails(Failure::Rejected),
                    Some(1) => { host.command_comes_up(); host.command_lost(); }
                    Some(6) => { host.command_answers(); host.command_lost(); }
                    Some(7) => { host.command_answers(); host.silence(); }
                    Some(8) => { host.command_answers(); host.pause(millis(1)); host.silence(); }
                    Some(9) => host.command_answers(),
                    _ => host.command_comes_up(),
                }
            } else if let Some(&slot) = host.dialling.first() {
                match trick.next() {
                    Some(9) if !host.serving.is_empty() => host.loses_a_returned_one(),
                    Some(0..=1) => host.fails(slot, Failure::Rejected),
                    Some(2) => { host.answered(slot); host.ended(slot); }
                    _ => { host.answered(slot); host.lost(slot); }
                }
            } else if let Some(next) = host.keeper.poll_timeout() {
                host.passes(next - host.now);
            } else {
                break;
            }
        }
        // A burst while the relay is new and trusted, and then one dial a delay. The worst are relays that answer every
        // second time: that resets the delay. Delays are chance: those of the worst come to 700 dials and some.
        let dials = host.dials - dials_before + host.command_dials;
        prop_assert!(dials <= 2 * pool_size + 800, "{dials} dials in a minute");
    }
}
