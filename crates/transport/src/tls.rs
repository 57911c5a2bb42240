//! TLS 1.3 as relay and host speak it: no early data, ALPN `relayserver/2` on both sides, post-quantum hybrid key exchange
//! preferred (X25519MLKEM768, draft-ietf-tls-ecdhe-mlkem), by rustls on aws-lc-rs.
//!
//! Driven by the relay with [`ServerTls`] and by hosts with [`ClientTls`]. Nothing here sets a deadline, tries again, or falls
//! back to anything.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use thiserror::Error;

mod client;
mod identity;
mod opening;
mod server;
mod stream;
#[cfg(test)]
mod tests;
mod verifier;

pub use client::{ClientTls, FirstBytes, TlsConnectError};
pub use identity::{Identity, generate_identity};
pub use server::{ServerTls, TlsAcceptError};
pub use stream::TlsStream;

/// What both sides must name in the handshake (RFC 7301).
pub const ALPN: &[u8] = b"relayserver/2";

/// TLS cannot be set up with what was given.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The PEM text of the certificates has none.
    #[error("no certificate: expected PEM with BEGIN CERTIFICATE")]
    NoCertificate,
    /// One of them is none. Counted from 1.
    #[error("certificate {number} is not one: {detail}")]
    BadCertificate {
        /// Which one.
        number: usize,
        /// What is wrong with it.
        detail: String,
    },
    /// The PEM text of the key has none.
    #[error("no private key: expected PEM with BEGIN PRIVATE KEY")]
    NoKey,
    /// It is none, or of a kind that is not known.
    #[error("the private key cannot be used: {0}")]
    BadKey(String),
    /// The first certificate is not that of the key.
    #[error("the private key does not belong to the first certificate")]
    KeyMismatch,
    /// A name that a certificate cannot be made out to.
    #[error("{0:?} is neither a host name nor an address")]
    BadName(String),
    /// Nothing would ever be trusted.
    #[error("no pin was given")]
    NoPins,
    /// The system has no certificate authorities that could be read.
    #[error("the system has no root certificates{0}")]
    NoSystemRoots(String),
    /// The cryptographic library failed, as where there is no randomness.
    #[error("cryptography failed: {0}")]
    Cryptography(String),
}

/// How TLS failed, taken out of the `io::Error` that it comes in.
enum Failure {
    Tls(rustls::Error),
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.downcast::<rustls::Error>() {
            Ok(error) => Failure::Tls(error),
            Err(error) => Failure::Io(error),
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn cryptography(error: impl fmt::Display) -> TlsError {
    TlsError::Cryptography(error.to_string())
}
