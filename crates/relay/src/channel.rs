//! A data channel's life once its hello was taken: idle in the pool, offer, session, and where it is for many, idle again.

use std::sync::Arc;
use std::time::Duration;

use relayserver_core::{Assignment, Reason};
use relayserver_transport::{Heard, Stream, options};
use relayserver_wire::hello::Answer;
use relayserver_wire::{SessionId, start as wire};
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{debug, info};

use crate::assignment::{ChannelGuard, Start, Stop};
use crate::context::Context;
use crate::handshake::Refusal;
use crate::offer::{self, Outcome};
use crate::session;

/// Puts a channel into the pool, and serves it.
pub(crate) async fn enter(stream: Stream, guard: ChannelGuard, context: &Arc<Context>) {
    let (handle, start) = oneshot::channel();
    context.assignments.channel_idle(guard.channel, handle);
    serve(stream, guard, start, context).await;
}

/// The channel that has carried `assignment`, which has ended in order, waits for another client, if the book takes it back.
pub(crate) fn come_back(mut stream: Stream, assignment: &Assignment, context: &Arc<Context>) {
    stream.begin_anew();
    if let Some(socket) = stream.tcp() {
        options::prepare_waiting_again(socket, context.user_timeout);
    }
    let (handle, start) = oneshot::channel();
    let guard = context.assignments.channel_returned(assignment, handle);
    let context = Arc::clone(context);
    let tasks = context.tasks.clone();
    tasks.spawn(async move { serve(stream, guard, start, &context).await });
}

/// Waits for a client, and offers it. The session is a task of its own: what a channel needs before it takes as much again.
async fn serve(
    mut stream: Stream,
    guard: ChannelGuard,
    start: oneshot::Receiver<Box<Start>>,
    context: &Arc<Context>,
) {
    let Some(start) = idle(&mut stream, &guard, start).await else {
        // Over TLS, to be dropped alone would be an abort.
        stream.end_now();
        return;
    };
    drop(guard);
    let accepted = match start.assignment.is_offer {
        true => Box::pin(offered(stream, start, context)).await,
        false => Some((stream, start, 0)),
    };
    if let Some((stream, start, sent)) = accepted {
        context.tasks.spawn(session::begin(stream, start, sent, Arc::clone(context)));
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

/// Offers the session to the host. Gives the two back where it has accepted, with how many of the held bytes were sent to it.
async fn offered(
    mut host: Stream,
    mut start: Box<Start>,
    context: &Context,
) -> Option<(Stream, Box<Start>, usize)> {
    let session = start.assignment.session;
    let frame = wire::Start {
        session_id: SessionId(session.0.to_be_bytes()),
        service: start.assignment.service.to_string(),
        client_addr: Some(start.client_addr),
        via: "tcp".to_owned(),
    };
    if let Some(socket) = host.tcp() {
        options::prepare_offer(socket, context.patience.suspect_after.min(context.user_timeout));
    }
    let outcome = if start.client_was_reset {
        Outcome::ClientAborted
    } else {
        let Start { client, held, stop, .. } = &mut *start;
        offer::make(&mut host, client, held, stop, &frame, context.accept_timeout).await
    };
    let outcome = match outcome {
        Outcome::Accepted { sent } if context.assignments.accepted(session, &mut start.stop) => {
            return Some((host, start, sent));
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
            start.give_back(reason);
        }
        Outcome::ClientAborted => session::ended_unaccepted(*start, Reason::ClientAborted),
        Outcome::Ended(reason) => session::ended_unaccepted(*start, reason),
        Outcome::Accepted { .. } => {}
    }
    None
}

/// Waits in the pool for a client. `None` when the channel ended before one came.
async fn idle(
    stream: &mut Stream,
    guard: &ChannelGuard,
    mut start: oneshot::Receiver<Box<Start>>,
) -> Option<Box<Start>> {
    debug!(channel.id = %guard.channel, "data channel idle");
    tokio::select! {
        biased;
        start = &mut start => start.ok(),
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

/// Resolves when an idle channel can no longer be given out, with why. Reads nothing.
async fn ended(stream: &mut Stream) -> Reason {
    match stream.waits().await {
        Heard::End => Reason::PeerClosed,
        Heard::Bytes => Reason::SpokeWhileIdle,
        Heard::Failed(_) => Reason::HostAborted,
    }
}
