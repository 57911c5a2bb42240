//! The time as `core` sees it: what has passed since the program started. The caller reads the clock.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment, as the time since the program's own start. Never goes backwards within one program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Duration);

impl Time {
    /// The program's start.
    pub const ZERO: Time = Time(Duration::ZERO);

    /// The moment `since_start` after the program's start.
    pub const fn from_start(since_start: Duration) -> Time {
        Time(since_start)
    }

    /// The moment `millis` milliseconds after the program's start.
    pub const fn from_millis(millis: u64) -> Time {
        Time(Duration::from_millis(millis))
    }

    /// What has passed since the program's start.
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// What has passed since `earlier`; zero where that lies in the future.
    pub fn since(self, earlier: Time) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, later: Duration) -> Time {
        Time(self.0.saturating_add(later))
    }
}

impl Sub<Time> for Time {
    type Output = Duration;

    fn sub(self, earlier: Time) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0.as_secs(), self.0.subsec_millis())
    }
}
