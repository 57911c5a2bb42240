//! Accepts connections and waits for none of them: each goes to a task of its own at once, or, where it is a client for whom a channel is
//! idle, to that channel's. When descriptors run out it says so, waits, and goes on.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use relayserver_transport::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

/// The first wait after an accept failed for want of resources, and the longest. Short enough that recovery is not noticed,
/// long enough that nothing spins.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How often it may be said that resources have run out.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Accepts on `listener` until `leaving`, and gives each connection to `serve`, which waits for nothing; what is left to do goes to a task
/// of `tasks`.
pub(crate) async fn accept<Fut>(
    listener: TcpListener,
    name: &'static str,
    leaving: CancellationToken,
    tasks: TaskTracker,
    serve: impl Fn(TcpStream, SocketAddr) -> Option<Fut>,
) where
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut pause = PAUSE_MIN;
    let mut said: Option<Instant> = None;
    let mut exhausted = false;
    let mut left = std::pin::pin!(leaving.cancelled());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut left => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = PAUSE_MIN;
                if std::mem::take(&mut exhausted) {
                    info!(listener = name, "accepting again");
                }
                serve(stream, peer).into_iter().for_each(|task| drop(tasks.spawn(task)));
            }
            Err(error) if is_exhaustion(&error) => {
                // Where descriptors come and go, a line for each would be a flood.
                if said.is_none_or(|said| said.elapsed() > SAY_AGAIN) {
                    said = Some(Instant::now());
                    exhausted = true;
                    warn!(
                        listener = name,
                        error = %error,
                        "cannot accept: out of resources; raise `ulimit -n` or lower the limits"
                    );
                }
                pause = (pause * 2).min(PAUSE_MAX);
                tokio::select! {
                    () = sleep(pause) => {}
                    () = &mut left => return,
                }
            }
            // The connection was gone before it was accepted: no concern of the next one.
            Err(error) => {
                debug!(listener = name, error = %error, "connection lost before it was accepted")
            }
        }
    }
}

/// Whether an accept failed for want of something that others may give back: descriptors or memory.
fn is_exhaustion(error: &io::Error) -> bool {
    // EMFILE, ENFILE, ENOBUFS and ENOMEM have no stable `ErrorKind`; what is known to concern one connection alone has.
    !matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::PermissionDenied
    )
}
