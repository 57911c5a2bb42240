//! What can go wrong for whoever uses a listener.

use std::io;
use std::time::Duration;

use relayserver_core::Reason;
use thiserror::Error;

use crate::report;

/// Why a listener could not be had, or gives no more sessions.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The relay's address is none.
    #[error("the relay's address is wrong: {0}")]
    Address(String),
    /// What answered at the relay's address is not a relay. Waiting cannot mend that.
    #[error("{address} is not a relay's port for {channels}: {detail}")]
    NotARelay {
        /// What was dialled.
        address: String,
        /// What the port should have been for.
        channels: String,
        /// What came instead of an answer.
        detail: String,
    },
    /// What answered is not the relay of the join line, as far as it can show: to who has another key or certificate the token was not
    /// sent.
    #[error(
        "{address} is not the relay of the join line: {detail}. If the relay has a new key, ask its \
         operator for a new join line; if not, somebody stands in between"
    )]
    Untrusted {
        /// What was dialled.
        address: String,
        /// What it showed.
        detail: String,
    },
    /// The relay refuses this host.
    #[error("{address} refuses this host: {}", explained(reason, detail))]
    Refused {
        /// What was dialled.
        address: String,
        /// The relay's word, like `token_revoked`.
        reason: String,
        /// What exactly; may be empty.
        detail: String,
    },
    /// Join lines take the feature `tls`, which this program was built without.
    #[error("join lines take relayserver's feature `tls`, which this program was built without")]
    NoTls,
    /// TLS cannot be set up on this machine.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// A service cannot be called that.
    #[error("expected the name of a service, 1 to 63 of a-z, 0-9 and -, got {0:?}")]
    Service(String),
    /// The relay did not accept this host within the connect timeout.
    #[error("no relay within {connect_timeout:?}: {last_error}")]
    ConnectTimeout {
        /// How long was tried.
        connect_timeout: Duration,
        /// What went wrong last.
        last_error: String,
    },
    /// The listener was closed, and every session that it had was accepted.
    #[error("the listener is closed")]
    Closed,
    /// The system refused something.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Error {
    /// Whether trying again without a change cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Error::Address(_)
            | Error::Service(_)
            | Error::NotARelay { .. }
            | Error::Untrusted { .. }
            | Error::NoTls
            | Error::Tls(_)
            | Error::Closed => true,
            Error::Refused { reason, .. } => reason.parse().is_ok_and(report::is_permanent),
            Error::ConnectTimeout { .. } | Error::Io(_) => false,
        }
    }

    /// The relay's word for why it refuses this host, like `token_revoked`; `None` where it was not the relay that refused.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Error::Refused { reason, .. } => Some(reason),
            _ => None,
        }
    }
}

/// What a relay's word means, what exactly it was about, and what to do.
fn explained(code: &str, detail: &str) -> String {
    let detail = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
    match code.parse::<Reason>() {
        Ok(reason) => format!("{code}{detail}. {} {}", reason.meaning(), reason.advice()),
        Err(_) => format!("{code}{detail}"),
    }
}
