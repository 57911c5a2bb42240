//! What can go wrong for whoever uses a listener.

use std::io;
use std::time::Duration;

use thiserror::Error;

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
            Error::Address(_) | Error::NotARelay { .. } | Error::Closed => true,
            Error::ConnectTimeout { .. } | Error::Io(_) => false,
        }
    }
}
