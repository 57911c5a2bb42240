//! How long to leave a relay alone after it did not take us, and whether it is trusted with many dials at once.
//!
//! Driven by the [`Keeper`](super::Keeper) alone. There is one for the relay and not one a channel: what goes wrong for one goes
//! wrong for all.

use std::time::Duration;

use crate::time::Time;

/// The ceiling of the first delay; it doubles from there. Ten hosts that all lost the same relay come back spread over
/// more than the round trip of a far one.
pub(crate) const BASE: Duration = Duration::from_millis(250);

/// The highest ceiling. Half of it, on average, is how late a host notices that it is taken again.
pub(crate) const CEILING_MAX: Duration = Duration::from_secs(30);

/// The highest ceiling while nobody is there: that costs the relay nothing, and it is how a laptop that wakes up, a network that
/// returns, or a relay that restarts looks from here. With what is left of a dial that began too early (3 s at most), a host is back
/// within 5 s of the moment when its relay can be reached.
pub(crate) const CEILING_AWAY_MAX: Duration = Duration::from_millis(1500);

/// How many failures count at most of the time when nobody was there, once somebody is: the next delay is a second at most.
const FAILURES_AFTER_ABSENCE_MAX: u32 = 2;

/// A channel that has lived for so long was no mistake of the relay's. Longer than any relay takes to change its mind.
pub(crate) const SETTLED: Duration = Duration::from_secs(5);

/// Where random numbers come from, uniform over all of `u64`.
pub type Dice = Box<dyn FnMut() -> u64 + Send>;

/// What a dial came to that brought no channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nobody is there: no answer in time, no way there, or nobody listens.
    Away,
    /// Somebody is there and did not take us: closed without an answer, or answered something else.
    Rejected,
}

/// What stands between us and the next dial.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    /// Counts setbacks. What was begun in an earlier round has no say any more: ten dials that fail together are one setback.
    round: u64,
    /// Failed dials since the last answer.
    failures: u32,
    /// Channels that the relay answered and then closed, since one settled or was used.
    early_losses: u32,
    answered: bool,
    /// Whether the last setback was that nobody is there.
    was_away: bool,
    retry_at: Option<Time>,
}

impl Backoff {
    /// The round that what begins now belongs to.
    pub(crate) fn round(&self) -> u64 {
        self.round
    }

    /// Whether the relay has answered a hello since the last setback.
    pub(crate) fn has_answered(&self) -> bool {
        self.answered
    }

    /// Whether the relay may be dialled many times at once: it answers, and does not close what it has answered.
    pub(crate) fn is_proven(&self) -> bool {
        self.answered && self.early_losses == 0
    }

    /// Before when nothing is to be dialled.
    pub(crate) fn retry_at(&self) -> Option<Time> {
        self.retry_at
    }

    /// Whether the time to dial has come.
    pub(crate) fn is_over(&mut self, now: Time) -> bool {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
        }
        self.retry_at.is_none()
    }

    /// The relay answered a dial of `round`.
    pub(crate) fn answered(&mut self, round: u64) {
        if round == self.round {
            self.failures = 0;
            self.answered = true;
        }
    }

    /// An answered channel of `round` has lived long, or was given a client.
    pub(crate) fn settled(&mut self, round: u64) {
        if round == self.round {
            self.early_losses = 0;
        }
    }

    /// A dial of `round` failed.
    pub(crate) fn failed(&mut self, now: Time, round: u64, failure: Failure, dice: &mut Dice) {
        if round == self.round {
            let ceiling_max = match failure {
                Failure::Away => CEILING_AWAY_MAX,
                Failure::Rejected => CEILING_MAX,
            };
            if self.was_away && failure == Failure::Rejected {
                // However long it was away: that it does not take us is new.
                self.failures = self.failures.min(FAILURES_AFTER_ABSENCE_MAX);
            }
            self.set_back(now, ceiling_max, dice);
            self.was_away = failure == Failure::Away;
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// An answered channel of `round`, which had lived for `age`, was lost unused.
    pub(crate) fn lost(&mut self, now: Time, round: u64, age: Duration, dice: &mut Dice) {
        if round == self.round {
            if age >= SETTLED {
                self.early_losses = 0;
            }
            self.set_back(now, CEILING_MAX, dice);
            if age < SETTLED {
                self.early_losses = self.early_losses.saturating_add(1);
            }
        } else if age < SETTLED {
            // No setback of its own, but whoever closes what he has answered is not to be dialled many times at once.
            self.early_losses = self.early_losses.max(1);
        }
    }

    fn set_back(&mut self, now: Time, ceiling_max: Duration, dice: &mut Dice) {
        let setbacks = self.failures.saturating_add(self.early_losses);
        self.retry_at = Some(now + delay(setbacks, ceiling_max, dice));
        self.round += 1;
        self.answered = false;
        self.was_away = false;
    }

    /// What kept the relay away may be over: it may be dialled now. Gives `false` where it was not away but refused.
    pub(crate) fn forgive_absence(&mut self) -> bool {
        if self.was_away {
            (self.retry_at, self.failures) = (None, 0);
        }
        self.was_away || self.retry_at.is_none()
    }
}

/// A delay after `setbacks` earlier ones: anything from nothing to a ceiling that doubles with each (full jitter).
pub(crate) fn delay(setbacks: u32, ceiling_max: Duration, dice: &mut Dice) -> Duration {
    let doubled = BASE.saturating_mul(1_u32.checked_shl(setbacks).unwrap_or(u32::MAX));
    some_of(doubled.min(ceiling_max), dice)
}

/// Anything from nothing to `whole`.
pub(crate) fn some_of(whole: Duration, dice: &mut Dice) -> Duration {
    let share = dice() >> 32;
    let micros = (whole.as_micros() * u128::from(share)) >> 32;
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_anything_from_nothing_to_a_doubling_ceiling() {
        let mut highest: Dice = Box::new(|| u64::MAX);
        let ceilings: Vec<u128> = (0..9)
            .map(|setbacks| delay(setbacks, CEILING_MAX, &mut highest).as_millis() + 1)
            .collect();
        assert_eq!(ceilings, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(delay(60, CEILING_AWAY_MAX, &mut highest).as_millis() + 1, 1500);
        assert_eq!(delay(u32::MAX, CEILING_MAX, &mut highest).as_millis() + 1, 30_000);

        let mut lowest: Dice = Box::new(|| 0);
        assert_eq!(delay(9, CEILING_MAX, &mut lowest), Duration::ZERO);
        let mut middle: Dice = Box::new(|| 1 << 63);
        assert_eq!(delay(0, CEILING_MAX, &mut middle).as_millis(), 125);
    }
}
