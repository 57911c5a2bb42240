//! What serves a session.

use std::future::Future;
use std::io;

use crate::Session;

/// Serves sessions: one method, called for each, in a task of its own.
///
/// Implemented for functions and closures, async ones too:
///
/// ```no_run
/// # async fn example() -> Result<(), relayserver::Error> {
/// use relayserver::{Listener, Session};
/// use tokio::io::AsyncWriteExt;
///
/// let listener = Listener::builder("relay.example.com").listen().await?;
/// listener.serve(async |mut session: Session| session.write_all(b"hello\r\n").await).await
/// # }
/// ```
pub trait Handler: Send + Sync + 'static {
    /// Serves one session to its end. An error ends the session and is logged.
    fn handle(&self, session: Session) -> impl Future<Output = io::Result<()>> + Send;
}

impl<F, Served> Handler for F
where
    F: Fn(Session) -> Served + Send + Sync + 'static,
    Served: Future<Output = io::Result<()>> + Send,
{
    fn handle(&self, session: Session) -> impl Future<Output = io::Result<()>> + Send {
        self(session)
    }
}
