//! A session from its assignment to its one end: moves bytes between the client's leg and the host's, tells the book of
//! every last byte, and says in one log line how it ended.

use std::future::ready;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use relayserver_core::{Assignment, End, Reason};
use relayserver_splice::{
    self as splice, Counts, Failure, Path, Remainder, Side, Splice, Undelivered,
};
use relayserver_transport::{Stream, abort, options};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::assignment::{Start, Stop};
use crate::closing::Legs;
use crate::offer::Held;

/// Runs the session that `start` describes over `host`, to its end. `sent` of the held bytes have gone there already. When the
/// relay is `over`, nothing is waited for.
pub(crate) async fn run(
    host: Stream,
    start: Start,
    sent: usize,
    half_closed_timeout: Duration,
    over: &CancellationToken,
) {
    let Start { assignment, client, client_addr, client_was_reset, held, mut stop, guard, .. } =
        start;
    if let Some(socket) = host.tcp() {
        options::prepare_session(socket);
    }
    let mut legs = Legs::new(client, host);
    debug!(
        session.id = %assignment.session,
        service = %assignment.service,
        host.id = %assignment.host,
        channel.id = %assignment.channel,
        client.addr = %client_addr,
        waited = ?assignment.waited,
        "session opened"
    );
    let counts = Counts::default();
    counts.to_host.fetch_add(sent as u64, Ordering::Relaxed);
    let half_closed = Notify::new();
    if held.ended {
        guard.assignments().client_finished(assignment.session);
        half_closed.notify_one();
    }
    let mut splice = Splice::from_remainder(rest_of(held, sent), Path::Auto);
    let reason = {
        let mut on_eof = |side| {
            match side {
                Side::Client => guard.assignments().client_finished(assignment.session),
                Side::Host => guard.assignments().host_finished(assignment.session),
            }
            half_closed.notify_one();
        };
        let (client, host) = legs.both();
        tokio::select! {
            biased;
            () = ready(()), if client_was_reset => Reason::ClientAborted,
            ended = splice.run(client, host, &counts, &mut on_eof) => {
                reason_of(&assignment, ended)
            }
            stopped = &mut stop => match stopped {
                Ok(Stop::End(reason) | Stop::Withdraw(reason)) => reason,
                Err(_book_gone) => Reason::Drained,
            },
            () = silence(&half_closed, &counts, half_closed_timeout) => Reason::HalfClosedTimeout,
        }
    };
    if reason == Reason::ClientAborted {
        guard.assignments().client_finished(assignment.session);
    }
    over.run_until_cancelled(legs.close(reason, splice, &counts, half_closed_timeout)).await;
    let end = End {
        reason,
        bytes_to_host: counts.to_host.load(Ordering::Relaxed),
        bytes_to_client: counts.to_client.load(Ordering::Relaxed),
    };
    report(&assignment, client_addr, end);
    guard.ended(end);
}

/// Ends a session that no host has accepted, for `reason`: its client is reset, as nothing of it was served.
pub(crate) fn ended_unaccepted(start: Start, reason: Reason) {
    let Start { assignment, client, client_addr, guard, .. } = start;
    abort(client);
    let end = End { reason, bytes_to_host: 0, bytes_to_client: 0 };
    report(&assignment, client_addr, end);
    guard.ended(end);
}

/// What is still to go to the host.
fn rest_of(mut held: Held, sent: usize) -> Remainder {
    held.bytes.drain(..sent.min(held.bytes.len()));
    let end = if held.ended { splice::End::Read } else { splice::End::Open };
    Remainder { to_host: Undelivered { bytes: held.bytes, end }, ..Remainder::default() }
}

fn reason_of(assignment: &Assignment, ended: Result<(), Failure>) -> Reason {
    let Err(Failure { side, operation, error }) = ended else { return Reason::Finished };
    debug!(session.id = %assignment.session, leg = %side, ?operation, %error, "leg failed");
    match side {
        Side::Client => Reason::ClientAborted,
        Side::Host => Reason::HostAborted,
    }
}

/// Resolves when the session is half-closed and nothing has moved for `bound`. Holds no timer before that.
async fn silence(half_closed: &Notify, counts: &Counts, bound: Duration) {
    half_closed.notified().await;
    counts.unchanged_for(bound).await;
}

fn report(assignment: &Assignment, client_addr: SocketAddr, end: End) {
    info!(
        session.id = %assignment.session,
        service = %assignment.service,
        host.id = %assignment.host,
        channel.id = %assignment.channel,
        client.addr = %client_addr,
        bytes.to_host = end.bytes_to_host,
        bytes.to_client = end.bytes_to_client,
        end.reason = %end.reason,
        "session ended"
    );
}
