//! Handlers for what needs no server of one's own.

mod echo;
#[cfg(feature = "exec")]
mod exec;
mod forward;

use relayserver_splice::Side;

pub use echo::Echo;
#[cfg(feature = "exec")]
pub use exec::Exec;
pub use forward::{Forward, TargetError};

/// What a leg is to a handler: the session stands for the client, and the target for what `splice` calls the host.
fn leg_name(side: Side) -> &'static str {
    match side {
        Side::Client => "session",
        Side::Host => "target",
    }
}
