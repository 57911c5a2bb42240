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
    /// Hosts are to come with TLS only, and there is none.
    #[error(
        "hosts on {address} are to come with TLS only, and TLS is off: give it a key and a certificate"
    )]
    NoTls {
        /// What was to be listened on.
        address: SocketAddr,
    },
    /// A port could not be had.
    #[error("cannot listen for {what} on {address}: {source}{}", advice(source))]
    Listen {
        /// Whom the port is for.
        what: String,
        /// What was to be listened on.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// One port was given twice.
    #[error("{address} cannot be for {other}: that port is for {what}; give each its own")]
    SamePort {
        /// What was given.
        address: SocketAddr,
        /// Whom it was given for first.
        what: String,
        /// And then.
        other: String,
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

/// What to do about it.
fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => "; does a relay run already? Another port will do",
        io::ErrorKind::PermissionDenied => "; ports below 1024 are root's",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    }
}
