//! What the tasks of a listener's connections tell its driver.

use std::fmt;
use std::io;
use std::time::Duration;

use relayserver_core::Reason;
use relayserver_core::keeper::{Failure, Slot};
#[cfg(feature = "tls")]
use relayserver_transport::TlsConnectError;
use relayserver_transport::{DialError, DialErrorKind, HostPort, Stream};
use relayserver_wire::command::Announcement;
use relayserver_wire::hello::{Answer, Refusal};
use tokio::sync::mpsc;

use crate::Error;
use crate::status::Served;

/// What the tasks of channels tell the driver.
pub(crate) enum Report {
    /// Of the command channel with this number. There may be two for a while: that of a relay that is leaving, and its successor's.
    Command(u64, CommandReport),
    /// An original has answered: the channel is idle.
    ChannelAnswered {
        slot: Slot,
        channel_id: i32,
        /// Where clients connect.
        clients: String,
    },
    /// The relay has not answered.
    ChannelFailed(Slot, Trouble),
    /// An original's: the session's first byte has come, and its task hands it on.
    ChannelOpened(Slot),
    /// An original's: FIN has come and no byte.
    ChannelEnded(Slot),
    /// An idle channel was reset; or, of version 2, has ended, or said what opens no session.
    ChannelLost(Slot),
}

/// What the task of a command channel tells.
pub(crate) enum CommandReport {
    /// The relay is an original, and what asked for a command channel is one of its idle data channels.
    Original { stream: Stream, answer: Answer },
    /// An original's command channel is connected.
    Up,
    /// The relay has answered on a command channel of version 2.
    Answered { services: Vec<Served> },
    /// The relay was not heard of for too long.
    Silence,
    /// It could not be dialled, or the relay did not take it.
    Failed(Trouble),
    /// It was up and has ended.
    Lost(Trouble),
    /// The relay's word came over it.
    Announced(Announcement),
}

/// By which the task of a command channel tells it.
pub(crate) struct CommandReporter {
    pub(crate) number: u64,
    pub(crate) reports: mpsc::Sender<Report>,
}

impl CommandReporter {
    pub(crate) async fn tell(&self, report: CommandReport) {
        // Without a driver the listener is gone.
        let _taken = self.reports.send(Report::Command(self.number, report)).await;
    }
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
    /// Where waiting cannot mend it.
    pub(crate) hopeless: Option<Hopeless>,
    pub(crate) message: String,
    /// When the relay wants to be asked again.
    pub(crate) retry_after: Option<Duration>,
}

/// What waiting cannot mend.
#[derive(Clone, Debug)]
pub(crate) enum Hopeless {
    /// What answered is no relay.
    NotARelay { address: String, channels: String, detail: String },
    /// It is not the relay of the join line, as far as it can show.
    Untrusted { address: String, detail: String },
    /// The relay said so itself.
    Refused { address: String, reason: String, detail: String },
}

impl From<Hopeless> for Error {
    fn from(hopeless: Hopeless) -> Error {
        match hopeless {
            Hopeless::NotARelay { address, channels, detail } => {
                Error::NotARelay { address, channels, detail }
            }
            Hopeless::Untrusted { address, detail } => Error::Untrusted { address, detail },
            Hopeless::Refused { address, reason, detail } => {
                Error::Refused { address, reason, detail }
            }
        }
    }
}

impl Trouble {
    /// A dial failed.
    pub(crate) fn dial(port: Port, error: &DialError) -> Trouble {
        let (failure, advice) = match error.kind {
            // So looks a relay that restarts.
            DialErrorKind::Refused => (
                Failure::Away,
                format!("; does a relay run there, with its port for {port} on this number?"),
            ),
            DialErrorKind::TimedOut => {
                (Failure::Away, "; does a firewall stand in between?".to_owned())
            }
            // So looks a network that is away, to those who know their relay by name.
            DialErrorKind::NameNotResolved => (Failure::Away, String::new()),
            DialErrorKind::Unreachable => (Failure::Away, String::new()),
            DialErrorKind::Other => (Failure::Rejected, String::new()),
        };
        Trouble::passing(failure, format!("{error}{advice}"))
    }

    /// What waiting may mend.
    fn passing(failure: Failure, message: String) -> Trouble {
        Trouble { failure, hopeless: None, message, retry_after: None }
    }

    fn hopeless(hopeless: Hopeless) -> Trouble {
        let message = Error::from(hopeless.clone()).to_string();
        let failure = Failure::Rejected;
        Trouble { failure, hopeless: Some(hopeless), message, retry_after: None }
    }

    /// Nothing was heard within a deadline, on a connection that was there: so looks a relay that stands still.
    pub(crate) fn unanswered(address: &HostPort, waited: Duration) -> Trouble {
        let message = format!("{address} has not answered a hello within {waited:?}");
        Trouble::passing(Failure::Away, message)
    }

    /// The relay refuses this host, or this connection.
    pub(crate) fn refused(address: &HostPort, refusal: &Refusal) -> Trouble {
        let Refusal { reason, detail, retry_after_ms } = refusal;
        let known: Option<Reason> = reason.parse().ok();
        let detail = detail.clone().unwrap_or_default();
        let refused =
            Hopeless::Refused { address: address.to_string(), reason: reason.clone(), detail };
        let mut trouble = Trouble::hopeless(refused);
        if !known.is_some_and(is_permanent) {
            trouble.hopeless = None;
        }
        trouble.retry_after = retry_after_ms.map(|after| Duration::from_millis(after.into()));
        trouble
    }

    /// A relay that knows version 1 alone, where a join line says that there is another.
    pub(crate) fn version_1_behind_a_join_line(address: &HostPort) -> Trouble {
        // It has shown the right key before it got the token.
        let detail = "it speaks version 1 alone, as its answer to the token shows".to_owned();
        Trouble::hopeless(Hopeless::Untrusted { address: address.to_string(), detail })
    }

    /// There is no TLS connection to a relay that can be trusted.
    #[cfg(feature = "tls")]
    pub(crate) fn tls(address: &HostPort, error: &TlsConnectError) -> Trouble {
        match error {
            TlsConnectError::Io(error) => {
                let message = format!("{address} was lost in the TLS handshake: {error}");
                Trouble::passing(Failure::Rejected, message)
            }
            error => {
                let detail = format!("{error}. Nothing was sent to it");
                Trouble::hopeless(Hopeless::Untrusted { address: address.to_string(), detail })
            }
        }
    }

    /// A connection that was there is of no use.
    pub(crate) fn at(port: Port, address: &HostPort, fault: Fault) -> Trouble {
        let failure = Failure::Rejected;
        match fault {
            Fault::Lost(what) => Trouble::passing(failure, format!("{address} {what}")),
            Fault::NotARelay(detail) => {
                let (address, channels) = (address.to_string(), port.to_string());
                Trouble::hopeless(Hopeless::NotARelay { address, channels, detail })
            }
        }
    }
}

/// Whether a host that is refused for this is refused for good, unless somebody does something.
pub(crate) fn is_permanent(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::TokenUnknown
            | Reason::TokenRevoked
            | Reason::TokenExpired
            | Reason::TokenRequired
            | Reason::RoleNotGranted
            | Reason::ServiceNotGranted
            | Reason::ServiceUnknown
            | Reason::ServiceOfVersion1
            | Reason::UnsupportedVersion
            | Reason::TlsRequired
            | Reason::TlsOff
            | Reason::Version1Off
    )
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
    fn who_is_away_is_told_from_who_refuses() {
        for (kind, expected) in [
            (DialErrorKind::Refused, Failure::Away),
            (DialErrorKind::Other, Failure::Rejected),
            (DialErrorKind::TimedOut, Failure::Away),
            (DialErrorKind::Unreachable, Failure::Away),
            (DialErrorKind::NameNotResolved, Failure::Away),
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
