//! The keeper's part about data channels: those under way, those that are idle, and which are too many.

use std::cmp::Reverse;
use std::time::Duration;

use super::backoff::{Failure, SETTLED};
use super::pool::Pool;
use super::{ANNOUNCEMENT_GRACE, BACKLOG_MAX, Command, EARLY_MAX, Keeper, Output, PoolIndex, Slot};
use crate::time::Time;

/// How often the relay is told to close idle channels that are too many, and which part of them, one in so many: of 256 eight are left after 10 s.
const SURPLUS_INTERVAL: Duration = Duration::from_secs(2);
const SURPLUS_PARTS: usize = 2;

/// A data channel that the keeper holds.
pub(super) enum Channel {
    Dialling {
        round: u64,
        pool: PoolIndex,
    },
    /// Waits for a client.
    Idle(Idle),
    /// Ended without a byte; an announcement may say that a session did.
    Ended {
        at: Time,
        idle: Idle,
    },
}

/// A channel that the relay has answered.
#[derive(Clone, Copy)]
pub(super) struct Idle {
    id: i32,
    pub(super) pool: PoolIndex,
    pub(super) since: Time,
    /// That of the dial that brought it. One that has carried a session before is in none, and has no say about what becomes of dials.
    pub(super) round: Option<u64>,
}

impl Channel {
    pub(super) fn pool(&self) -> PoolIndex {
        match self {
            Channel::Dialling { pool, .. } => *pool,
            Channel::Idle(idle) | Channel::Ended { idle, .. } => idle.pool,
        }
    }

    /// Whether it has carried a session before.
    pub(super) fn was_returned(&self) -> bool {
        matches!(self, Channel::Idle(idle) | Channel::Ended { idle, .. } if idle.round.is_none())
    }
}

/// What happens to them.
impl Keeper {
    /// The relay answered the hello: the channel, which announcements will call `id`, is idle.
    pub fn handle_answered(&mut self, now: Time, slot: Slot, id: i32) {
        if let Some(Channel::Dialling { round, pool }) = self.channels.get(&slot) {
            let idle = Idle { id, pool: *pool, since: now, round: Some(*round) };
            self.backoff.answered(*round);
            self.channel_was_answered = true;
            self.dialling -= 1;
            self.channels.insert(slot, Channel::Idle(idle));
            self.by_id.insert(id, slot);
            if let Some(at) = self.early.iter().position(|early| *early == id) {
                self.early.remove(at);
                self.open(slot);
                self.outputs.push_back(Output::Open(slot));
            }
        }
        self.decide(now);
    }

    /// The channel did not come to an answer.
    pub fn handle_failed(&mut self, now: Time, slot: Slot, failure: Failure) {
        if let Some(Channel::Dialling { round, .. }) = self.channels.get(&slot) {
            self.backoff.failed(now, *round, failure, &mut self.dice);
            self.take(slot);
        }
        self.decide(now);
    }

    /// The relay announced a session on the channel that it calls `id`.
    pub fn handle_announced(&mut self, now: Time, id: i32) {
        if let Some(&slot) = self.by_id.get(&id) {
            self.open(slot);
            self.outputs.push_back(Output::Open(slot));
        } else if self.dialling > 0 {
            if self.early.len() == EARLY_MAX {
                self.early.pop_front();
            }
            self.early.push_back(id);
        }
        self.decide(now);
    }

    /// The session's first byte came on an idle channel, which is with the application already.
    pub fn handle_first_byte(&mut self, now: Time, slot: Slot) {
        self.open(slot);
        self.decide(now);
    }

    /// An idle channel ended (FIN) without a byte.
    pub fn handle_ended(&mut self, now: Time, slot: Slot) {
        if let Some(&Channel::Idle(idle)) = self.channels.get(&slot) {
            self.channels.insert(slot, Channel::Ended { at: now, idle });
            self.ended.insert((now, slot));
            // In version 2 nothing is announced.
            if self.channels_need_command || !self.command_is_up() {
                self.give_up_ended(now, slot);
            }
        }
        self.decide(now);
    }

    /// An idle channel failed.
    pub fn handle_lost(&mut self, now: Time, slot: Slot) {
        if let Some(Channel::Idle(idle) | Channel::Ended { idle, .. }) = self.take(slot) {
            self.lost(now, idle, now - idle.since);
        }
        self.decide(now);
    }

    /// The connection that asked for a command channel has become a data channel, which announcements will call `id`: the relay is
    /// an original. `None` where no more channels are wanted.
    pub fn handle_adopted(&mut self, now: Time, id: i32) -> Option<Slot> {
        let Command::Dialling { round, .. } = self.command else {
            return None;
        };
        self.backoff.answered(round);
        if self.leaving || self.room() == 0 {
            return None;
        }
        let pool = self.emptiest()?;
        let round = Some(round);
        let slot = self.hold(pool, Channel::Idle(Idle { id, pool, since: now, round }));
        self.by_id.insert(id, slot);
        Some(slot)
    }

    /// Whether a channel of this pool whose session ends now is to carry another. That is said with the session's end: the relay gives a
    /// channel that stays to the next client before it could hear that it is closed.
    ///
    /// There may be more of them than the pool is to hold, up to twice its upper bound, which is for dials: they are what the next clients
    /// find without one, and what is not needed goes little by little.
    pub fn wants_back(&self, pool: PoolIndex) -> bool {
        // Else clients wait at the relay, where another host may take them.
        let keeps_up = self.backlog < BACKLOG_MAX;
        let has_place = self.pools.get(pool).is_some_and(Pool::has_place);
        self.may_come_back(pool) && keeps_up && has_place
    }

    /// A channel of this pool, which the relay calls `id`, has carried a session to its end and can carry another: it is idle. It belongs
    /// to the command channel that is up, which is for the caller to know: the relay takes none of an earlier one back. `None` where it
    /// is of no use, and to be closed. One that [was wanted](Keeper::wants_back) when its session ended is taken though there is no
    /// place any more.
    ///
    /// The relay may close it at once: it has suspected the host meanwhile, say. That is no failure, and costs what a session costs
    /// whose channel cannot be used again: another dial. What becomes of that one counts, so a relay that closes whatever it has
    /// is still left alone for longer and longer. Nor does it speak for a relay that its channel stays idle there, or is used again: new
    /// ones may fare otherwise.
    pub fn handle_returned(&mut self, now: Time, pool: PoolIndex, id: i32) -> Option<Slot> {
        // Far more than any that were wanted at one moment: what then comes is too much.
        let is_too_much = self.pools.get(pool).is_some_and(Pool::is_overfull);
        let slot = (self.may_come_back(pool) && !is_too_much).then(|| {
            let idle = Idle { id, pool, since: now, round: None };
            let slot = self.hold(pool, Channel::Idle(idle));
            self.by_id.insert(id, slot);
            slot
        });
        self.decide(now);
        slot
    }
}

impl Keeper {
    pub(super) fn hold(&mut self, pool: PoolIndex, channel: Channel) -> Slot {
        let slot = Slot(self.next_slot);
        self.next_slot += 1;
        self.channels.insert(slot, channel);
        self.pools.iter_mut().skip(pool).take(1).for_each(|pool| pool.held += 1);
        slot
    }

    /// Whether a channel of this pool that has carried a session may wait for another.
    fn may_come_back(&self, pool: PoolIndex) -> bool {
        self.can_tell_relay() && !self.pools.get(pool).is_none_or(Pool::is_paused)
    }

    /// Whether there is a relay of version 2 to talk to, for a host that stays.
    pub(super) fn can_tell_relay(&self) -> bool {
        self.channels_need_command && self.command_is_up() && !self.leaving
    }

    /// How many more channels the application's backlog allows. What one pool has too many takes no place of the others.
    pub(super) fn room(&self) -> usize {
        let wanted: usize = self.pools.iter().map(Pool::target).sum();
        let lacking: usize = self.pools.iter().map(Pool::lacking).sum();
        let room = BACKLOG_MAX.max(wanted).saturating_sub(self.backlog + wanted - lacking);
        lacking.min(room)
    }

    /// The pool that lacks the most channels; the first of those that do. `None` where all are full.
    pub(super) fn emptiest(&self) -> Option<PoolIndex> {
        let lacking = self.pools.iter().map(Pool::lacking);
        let (lacking, index) = lacking.enumerate().map(|(at, it)| (it, Reverse(at))).max()?;
        (lacking > 0).then_some(index.0)
    }

    /// Has the relay close a part of what is idle beyond what is wanted, now and then. The relay does it, since only it knows which of them it
    /// is just giving to a client. What was used in between is not too many: it would be dialled again.
    ///
    /// A relay of version 1 cannot be told. What is too many there stays until it is used.
    pub(super) fn tell_surplus(&mut self, now: Time) {
        if !self.can_tell_relay() {
            self.surplus_at = None;
            self.pools.iter_mut().for_each(Pool::forget_surplus);
            return;
        }
        self.pools.iter_mut().for_each(Pool::look_at_spare);
        match self.surplus_at {
            Some(at) if at > now => return,
            Some(_) => {
                for (index, pool) in self.pools.iter_mut().enumerate() {
                    let surplus = pool.end_span(SURPLUS_PARTS);
                    if surplus > 0 {
                        self.outputs.push_back(Output::Surplus(index, surplus));
                    }
                }
            }
            None => {}
        }
        self.pools.iter_mut().for_each(Pool::begin_span);
        let has_surplus = self.pools.iter().any(Pool::has_surplus);
        self.surplus_at = has_surplus.then_some(now + SURPLUS_INTERVAL);
    }

    pub(super) fn close_where(&mut self, is_meant: impl Fn(&Channel) -> bool) {
        let meant = self.channels.iter().filter(|(_, it)| is_meant(it));
        let meant: Vec<Slot> = meant.map(|(slot, _)| *slot).collect();
        for slot in meant {
            self.take(slot);
            self.outputs.push_back(Output::Close(slot));
        }
    }

    /// What is idle at a relay that has left is of no use at the next, and takes a place in its pool.
    pub(super) fn close_of_relays_that_left(&mut self) {
        let left: Vec<Slot> =
            self.channels.range(..self.first_of_relay).map(|(slot, _)| *slot).collect();
        for slot in left {
            self.take(slot);
            self.outputs.push_back(Output::Close(slot));
        }
    }

    /// Gives up those that ended without a byte: where there is a time, those whose announcement must have come by then.
    pub(super) fn give_up_ended_before(&mut self, now: Time, bound: Option<Time>) {
        let is_over = |at: Time| bound.is_none_or(|bound| at + ANNOUNCEMENT_GRACE <= bound);
        let ended = self.ended.iter().take_while(|(at, _)| is_over(*at));
        let ended: Vec<Slot> = ended.map(|(_, slot)| *slot).collect();
        for slot in ended {
            self.give_up_ended(now, slot);
        }
    }

    /// When the relay is proven again by an idle channel that it has not closed, where it has closed some before.
    pub(super) fn trial_ends_at(&self) -> Option<Time> {
        self.on_trial().filter_map(|(idle, ended)| (!ended).then_some(idle.since + SETTLED)).min()
    }

    /// The channels by which a relay that answers and has closed channels is judged, and whether they have ended.
    pub(super) fn on_trial(&self) -> impl Iterator<Item = (Idle, bool)> {
        let is_on_trial = self.backoff.has_answered() && !self.backoff.is_proven();
        // Most of the time none is, and each call asks.
        let channels = is_on_trial.then(|| self.channels.values()).into_iter().flatten();
        let answered = channels.filter_map(|channel| match *channel {
            Channel::Idle(idle) => Some((idle, false)),
            Channel::Ended { idle, .. } => Some((idle, true)),
            Channel::Dialling { .. } => None,
        });
        answered.filter(|(idle, _)| idle.round == Some(self.backoff.round()))
    }

    fn open(&mut self, slot: Slot) {
        if let Some(Channel::Idle(idle) | Channel::Ended { idle, .. }) = self.take(slot) {
            if let Some(round) = idle.round {
                self.backoff.settled(round);
            }
            self.backlog += 1;
        }
    }

    /// An idle channel that had lived for `age` is lost. That is no failure where the relay was told to close one. Which it has closed cannot be
    /// told from others, so as many losses are none.
    fn lost(&mut self, now: Time, idle: Idle, age: Duration) {
        let was_told_to = self.pools.get_mut(idle.pool).is_some_and(Pool::take_told);
        if let Some(round) = idle.round
            && !was_told_to
        {
            self.backoff.lost(now, round, age, &mut self.dice);
        }
    }

    fn give_up_ended(&mut self, now: Time, slot: Slot) {
        if let Some(Channel::Ended { at, idle }) = self.take(slot) {
            self.lost(now, idle, at - idle.since);
            self.outputs.push_back(Output::Close(slot));
        }
    }

    fn take(&mut self, slot: Slot) -> Option<Channel> {
        let taken = self.channels.remove(&slot)?;
        self.pools.iter_mut().skip(taken.pool()).take(1).for_each(|pool| pool.held -= 1);
        if let Channel::Ended { at, .. } = taken {
            self.ended.remove(&(at, slot));
        }
        match taken {
            Channel::Dialling { .. } => self.dialling -= 1,
            Channel::Idle(Idle { id, .. }) | Channel::Ended { idle: Idle { id, .. }, .. } => {
                if self.by_id.get(&id) == Some(&slot) {
                    self.by_id.remove(&id);
                }
            }
        }
        Some(taken)
    }
}
