//! A command channel's life in version 1: announcements go out in their order, nothing comes in. How an announcement of either version
//! is written stands here too.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use relayserver_core::{Announcement, HostId, Reason, limits};
use relayserver_transport::net::TcpStream;
use relayserver_transport::net::tcp::WriteHalf;
use relayserver_transport::options;
use relayserver_wire::{SessionId, command};
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::assignment::CommandHandle;
use crate::context::Context;

/// Serves a connection on the command port until it ends or the relay is over.
pub(crate) async fn serve(mut stream: TcpStream, peer: SocketAddr, context: Arc<Context>) {
    if !context.access.allows(peer.ip()) {
        context.assignments.count_refused_host(Reason::NetworkNotAllowed);
        info!(host.addr = %peer, reason = %Reason::NetworkNotAllowed, "command channel refused");
        return;
    }
    options::prepare_accepted_waiting(&stream, peer.ip(), context.user_timeout);
    let (announcements, queue) = mpsc::channel(limits::ANNOUNCEMENTS_MAX);
    let overflow = Arc::new(Notify::new());
    let refusal = Arc::new(OnceLock::new());
    let handle = CommandHandle {
        announcements,
        overflow: Arc::clone(&overflow),
        refusal: Arc::clone(&refusal),
    };
    let _guard = context.assignments.command_up(HostId::from_address(peer.ip()), None, handle);
    if let Some(reason) = refusal.get() {
        context.assignments.count_refused_host(*reason);
        warn!(host.addr = %peer, %reason, "command channel refused");
        return;
    }
    context.assignments.count_taken_host();
    let _home = context.places.host_at(peer.ip());
    debug!(host.addr = %peer, "command channel up");
    let (reader, writer) = stream.split();
    let reason = tokio::select! {
        reason = announce(queue, writer) => reason,
        reason = silence(reader) => reason,
        () = overflow.notified() => Reason::CommandStuck,
        () = context.over.cancelled() => Reason::Draining,
    };
    debug!(host.addr = %peer, %reason, "command channel ended");
}

/// Writes announcements until the book drops the queue's other end or the host stops reading. One write each: the
/// original's host loses messages that arrive together.
async fn announce(mut queue: mpsc::Receiver<Announcement>, mut writer: WriteHalf<'_>) -> Reason {
    while let Some(announcement) = queue.recv().await {
        let frame = encode(announcement);
        match timeout(limits::COMMAND_WRITE_TIMEOUT, writer.write_all(&frame)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Reason::PeerClosed,
            Err(_elapsed) => return Reason::CommandStuck,
        }
    }
    Reason::Draining
}

/// A version 1 host sends nothing on its command channel: whatever arrives is its end, or not of this protocol.
async fn silence(mut reader: relayserver_transport::net::tcp::ReadHalf<'_>) -> Reason {
    match reader.peek(&mut [0]).await {
        Ok(0) | Err(_) => Reason::PeerClosed,
        Ok(_) => Reason::NotOurProtocol,
    }
}

pub(crate) fn encode(announcement: Announcement) -> Vec<u8> {
    match announcement {
        Announcement::Open(channel) => {
            command::Announcement::Open { channel_id: channel.get() }.encode()
        }
        Announcement::Drop(channel) => {
            command::Announcement::Drop { channel_id: channel.get() }.encode()
        }
        Announcement::Ended(session, end) => command::Announcement::SessionEnded {
            session_id: SessionId(session.0.to_be_bytes()),
            reason: end.reason.code().to_owned(),
            bytes_to_host: end.bytes_to_host,
            bytes_to_client: end.bytes_to_client,
        }
        .encode(),
        Announcement::PoolWanted(service, idle) => {
            let idle = u32::try_from(idle).unwrap_or(u32::MAX);
            command::Announcement::PoolWanted { service: service.to_string(), idle }.encode()
        }
    }
}
