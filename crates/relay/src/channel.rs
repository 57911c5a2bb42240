//! A data channel's life once its hello was taken: idle in the pool, offer, session, and where it is for many, idle again.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use relayserver_core::{Assignment, Reason};
use relayserver_transport::{Heard, Stream, options};
use relayserver_wire::hello::Answer;
use relayserver_wire::{SessionId, start as wire};
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tracing::{debug, info};

use crate::assignment::{ChannelGuard, Start, Stop};
use crate::client;
use crate::context::Context;
use crate::handshake::Refusal;
use crate::offer::{self, Outcome};
use crate::session;

/// A channel that has waited for longer is looked at more closely when it is offered a session: a NAT may have forgotten it.
const LONG_IDLE: Duration = Duration::from_secs(20);

/// A channel in the pool.
pub(crate) struct Waiting {
    stream: Stream,
    guard: ChannelGuard,
    start: oneshot::Receiver<Box<Start>>,
    since: Instant,
    /// Whether its socket fails when nothing is acknowledged for a while, which none with a session may.
    has_user_timeout: bool,
}

/// A channel that has a session from now on.
pub(crate) struct Opened {
    pub(crate) stream: Stream,
    pub(crate) start: Box<Start>,
    /// How many of the held bytes were sent to the host.
    pub(crate) sent: usize,
}

/// Puts a new channel into the pool and waits there for its first client. That session, and all that follow on the channel, have another
/// task: a session needs more room, and many channels wait for long.
pub(crate) async fn enter(stream: Stream, guard: ChannelGuard, context: Arc<Context>) {
    let (handle, start) = oneshot::channel();
    context.assignments.channel_idle(guard.channel, handle);
    let since = Instant::now();
    let waiting = Waiting { stream, guard, start, since, has_user_timeout: true };
    if let Some(opened) = waiting.next(&context).await {
        context.tasks.spawn(session::begin(opened, Arc::clone(&context)));
    }
}

/// Sends an answer, which is on its way when this resolves.
pub(crate) async fn send(
    stream: &mut Stream,
    answer: &Answer,
    bound: Duration,
) -> Result<(), Refusal> {
    let sending = async {
        stream.write_all(&answer.encode()).await?;
        stream.flush().await
    };
    match timeout(bound, sending).await {
        Ok(sent) => Ok(sent?),
        Err(_elapsed) => {
            let detail = "the answer was not taken".to_owned();
            Err(Refusal { reason: Reason::HelloTimeout, detail })
        }
    }
}

impl Waiting {
    /// The channel that has carried `assignment`, which has ended in order, waits for another client, if the book takes it back. It has
    /// no user timeout any more: its keepalive finds out as soon that nobody is there, and it may have a session again in no time. `None`
    /// where its host has ended it already. Does not wait.
    pub(crate) async fn again(
        mut stream: Stream,
        assignment: &Assignment,
        context: &Context,
    ) -> Option<Waiting> {
        stream.begin_anew();
        tokio::select! {
            biased;
            _reason = ended(&mut stream) => return None,
            () = ready(()) => {}
        }
        let (handle, start) = oneshot::channel();
        let guard = context.assignments.channel_returned(assignment, handle);
        Some(Waiting { stream, guard, start, since: Instant::now(), has_user_timeout: false })
    }

    /// Waits for a client, and offers it. `None` where the channel is over before it has a session.
    pub(crate) async fn next(mut self, context: &Context) -> Option<Opened> {
        let Some(start) = self.idle().await else {
            // Over TLS, to be dropped alone would be an abort.
            self.stream.end_now();
            return None;
        };
        let Waiting { stream, guard, since, mut has_user_timeout, .. } = self;
        guard.assigned();
        if start.assignment.is_offer
            && let Some(socket) = stream.tcp()
            && (has_user_timeout || since.elapsed() > LONG_IDLE)
        {
            let bound = context.patience.suspect_after.min(context.user_timeout);
            options::prepare_offer(socket, bound);
            has_user_timeout = true;
        }
        let opened = match start.assignment.is_offer {
            true => Box::pin(offered(stream, start, context)).await?,
            false => Opened { stream, start, sent: 0 },
        };
        if has_user_timeout && let Some(socket) = opened.stream.tcp() {
            options::prepare_session(socket);
        }
        Some(opened)
    }

    /// Waits in the pool for a client. `None` when the channel ended before one came.
    async fn idle(&mut self) -> Option<Box<Start>> {
        let Waiting { stream, guard, start, .. } = self;
        debug!(channel.id = %guard.channel, "data channel idle");
        tokio::select! {
            biased;
            start = &mut *start => start.ok(),
            reason = ended(stream) => {
                guard.gone();
                // Where a client was assigned meanwhile, the session finds out what happened.
                let start = start.await.ok();
                if start.is_none() {
                    debug!(channel.id = %guard.channel, %reason, "idle channel ended");
                }
                start
            }
        }
    }
}

/// Offers the session to the host. Gives the two back where it has accepted.
async fn offered(mut host: Stream, mut start: Box<Start>, context: &Context) -> Option<Opened> {
    let session = start.assignment.session;
    let frame = wire::Start {
        session_id: SessionId(session.0.to_be_bytes()),
        service: start.assignment.service.to_string(),
        client_addr: Some(start.client_addr),
        via: "tcp".to_owned(),
    };
    let outcome = if start.client_was_reset {
        Outcome::ClientAborted
    } else {
        let Start { client, held, stop, .. } = &mut *start;
        offer::make(&mut host, client, held, stop, &frame, context.accept_timeout).await
    };
    let outcome = match outcome {
        Outcome::Accepted { sent } if context.assignments.accepted(session, &mut start.stop) => {
            return Some(Opened { stream: host, start, sent });
        }
        // It may not serve it any more; and may have begun to, so that nobody else is to.
        Outcome::Accepted { .. } => match start.stop.try_recv() {
            Ok(Stop::End(reason) | Stop::Withdraw(reason)) => Outcome::Ended(reason),
            Err(_) => Outcome::Ended(Reason::Drained),
        },
        outcome => outcome,
    };
    // Whatever still comes on it is not read, and what was sent is void.
    host.abort();
    match outcome {
        Outcome::Failed(reason) => {
            let host = start.assignment.host;
            info!(session.id = %start.assignment.session, host.id = %host, %reason, "session not accepted");
            let farewells = Arc::clone(&context.client_farewells);
            context.tasks.spawn(client::serve_again(*start, reason, farewells));
        }
        Outcome::ClientAborted => session::ended_unaccepted(*start, Reason::ClientAborted),
        Outcome::Ended(reason) => session::ended_unaccepted(*start, reason),
        Outcome::Accepted { .. } => {}
    }
    None
}

/// Resolves when an idle channel can no longer be given out, with why. Reads nothing.
async fn ended(stream: &mut Stream) -> Reason {
    match stream.waits().await {
        Heard::End => Reason::PeerClosed,
        Heard::Bytes => Reason::SpokeWhileIdle,
        Heard::Failed(_) => Reason::HostAborted,
    }
}
