//! Moves bytes between the two legs of a session as fast as the machine can, and loses none.
//!
//! Driven by whoever holds a session's two connections. [`Splice::run`] borrows both legs and is one future for both
//! directions. It never spawns, never holds a timer, and never reads from a leg while earlier bytes of that leg are
//! still unwritten. A session that idles holds no buffer and no pipe.
//!
//! Bytes go through a scratch buffer that is borrowed per thread. On Linux, between two sockets, a direction that
//! turns out to be bulk moves over to `splice(2)`, and back when it turns small again ([`Path::Auto`]).
//!
//! [`lanes`] are threads for busy sessions. Whoever runs a session opens them, and moves it there.
//!
//! A process that moves bytes with `splice(2)` must ignore `SIGPIPE`, as every Rust program does unless it asks for
//! something else: that system call knows no `MSG_NOSIGNAL`.

mod direction;
mod failure;
pub mod lanes;
mod leg;
#[cfg(target_os = "linux")]
mod pipe;
#[cfg(not(target_os = "linux"))]
#[path = "no_pipe.rs"]
mod pipe;
mod remainder;
mod scratch;
mod socket;
mod splice;
mod watch;

#[cfg(all(test, target_os = "linux"))]
mod tests;

pub use failure::{Failure, Operation, Side};
pub use leg::{ByteStream, Leg};
pub use remainder::{End, Remainder, Undelivered};
pub use splice::{Busy, Counts, Path, Splice, Until};
