//! A host process without sockets, driven by a keeper.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use relayserver_core::Time;
use relayserver_core::keeper::{
    BACKLOG_MAX, Dice, Failure, Keeper, Output, PoolBounds, PoolIndex, Slot,
};

/// A host process without sockets: performs what the keeper says, as far as a test lets it.
pub(crate) struct Host {
    pub(crate) keeper: Keeper,
    pub(crate) now: Time,
    pub(crate) bounds: Vec<PoolBounds>,
    /// How many idle channels the relay wants of each pool, where it has said so.
    pub(crate) wanted: Vec<Option<usize>>,
    pub(crate) paused: Vec<bool>,
    pub(crate) command_dials: usize,
    pub(crate) command_dialling: bool,
    pub(crate) command_up: bool,
    /// Data channels under way, in the order of their dials.
    pub(crate) dialling: Vec<Slot>,
    pub(crate) idle: Vec<Slot>,
    pub(crate) opened: Vec<Slot>,
    /// Those of them whose sessions run.
    pub(crate) serving: Vec<Slot>,
    /// Sessions that the application has not accepted.
    pub(crate) backlog: usize,
    /// What the relay calls those that were returned: as before.
    pub(crate) ids: BTreeMap<Slot, i32>,
    pub(crate) closed: Vec<Slot>,
    /// What the relay was told to close and has not closed: of which pool, and how many.
    pub(crate) surplus: Vec<(PoolIndex, usize)>,
    /// Whether it closes them at once.
    pub(crate) relay_is_prompt: bool,
    pub(crate) dials: usize,
    pub(crate) seen: BTreeSet<Slot>,
    pub(crate) pool_of: BTreeMap<Slot, PoolIndex>,
    pub(crate) leaving: bool,
    /// The command channel was answered last, and not merely connected.
    pub(crate) is_version_2: bool,
    /// Before when the relay wants no dial.
    pub(crate) paused_until: Time,
}

impl Host {
    /// Waits as long as it may: delays are their ceilings.
    pub(crate) fn new(pool_size: usize) -> Host {
        Host::with_dice(pool_size, Box::new(|| u64::MAX))
    }

    pub(crate) fn with_dice(pool_size: usize, dice: Dice) -> Host {
        Host::with_pools(&[pool_size], dice)
    }

    /// Pools that neither grow nor shrink.
    pub(crate) fn with_pools(pool_sizes: &[usize], dice: Dice) -> Host {
        let fixed = |size: &usize| PoolBounds::new(*size, *size);
        Host::with_bounds(pool_sizes.iter().map(fixed).collect(), dice)
    }

    pub(crate) fn with_bounds(bounds: Vec<PoolBounds>, dice: Dice) -> Host {
        let mut host = Host {
            keeper: Keeper::new(&bounds, dice),
            now: Time::ZERO,
            wanted: vec![None; bounds.len()],
            paused: vec![false; bounds.len()],
            bounds,
            command_dials: 0,
            command_dialling: false,
            command_up: false,
            dialling: Vec::new(),
            idle: Vec::new(),
            opened: Vec::new(),
            serving: Vec::new(),
            backlog: 0,
            ids: BTreeMap::new(),
            closed: Vec::new(),
            surplus: Vec::new(),
            relay_is_prompt: true,
            dials: 0,
            seen: BTreeSet::new(),
            pool_of: BTreeMap::new(),
            leaving: false,
            is_version_2: false,
            paused_until: Time::ZERO,
        };
        host.tell(|keeper, now| keeper.handle_timeout(now));
        host
    }

    /// A host whose relay has answered: the pool is full.
    pub(crate) fn ready(pool_size: usize) -> Host {
        let mut host = Host::new(pool_size);
        host.command_comes_up();
        while let Some(&slot) = host.dialling.first() {
            host.answered(slot);
        }
        assert_eq!(host.idle.len(), pool_size);
        host
    }

    pub(crate) fn tell(&mut self, what: impl FnOnce(&mut Keeper, Time)) {
        what(&mut self.keeper, self.now);
        self.keeper.check_invariants();
        while let Some(output) = self.keeper.poll_output() {
            self.perform(output);
        }
        if !self.leaving {
            assert_eq!(self.keeper.channels_len(), self.dialling.len() + self.idle.len());
        }
        if self.relay_is_prompt {
            self.relay_closes_surplus();
        }
        let next = self.keeper.poll_timeout();
        assert!(next.is_none_or(|next| next > self.now), "{next:?} is not after {}", self.now);
    }

    pub(crate) fn perform(&mut self, output: Output) {
        match output {
            Output::DialCommand => {
                assert!(!self.leaving && !self.command_dialling && !self.command_up);
                assert!(self.now >= self.paused_until, "dialled the command channel in a pause");
                self.command_dialling = true;
                self.command_dials += 1;
            }
            Output::AbandonCommand => {
                assert!(self.command_dialling || self.command_up);
                (self.command_dialling, self.command_up) = (false, false);
            }
            Output::DialChannel(slot, pool) => {
                self.pool_of.insert(slot, pool);
                assert!(!self.leaving, "dialled while leaving");
                assert!(self.now >= self.paused_until, "dialled {slot:?} in a pause");
                let has_key = !self.is_version_2 || self.command_up;
                assert!(has_key, "dialled {slot:?} without a command channel");
                assert!(self.seen.insert(slot), "{slot:?} used twice");
                self.dialling.push(slot);
                self.dials += 1;
            }
            Output::Open(slot) => {
                assert!(remove(&mut self.idle, slot), "{slot:?} opened, and is not idle");
                self.opens(slot);
            }
            Output::Close(slot) => {
                assert!(remove(&mut self.idle, slot) || remove(&mut self.dialling, slot));
                self.closed.push(slot);
            }
            Output::Surplus(pool, idle) => {
                assert!(self.command_up && self.is_version_2 && !self.leaving && idle > 0);
                assert!(self.held_in(pool) >= self.target(pool) + idle, "fewer than wanted");
                self.surplus.push((pool, idle));
            }
        }
    }

    /// The relay closes what it was told to, but none of those that it wants: what has waited longest, which it would give out last.
    pub(crate) fn relay_closes_surplus(&mut self) {
        for (pool, idle) in std::mem::take(&mut self.surplus) {
            let spare = self.idle_in(pool).saturating_sub(self.target(pool));
            let of_pool = self.idle.iter().filter(|slot| self.pool_of[slot] == pool);
            let closing: Vec<Slot> = of_pool.take(idle.min(spare)).copied().collect();
            for slot in closing {
                self.closed.push(slot);
                self.lost(slot);
            }
        }
    }

    pub(crate) fn command_comes_up(&mut self) {
        assert!(std::mem::take(&mut self.command_dialling));
        self.command_up = true;
        self.is_version_2 = false;
        self.forget_wanted();
        self.tell(Keeper::handle_command_up);
    }

    pub(crate) fn command_answers(&mut self) {
        assert!(std::mem::take(&mut self.command_dialling));
        self.command_up = true;
        self.is_version_2 = true;
        self.forget_wanted();
        self.tell(Keeper::handle_command_answered);
    }

    pub(crate) fn silence(&mut self) {
        self.tell(Keeper::handle_silence);
    }

    /// How many idle channels a pool is to hold.
    pub(crate) fn target(&self, pool: PoolIndex) -> usize {
        let PoolBounds { min, max } = self.bounds[pool];
        let wanted = self.wanted[pool].map_or(min, |wanted| wanted.clamp(min, max));
        if self.paused[pool] { 0 } else { wanted }
    }

    /// Another relay may have other wishes.
    pub(crate) fn forget_wanted(&mut self) {
        self.wanted.fill(None);
    }

    /// The relay wants so many idle channels.
    pub(crate) fn relay_wants(&mut self, pool: PoolIndex, idle: usize) {
        self.wanted[pool] = Some(idle);
        self.tell(|keeper, now| keeper.handle_wanted(now, pool, idle));
    }

    pub(crate) fn pool_paused(&mut self, pool: PoolIndex, is_paused: bool) {
        self.paused[pool] = is_paused;
        self.tell(|keeper, now| keeper.handle_paused(now, pool, is_paused));
    }

    /// The relay is leaving: what is its command channel now is not the keeper's any more.
    pub(crate) fn relay_leaves(&mut self, pause: Duration) {
        self.command_up = false;
        self.paused_until = self.paused_until.max(self.now + pause);
        self.tell(|keeper, now| keeper.handle_relay_leaving(now, pause));
    }

    pub(crate) fn comes_back(&mut self) {
        self.tell(Keeper::handle_return);
    }

    pub(crate) fn pause(&mut self, pause: Duration) {
        self.paused_until = self.paused_until.max(self.now + pause);
        self.tell(|keeper, now| keeper.handle_pause(now, pause));
    }

    /// What asked for the command channel has become an idle channel, where the keeper wants one.
    pub(crate) fn adopts(&mut self) -> Option<Slot> {
        assert!(self.command_dialling);
        let lacking = |pool: PoolIndex| self.target(pool).saturating_sub(self.held_in(pool));
        let emptiest = (0..self.bounds.len()).rev().max_by_key(|pool| lacking(*pool)).unwrap();
        let room = lacking(emptiest) > 0;
        // Slots are numbered as they come.
        let id = i32::try_from(self.seen.len()).unwrap();
        let adopted = self.keeper.handle_adopted(self.now, id);
        if let Some(slot) = adopted {
            assert!(room, "adopted {slot:?} into full pools");
            assert!(!self.leaving, "adopted while leaving");
            assert!(self.seen.insert(slot), "{slot:?} used twice");
            self.pool_of.insert(slot, emptiest);
            self.idle.push(slot);
        }
        self.tell(|_, _| {});
        adopted
    }

    /// How many there are in a pool, idle or under way.
    pub(crate) fn held_in(&self, pool: PoolIndex) -> usize {
        let held = self.idle.iter().chain(&self.dialling);
        held.filter(|slot| self.pool_of[slot] == pool).count()
    }

    /// How many idle channels there are in a pool.
    pub(crate) fn idle_in(&self, pool: PoolIndex) -> usize {
        self.idle.iter().filter(|slot| self.pool_of[slot] == pool).count()
    }

    pub(crate) fn command_fails(&mut self, failure: Failure) {
        assert!(std::mem::take(&mut self.command_dialling));
        self.tell(|keeper, now| keeper.handle_command_failed(now, failure));
    }

    pub(crate) fn command_lost(&mut self) {
        assert!(std::mem::take(&mut self.command_up));
        self.tell(Keeper::handle_command_lost);
    }

    /// The relay calls the channel as many as dials came before it.
    pub(crate) fn answered(&mut self, slot: Slot) {
        assert!(remove(&mut self.dialling, slot));
        self.idle.push(slot);
        self.tell(|keeper, now| keeper.handle_answered(now, slot, id(slot)));
    }

    pub(crate) fn fails(&mut self, slot: Slot, failure: Failure) {
        assert!(remove(&mut self.dialling, slot));
        self.tell(|keeper, now| keeper.handle_failed(now, slot, failure));
    }

    pub(crate) fn lost(&mut self, slot: Slot) {
        assert!(remove(&mut self.idle, slot));
        self.tell(|keeper, now| keeper.handle_lost(now, slot));
    }

    pub(crate) fn first_byte(&mut self, slot: Slot) {
        assert!(remove(&mut self.idle, slot));
        self.opens(slot);
        self.tell(|keeper, now| keeper.handle_first_byte(now, slot));
    }

    fn opens(&mut self, slot: Slot) {
        self.opened.push(slot);
        self.serving.push(slot);
        self.backlog += 1;
    }

    /// The session of this channel ends in order, and the channel can carry another, where the keeper wants it by then.
    pub(crate) fn returns(&mut self, slot: Slot) -> Option<Slot> {
        let pool = self.pool_of[&slot];
        let is_wanted = self.may_come_back(pool)
            && self.held_in(pool) < 2 * self.bounds[pool].max
            && self.backlog < BACKLOG_MAX;
        assert_eq!(self.keeper.wants_back(pool), is_wanted);
        if is_wanted {
            return self.is_back(slot);
        }
        assert!(remove(&mut self.serving, slot));
        None
    }

    /// It was wanted, and is back.
    pub(crate) fn is_back(&mut self, slot: Slot) -> Option<Slot> {
        assert!(remove(&mut self.serving, slot));
        let (pool, id) = (self.pool_of[&slot], self.id_of(slot));
        let is_of_use = self.may_come_back(pool);
        let returned = self.keeper.handle_returned(self.now, pool, id);
        assert_eq!(returned.is_some(), is_of_use);
        if let Some(slot) = returned {
            assert!(self.seen.insert(slot), "{slot:?} used twice");
            self.pool_of.insert(slot, pool);
            self.ids.insert(slot, id);
            self.idle.push(slot);
        }
        self.tell(|_, _| {});
        returned
    }

    fn may_come_back(&self, pool: usize) -> bool {
        !self.leaving && self.command_up && self.is_version_2 && !self.paused[pool]
    }

    pub(crate) fn announced(&mut self, slot: Slot) {
        let id = self.id_of(slot);
        self.tell(|keeper, now| keeper.handle_announced(now, id));
    }

    fn id_of(&self, slot: Slot) -> i32 {
        self.ids.get(&slot).copied().unwrap_or(id(slot))
    }

    pub(crate) fn ended(&mut self, slot: Slot) {
        self.tell(|keeper, now| keeper.handle_ended(now, slot));
    }

    pub(crate) fn backlog(&mut self, backlog: usize) {
        self.backlog = backlog;
        self.tell(|keeper, now| keeper.handle_backlog(now, backlog));
    }

    pub(crate) fn drain(&mut self) {
        self.leaving = true;
        self.tell(|keeper, _| keeper.handle_drain());
    }

    pub(crate) fn passes(&mut self, time: Duration) {
        self.now = self.now + time;
        self.tell(|keeper, now| keeper.handle_timeout(now));
    }

    /// So much time passes, and the keeper is told whenever it wants to be.
    pub(crate) fn lives_for(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.keeper.poll_timeout().filter(|due| *due <= end) {
            self.passes(due - self.now);
        }
        self.passes(end - self.now);
    }

    /// What time it takes to the next dial; the keeper is told that it has passed.
    pub(crate) fn waits(&mut self) -> Duration {
        let before = (self.dials, self.command_dials);
        let start = self.now;
        while (self.dials, self.command_dials) == before {
            let next = self.keeper.poll_timeout().unwrap_or_else(|| panic!("waits for nothing"));
            self.passes(next - self.now);
        }
        self.now - start
    }
}

pub(crate) fn remove(slots: &mut Vec<Slot>, slot: Slot) -> bool {
    let at = slots.iter().position(|it| *it == slot);
    at.map(|at| slots.remove(at)).is_some()
}

pub(crate) fn id(slot: Slot) -> i32 {
    let text = format!("{slot:?}");
    text.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The delays are just below their ceilings.
pub(crate) fn assert_waits(host: &mut Host, ceiling: Duration) {
    let waited = host.waits();
    assert!(waited <= ceiling && waited + millis(1) > ceiling, "{waited:?}, expected {ceiling:?}");
}

/// Random numbers that a failing case repeats.
pub(crate) fn dice(seed: u64) -> Dice {
    let mut state = seed;
    Box::new(move || {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}
