//! The host side's decisions: how many channels to hold, when to dial again.
//!
//! The host process tells the [`Keeper`] what happened and when, performs what [`Keeper::poll_output`] says, and comes back at
//! [`Keeper::poll_timeout`]. Nothing in here dials, waits, or knows what a session does with its bytes.

mod backoff;
mod channels;
mod pool;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::limits::DIAL_TIMEOUT;
use crate::time::Time;

use backoff::{Backoff, CEILING_MAX, SETTLED, delay, some_of};
pub use backoff::{Dice, Failure};
use channels::Channel;
use pool::Pool;
pub use pool::PoolBounds;

/// How many data channels may be under way to their answer at once at a relay of version 1. A pool of any size is filled within a
/// few round trips, and 32 hosts behind one address stay within what a relay allows that address.
pub const DIALLING_MAX: usize = 32;

/// The same at a relay of version 2, which asks for many only where many clients wait, and has connections wait their turn where
/// there are too many.
pub const DIALLING_V2_MAX: usize = 256;

/// How many opened sessions may wait for the application to accept them, as with a listening socket; or as many as the pools are to
/// hold, where that is more. Beyond it clients wait at the relay, where another host may take them.
pub const BACKLOG_MAX: usize = 128;

/// How many announcements are remembered for channels whose answer has not come yet. At one address many hosts may hear
/// each other's; those that came in one round trip are enough.
pub const EARLY_MAX: usize = 1024;

/// A relay that is back after no time at all is still spared all of its hosts in the same moment.
const PAUSE_SMEAR_MIN: Duration = Duration::from_millis(500);

/// A dial of the command channel that is older than this when the network changes is begun anew: its packets were lost, and the
/// system sends them again seconds later. A younger one is repeated by the system in time.
const STALE_DIAL: Duration = Duration::from_millis(500);

/// How long a host's arrival may take: its dials are under way together, and the slowest usable link has some round trips in it.
const ARRIVAL: Duration = Duration::from_secs(1);

/// How much later than its relay said a host comes back at most. The relay has spread its hosts already.
const RETURN_SMEAR: Duration = Duration::from_millis(200);

/// How long an idle channel that ended without a byte is kept for its announcement, which travels on another connection: a
/// client may connect and send its end at once, to be spoken to. Several round trips of the slowest usable link.
pub const ANNOUNCEMENT_GRACE: Duration = Duration::from_secs(1);

/// Names a data channel on this side, from its dial on. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u64);

/// One of the pools that a host keeps, one a service, by its place in the list that the [`Keeper`] was made with.
pub type PoolIndex = usize;

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Dial the command channel.
    DialCommand,
    /// Give up dialling the command channel.
    AbandonCommand,
    /// Dial a data channel and say hello on it, for this pool.
    DialChannel(Slot, PoolIndex),
    /// A session opened on this channel: hand it to the application. The keeper is done with it.
    Open(Slot),
    /// Close this channel, or give up dialling it. The keeper is done with it.
    Close(Slot),
    /// Tell the relay, of version 2, to close so many idle channels of this pool. Fewer may be idle: those under way are counted as well.
    Surplus(PoolIndex, usize),
}

/// The state of a host towards its relay.
pub struct Keeper {
    pools: Vec<Pool>,
    dice: Dice,
    backoff: Backoff,
    command: Command,
    /// Command channels lost since one settled.
    command_losses: u32,
    /// Whether a channel takes what only a live command channel has told, as in version 2.
    channels_need_command: bool,
    /// Whether a channel was answered since the command channel was.
    channel_was_answered: bool,
    /// Until when the relay wants to be left alone.
    held_until: Time,
    channels: BTreeMap<Slot, Channel>,
    /// Those of them that have ended, and when. There are few or none, and each call asks for them.
    ended: BTreeSet<(Time, Slot)>,
    dialling: usize,
    /// The answered channels by the id that announcements call them.
    by_id: BTreeMap<i32, Slot>,
    next_slot: u64,
    early: VecDeque<i32>,
    /// When a dial was given up last because the network had changed.
    abandoned_at: Option<Time>,
    /// Channels that were dialled before this one are at a relay that has left.
    first_of_relay: Slot,
    /// When the relay is told next to close channels that are too many.
    surplus_at: Option<Time>,
    backlog: usize,
    leaving: bool,
    outputs: VecDeque<Output>,
}

enum Command {
    Down { retry_at: Time },
    Dialling { round: u64, since: Time },
    Up { since: Time },
}

impl Keeper {
    /// A host with such pools, which has dialled nothing yet: [`handle_timeout`](Keeper::handle_timeout) starts it.
    pub fn new(pools: &[PoolBounds], dice: Dice) -> Keeper {
        Keeper {
            pools: pools.iter().copied().map(Pool::new).collect(),
            dice,
            backoff: Backoff::default(),
            command: Command::Down { retry_at: Time::ZERO },
            command_losses: 0,
            channels_need_command: false,
            channel_was_answered: false,
            held_until: Time::ZERO,
            channels: BTreeMap::new(),
            ended: BTreeSet::new(),
            dialling: 0,
            by_id: BTreeMap::new(),
            next_slot: 0,
            early: VecDeque::new(),
            abandoned_at: None,
            first_of_relay: Slot(0),
            surplus_at: None,
            backlog: 0,
            leaving: false,
            outputs: VecDeque::new(),
        }
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether [`poll_output`](Keeper::poll_output) has something to give.
    pub fn has_output(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// When to call [`handle_timeout`](Keeper::handle_timeout), if nothing else happens before.
    pub fn poll_timeout(&self) -> Option<Time> {
        let ended = self.ended.first().map(|(at, _)| *at + ANNOUNCEMENT_GRACE);
        let own = [self.next_try(), self.hold_ends_at(), self.trial_ends_at(), self.surplus_at];
        own.into_iter().chain([ended]).flatten().min()
    }

    /// When the relay is dialled again, where that is not now.
    pub fn next_try(&self) -> Option<Time> {
        if self.leaving {
            return None;
        }
        let command = match self.command {
            Command::Down { retry_at } if self.may_dial_command() => Some(retry_at),
            Command::Down { .. } | Command::Dialling { .. } | Command::Up { .. } => None,
        };
        // The later of the two; `None` is earlier than any time.
        let due = command.max(self.backoff.retry_at())?;
        Some(due.max(self.held_until))
    }

    /// Whether clients can be served, or would be if no pool were paused: the command channel is up, and there are channels, or the
    /// relay answers for more.
    pub fn is_ready(&self) -> bool {
        let has_channels =
            self.channels.len() > self.dialling || self.pools.iter().all(|pool| pool.target() == 0);
        // In version 2 an answer on the command channel is one, too; what clients can use are channels.
        let had_channels = match self.channels_need_command {
            true => self.channel_was_answered,
            false => self.backoff.has_answered(),
        };
        self.command_is_up() && (has_channels || had_channels)
    }

    /// Whether the command channel has only just come up and channels that were dialled with it are still under way: what becomes of the
    /// host is not known before.
    pub fn is_arriving(&self, now: Time) -> bool {
        let came_up = matches!(self.command, Command::Up { since } if now < since + ARRIVAL);
        came_up && self.dialling > 0
    }

    /// How many channels are held: idle, or under way.
    pub fn channels_len(&self) -> usize {
        self.channels.len()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time) {
        self.give_up_ended_before(now, Some(now));
        self.decide(now);
    }

    /// The command channel is connected (version 1). That proves nothing yet: the relay has not said a word.
    pub fn handle_command_up(&mut self, now: Time) {
        self.channels_need_command = false;
        if matches!(self.command, Command::Dialling { .. }) {
            self.command = Command::Up { since: now };
            self.pools.iter_mut().for_each(Pool::forget_wanted);
        }
        self.decide(now);
    }

    /// The command channel is connected, and the relay has answered on it (version 2): it is proven.
    pub fn handle_command_answered(&mut self, now: Time) {
        self.channels_need_command = true;
        self.channel_was_answered = false;
        if let Command::Dialling { round, .. } = self.command {
            self.backoff.answered(round);
            self.backoff.settled(round);
            self.command = Command::Up { since: now };
            self.pools.iter_mut().for_each(Pool::forget_wanted);
        }
        self.close_of_relays_that_left();
        self.decide(now);
    }

    /// Nothing was heard of the relay for so long that it may have given this host's channels up: what is idle is closed,
    /// unread, and the command channel is dialled anew.
    pub fn handle_silence(&mut self, now: Time) {
        self.close_where(|channel| !matches!(channel, Channel::Dialling { .. }));
        if let Command::Up { since } = self.command {
            let delay = self.delay_after_loss(now, since);
            self.command = Command::Down { retry_at: now + delay };
            self.outputs.push_back(Output::AbandonCommand);
        }
        self.decide(now);
    }

    /// The relay wants to be left alone for `pause`: nothing is dialled until then, and a while by chance beyond it, so that not
    /// all hosts come back at once.
    pub fn handle_pause(&mut self, now: Time, pause: Duration) {
        let beyond = some_of(pause.max(PAUSE_SMEAR_MIN), &mut self.dice);
        self.held_until = self.held_until.max(now + pause + beyond);
    }

    /// The relay is leaving, and wants its hosts back after `pause`. The command channel that was up is another's matter from now on:
    /// sessions run by it. A new one is dialled when the time has come; once it is up, what is still idle at the old relay is closed.
    pub fn handle_relay_leaving(&mut self, now: Time, pause: Duration) {
        let beyond = some_of(RETURN_SMEAR, &mut self.dice);
        self.held_until = self.held_until.max(now + pause + beyond);
        if let Command::Up { since } = self.command {
            self.close_where(|channel| matches!(channel, Channel::Dialling { .. }));
            self.first_of_relay = Slot(self.next_slot);
            // A relay that leaves as soon as it is there is left alone for longer and longer.
            let delay = self.delay_after_loss(now, since);
            self.command = Command::Down { retry_at: now + delay };
            self.early.clear();
        }
        self.decide(now);
    }

    /// What may have kept the relay away is over, as where the network has changed or the machine has woken up: it is dialled at once
    /// where it was away, and a dial that may have lost its packets is begun anew. Whoever calls this sees to it that it is not called without end.
    pub fn handle_return(&mut self, now: Time) {
        if self.backoff.forgive_absence()
            && let Command::Down { retry_at } = &mut self.command
        {
            *retry_at = now;
        }
        if let Command::Dialling { since, .. } = self.command
            && now - since >= STALE_DIAL
            // A network that changes all the time lets every dial come to its end.
            && self.abandoned_at.is_none_or(|at| now - at >= DIAL_TIMEOUT)
        {
            self.abandoned_at = Some(now);
            self.command = Command::Down { retry_at: now };
            self.outputs.push_back(Output::AbandonCommand);
        }
        self.decide(now);
    }

    /// The relay wants so many idle channels in this pool.
    pub fn handle_wanted(&mut self, now: Time, pool: PoolIndex, idle: usize) {
        if let Some(pool) = self.pools.get_mut(pool) {
            pool.set_wanted(idle);
        }
        self.decide(now);
    }

    /// Sessions of this pool are not to be had for now, or again. What is idle or under way is closed.
    pub fn handle_paused(&mut self, now: Time, pool: PoolIndex, is_paused: bool) {
        if let Some(paused) = self.pools.get_mut(pool) {
            paused.set_paused(is_paused);
        }
        if is_paused {
            self.close_where(|channel| channel.pool() == pool);
        }
        self.decide(now);
    }

    /// Dialling the command channel failed.
    pub fn handle_command_failed(&mut self, now: Time, failure: Failure) {
        if let Command::Dialling { round, .. } = self.command {
            self.command = Command::Down { retry_at: now };
            self.backoff.failed(now, round, failure, &mut self.dice);
        }
        self.decide(now);
    }

    /// The command channel was closed, failed, or said what cannot be understood. Idle channels stay.
    pub fn handle_command_lost(&mut self, now: Time) {
        if let Command::Up { since } = self.command {
            // The next one may be another relay's, with the same ids for other channels.
            self.early.clear();
            // Its own count: two hosts at an original relay chase each other's command channel out, and nothing else.
            let losses = self.command_lost_since(now, since);
            let delay = delay(losses, CEILING_MAX, &mut self.dice);
            self.command = Command::Down { retry_at: now + delay };
            self.give_up_ended_before(now, None);
        }
        self.decide(now);
    }

    /// How many opened sessions the application has not accepted yet. The keeper adds those that open until it is told
    /// again.
    pub fn handle_backlog(&mut self, now: Time, backlog: usize) {
        self.backlog = backlog;
        self.decide(now);
    }

    /// The host leaves: its idle channels are closed, and nothing is dialled any more. The command channel stays for those
    /// sessions that run, since a relay may take a host without one for lost.
    pub fn handle_drain(&mut self) {
        self.leaving = true;
        self.dialling = 0;
        self.pools.iter_mut().for_each(|pool| pool.held = 0);
        self.surplus_at = None;
        self.by_id.clear();
        self.early.clear();
        self.ended.clear();
        for slot in std::mem::take(&mut self.channels).into_keys() {
            self.outputs.push_back(Output::Close(slot));
        }
        if let Command::Dialling { .. } = self.command {
            self.command = Command::Down { retry_at: Time::ZERO };
            self.outputs.push_back(Output::AbandonCommand);
        }
    }

    /// Panics where the state contradicts itself. For tests.
    #[doc(hidden)]
    pub fn check_invariants(&self) {
        let dialling = |channel: &&Channel| matches!(channel, Channel::Dialling { .. });
        assert_eq!(self.channels.values().filter(dialling).count(), self.dialling);
        for (index, pool) in self.pools.iter().enumerate() {
            let held = self.channels.values().filter(|channel| channel.pool() == index).count();
            assert_eq!(pool.held, held, "a pool's channels are counted");
            let of_pool = |it: &&Channel| it.pool() == index && !it.was_returned();
            let dialled = self.channels.values().filter(of_pool).count();
            assert!(
                dialled <= pool.bounds().max,
                "more channels dialled than the pool's upper bound"
            );
            assert!(!pool.is_paused() || held == 0, "a paused pool has channels");
            let says_so = !pool.has_surplus() || self.surplus_at.is_some();
            assert!(says_so || !self.can_tell_relay(), "what is too many is to be closed");
        }
        let dialling_max = DIALLING_MAX.max(DIALLING_V2_MAX);
        assert!(self.dialling <= dialling_max, "too many dials at once");
        assert!(self.early.len() <= EARLY_MAX, "too many early announcements");
        assert!(self.early.is_empty() || self.dialling > 0, "early announcements for nobody");
        assert!(self.by_id.len() <= self.channels.len() - self.dialling, "an id without a channel");
        assert!(self.by_id.values().all(|slot| self.channels.contains_key(slot)));
        let ended = self.channels.iter().filter_map(|(slot, channel)| match channel {
            Channel::Ended { at, .. } => Some((*at, *slot)),
            Channel::Dialling { .. } | Channel::Idle(_) => None,
        });
        assert!(ended.collect::<BTreeSet<_>>() == self.ended, "the ended channels are others");
        assert!(!self.leaving || (self.channels.is_empty() && self.next_try().is_none()));
    }

    fn decide(&mut self, now: Time) {
        if self.dialling == 0 {
            self.early.clear();
        }
        if self.trial_ends_at().is_some_and(|at| at <= now) {
            self.backoff.settled(self.backoff.round());
        }
        if self.held_until <= now {
            self.held_until = Time::ZERO;
        }
        self.tell_surplus(now);
        if self.leaving || self.held_until > now || !self.backoff.is_over(now) {
            return;
        }
        let round = self.backoff.round();
        if let Command::Down { retry_at } = self.command
            && retry_at <= now
            && self.may_dial_command()
        {
            self.command = Command::Dialling { round, since: now };
            self.outputs.push_back(Output::DialCommand);
        }
        for _ in 0..self.dials_allowed().min(self.room()) {
            let Some(pool) = self.emptiest() else {
                break;
            };
            self.dialling += 1;
            let slot = self.hold(pool, Channel::Dialling { round, pool });
            self.outputs.push_back(Output::DialChannel(slot, pool));
        }
    }

    /// How long to wait after the loss of a command channel that was up since then: not at all, where that is not all that this relay
    /// does.
    fn delay_after_loss(&mut self, now: Time, since: Time) -> Duration {
        match self.command_lost_since(now, since) {
            0 => Duration::ZERO,
            losses => delay(losses, CEILING_MAX, &mut self.dice),
        }
    }

    /// Counts the loss of a command channel that was up since then, and gives how many there were before since one settled.
    fn command_lost_since(&mut self, now: Time, since: Time) -> u32 {
        let before = if now - since >= SETTLED { 0 } else { self.command_losses };
        self.command_losses = before.saturating_add(1);
        before
    }

    fn hold_ends_at(&self) -> Option<Time> {
        (self.held_until > Time::ZERO && !self.leaving).then_some(self.held_until)
    }

    fn command_is_up(&self) -> bool {
        matches!(self.command, Command::Up { .. })
    }

    /// While the relay is not proven, one dial at a time.
    fn may_dial_command(&self) -> bool {
        self.backoff.is_proven() || self.dialling == 0
    }

    fn dials_allowed(&self) -> usize {
        let command_is_up = self.command_is_up();
        if self.channels_need_command && !command_is_up {
            return 0;
        }
        if self.backoff.is_proven() {
            let max = if self.channels_need_command { DIALLING_V2_MAX } else { DIALLING_MAX };
            return max.saturating_sub(self.dialling);
        }
        // The command channel comes first: what opens before it is up is not announced to us. And where the relay has closed
        // channels that it had answered, the next one is watched until it has settled.
        let watches_one = self.on_trial().next().is_some();
        usize::from(command_is_up && self.dialling == 0 && !watches_one)
    }
}
