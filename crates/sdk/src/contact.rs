//! When the relay was last heard of, and last told something. What it sent to a host that had not heard it for too long may have been
//! given to another meanwhile, and must not be acted on; nor what it sent to a host that it has not heard for as long.
//!
//! For that the relay counts from the last word that came, and this host from the last that it sent, which is earlier, and not quite as
//! long (`State::is_away`): what says that a session is accepted is on its way for a while.
//!
//! The task of the command channel says when it hears or tells something, and that it had not for too long *before* it says that it
//! does. So a channel's task that looks at both learns of the gap, in whatever order the tasks of a process that was stopped go on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use relayserver_core::Time;

use crate::clock;

/// When a relay was last heard of and told something, and how often it was not for too long. A relay that leaves and the one that comes
/// after it have one each: that one of them is well says nothing of the other.
#[derive(Debug)]
pub(crate) struct Contact(Mutex<State>);

#[derive(Debug)]
struct State {
    heard: Time,
    told: Time,
    suspect_after: Duration,
    gaps: u64,
}

/// How often there had been no contact with a relay when something began there.
#[derive(Clone, Debug)]
pub(crate) struct Since {
    contact: Arc<Contact>,
    gaps: u64,
}

impl Since {
    /// Whether there was contact all the time, from then to now.
    pub(crate) fn is_unbroken(&self) -> bool {
        let now = clock::now();
        self.contact.with(|state| state.gaps == self.gaps && !state.is_away(now))
    }
}

impl Contact {
    pub(crate) fn new() -> Contact {
        let (heard, told) = (Time::ZERO, Time::ZERO);
        Contact(Mutex::new(State { heard, told, suspect_after: Duration::MAX, gaps: 0 }))
    }

    /// The relay has answered on a command channel: from now on it is heard of at least this often. Gives whether there was no
    /// contact for too long before.
    pub(crate) fn begin(&self, suspect_after: Duration) -> bool {
        let was_away = self.heard();
        self.with(|state| (state.told, state.suspect_after) = (state.heard, suspect_after));
        was_away
    }

    /// The relay was heard. Gives whether there was no contact for too long before.
    pub(crate) fn heard(&self) -> bool {
        let now = clock::now();
        self.with(|state| {
            let was_away = state.note_gap(now);
            state.heard = now;
            was_away
        })
    }

    /// The relay is about to be told something. Gives whether there was no contact for too long before.
    pub(crate) fn tells(&self) -> bool {
        let now = clock::now();
        self.with(|state| {
            let was_away = state.note_gap(now);
            state.told = now;
            was_away
        })
    }

    /// When the relay is to be told something if it is not before: so that there is contact, whatever else it hears of this host.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.with(|state| {
            let is_counted = state.suspect_after < Duration::MAX;
            is_counted.then(|| state.told + state.suspect_after / 2)
        })
    }

    /// What to compare with later.
    pub(crate) fn since(self: &Arc<Contact>) -> Since {
        let gaps = self.with(|state| state.gaps);
        Since { contact: Arc::clone(self), gaps }
    }

    fn with<R>(&self, apply: impl FnOnce(&mut State) -> R) -> R {
        apply(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn is_away(&self, now: Time) -> bool {
        let tells_within = self.suspect_after - self.suspect_after / 5;
        now.since(self.heard) >= self.suspect_after || now.since(self.told) >= tells_within
    }

    /// A gap is counted once: what begins behind it is in contact.
    fn note_gap(&mut self, now: Time) -> bool {
        let was_away = self.is_away(now);
        if was_away {
            self.gaps += 1;
            (self.heard, self.told) = (now, now);
        }
        was_away
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_relay_of_version_2_nothing_is_ever_broken() {
        let contact = Arc::new(Contact::new());
        assert!(contact.since().is_unbroken());
        assert!(!contact.heard());
    }

    #[test]
    fn a_gap_is_noticed_also_once_the_relay_was_heard_again() {
        let contact = Arc::new(Contact::new());
        assert!(!contact.begin(Duration::from_millis(20)));
        let since = contact.since();
        std::thread::sleep(Duration::from_millis(30));
        assert!(!since.is_unbroken(), "it lasts");
        assert!(contact.heard(), "it was");
        assert!(!since.is_unbroken(), "it has been");
        assert!(contact.since().is_unbroken());
    }

    #[test]
    fn a_relay_that_is_heard_and_told_nothing_may_have_lost_this_host() {
        let contact = Arc::new(Contact::new());
        assert!(!contact.begin(Duration::from_millis(50)));
        let since = contact.since();
        assert!(contact.poll_timeout() < Some(clock::now() + Duration::from_millis(40)));
        std::thread::sleep(Duration::from_millis(30));
        assert!(!contact.heard());
        std::thread::sleep(Duration::from_millis(20));
        assert!(!since.is_unbroken(), "it was not told anything for as long");
        assert!(contact.tells(), "it was not");
        assert!(!since.is_unbroken(), "it has not been");
        assert!(contact.since().is_unbroken());
    }
}
