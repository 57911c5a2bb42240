//! What is to go wrong, and when: made from a seed beforehand, so that a seed says what a run does to its processes, however fast
//! these are. Driven by `main.rs`.
//!
//! It never takes all homes away: of three at least one is untouched, and has been for a while.

use std::fmt;
use std::time::Duration;

use crate::support::world::Ways;

/// How many homes there are.
pub(crate) const HOMES: u8 = 3;

/// How long a home is left alone after a fault, in which it comes back.
const RECOVERY: Duration = Duration::from_secs(10);

/// How long the hosts and the relay give their sessions when they leave.
pub(crate) const DRAIN: Duration = Duration::from_secs(5);

/// The last part of a run, in which the relay is left alone, so that what it holds at the end was gathered for a while.
const RELAY_ALONE: f64 = 0.4;

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL for a host, which is started again after a time.
    KillHost { home: u8, away: Duration },
    /// SIGSTOP, and SIGCONT after a time.
    FreezeHost { home: u8, lasts: Duration },
    /// All packets from a home, to it, or both are dropped for a time, silently.
    CutHome { home: u8, ways: Ways, lasts: Duration },
    /// SIGTERM for a host; another is started once it has gone.
    RestartHost { home: u8 },
    /// SIGKILL for the relay, which is started again after a time.
    KillRelay { away: Duration },
    /// SIGTERM for the relay, which is started again some time after it has gone.
    RestartRelay { away: Duration },
    /// SIGSTOP for the relay, and SIGCONT after a time: nobody's session ends of it.
    FreezeRelay { lasts: Duration },
}

impl Fault {
    /// The home that it is about.
    pub(crate) fn home(self) -> Option<u8> {
        match self {
            Fault::KillHost { home, .. }
            | Fault::FreezeHost { home, .. }
            | Fault::CutHome { home, .. }
            | Fault::RestartHost { home } => Some(home),
            Fault::KillRelay { .. } | Fault::RestartRelay { .. } | Fault::FreezeRelay { .. } => {
                None
            }
        }
    }

    /// How long it takes, or may take.
    fn lasts(self) -> Duration {
        match self {
            Fault::KillHost { away, .. } | Fault::KillRelay { away } => away,
            Fault::FreezeHost { lasts, .. }
            | Fault::CutHome { lasts, .. }
            | Fault::FreezeRelay { lasts } => lasts,
            Fault::RestartHost { .. } => DRAIN,
            Fault::RestartRelay { away } => DRAIN + away,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::KillHost { home, away } => write!(f, "host {home} killed, back after {away:?}"),
            Fault::FreezeHost { home, lasts } => write!(f, "host {home} frozen for {lasts:?}"),
            Fault::CutHome { home, ways, lasts } => {
                let what = match ways {
                    Ways::Both => "cut off",
                    Ways::ToRelay => "not heard",
                    Ways::ToHome => "deaf",
                };
                write!(f, "home {home} {what} for {lasts:?}")
            }
            Fault::RestartHost { home } => write!(f, "host {home} restarted"),
            Fault::KillRelay { away } => write!(f, "relay killed, back after {away:?}"),
            Fault::RestartRelay { away } => write!(f, "relay restarted, away for {away:?}"),
            Fault::FreezeRelay { lasts } => write!(f, "relay frozen for {lasts:?}"),
        }
    }
}

/// What goes wrong in a run of this length, and when.
pub(crate) fn plan(seed: u64, length: Duration) -> Vec<(Duration, Fault)> {
    let mut planner = Planner {
        random: fastrand::Rng::with_seed(seed),
        length,
        at: Duration::from_secs(1),
        busy_until: [Duration::ZERO; HOMES as usize],
        relay_busy_until: Duration::ZERO,
    };
    let (mut planned, mut cards) = (Vec::new(), Vec::new());
    // Some cards no longer fit near the end.
    while planner.at < length {
        let card = cards.pop().unwrap_or_else(|| {
            cards = DECK.to_vec();
            planner.random.shuffle(&mut cards);
            cards.remove(0)
        });
        planned.extend(planner.take(card));
    }
    planned.sort_by_key(|(at, _)| *at);
    planned
}

/// A kind of fault, and how long it may last, in milliseconds. Each comes as often as any other.
#[derive(Clone, Copy)]
enum Card {
    Kill,
    /// Too short to be noticed, long enough to be suspect, and too long for the sessions that run.
    Freeze(u64, u64),
    Cut(Ways, u64, u64),
    Restart,
    KillRelay,
    RestartRelay,
    FreezeRelay(u64, u64),
}

const DECK: [Card; 17] = [
    Card::Kill,
    Card::Kill,
    Card::Freeze(1_000, 4_000),
    Card::Freeze(6_000, 20_000),
    Card::Freeze(32_000, 40_000),
    Card::Cut(Ways::Both, 1_000, 4_000),
    Card::Cut(Ways::Both, 6_000, 20_000),
    Card::Cut(Ways::Both, 32_000, 40_000),
    Card::Cut(Ways::ToRelay, 6_000, 20_000),
    Card::Cut(Ways::ToRelay, 32_000, 40_000),
    Card::Cut(Ways::ToHome, 4_000, 40_000),
    Card::Restart,
    Card::Restart,
    Card::KillRelay,
    Card::RestartRelay,
    Card::FreezeRelay(1_000, 4_000),
    Card::FreezeRelay(6_000, 12_000),
];

struct Planner {
    random: fastrand::Rng,
    length: Duration,
    at: Duration,
    busy_until: [Duration; HOMES as usize],
    relay_busy_until: Duration,
}

impl Planner {
    /// Plays a card at the next moment when it may be; not at all where it would not be over in time.
    fn take(&mut self, card: Card) -> Option<(Duration, Fault)> {
        let gap = self.millis(300, 3_000);
        let (at, fault) = match card {
            Card::KillRelay | Card::RestartRelay | Card::FreezeRelay(..) => {
                let away = self.millis(0, 4_000);
                let fault = match card {
                    Card::FreezeRelay(min, max) => {
                        Fault::FreezeRelay { lasts: self.millis(min, max) }
                    }
                    Card::KillRelay => Fault::KillRelay { away },
                    _ => Fault::RestartRelay { away },
                };
                (self.at.max(self.relay_busy_until), fault)
            }
            Card::Kill | Card::Freeze(..) | Card::Cut(..) | Card::Restart => {
                let (at, home) = self.free_home();
                let fault = match card {
                    Card::Freeze(min, max) => {
                        Fault::FreezeHost { home, lasts: self.millis(min, max) }
                    }
                    Card::Cut(ways, min, max) => {
                        Fault::CutHome { home, ways, lasts: self.millis(min, max) }
                    }
                    Card::Restart => Fault::RestartHost { home },
                    _ => Fault::KillHost { home, away: self.millis(0, 5_000) },
                };
                (at, fault)
            }
        };
        let over = at + fault.lasts();
        let until = match fault.home() {
            Some(_) => self.length,
            None => self.length.mul_f64(1.0 - RELAY_ALONE),
        };
        if over > until {
            // The next may be shorter.
            self.at += gap / 10;
            return None;
        }
        match fault.home() {
            Some(home) => self.busy_until[usize::from(home)] = over + RECOVERY,
            None => self.relay_busy_until = over + RECOVERY * 2,
        }
        // Others may come before this one.
        self.at += gap;
        Some((at, fault))
    }

    /// A home that may be taken away, and the first moment when so many others are there that it may.
    fn free_home(&mut self) -> (Duration, u8) {
        let mut until = self.busy_until;
        until.sort();
        // Two must be free: the one that is taken, and one that stays.
        let at = self.at.max(until[1]);
        let free: Vec<u8> =
            (0..HOMES).filter(|&home| self.busy_until[usize::from(home)] <= at).collect();
        (at, free[self.random.usize(..free.len())])
    }

    fn millis(&mut self, min: u64, max: u64) -> Duration {
        Duration::from_millis(self.random.u64(min..=max))
    }
}

#[test]
fn a_plan_is_the_same_for_the_same_seed_and_never_takes_all_homes_away() {
    for seed in 0..500 {
        let length = Duration::from_secs(60 + seed % 7 * 60);
        let planned = plan(seed, length);
        assert_eq!(planned, plan(seed, length));
        assert!(planned.len() >= 4, "{planned:?}");
        for (at, fault) in &planned {
            assert!(*at + fault.lasts() <= length, "{fault} at {at:?} of {length:?}");
            let hit = |home: u8| {
                planned.iter().any(|(since, other)| {
                    other.home() == Some(home)
                        && since <= at
                        && *at < *since + other.lasts() + RECOVERY
                })
            };
            assert!(!(0..HOMES).all(hit), "all homes are away at {at:?} with seed {seed}");
        }
    }
}
