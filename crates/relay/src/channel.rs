//! A data channel's life: hello, answer, idle in the pool, session. One task from its accept to its end.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use relayserver_core::{HostId, Reason};
use relayserver_transport::{Heard, Stream, options};
use relayserver_wire::hello::Answer;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{debug, info};

use crate::assignment::{Assignments, ChannelGuard, Start};
use crate::context::Context;
use crate::handshake::{self, Refusal};
use crate::session;

/// Serves a connection on the host port.
pub(crate) async fn serve(stream: TcpStream, peer: SocketAddr, context: Arc<Context>) {
    let mut stream = Stream::Tcp(stream);
    let welcomed = tokio::select! {
        welcomed = welcome(&mut stream, peer.ip(), &context) => welcomed,
        () = context.leaving.cancelled() => return,
    };
    let guard = match welcomed {
        Ok(guard) => guard,
        // In a flood of silent connections, a line each would be a flood of its own.
        Err(Refusal { reason: reason @ Reason::HandshakeLimit, detail }) => {
            debug!(host.addr = %peer, %reason, detail, "data channel refused");
            return;
        }
        Err(Refusal { reason, detail }) => {
            info!(host.addr = %peer, %reason, detail, "data channel refused");
            return;
        }
    };
    if let Some(start) = idle(&mut stream, &guard, &context.assignments).await {
        session::run(stream, start, 0, context.half_closed_timeout, &context.over).await;
    }
}

/// Hello and answer. The guard keeps the channel's id until it is dropped.
async fn welcome(
    stream: &mut Stream,
    peer: IpAddr,
    context: &Context,
) -> Result<ChannelGuard, Refusal> {
    if !context.access.allows(peer) {
        let detail = "name its network with --v1-allow to accept it".to_owned();
        return Err(Refusal { reason: Reason::NetworkNotAllowed, detail });
    }
    if let Some(socket) = stream.tcp() {
        options::prepare_waiting(socket, context.user_timeout);
    }
    handshake::read_hello(stream, peer, &context.places, context.hello_timeout).await?;
    let host = HostId::from_address(peer);
    let guard = context
        .assignments
        .reserve_channel(host, context.service_of_v1.clone(), None)
        .map_err(|reason| Refusal { reason, detail: "no channel for this host".to_owned() })?;
    let answer = Answer {
        channel_id: guard.channel.get(),
        relay_host: stream.local_addr()?.ip().to_canonical().to_string(),
        relay_port: context.clients_port_of_v1.to_string(),
        v2: None,
    };
    match timeout(context.hello_timeout, stream.write_all(&answer.encode())).await {
        Ok(written) => written?,
        Err(_elapsed) => {
            let detail = "the answer was not taken".to_owned();
            return Err(Refusal { reason: Reason::HelloTimeout, detail });
        }
    }
    Ok(guard)
}

/// Waits in the pool for a client. `None` when the channel ended before one came.
async fn idle(
    stream: &mut Stream,
    guard: &ChannelGuard,
    assignments: &Assignments,
) -> Option<Start> {
    let (handle, mut start) = oneshot::channel();
    assignments.channel_idle(guard.channel, handle);
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
