//! What the tasks of a listener's connections tell its driver.

use std::fmt;
use std::io;

use relayserver_core::keeper::{Failure, Slot};
use relayserver_transport::{DialError, DialErrorKind, HostPort};
use relayserver_wire::command::Announcement;

/// What the tasks of channels tell the driver.
pub(crate) enum Report {
    CommandUp,
    CommandFailed(Trouble),
    CommandLost(Trouble),
    Announced(Announcement),
    /// The relay has answered: the channel is idle.
    ChannelAnswered {
        slot: Slot,
        channel_id: i32,
        clients: String,
    },
    ChannelFailed(Slot, Trouble),
    /// The session's first byte has come, and its task hands it on.
    ChannelOpened(Slot),
    /// FIN has come and no byte.
    ChannelEnded(Slot),
    ChannelLost(Slot),
}

/// What went wrong with a connection to the relay.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) failure: Failure,
    /// Whether what answered is no relay, which waiting cannot mend.
    pub(crate) not_a_relay: bool,
    pub(crate) message: String,
}

impl Trouble {
    pub(crate) fn other(message: String) -> Trouble {
        Trouble { failure: Failure::Rejected, not_a_relay: false, message }
    }

    pub(crate) fn not_a_relay(detail: impl fmt::Display) -> Trouble {
        Trouble { failure: Failure::Rejected, not_a_relay: true, message: detail.to_string() }
    }

    /// Says where it happened.
    pub(crate) fn at(self, address: &HostPort) -> Trouble {
        Trouble { message: format!("{address}: {}", self.message), ..self }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                Trouble::other("the relay closed the connection without an answer".to_owned())
            }
            _ => Trouble::other(error.to_string()),
        }
    }
}

impl From<DialError> for Trouble {
    fn from(error: DialError) -> Trouble {
        let failure = match error.kind {
            DialErrorKind::TimedOut | DialErrorKind::Unreachable => Failure::Unanswered,
            DialErrorKind::Refused | DialErrorKind::NameNotResolved | DialErrorKind::Other => {
                Failure::Rejected
            }
        };
        Trouble { failure, not_a_relay: false, message: error.to_string() }
    }
}
