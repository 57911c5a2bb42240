//! Waiting for the moments that `core` names.

use tokio::time::Instant;

/// Sleeps until then; for ever where there is no such moment.
pub(crate) async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
