//! How a relay leaves: no new clients, time for the sessions that run, then their end.

use std::time::Duration;

use relayserver_core::Reason;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::assignment::Assignments;

/// How long tasks may take to close what they hold once everything was told to end. They only flush and drop; whatever
/// takes longer waits for a client that does not read, and is left behind.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Drains the book: resolves when no session runs, which is after `drain_timeout` at the latest.
pub(crate) async fn drain(assignments: &Assignments, drain_timeout: Duration) {
    assignments.drain();
    let sessions = assignments.sessions();
    if sessions > 0 {
        info!(sessions, timeout = ?drain_timeout, "draining: waiting for sessions to end");
        if timeout(drain_timeout, assignments.no_session()).await.is_err() {
            let sessions = assignments.sessions();
            info!(sessions, "drain timeout: ending the sessions that are left");
        }
    }
    end_all(assignments).await;
}

/// Ends every session at once.
pub(crate) async fn end_all(assignments: &Assignments) {
    assignments.end_all(Reason::Drained);
    // Late ones are left behind.
    let _ended = timeout(CLOSE_TIMEOUT, assignments.no_session()).await;
}

/// Resolves when every task of the relay has ended, which they were told to.
pub(crate) async fn tasks_ended(tasks: &TaskTracker) {
    tasks.close();
    let _ended = timeout(CLOSE_TIMEOUT, tasks.wait()).await;
}
