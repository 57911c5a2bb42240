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

/// When the first hosts may come back: a process ends and starts within this.
const AWAY_MIN: Duration = Duration::from_millis(500);

/// How far apart the hosts come back that follow. Each of them opens its command channel and its pool, a dozen TLS handshakes of about
/// a millisecond: a third of one core.
const HOST_INTERVAL: Duration = Duration::from_millis(4);

/// However many there are, all are back by then.
const SMEAR_MAX: Duration = Duration::from_secs(6);

/// When one of so many hosts is to come back, by chance: their return is smeared over a window.
pub(crate) fn retry_after(hosts: usize) -> Duration {
    let hosts = u32::try_from(hosts).unwrap_or(u32::MAX);
    let window = HOST_INTERVAL.saturating_mul(hosts).min(SMEAR_MAX);
    AWAY_MIN + window.mul_f64(fastrand::f64())
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_come_back_over_a_window_that_grows_with_them() {
        let of = |hosts| (0..1000).map(move |_| retry_after(hosts));
        let bounds = |hosts| (of(hosts).min(), of(hosts).max());
        let millis = Duration::from_millis;
        let (first, last) = bounds(1);
        assert!(first >= Some(millis(500)) && last <= Some(millis(504)));
        let (first, last) = bounds(1000);
        assert!(first < Some(millis(600)) && last > Some(millis(4_300)));
        assert!(bounds(usize::MAX).1 <= Some(millis(6_500)), "however many there are");
    }
}
