//! An address in, a byte stream out: dialling, listening and socket options.
//!
//! Driven by relay and host for every connection that they make or accept. Nothing in here knows the protocol, retries,
//! or chooses a deadline: those who call say how long they want to wait.

mod address;
mod closing;
mod dial;
mod listen;
pub mod options;
mod stream;

pub use address::{HostPort, InvalidHostPort};
pub use closing::{acknowledged, close_politely};
pub use dial::{DialError, DialErrorKind, dial, dial_from};
pub use listen::listen;
pub use stream::{Stream, abort};
