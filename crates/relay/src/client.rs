//! A client from its accept to the moment a channel's task takes it over, or it is refused; without a task of its own where a channel is
//! idle for it. Nothing of what it sends is read here.

use std::net::SocketAddr;
use std::sync::Arc;

use relayserver_core::{Reason, ServiceName, limits};
use relayserver_transport::close_politely;
use relayserver_transport::net::TcpStream;
use relayserver_transport::options::{self, reset_on_close};
use tokio::io::Interest;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::assignment::{Assignments, SessionGuard, Start, Stop, Verdict, WaitingClient};
use crate::offer::Held;

/// A client in the book, and where it hears what becomes of it.
struct Client {
    stream: TcpStream,
    addr: SocketAddr,
    service: ServiceName,
    held: Held,
    was_offered: bool,
    verdict: oneshot::Receiver<Verdict>,
    stop: oneshot::Receiver<Stop>,
    guard: SessionGuard,
}

/// What a client does next.
enum Next {
    /// It waits for the book's word.
    Waits(Client),
    /// It is closed.
    Refused { stream: TcpStream, reason: Reason, was_offered: bool },
    /// A channel's task has it, or it is gone.
    Over,
}

/// Enters a client that has just been accepted. One that gets a channel at once goes to that channel's task, and there is no more to do:
/// `None`. Else it is served until a channel has it.
pub(crate) fn serve(
    stream: TcpStream,
    addr: SocketAddr,
    service: ServiceName,
    assignments: &Arc<Assignments>,
    farewells: &Arc<Farewells>,
) -> Option<impl Future<Output = ()> + Send + use<>> {
    options::prepare_accepted(&stream, addr.ip());
    let (handle, verdict) = handle(&service);
    let (stop_handle, stop) = oneshot::channel();
    let guard = assignments.client_arrived(handle, stop_handle);
    let (held, was_offered) = (Held::default(), false);
    let mut client = Client { stream, addr, service, held, was_offered, verdict, stop, guard };
    let next = match client.verdict.try_recv() {
        Ok(verdict) => client.decided(verdict, false),
        Err(TryRecvError::Empty) => Next::Waits(client),
        Err(TryRecvError::Closed) => Next::Over,
    };
    match next {
        Next::Over => None,
        next => Some(next.go_on(Arc::clone(farewells))),
    }
}

/// Serves a client, until another channel has it, that a host has not accepted, for `reason`.
pub(crate) async fn serve_again(start: Start, reason: Reason, farewells: Arc<Farewells>) {
    Next::Waits(Client::come_back(start, reason)).go_on(farewells).await;
}

impl Next {
    async fn go_on(mut self, farewells: Arc<Farewells>) {
        loop {
            self = match self {
                Next::Waits(client) => client.wait().await,
                Next::Refused { stream, reason, was_offered } => {
                    return Box::pin(refuse(stream, reason, was_offered, &farewells)).await;
                }
                Next::Over => return,
            }
        }
    }
}

impl Client {
    /// A client that a host has not accepted, for `reason`, in the book again.
    fn come_back(start: Start, reason: Reason) -> Client {
        let Start { assignment, client: stream, client_addr: addr, held, guard, .. } = start;
        let service = assignment.service;
        let (handle, verdict) = handle(&service);
        let (stop_handle, stop) = oneshot::channel();
        guard.assignments().offer_failed(guard.session, reason, handle, stop_handle);
        Client { stream, addr, service, held, was_offered: true, verdict, stop, guard }
    }

    /// Waits for the book's word.
    async fn wait(mut self) -> Next {
        let (decided, client_was_reset) = tokio::select! {
            biased;
            decided = &mut self.verdict => (decided, false),
            how = left(&self.stream, &self.held) => {
                // Either it stands in the queue and is refused as gone, or it was assigned meanwhile.
                self.guard.gone();
                ((&mut self.verdict).await, how == Left::Reset)
            }
        };
        match decided {
            Ok(verdict) => self.decided(verdict, client_was_reset),
            Err(_book_gone) => Next::Over,
        }
    }

    /// Goes where the book says.
    fn decided(self, verdict: Verdict, client_was_reset: bool) -> Next {
        let Client { stream, addr: client_addr, service, held, was_offered, stop, guard, .. } =
            self;
        let (assignment, channel) = match verdict {
            Verdict::Assigned(assignment, channel) => (assignment, channel),
            Verdict::Refused(reason) => {
                info!(session.id = %guard.session, %service, client.addr = %client_addr, %reason, "client refused");
                return Next::Refused { stream, reason, was_offered };
            }
        };
        let client = stream;
        let start = Start { assignment, client, client_addr, client_was_reset, held, stop, guard };
        match channel.send(Box::new(start)) {
            Ok(()) => Next::Over,
            // The channel has ended meanwhile. A host of version 2 has not seen a byte.
            Err(start) if start.assignment.is_offer => {
                Next::Waits(Client::come_back(*start, Reason::HostAborted))
            }
            // Of version 1, it was told.
            Err(_) => Next::Over,
        }
    }
}

/// By which the book reaches a client of `service`, and where that hears of it.
fn handle(service: &ServiceName) -> (WaitingClient, oneshot::Receiver<Verdict>) {
    let (sender, verdict) = oneshot::channel();
    (WaitingClient { service: service.clone(), verdict: sender }, verdict)
}

async fn refuse(client: TcpStream, reason: Reason, was_offered: bool, farewells: &Farewells) {
    match reason {
        // Nobody is there to read an end; and too many are no time to be polite in.
        Reason::ClientGone | Reason::ClientLimit | Reason::QueueFull => {}
        // What the hosts did to the session is done to the client: nobody shall take it for an answer without a byte.
        _ if was_offered => reset_on_close(&client),
        _ => farewells.close(client).await,
    }
}

/// The refused clients that are closed politely: bounded, and only while the relay lives.
pub(crate) struct Farewells {
    places: Semaphore,
    over: CancellationToken,
}

impl Farewells {
    /// Each takes a descriptor for two seconds at most; beyond this many, refused clients are just dropped.
    pub(crate) const MAX: usize = 1024;

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
async fn left(client: &TcpStream, held: &Held) -> Left {
    if held.ended && held.bytes.is_empty() {
        return Left::Finished;
    }
    let peeked = if held.ended { Ok(1) } else { client.peek(&mut [0]).await };
    match peeked {
        Ok(0) if held.bytes.is_empty() => Left::Finished,
        Ok(_) => {
            // Either way the connection is of no use any more.
            let _reported = client.ready(Interest::ERROR).await;
            Left::Reset
        }
        Err(_) => Left::Reset,
    }
}
