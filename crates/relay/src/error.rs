//! Why a relay could not start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

/// Why a relay could not start.
#[derive(Debug, Error)]
pub enum BindError {
    /// A port would be open to others although nobody said so.
    #[error(
        "{address} is not loopback, and version 1 has no authentication: name the networks that hosts come from \
         (--v1-allow CIDR), or accept anyone (--insecure)"
    )]
    NotLoopback {
        /// What was to be listened on.
        address: SocketAddr,
    },
    /// A port could not be had.
    #[error("cannot listen for {what} on {address}: {source}")]
    Listen {
        /// Whom the port is for.
        what: &'static str,
        /// What was to be listened on.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The recording could not be started.
    #[error("cannot record to {}: {source}", path.display())]
    Record {
        /// Where to.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
