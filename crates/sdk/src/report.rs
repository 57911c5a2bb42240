//! What the tasks of a listener's connections tell its driver.

use std::fmt;
use std::io;

use relayserver_core::keeper::{Failure, Slot};
use relayserver_transport::{DialError, DialErrorKind, HostPort};
use relayserver_wire::command::Announcement;

use crate::Error;

/// What the tasks of channels tell the driver.
pub(crate) enum Report {
    /// The command channel is connected.
    CommandUp,
    /// It could not be dialled.
    CommandFailed(Trouble),
    /// It was up and has ended.
    CommandLost(Trouble),
    /// The relay's word came over it.
    Announced(Announcement),
    /// The relay has answered: the channel is idle.
    ChannelAnswered {
        slot: Slot,
        channel_id: i32,
        /// Where clients connect, as the relay gave it.
        clients: String,
    },
    /// The relay has not answered.
    ChannelFailed(Slot, Trouble),
    /// The session's first byte has come, and its task hands it on.
    ChannelOpened(Slot),
    /// FIN has come and no byte.
    ChannelEnded(Slot),
    /// An idle channel was reset.
    ChannelLost(Slot),
}

/// Which of a relay's ports a connection went to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Port {
    Hosts,
    Command,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Port::Hosts => f.write_str("data channels"),
            Port::Command => f.write_str("command channels"),
        }
    }
}

/// A connection to the relay that could not be had, or was lost.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) failure: Failure,
    /// Where what answered is no relay, which waiting cannot mend.
    pub(crate) hopeless: Option<Error>,
    pub(crate) message: String,
}

impl Trouble {
    /// A dial failed.
    pub(crate) fn dial(port: Port, error: &DialError) -> Trouble {
        let (failure, advice) = match error.kind {
            DialErrorKind::Refused => (
                Failure::Rejected,
                format!("; does a relay run there, with its port for {port} on this number?"),
            ),
            DialErrorKind::TimedOut => {
                (Failure::Unanswered, "; does a firewall stand in between?".to_owned())
            }
            // So looks a network that is away, to those who know their relay by name.
            DialErrorKind::NameNotResolved => (Failure::Unanswered, String::new()),
            DialErrorKind::Unreachable => (Failure::Unanswered, String::new()),
            DialErrorKind::Other => (Failure::Rejected, String::new()),
        };
        Trouble { failure, hopeless: None, message: format!("{error}{advice}") }
    }

    /// A connection that was there is of no use.
    pub(crate) fn at(port: Port, address: &HostPort, fault: Fault) -> Trouble {
        let failure = Failure::Rejected;
        match fault {
            Fault::Lost(what) => {
                let message = format!("{address} {what}");
                Trouble { failure, hopeless: None, message }
            }
            Fault::NotARelay(detail) => {
                let (address, channels) = (address.to_string(), port.to_string());
                let error = Error::NotARelay { address, channels, detail };
                Trouble { failure, message: error.to_string(), hopeless: Some(error) }
            }
        }
    }
}

/// What is wrong with a connection that was there.
#[derive(Debug)]
pub(crate) enum Fault {
    /// What it did.
    Lost(String),
    /// What came instead of a relay's bytes.
    NotARelay(String),
}

impl Fault {
    pub(crate) fn not_a_relay(detail: impl fmt::Display) -> Fault {
        Fault::NotARelay(detail.to_string())
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                Fault::Lost("closed the connection without an answer".to_owned())
            }
            _ => Fault::Lost(format!("was lost: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_is_away_is_told_from_a_relay_that_refuses() {
        for (kind, expected) in [
            (DialErrorKind::Refused, Failure::Rejected),
            (DialErrorKind::Other, Failure::Rejected),
            (DialErrorKind::TimedOut, Failure::Unanswered),
            (DialErrorKind::Unreachable, Failure::Unanswered),
            (DialErrorKind::NameNotResolved, Failure::Unanswered),
        ] {
            let address = HostPort { host: "relay.example.com".to_owned(), port: 8001 };
            let error = DialError { kind, address, source: io::Error::other("why") };
            let trouble = Trouble::dial(Port::Command, &error);
            assert_eq!(trouble.failure, expected, "{kind:?}");
            assert!(trouble.message.contains("relay.example.com:8001: why"), "{}", trouble.message);
            assert!(trouble.hopeless.is_none(), "a dial may do better later");
        }
    }
}
