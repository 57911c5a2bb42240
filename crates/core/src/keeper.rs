//! The host's decisions: how many data channels to hold, when to dial, when to wait. The relay's book has its twin in here.
//!
//! Whoever drives a [`Keeper`] tells it everything that happens to its connections and performs what [`Keeper::poll`] says,
//! until that is `None`, and comes back at [`Keeper::poll_timeout`].
//!
//! The rules:
//! - There is one command channel, dialled before any data channel.
//! - As many data channels are idle or on their way as the pool is large. A session that opens, or a channel that is lost,
//!   makes room for the next.
//! - After a failure comes a wait: with full jitter, below a bound that doubles with every failure in a row. The relay's first
//!   answer to a hello ends the row. One wait is kept for all dials: it is the relay that is away, not a channel.
//! - Until a relay has answered, and after each failure, one dial is under way at a time; after that, many.
//! - A channel that is lost soon after its answer counts as a failure, and its answer does not end the row.
//! - Sessions that nobody has accepted yet take the places of channels, beyond a backlog.

use std::time::Duration;

use crate::time::Time;

/// The bound of the first wait after a failure.
pub const BACKOFF_MIN: Duration = Duration::from_millis(250);

/// The highest bound of a wait.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// The highest bound of a wait while dials time out or find no way: the network is away, and whoever comes back to it should
/// not wait for long. The relay's machine is not burdened by what does not reach it.
pub const BACKOFF_UNREACHABLE_MAX: Duration = Duration::from_secs(5);

/// How long one dial may take, with all addresses of the relay's name. A round trip on the worst of usable links is below one
/// second, and a lost first packet is sent again after one.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(3);

/// How many data channels may be dialled at once. A pool of the default size at once; a large one in a few round trips.
pub const DIALS_MAX: usize = 32;

/// How many sessions may wait for `accept`. The same as a TCP listener's backlog commonly is.
pub const BACKLOG_MAX: usize = 128;

/// A channel that is lost sooner than this after its answer was never of use.
pub const CHANNEL_LIFE_MIN: Duration = Duration::from_secs(1);

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Dial the command channel; tell [`Keeper::command_up`] or [`Keeper::command_failed`].
    DialCommand,
    /// Dial a data channel and say hello; tell [`Keeper::channel_answered`] or [`Keeper::channel_failed`].
    DialChannel,
}

/// How an attempt failed, as far as it matters for the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Somebody said no, or something else that is not this host's.
    Refused,
    /// The dial timed out or found no way.
    Unreachable,
}

/// Chance, from whoever drives the keeper: a number that is uniform over all `u32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chance(pub u32);

/// Decides for one host.
#[derive(Debug)]
pub struct Keeper {
    pool_size: usize,
    command: Command,
    dialling: usize,
    idle: usize,
    unaccepted: usize,
    /// Whether the relay's last word was an answer, and not a failure.
    proven: bool,
    /// In a row.
    failures: u32,
    /// Channels lost soon after their answer, in a row.
    short_lives: u32,
    not_before: Time,
    leaving: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Down,
    Dialling,
    Up,
}

impl Keeper {
    /// Keeps `pool_size` channels, from nothing.
    pub fn new(pool_size: usize) -> Keeper {
        Keeper {
            pool_size,
            command: Command::Down,
            dialling: 0,
            idle: 0,
            unaccepted: 0,
            proven: false,
            failures: 0,
            short_lives: 0,
            not_before: Time::ZERO,
            leaving: false,
        }
    }

    /// What to do now; ask until it is `None`.
    pub fn poll(&mut self, now: Time) -> Option<Action> {
        if self.leaving || now < self.not_before {
            return None;
        }
        if !self.proven && self.under_way() > 0 {
            return None;
        }
        if self.command == Command::Down {
            self.command = Command::Dialling;
            return Some(Action::DialCommand);
        }
        if self.wants_channel() {
            self.dialling += 1;
            return Some(Action::DialChannel);
        }
        None
    }

    /// When to ask again although nothing happened. `None` while nothing is waited for.
    pub fn poll_timeout(&self, now: Time) -> Option<Time> {
        let wants = self.command == Command::Down || self.wants_channel();
        let waits = wants && !self.leaving && now < self.not_before;
        waits.then_some(self.not_before)
    }

    /// The command channel is connected. Version 1 has no answer on it, so this proves nothing about the relay.
    pub fn command_up(&mut self) {
        self.command = Command::Up;
    }

    /// The command channel could not be dialled.
    pub fn command_failed(&mut self, now: Time, failure: Failure, chance: Chance) {
        self.command = Command::Down;
        self.failed(now, failure, chance);
    }

    /// The command channel ended. Idle channels are kept: they are still the relay's to assign.
    pub fn command_lost(&mut self, now: Time, chance: Chance) {
        self.command_failed(now, Failure::Refused, chance);
    }

    /// The relay answered a hello: the channel is idle.
    pub fn channel_answered(&mut self) {
        self.dialling -= 1;
        self.idle += 1;
        self.proven = self.short_lives == 0;
        if self.proven {
            self.failures = 0;
        }
    }

    /// A data channel could not be dialled, or got no answer.
    pub fn channel_failed(&mut self, now: Time, failure: Failure, chance: Chance) {
        self.dialling -= 1;
        self.failed(now, failure, chance);
    }

    /// A client was assigned to an idle channel.
    pub fn channel_opened(&mut self) {
        self.idle -= 1;
        self.channel_was_of_use();
    }

    /// An idle channel was lost `life` after its answer.
    pub fn channel_lost(&mut self, now: Time, life: Duration, chance: Chance) {
        self.idle -= 1;
        if life < CHANNEL_LIFE_MIN {
            self.short_lives = self.short_lives.saturating_add(1);
            self.failed(now, Failure::Refused, chance);
        } else {
            self.channel_was_of_use();
        }
    }

    /// So many sessions are open that nobody has accepted.
    pub fn set_unaccepted(&mut self, unaccepted: usize) {
        self.unaccepted = unaccepted;
    }

    /// Nothing is dialled from now on.
    pub fn leave(&mut self) {
        self.leaving = true;
    }

    /// Whether clients can come: the command channel is up, and channels are idle or the relay takes them.
    pub fn is_ready(&self) -> bool {
        self.command == Command::Up && (self.proven || self.idle > 0)
    }

    /// Whether a data channel is under way.
    pub fn is_dialling(&self) -> bool {
        self.dialling > 0
    }

    fn under_way(&self) -> usize {
        self.dialling + usize::from(self.command == Command::Dialling)
    }

    fn wants_channel(&self) -> bool {
        self.idle + self.dialling < self.pool_size
            && self.dialling < DIALS_MAX
            && self.unaccepted < BACKLOG_MAX
    }

    fn channel_was_of_use(&mut self) {
        self.short_lives = 0;
        self.failures = 0;
        self.proven = true;
    }

    fn failed(&mut self, now: Time, failure: Failure, chance: Chance) {
        // Dials that were under way together fail together: that is one failure.
        let first_of_many = std::mem::replace(&mut self.proven, false);
        if now < self.not_before || !(first_of_many || self.under_way() == 0) {
            return;
        }
        let max = match failure {
            Failure::Refused => BACKOFF_MAX,
            Failure::Unreachable => BACKOFF_UNREACHABLE_MAX,
        };
        let bound = BACKOFF_MIN.saturating_mul(1 << self.failures.min(16)).min(max);
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + bound.mul_f64(f64::from(chance.0) / f64::from(u32::MAX));
    }
}

/// Opens that arrived ahead of the answer that tells their channel's id: the two travel on different connections. Bounded; the
/// newest are kept.
#[derive(Debug, Default)]
pub struct EarlyOpens(std::collections::VecDeque<i32>);

impl EarlyOpens {
    /// More than can be dialled at once, with room for those of other hosts.
    const MAX: usize = 256;

    /// An open was announced for a channel that is not known (yet).
    pub fn remember(&mut self, channel_id: i32) {
        if self.0.len() == EarlyOpens::MAX {
            self.0.pop_front();
        }
        self.0.push_back(channel_id);
    }

    /// Whether an open was announced for this channel, which has become known.
    pub fn take(&mut self, channel_id: i32) -> bool {
        let position = self.0.iter().position(|id| *id == channel_id);
        position.and_then(|position| self.0.remove(position)).is_some()
    }

    /// No answer is awaited: whatever was remembered is other hosts'.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
