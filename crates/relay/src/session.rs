//! A session from its assignment to its one end: moves bytes between the client's leg and the host's, tells the book of
//! every last byte, and says in one log line how it ended.

use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use relayserver_core::{Assignment, End, Reason, SessionId};
use relayserver_splice::{
    self as splice, Counts, Failure, Path, Remainder, Side, Splice, Undelivered,
};
use relayserver_transport::{Stream, abort, options};
use tokio::sync::Notify;
use tracing::{debug, info};

use crate::assignment::{SessionGuard, Start, Stop};
use crate::closing::{Ending, Legs};
use crate::context::Context;
use crate::offer::Held;

/// Runs the session that `start` describes over `host`, to its end. `sent` of the held bytes have gone there already. When the
/// relay is over, nothing is waited for.
pub(crate) async fn run(host: Stream, mut start: Start, sent: usize, context: &Context) {
    let Context { half_closed_timeout, over, .. } = context;
    let half_closed_timeout = *half_closed_timeout;
    if let Some(socket) = host.tcp() {
        options::prepare_session(socket);
    }
    report_open(&start);
    let counts = Arc::new(Counts::default());
    counts.to_host.fetch_add(sent as u64, Ordering::Relaxed);
    let held = std::mem::take(&mut start.held);
    let has_ended = held.ended;
    let mut splice = Splice::from_remainder(rest_of(held, sent), Path::Auto);
    let Start { assignment, client, client_addr, client_was_reset, mut stop, guard, back, .. } =
        start;
    // It comes back no more: the client's task has nothing left to wait for.
    drop(back);
    let rates = context.rates.get(&assignment.service);
    let mut legs = Legs::new(client, host, rates);
    let Assignment { session, host, .. } = assignment;
    let _counted = guard.assignments().traffic.count(host, session, &counts, rates.is_some());
    let progress = Progress::new(&guard, &assignment);
    if has_ended {
        progress.finished(Side::Client);
    }
    let reason = {
        let mut on_eof = |side| progress.finished(side);
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
            () = progress.silence(&counts, half_closed_timeout) => Reason::HalfClosedTimeout,
        }
    };
    if reason == Reason::ClientAborted {
        progress.finished(Side::Client);
    }
    let ending = match reason {
        Reason::Finished => Ending::Finished,
        Reason::HostLost if progress.host_finished.load(Ordering::Relaxed) => {
            Ending::LastWord(half_closed_timeout)
        }
        _ => Ending::Abort,
    };
    over.run_until_cancelled(legs.close(ending, splice, &counts)).await;
    let end = End {
        reason,
        bytes_to_host: counts.to_host.load(Ordering::Relaxed),
        bytes_to_client: counts.to_client.load(Ordering::Relaxed),
    };
    report(&assignment, client_addr, end);
    guard.ended(end);
}

/// Which sides have sent their last byte.
struct Progress<'a> {
    guard: &'a SessionGuard,
    session: SessionId,
    host_finished: AtomicBool,
    half_closed: Notify,
}

impl Progress<'_> {
    fn new<'a>(guard: &'a SessionGuard, assignment: &Assignment) -> Progress<'a> {
        let (host_finished, half_closed) = (AtomicBool::new(false), Notify::new());
        Progress { guard, session: assignment.session, host_finished, half_closed }
    }

    /// Tells the book.
    fn finished(&self, side: Side) {
        match side {
            Side::Client => self.guard.assignments().client_finished(self.session),
            Side::Host => {
                self.host_finished.store(true, Ordering::Relaxed);
                self.guard.assignments().host_finished(self.session);
            }
        }
        self.half_closed.notify_one();
    }

    /// Resolves when the session is half-closed and nothing has moved for `bound`. Holds no timer before that.
    async fn silence(&self, counts: &Counts, bound: Duration) {
        self.half_closed.notified().await;
        counts.unchanged_for(bound).await;
    }
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

fn report_open(Start { assignment, client_addr, .. }: &Start) {
    debug!(
        session.id = %assignment.session,
        service = %assignment.service,
        host.id = %assignment.host,
        channel.id = %assignment.channel,
        client.addr = %client_addr,
        waited = ?assignment.waited,
        "session opened"
    );
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
