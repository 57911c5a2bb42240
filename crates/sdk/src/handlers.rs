//! Handlers for what needs no server of one's own.

mod echo;
#[cfg(feature = "exec")]
mod exec;
mod forward;

pub use echo::Echo;
#[cfg(feature = "exec")]
pub use exec::Exec;
pub use forward::{Forward, TargetError};
