//! A client from its accept to the moment a channel's task takes it over, or it is refused. Nothing of what it sends is
//! read here.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use relayserver_core::{Reason, ServiceName, limits};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tracing::info;

use crate::assignment::{Assignments, Start, Verdict};
use crate::{session, sockets};

/// Serves a client that has just been accepted.
pub(crate) async fn serve(
    client: TcpStream,
    client_addr: SocketAddr,
    assignments: Arc<Assignments>,
) {
    sockets::prepare_client(&client);
    let (handle, mut verdict) = oneshot::channel();
    let (stop_handle, stop) = oneshot::channel();
    let service = ServiceName::default();
    let guard = assignments.client_arrived(service.clone(), handle, stop_handle);
    let verdict = tokio::select! {
        biased;
        verdict = &mut verdict => verdict,
        () = left(&client) => {
            // Either it stands in the queue and is refused as gone, or it was assigned meanwhile.
            guard.gone();
            verdict.await
        }
    };
    match verdict {
        Ok(Verdict::Assigned(assignment, channel)) => {
            let guard = guard.into_session();
            // Where the channel's task is gone, the start is dropped here, and the guard reports the session's end.
            drop(channel.send(Start { assignment, client, client_addr, stop, guard }));
        }
        Ok(Verdict::Refused(reason)) => {
            info!(session.id = %guard.session, %service, client.addr = %client_addr, %reason, "client refused");
            drop(guard);
            match reason {
                // Nobody is there to read an end; and too many are no time to be polite in.
                Reason::ClientGone | Reason::ClientLimit | Reason::QueueFull => {}
                _ => session::close_politely(client, limits::LINGER_TIMEOUT).await,
            }
        }
        Err(_book_gone) => {}
    }
}

/// Resolves when a waiting client has left: it sent FIN and no byte, or was reset. One that sent bytes and FIN is
/// half-closed and keeps its place.
async fn left(client: &TcpStream) {
    match client.peek(&mut [0]).await {
        Ok(0) | Err(_) => {}
        Ok(_) => reset(client).await,
    }
}

/// Resolves when the connection was reset.
pub(crate) async fn reset(stream: &TcpStream) {
    loop {
        if stream.ready(Interest::ERROR).await.is_err() {
            return;
        }
        match stream.take_error() {
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => return,
        }
        // Nothing is wrong: wait for the next event.
        let cleared: io::Result<()> =
            stream.try_io(Interest::ERROR, || Err(io::ErrorKind::WouldBlock.into()));
        if cleared.is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
            return;
        }
    }
}
