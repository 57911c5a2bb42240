//! Where a listener stands with its relay.

use std::fmt;
use std::time::Duration;

use tokio::sync::watch;

/// Where a listener stands with its relay.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// No relay has this host in its pool.
    Connecting {
        /// What went wrong last; `None` at the first attempt.
        last_error: Option<String>,
        /// How long the wait before the next attempt is; `None` while one is under way.
        next_try: Option<Duration>,
    },
    /// Clients can come.
    Ready {
        /// The relay's address and client port, as it gave them.
        clients: String,
    },
    /// The pool is left; sessions run on.
    Draining,
    /// The pool is left and no session runs.
    Closed,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::Connecting { last_error: None, .. } => f.write_str("connecting"),
            Status::Connecting { last_error: Some(error), next_try: None } => {
                write!(f, "connecting again after: {error}")
            }
            Status::Connecting { last_error: Some(error), next_try: Some(next_try) } => {
                write!(f, "next try in {} ms after: {error}", next_try.as_millis())
            }
            Status::Ready { clients } => write!(f, "ready: clients connect to {clients}"),
            Status::Draining => f.write_str("draining"),
            Status::Closed => f.write_str("closed"),
        }
    }
}

/// Follows a listener's status.
#[derive(Clone, Debug)]
pub struct StatusWatch(pub(crate) watch::Receiver<Status>);

impl StatusWatch {
    /// The status now.
    pub fn get(&self) -> Status {
        self.0.borrow().clone()
    }

    /// Resolves with the next status that is another. `None` when the listener is gone.
    ///
    /// Cancel safe. What changes faster than it is asked for is skipped; the last status never is.
    pub async fn changed(&mut self) -> Option<Status> {
        self.0.changed().await.ok()?;
        Some(self.0.borrow_and_update().clone())
    }
}
