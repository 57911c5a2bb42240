//! A session from its assignment to its one end: moves bytes between the client's leg and the host's, tells the book of
//! every last byte, and says in one log line how it ended.

use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use relayserver_core::{Assignment, End, Reason, SessionId};
use relayserver_splice::{
    self as splice, Counts, Failure, Path, Remainder, Side, Splice, Undelivered, Until, lanes,
};
use relayserver_transport::{Stream, abort, options};
use tokio::sync::{Notify, oneshot};
use tracing::{debug, info};

use crate::assignment::{SessionGuard, Start, Stop};
use crate::channel;
use crate::closing::{Ending, Legs};
use crate::context::Context;
use crate::offer::Held;
use crate::traffic::Counted;

/// A session that has begun: no more than it needs as long as it lasts.
struct Session {
    assignment: Assignment,
    client_addr: SocketAddr,
    client_was_reset: bool,
    client_has_ended: bool,
    stop: oneshot::Receiver<Stop>,
    guard: SessionGuard,
    counts: Arc<Counts>,
    _counted: Counted,
    splice: Splice,
    legs: Legs,
    context: Arc<Context>,
}

/// How a session was over.
struct Over {
    reason: Reason,
    /// Whether its host had sent its last byte.
    host_finished: bool,
}

/// Begins the session that `start` describes over `host`, to its end. `sent` of the held bytes have gone there already. When the
/// relay is over, nothing is waited for.
pub(crate) fn begin(
    host: Stream,
    start: Box<Start>,
    sent: usize,
    context: Arc<Context>,
) -> impl Future<Output = ()> + Send + 'static {
    if let Some(socket) = host.tcp() {
        options::prepare_session(socket);
    }
    report_open(&start);
    // It comes back no more: dropping `back` says so to the client's task, which has nothing left to wait for.
    let Start { assignment, client, client_addr, client_was_reset, held, stop, guard, back: _ } =
        *start;
    let counts = Arc::new(Counts::default());
    counts.to_host.fetch_add(sent as u64, Ordering::Relaxed);
    let is_held_back = context.rates.contains_key(&assignment.service);
    let traffic = &guard.assignments().traffic;
    let _counted = traffic.count(assignment.host, assignment.session, &counts, is_held_back);
    let client_has_ended = held.ended;
    let splice = Splice::from_remainder(rest_of(held, sent), Path::Auto);
    let legs = Legs::new(client, host, context.rates.get(&assignment.service));
    let session = Box::new(Session {
        assignment,
        client_addr,
        client_was_reset,
        client_has_ended,
        stop,
        guard,
        counts,
        _counted,
        splice,
        legs,
        context,
    });
    session.run()
}

impl Session {
    /// Boxed, since a future has what it was called with twice.
    async fn run(mut self: Box<Self>) {
        let until = if lanes::are_open() { Until::Busy } else { Until::End };
        match self.serve(until).await {
            Some(over) => Box::pin(self.end(over)).await,
            None => Box::pin(self.change_lane()).await,
        }
    }

    /// Goes on where a busy session is best served.
    async fn change_lane(mut self: Box<Self>) {
        let lane = lanes::quietest().filter(|lane| {
            let _entered = lane.enter();
            self.legs.move_here().is_ok()
        });
        let tasks = self.context.tasks.clone();
        let rest = async move {
            if let Some(over) = self.serve(Until::End).await {
                Box::pin(self.end(over)).await;
            }
        };
        match lane {
            Some(lane) => drop(tasks.spawn_on(rest, lane)),
            None => rest.await,
        }
    }

    /// Serves the session until it is over. `None` where it turns out to be busy, if that is looked for.
    async fn serve(&mut self, until: Until) -> Option<Over> {
        let Session { assignment, guard, counts, context, legs, splice, stop, .. } = self;
        let progress = Progress::new(guard, assignment);
        if std::mem::take(&mut self.client_has_ended) {
            progress.finished(Side::Client);
        }
        let reason = {
            let mut on_eof = |side| progress.finished(side);
            tokio::select! {
                biased;
                () = ready(()), if self.client_was_reset => Reason::ClientAborted,
                ran = carry(splice, legs, until, counts, &mut on_eof) => match ran {
                    Ok(Until::Busy) => return None,
                    Ok(Until::End | Until::Woken) => Reason::Finished,
                    Err(failure) => reason_of(assignment, failure),
                },
                stopped = stop => match stopped {
                    Ok(Stop::End(reason) | Stop::Withdraw(reason)) => reason,
                    Err(_book_gone) => Reason::Drained,
                },
                () = progress.silence(counts, context.half_closed_timeout) => Reason::HalfClosedTimeout,
            }
        };
        if reason == Reason::ClientAborted {
            progress.finished(Side::Client);
        }
        let host_finished = progress.host_finished.load(Ordering::Relaxed);
        Some(Over { reason, host_finished })
    }

    /// Most of what closing takes is for ends that are rare: what awaits this is to box it.
    async fn end(self: Box<Self>, over: Over) {
        let Over { reason, host_finished } = over;
        let Session { assignment, client_addr, guard, counts, splice, mut legs, context, .. } =
            *self;
        let ending = match reason {
            Reason::Finished => Ending::Finished,
            Reason::HostLost if host_finished => Ending::LastWord(context.half_closed_timeout),
            _ => Ending::Abort,
        };
        // The client may take its time; the host's channel does not wait for that.
        if reason == Reason::Finished
            && let Some(host) = legs.take_host_for_another()
        {
            channel::come_back(host, &assignment, &context);
        }
        context.over.run_until_cancelled(legs.close(ending, splice, &counts)).await;
        let end = End {
            reason,
            bytes_to_host: counts.to_host.load(Ordering::Relaxed),
            bytes_to_client: counts.to_client.load(Ordering::Relaxed),
        };
        report(&assignment, client_addr, end);
        guard.ended(end);
    }
}

/// Moves the session's bytes over the best legs that there are: a host's that is for many sessions may turn into a plain one meanwhile.
async fn carry(
    splice: &mut Splice,
    legs: &mut Legs,
    until: Until,
    counts: &Counts,
    on_eof: &mut (dyn FnMut(Side) + Send),
) -> Result<Until, Failure> {
    loop {
        let until = if legs.may_go_bare() { Until::Woken } else { until };
        let (client, host) = legs.both();
        match splice.run_until(until, client, host, counts, on_eof).await? {
            Until::Woken => {}
            over => return Ok(over),
        }
    }
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
        // Few sessions come to that.
        Box::pin(counts.unchanged_for(bound)).await;
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

fn reason_of(assignment: &Assignment, failure: Failure) -> Reason {
    let Failure { side, operation, error } = failure;
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
