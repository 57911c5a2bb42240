//! A session from its assignment to its one end: moves bytes between the client's leg and the host's, tells the book of
//! every last byte, and says in one log line how it ended.

use std::future::ready;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use relayserver_core::{Assignment, Reason, limits};
use relayserver_splice::{Counts, Failure, Leg, Path, Side, Splice};
use relayserver_transport::abort;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use crate::assignment::Start;
use crate::sockets;

/// Runs the session that `start` describes over `host`, to its end.
pub(crate) async fn run(host: TcpStream, start: Start, half_closed_timeout: Duration) {
    let Start { assignment, client, client_addr, client_was_reset, mut stop, guard } = start;
    sockets::prepare_session(&host);
    debug!(
        session.id = %assignment.session,
        service = %assignment.service,
        host.id = %assignment.host,
        channel.id = %assignment.channel,
        client.addr = %client_addr,
        waited = ?assignment.waited,
        "session opened"
    );
    let counts = Counts::default();
    let mut splice = Splice::new(Path::Auto);
    let half_closed = Notify::new();
    let reason = {
        let mut on_eof = |side| {
            match side {
                Side::Client => guard.assignments().client_finished(assignment.session),
                Side::Host => guard.assignments().host_finished(assignment.session),
            }
            half_closed.notify_one();
        };
        tokio::select! {
            biased;
            () = ready(()), if client_was_reset => Reason::ClientAborted,
            ended = splice.run(Leg::Tcp(&client), Leg::Tcp(&host), &counts, &mut on_eof) => {
                reason_of(ended)
            }
            stopped = &mut stop => stopped.unwrap_or(Reason::Drained),
            () = silence(&half_closed, &counts, half_closed_timeout) => Reason::HalfClosedTimeout,
        }
    };
    if reason == Reason::ClientAborted {
        guard.assignments().client_finished(assignment.session);
    }
    close(reason, splice, client, host, &counts, half_closed_timeout).await;
    report(&assignment, client_addr, &counts, reason);
    drop(guard);
}

fn reason_of(ended: Result<(), Failure>) -> Reason {
    match ended {
        Ok(()) => Reason::Finished,
        Err(Failure { side: Side::Client, .. }) => Reason::ClientAborted,
        Err(Failure { side: Side::Host, .. }) => Reason::HostAborted,
    }
}

/// Resolves when the session is half-closed and nothing has moved for `bound`. Holds no timer before that.
async fn silence(half_closed: &Notify, counts: &Counts, bound: Duration) {
    half_closed.notified().await;
    still(counts, bound).await;
}

/// Resolves when nothing has moved for `bound`.
async fn still(counts: &Counts, bound: Duration) {
    let moved =
        || (counts.to_host.load(Ordering::Relaxed), counts.to_client.load(Ordering::Relaxed));
    loop {
        let before = moved();
        sleep(bound).await;
        if moved() == before {
            return;
        }
    }
}

/// Closes both legs in the way that `reason` asks for: an end for an end, an abort for an abort.
async fn close(
    reason: Reason,
    mut splice: Splice,
    client: TcpStream,
    host: TcpStream,
    counts: &Counts,
    half_closed_timeout: Duration,
) {
    match reason {
        // Both have sent and read their last byte.
        Reason::Finished => {}
        Reason::HostLost => {
            // The client still gets all that the host had sent, and the end of it.
            splice.abandon(Side::Client);
            let mut told_already = |_| {};
            let rest = splice.run(Leg::Tcp(&client), Leg::Tcp(&host), counts, &mut told_already);
            let delivered = tokio::select! {
                rest = rest => rest.is_ok(),
                () = still(counts, half_closed_timeout) => false,
            };
            abort(host);
            if delivered {
                // It may take its time to read, and go on sending meanwhile.
                close_politely(client, limits::DELIVERY_TIMEOUT).await;
            } else {
                abort(client);
            }
        }
        _ => {
            abort(client);
            abort(host);
        }
    }
}

/// Closes a connection whose peer may still be sending: our end goes out first, and what comes in is taken off, so that the
/// peer reads all that we sent, and the end of it, and not a reset. Goes on until the peer has ended or was silent for a
/// moment, for `bound` at the longest.
pub(crate) async fn close_politely(mut stream: TcpStream, bound: Duration) {
    let mut discarded = [0; 1024];
    let linger = async {
        stream.shutdown().await?;
        while timeout(limits::LINGER_TIMEOUT, stream.read(&mut discarded)).await?? > 0 {}
        std::io::Result::Ok(())
    };
    // Whatever comes of it, the connection is dropped now.
    let _ended = timeout(bound, linger).await;
}

fn report(assignment: &Assignment, client_addr: SocketAddr, counts: &Counts, reason: Reason) {
    info!(
        session.id = %assignment.session,
        service = %assignment.service,
        host.id = %assignment.host,
        channel.id = %assignment.channel,
        client.addr = %client_addr,
        bytes.to_host = counts.to_host.load(Ordering::Relaxed),
        bytes.to_client = counts.to_client.load(Ordering::Relaxed),
        end.reason = %reason,
        "session ended"
    );
}
