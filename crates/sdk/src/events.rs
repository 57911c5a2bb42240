//! What happens to a listener's sessions, for those who want to watch.

use std::fmt;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::SessionId;

/// How many events are kept for a watcher that is behind.
pub(crate) const EVENTS_MAX: usize = 1024;

/// Something happened to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A client was assigned.
    Opened {
        /// The session.
        id: SessionId,
    },
    /// The session is over, or about to be. Once for each that opened.
    Dropped {
        /// The session.
        id: SessionId,
        /// Why.
        reason: DropReason,
    },
    /// The relay's word how a session ended, where it speaks version 2: once for each that opened.
    Ended {
        /// The session.
        id: SessionId,
        /// From the relay's list of reasons: `finished`, `client_aborted`, ...
        reason: String,
        /// How many bytes of the client's the relay handed to this host.
        bytes_to_host: u64,
        /// How many bytes of this host's it handed to the client.
        bytes_to_client: u64,
    },
    /// So many events were lost because nobody took them in time.
    Lost {
        /// How many.
        count: u64,
    },
}

/// Why a session was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DropReason {
    /// The client has sent its last byte, or was reset; the relay said so. The session can still be written to.
    ClientLeft,
    /// The session was dropped by the server.
    Closed,
    /// [`Session::reset`](crate::Session::reset) was called, or the server panicked.
    Reset,
    /// [`Session::reject`](crate::Session::reject) was called.
    Rejected(String),
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DropReason::ClientLeft => f.write_str("client_left"),
            DropReason::Closed => f.write_str("closed"),
            DropReason::Reset => f.write_str("reset"),
            DropReason::Rejected(why) => write!(f, "rejected: {why}"),
        }
    }
}

/// Follows what happens to a listener's sessions, from the moment that it was made.
#[derive(Debug)]
pub struct Events(pub(crate) broadcast::Receiver<Event>);

impl Events {
    /// The next event. `None` when the listener and all its sessions are gone.
    ///
    /// Cancel safe. At most 1024 events wait; when more were not taken, the oldest are lost and
    /// [`Event::Lost`] says how many.
    pub async fn next(&mut self) -> Option<Event> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(count)) => Some(Event::Lost { count }),
            Err(RecvError::Closed) => None,
        }
    }
}
