//! When the relay was last heard of. What it sent to a host that had not heard it for too long may have been given to another
//! meanwhile, and must not be acted on.
//!
//! The task of the command channel says when it hears something, and that it had not for too long *before* it says that it has. So a
//! channel's task that looks at both learns of the gap, in whatever order the tasks of a process that was stopped go on.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use relayserver_core::Time;

use crate::clock;

/// When the relay was last heard of, and how often it was not for too long.
#[derive(Debug)]
pub(crate) struct Contact(Mutex<State>);

#[derive(Debug)]
struct State {
    heard: Time,
    suspect_after: Duration,
    gaps: u64,
}

/// How often the relay had not been heard of when something began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Since(u64);

impl Contact {
    pub(crate) fn new() -> Contact {
        Contact(Mutex::new(State { heard: Time::ZERO, suspect_after: Duration::MAX, gaps: 0 }))
    }

    /// The relay has answered on a command channel: from now on it is heard of at least this often. Gives whether it was not for
    /// too long before.
    pub(crate) fn begin(&self, suspect_after: Duration) -> bool {
        let was_away = self.heard();
        self.with(|state| state.suspect_after = suspect_after);
        was_away
    }

    /// The relay was heard. Gives whether it was not for too long before.
    pub(crate) fn heard(&self) -> bool {
        let now = clock::now();
        self.with(|state| {
            let was_away = state.is_away(now);
            state.gaps += u64::from(was_away);
            state.heard = now;
            was_away
        })
    }

    /// What to compare with later.
    pub(crate) fn since(&self) -> Since {
        self.with(|state| Since(state.gaps))
    }

    /// Whether the relay was heard of all the time, from then to now.
    pub(crate) fn is_unbroken(&self, Since(gaps): Since) -> bool {
        let now = clock::now();
        self.with(|state| state.gaps == gaps && !state.is_away(now))
    }

    fn with<R>(&self, apply: impl FnOnce(&mut State) -> R) -> R {
        apply(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn is_away(&self, now: Time) -> bool {
        now.since(self.heard) >= self.suspect_after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_relay_of_version_2_nothing_is_ever_broken() {
        let contact = Contact::new();
        assert!(contact.is_unbroken(contact.since()));
        assert!(!contact.heard());
    }

    #[test]
    fn a_gap_is_noticed_also_once_the_relay_was_heard_again() {
        let contact = Contact::new();
        assert!(!contact.begin(Duration::from_millis(20)));
        let since = contact.since();
        std::thread::sleep(Duration::from_millis(30));
        assert!(!contact.is_unbroken(since), "it lasts");
        assert!(contact.heard(), "it was");
        assert!(!contact.is_unbroken(since), "it has been");
        assert!(contact.is_unbroken(contact.since()));
    }
}
