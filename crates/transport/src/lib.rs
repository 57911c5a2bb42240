//! An address in, a byte stream out: dialling, listening and socket options; TLS, where the feature `tls` is on; and what a
//! host is told to find its relay, know it and be known to it: join lines, pins and tokens.
//!
//! Driven by relay and host for every connection that they make or accept. Nothing in here knows the protocol, retries,
//! logs a secret, or chooses a deadline: those who call say how long they want to wait.

mod address;
mod base64url;
mod closing;
mod dial;
mod heard;
mod join;
mod listen;
pub mod net;
pub mod options;
mod parts;
mod pin;
#[cfg(feature = "tls")]
mod random;
mod split;
mod stream;
#[cfg(feature = "tls")]
mod tls;
mod token;

pub use address::{HostPort, InvalidHostPort};
pub use closing::{acknowledged, close_politely, is_acknowledged};
pub use dial::{DialError, DialErrorKind, dial, dial_from};
pub use heard::Heard;
pub use join::{InvalidJoin, Join, JoinPart};
pub use listen::listen;
pub use parts::Parts;
#[cfg(not(simulation))]
pub use parts::PartsOverTcp;
#[cfg(feature = "tls")]
pub use pin::NotACertificate;
pub use pin::{InvalidPin, Pin};
#[cfg(feature = "tls")]
pub use random::{NoRandomness, random_bytes, sha256};
pub use split::{ReadHalf, WriteHalf};
pub use stream::{Stream, abort};
#[cfg(feature = "tls")]
pub use tls::{
    ALPN, ClientTls, FirstBytes, Identity, ServerTls, TlsAcceptError, TlsConnectError, TlsError,
    TlsStream, generate_identity,
};
pub use token::{InvalidToken, Token};
#[cfg(feature = "tls")]
pub use token::{TokenError, equal_in_constant_time};
