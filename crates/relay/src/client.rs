//! A client from its accept to the moment a channel's task takes it over, or it is refused. Nothing of what it sends is
//! read here.

use std::net::SocketAddr;
use std::sync::Arc;

use relayserver_core::{Reason, ServiceName, limits};
use relayserver_transport::{close_politely, options};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::assignment::{Assignments, Start, Verdict};

/// Serves a client that has just been accepted.
pub(crate) async fn serve(
    client: TcpStream,
    client_addr: SocketAddr,
    service: ServiceName,
    assignments: Arc<Assignments>,
    farewells: Arc<Farewells>,
) {
    options::prepare_long_lived(&client);
    let (handle, mut verdict) = oneshot::channel();
    let (stop_handle, stop) = oneshot::channel();
    let guard = assignments.client_arrived(service.clone(), handle, stop_handle);
    let (verdict, client_was_reset) = tokio::select! {
        biased;
        verdict = &mut verdict => (verdict, false),
        how = left(&client) => {
            // Either it stands in the queue and is refused as gone, or it was assigned meanwhile.
            guard.gone();
            (verdict.await, how == Left::Reset)
        }
    };
    match verdict {
        Ok(Verdict::Assigned(assignment, channel)) => {
            // Where the channel's task is gone, the start is dropped here, and the guard reports the session's end.
            let start = Start { assignment, client, client_addr, client_was_reset, stop, guard };
            drop(channel.send(start));
        }
        Ok(Verdict::Refused(reason)) => {
            info!(session.id = %guard.session, %service, client.addr = %client_addr, %reason, "client refused");
            drop(guard);
            match reason {
                // Nobody is there to read an end; and too many are no time to be polite in.
                Reason::ClientGone | Reason::ClientLimit | Reason::QueueFull => {}
                _ => farewells.close(client).await,
            }
        }
        Err(_book_gone) => {}
    }
}

/// The refused clients that are closed politely: bounded, and only while the relay lives.
pub(crate) struct Farewells {
    places: Semaphore,
    over: CancellationToken,
}

impl Farewells {
    /// Each takes a descriptor for two seconds at most; beyond this many, refused clients are just dropped.
    const MAX: usize = 1024;

    pub(crate) fn new(over: CancellationToken) -> Farewells {
        Farewells { places: Semaphore::new(Farewells::MAX), over }
    }

    async fn close(&self, mut client: TcpStream) {
        let Ok(_place) = self.places.try_acquire() else { return };
        let bound = limits::LINGER_TIMEOUT;
        let closing = close_politely(&mut client, bound, bound);
        self.over.run_until_cancelled(closing).await;
    }
}

/// How a waiting client left.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    Finished,
    Reset,
}

/// Resolves when a waiting client has left: it sent FIN and no byte, or was reset. One that sent bytes and FIN is
/// half-closed and keeps its place.
async fn left(client: &TcpStream) -> Left {
    match client.peek(&mut [0]).await {
        Ok(0) => Left::Finished,
        Ok(_) => {
            // Either way the connection is of no use any more.
            let _reported = client.ready(Interest::ERROR).await;
            Left::Reset
        }
        Err(_) => Left::Reset,
    }
}
