//! A session from its assignment to its one end, and those that follow it on its channel: moves bytes between the client's leg and the
//! host's, tells the book of every last byte, and says in one log line how it ended.

use std::future::{poll_fn, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use relayserver_core::{Assignment, End, Reason};
use relayserver_splice::{
    self as splice, Counts, Failure, Path, Remainder, Side, Splice, Undelivered, Until, lanes,
};
use relayserver_transport::{Stream, abort};
use tokio::sync::oneshot;
use tracing::{debug, info};

use crate::assignment::{SessionGuard, Start, Stop};
use crate::channel::{Opened, Waiting};
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
    counted: Counted,
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

/// Runs the session that has opened to its end, and then those that open on the same channel. Once the relay is over, nothing is waited for.
pub(crate) fn begin(
    opened: Opened,
    context: Arc<Context>,
) -> impl Future<Output = ()> + Send + 'static {
    Session::new(opened, context).run()
}

impl Session {
    fn new(opened: Opened, context: Arc<Context>) -> Box<Session> {
        let Opened { stream: host, start, sent } = opened;
        report_open(&start);
        let Start { assignment, client, client_addr, client_was_reset, held, stop, guard } = *start;
        let is_held_back = context.rates.contains_key(&assignment.service);
        let counted = guard.assignments().traffic.count(assignment.host, is_held_back);
        counted.counts.to_host.fetch_add(sent as u64, Ordering::Relaxed);
        let client_has_ended = held.ended;
        let splice = Splice::from_remainder(rest_of(held, sent), Path::Auto);
        let legs = Legs::new(client, host, context.rates.get(&assignment.service));
        Box::new(Session {
            assignment,
            client_addr,
            client_was_reset,
            client_has_ended,
            stop,
            guard,
            counted,
            splice,
            legs,
            context,
        })
    }

    /// Boxed, since a future has what it was called with twice.
    async fn run(mut self: Box<Self>) {
        loop {
            let Some(over) = self.serve(lanes::until()).await else {
                return Box::pin(self.change_lane()).await;
            };
            let Some(host) = self.take_host_for_another(&over) else {
                return Box::pin(self.end(over)).await;
            };
            // Boxed: so many sessions that only last have no room for it.
            let Some(next) = Box::pin(self.next(host, over)).await else { return };
            self = next;
        }
    }

    /// Ends this session and waits for the next one on its channel. The channel is in the book first: its last client may take its time.
    /// `None` where no other comes.
    async fn next(self: Box<Self>, host: Stream, over: Over) -> Option<Box<Session>> {
        let context = Arc::clone(&self.context);
        let waiting = Waiting::again(host, &self.assignment, &context).await;
        self.end_without_host(over);
        let opened = waiting?.next(&context).await?;
        Some(Session::new(opened, context))
    }

    /// Goes on where a busy session is best served.
    async fn change_lane(mut self: Box<Self>) {
        let lane = lanes::quietest().filter(|lane| {
            let _entered = lane.enter();
            self.legs.move_here().is_ok()
        });
        let tasks = self.context.tasks.clone();
        let rest = async move {
            // Over plain connections, of which none carries another.
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
        let Session { assignment, guard, counted, context, legs, splice, stop, .. } = self;
        let counts = &*counted.counts;
        let progress = Progress::new(guard);
        if std::mem::take(&mut self.client_has_ended) {
            progress.finished(Side::Client);
        }
        let mut silence = None;
        let reason = loop {
            let mut on_eof = |side| progress.finished(side);
            // A host's connection that is for many may turn into a plain one meanwhile, over which bytes go faster.
            let until = if legs.may_go_bare() { Until::Woken } else { until };
            let mut lent = None;
            let (client, host) = legs.both(&mut lent);
            tokio::select! {
                biased;
                () = ready(()), if self.client_was_reset => break Reason::ClientAborted,
                ran = splice.run_until(until, client, host, counts, &mut on_eof) => match ran {
                    Ok(Until::Woken) => {}
                    Ok(Until::Busy(_)) => return None,
                    Ok(Until::End) => break Reason::Finished,
                    Err(failure) => break reason_of(assignment, failure),
                },
                stopped = &mut *stop => match stopped {
                    Ok(Stop::End(reason) | Stop::Withdraw(reason)) => break reason,
                    Err(_book_gone) => break Reason::Drained,
                },
                () = poll_fn(|cx| {
                    progress.poll_silence(cx, &mut silence, counts, context.half_closed_timeout)
                }) => break Reason::HalfClosedTimeout,
            }
        };
        if reason == Reason::ClientAborted {
            progress.finished(Side::Client);
        }
        let host_finished = progress.host_finished.load(Ordering::Relaxed);
        Some(Over { reason, host_finished })
    }

    /// The host's connection, where the session has ended in order and it can carry another.
    fn take_host_for_another(&mut self, over: &Over) -> Option<Stream> {
        if over.reason == Reason::Finished { self.legs.take_host_for_another() } else { None }
    }

    /// Ends a session whose host's connection goes on without it: its client may take its time to read the last bytes.
    fn end_without_host(self: Box<Self>, over: Over) {
        let tasks = self.context.tasks.clone();
        if self.legs.is_client_done() {
            let Session { assignment, client_addr, guard, counted, mut legs, .. } = *self;
            legs.settle_client();
            end(&assignment, client_addr, over.reason, &counted.counts, guard);
        } else {
            tasks.spawn(self.end(over));
        }
    }

    /// Most of what closing takes is for ends that are rare: what awaits this is to box it.
    async fn end(self: Box<Self>, over: Over) {
        let Over { reason, host_finished } = over;
        let Session { assignment, client_addr, guard, counted, splice, legs, context, .. } = *self;
        let counts = &*counted.counts;
        let ending = match reason {
            Reason::Finished => Ending::Finished,
            Reason::HostLost if host_finished => Ending::LastWord(context.half_closed_timeout),
            _ => Ending::Abort,
        };
        context.over.run_until_cancelled(legs.close(ending, splice, counts)).await;
        end(&assignment, client_addr, reason, counts, guard);
    }
}

/// Says how a session has ended, in the log and to the book.
fn end(
    assignment: &Assignment,
    client_addr: SocketAddr,
    reason: Reason,
    counts: &Counts,
    guard: SessionGuard,
) {
    let end = End {
        reason,
        bytes_to_host: counts.to_host.load(Ordering::Relaxed),
        bytes_to_client: counts.to_client.load(Ordering::Relaxed),
    };
    report(assignment, client_addr, end);
    guard.ended(end);
}

/// What resolves when nothing has moved for a while.
type Silence<'c> = Pin<Box<dyn Future<Output = ()> + Send + 'c>>;

/// Which sides have sent their last byte.
struct Progress<'a> {
    guard: &'a SessionGuard,
    host_finished: AtomicBool,
    is_half_closed: AtomicBool,
}

impl Progress<'_> {
    fn new(guard: &SessionGuard) -> Progress<'_> {
        Progress {
            guard,
            host_finished: AtomicBool::new(false),
            is_half_closed: AtomicBool::new(false),
        }
    }

    /// Tells the book.
    fn finished(&self, side: Side) {
        match side {
            Side::Client => self.guard.assignments().client_finished(self.guard.session),
            Side::Host => {
                self.host_finished.store(true, Ordering::Relaxed);
                self.guard.assignments().host_finished(self.guard.session);
            }
        }
        self.is_half_closed.store(true, Ordering::Relaxed);
    }

    /// Resolves when the session is half-closed and nothing has moved for `bound`. Holds no timer before that. To be polled behind what
    /// tells of a side's last byte, in the same task.
    fn poll_silence<'c>(
        &self,
        cx: &mut Poller<'_>,
        silence: &mut Option<Silence<'c>>,
        counts: &'c Counts,
        bound: Duration,
    ) -> Poll<()> {
        if !self.is_half_closed.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        // Few sessions are so for long.
        let silence = silence.get_or_insert_with(|| Box::pin(counts.unchanged_for(bound)));
        silence.as_mut().poll(cx)
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
