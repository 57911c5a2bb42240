//! When a peer is suspect, and gone. Relay and host each drive one for the other end of a command channel: they tell it of every
//! byte that they hear, and perform what it says.
//!
//! It never takes a peer for dead that was heard: silence is counted from the last byte, whatever it was. And it takes no old
//! bytes for life: whoever was frozen finds bytes in its sockets that came while it was away, so the gap is looked at first.

use std::time::Duration;

use crate::time::Time;

/// How long a peer may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Until it is suspect.
    pub suspect_after: Duration,
    /// Until it is gone.
    pub gone_after: Duration,
}

impl Default for Patience {
    /// Three pings lost in a row are more than a hiccup; half a minute is more than a tunnel or a lift.
    fn default() -> Patience {
        Patience { suspect_after: Duration::from_secs(5), gone_after: Duration::from_secs(30) }
    }
}

impl Patience {
    /// How often to ping, so that three pings can be lost before the peer is suspect.
    pub fn ping_interval(&self) -> Duration {
        self.suspect_after / 3
    }
}

/// A timer that fires so late has waited for its own process, and not for a peer.
const LATE: Duration = Duration::from_millis(250);

/// How long a process that has stood still takes to read what waits for it.
const MOMENT: Duration = Duration::from_millis(300);

/// Tells a peer's silence from a standstill of one's own. What a peer has sent meanwhile waits in sockets that nobody has read: for that
/// a moment is left, once, before its silence counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standstill {
    looks_again: Time,
}

impl Standstill {
    /// When to wake up for what is `due`.
    pub fn wake_at(&self, due: Time) -> Time {
        due.max(self.looks_again)
    }

    /// It is `now`, and what was `due` by then has not been looked at. Gives whether that is to wait for a moment: see
    /// [`wake_at`](Standstill::wake_at).
    pub fn explains(&mut self, now: Time, due: Time) -> bool {
        let explains = now - due > LATE && due > self.looks_again;
        if explains {
            self.looks_again = now + MOMENT;
        }
        explains
    }
}

/// What is known of one peer.
#[derive(Debug)]
pub struct Liveness {
    patience: Patience,
    heard: Time,
    pinged: Time,
    state: State,
}

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Ask it for a sign of life.
    Ping,
    /// It is suspect from now on.
    Suspect,
    /// It was suspect, and is well again. What waited for it meanwhile may be old.
    Well,
    /// It is gone.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Well,
    Suspect,
    Gone,
}

impl Liveness {
    /// A peer that has just been heard.
    pub fn new(now: Time, patience: Patience) -> Liveness {
        Liveness { patience, heard: now, pinged: now, state: State::Well }
    }

    /// Something was heard of it: any byte, on any channel. Gives what follows, in order: also that it was silent for too long
    /// before, where nobody had noticed.
    pub fn handle_heard(&mut self, now: Time) -> Vec<Event> {
        let mut events = self.handle_silence(now);
        self.heard = self.heard.max(now);
        if self.state == State::Suspect {
            self.state = State::Well;
            events.push(Event::Well);
        }
        events
    }

    /// Something was heard of it, by one who gives it nothing that may be old: a relay. That nobody looked before is no silence.
    pub fn handle_heard_late(&mut self, now: Time) -> Vec<Event> {
        self.heard = self.heard.max(now);
        if self.state == State::Suspect {
            self.state = State::Well;
            return vec![Event::Well];
        }
        Vec::new()
    }

    /// Time has passed. Gives what follows, in order.
    pub fn handle_timeout(&mut self, now: Time) -> Vec<Event> {
        let mut events = self.handle_silence(now);
        if self.state != State::Gone && self.next_ping() <= now {
            self.pinged = now;
            events.push(Event::Ping);
        }
        events
    }

    /// When to call [`handle_timeout`](Liveness::handle_timeout), if nothing is heard before. `None` when it is gone.
    pub fn poll_timeout(&self) -> Option<Time> {
        let Patience { suspect_after, gone_after } = self.patience;
        let silence = match self.state {
            State::Well => self.heard + suspect_after,
            State::Suspect => self.heard + gone_after,
            State::Gone => return None,
        };
        Some(silence.min(self.next_ping()))
    }

    /// A peer that talks needs no ping, and one that has just been pinged no other.
    fn next_ping(&self) -> Time {
        self.heard.max(self.pinged) + self.patience.ping_interval()
    }

    fn handle_silence(&mut self, now: Time) -> Vec<Event> {
        let mut events = Vec::new();
        let silent = now.since(self.heard);
        if self.state == State::Well && silent >= self.patience.suspect_after {
            self.state = State::Suspect;
            events.push(Event::Suspect);
        }
        if self.state == State::Suspect && silent >= self.patience.gone_after {
            self.state = State::Gone;
            events.push(Event::Gone);
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(seconds: u64) -> Time {
        Time::from_millis(seconds * 1_000)
    }

    /// What follows until `end` where nothing is heard.
    fn silence(liveness: &mut Liveness, end: Time) -> Vec<(Time, Event)> {
        let mut told = Vec::new();
        while let Some(now) = liveness.poll_timeout().filter(|due| *due <= end) {
            told.extend(liveness.handle_timeout(now).into_iter().map(|event| (now, event)));
        }
        told
    }

    #[test]
    fn three_pings_are_lost_before_it_is_suspect_and_then_it_is_gone() {
        let mut liveness = Liveness::new(Time::ZERO, Patience::default());
        let told = silence(&mut liveness, seconds(60));
        let pings = |from, to| {
            told.iter().filter(|(at, it)| *it == Event::Ping && *at > from && *at <= to).count()
        };
        assert_eq!(pings(Time::ZERO, Time::from_millis(4_999)), 2, "the third is sent at the end");
        assert!(pings(seconds(5), seconds(30)) > 10, "it is asked on");
        let others: Vec<_> = told.iter().filter(|(_, it)| *it != Event::Ping).collect();
        assert_eq!(others, [&(seconds(5), Event::Suspect), &(seconds(30), Event::Gone)]);
        assert_eq!(liveness.poll_timeout(), None);
    }

    #[test]
    fn one_that_talks_is_not_pinged() {
        let mut liveness = Liveness::new(Time::ZERO, Patience::default());
        for second in 1..100 {
            assert_eq!(liveness.handle_heard(seconds(second)), []);
            assert!(liveness.poll_timeout() > Some(seconds(second + 1)));
        }
    }

    #[test]
    fn one_that_is_heard_again_is_well_unless_it_is_gone() {
        let mut liveness = Liveness::new(Time::ZERO, Patience::default());
        silence(&mut liveness, seconds(6));
        assert_eq!(liveness.handle_heard(seconds(7)), [Event::Well]);
        assert_eq!(liveness.handle_heard(seconds(8)), []);
        silence(&mut liveness, seconds(60));
        assert_eq!(liveness.handle_heard(seconds(61)), []);
    }

    #[test]
    fn who_was_frozen_itself_blames_nobody_whose_bytes_are_there() {
        let mut liveness = Liveness::new(Time::ZERO, Patience::default());
        assert_eq!(liveness.handle_heard_late(seconds(50)), []);
        silence(&mut liveness, seconds(56));
        assert_eq!(liveness.handle_heard_late(seconds(57)), [Event::Well]);
        assert_eq!(liveness.handle_heard(seconds(63)), [Event::Suspect, Event::Well]);
    }

    #[test]
    fn who_was_frozen_learns_of_the_gap_before_what_waited_counts() {
        let mut liveness = Liveness::new(Time::ZERO, Patience::default());
        assert_eq!(liveness.handle_heard(seconds(10)), [Event::Suspect, Event::Well]);
        assert_eq!(liveness.handle_heard(seconds(50)), [Event::Suspect, Event::Gone]);
    }

    #[test]
    fn who_stood_still_reads_first_and_then_counts() {
        let mut standstill = Standstill::default();
        let due = seconds(5);
        assert!(!standstill.explains(due + Duration::from_millis(250), due), "a busy moment");
        let now = seconds(16);
        assert!(standstill.explains(now, due));
        let again = standstill.wake_at(due);
        assert_eq!(again, now + Duration::from_millis(300));
        assert!(!standstill.explains(again, due), "once");
        assert_eq!(standstill.wake_at(seconds(20)), seconds(20));
        assert!(standstill.explains(seconds(30), seconds(20)), "the next time again");
    }

    proptest! {
        #[test]
        fn it_is_what_its_last_silence_says(gaps in prop::collection::vec(0..12_000_u64, 1..40)) {
            let patience = Patience {
                suspect_after: Duration::from_secs(2),
                gone_after: Duration::from_secs(9),
            };
            let mut liveness = Liveness::new(Time::ZERO, patience);
            let (mut now, mut gone) = (Time::ZERO, false);
            for gap in gaps {
                let next = now + Duration::from_millis(gap);
                let mut told = silence(&mut liveness, next);
                told.extend(liveness.handle_heard(next).into_iter().map(|event| (next, event)));
                told.retain(|(_, event)| *event != Event::Ping);
                let kinds: Vec<Event> = told.into_iter().map(|(_, event)| event).collect();
                let expected: &[Event] = match gap {
                    _ if gone => &[],
                    0..2_000 => &[],
                    2_000..9_000 => &[Event::Suspect, Event::Well],
                    _ => &[Event::Suspect, Event::Gone],
                };
                prop_assert_eq!(kinds, expected);
                gone |= gap >= 9_000;
                now = next;
            }
        }
    }
}
