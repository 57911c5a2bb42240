//! How a session is closed that is dropped: in order, without waiting in a `Drop`, and with its channel given back where that can carry
//! another.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use relayserver_core::limits;
use relayserver_transport::{Stream, close_politely};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::{Home, Session};
use crate::shared::Shared;

impl Session {
    /// Ends it in order, and gives its channel back where that can carry another session.
    pub(super) fn close(&mut self) {
        let Some(mut stream) = self.stream.take() else { return };
        if let Stream::Parts(_) = &stream {
            self.close_of_many(stream);
        } else if stream.is_encrypted() {
            // What TLS has not handed to the socket yet would be lost with it, and the end too.
            self.life.outlive(async move { close_politely_in_time(&mut stream).await });
        }
    }

    /// The same over a connection that is for many: its socket knows neither the session's end nor all that nobody has read.
    fn close_of_many(&mut self, mut stream: Stream) {
        match unread(&mut stream) {
            Ok(0) => {}
            Ok(_) if stream.is_encrypted() => {}
            // As with any connection.
            Ok(_) | Err(_) => return stream.abort(),
        }
        if !stream.has_read_end() {
            // Nobody would wait for it: so the relay is not to wait for the connection either.
            stream.carry_no_other();
        }
        let mut cx = Context::from_waker(Waker::noop());
        let has_ended = Pin::new(&mut stream).poll_shutdown(&mut cx).is_ready();
        if stream.can_carry_another() {
            self.give_back(stream);
        } else if has_ended && !stream.is_encrypted() {
            hear_out_later(&self.life.shared, stream, self.home.take());
        } else {
            let (home, shared) = (self.home.take(), Arc::clone(&self.life.shared));
            self.life.outlive(async move {
                let _sent = timeout(limits::DELIVERY_TIMEOUT, stream.shutdown()).await;
                hear_out_later(&shared, stream, home);
            });
        }
    }

    pub(super) fn give_back(&mut self, stream: Stream) {
        if let Some(home) = self.home.take() {
            home.take(stream);
        }
    }
}

/// [Hears out](hear_out) the relay, where it has something to say still. The session is over for this host: nobody waits for that.
fn hear_out_later(shared: &Shared, stream: Stream, home: Option<Home>) {
    if stream.has_sent_end() || stream.may_hear_bare() || stream.is_encrypted() {
        let aborted = shared.aborted.clone();
        shared.runtime.spawn(async move {
            let _cut_short = aborted.run_until_cancelled(hear_out(stream, home)).await;
        });
    }
}

/// What the relay said last.
enum Last {
    /// The client's end.
    End,
    /// That it goes on bare: from here on the socket knows how it is closed.
    Bare,
    /// More of the client's.
    Unread,
    Failed,
}

/// Waits for the relay's last word on a connection for many that has had ours. Where our end was said in parts and the client's comes, the
/// channel goes back. Where ours is the connection's, the relay may say yet that it goes on bare: to a socket that is closed by then that
/// is a reset, which takes along what its client has not got.
async fn hear_out(mut stream: Stream, home: Option<Home>) {
    let hearing = poll_fn(|cx| poll_last(&mut stream, cx));
    let last = timeout(limits::HALF_CLOSED_TIMEOUT, hearing).await;
    match (last, home) {
        (Ok(Last::End), Some(home)) if stream.can_carry_another() => home.take(stream),
        (Ok(Last::Unread), _) => stream.abort(),
        (Ok(Last::Bare), _) if stream.is_encrypted() => close_politely_in_time(&mut stream).await,
        (Ok(_) | Err(_), _) => stream.end_now(),
    }
}

fn poll_last(stream: &mut Stream, cx: &mut Context<'_>) -> Poll<Last> {
    let mut discarded = [0; 1024];
    loop {
        let mut discarded = ReadBuf::new(&mut discarded);
        match Pin::new(&mut *stream).poll_read(cx, &mut discarded) {
            Poll::Ready(Ok(())) if discarded.filled().is_empty() => return Poll::Ready(Last::End),
            // TLS has no word for it: what comes is taken off, as when any such connection is closed.
            Poll::Ready(Ok(())) if stream.is_encrypted() => {}
            Poll::Ready(Ok(())) => return Poll::Ready(Last::Unread),
            Poll::Ready(Err(_)) => return Poll::Ready(Last::Failed),
            Poll::Pending if stream.has_sent_end() || stream.may_hear_bare() => {
                return Poll::Pending;
            }
            Poll::Pending => return Poll::Ready(Last::Bare),
        }
    }
}

async fn close_politely_in_time(stream: &mut Stream) {
    close_politely(stream, limits::LINGER_TIMEOUT, limits::DELIVERY_TIMEOUT).await;
}

/// How much has come that nobody has read, as far as that is known here: nothing, or something. Where the end has come, it is taken in.
fn unread(stream: &mut Stream) -> io::Result<usize> {
    let mut byte = [0];
    let mut byte = ReadBuf::new(&mut byte);
    let mut cx = Context::from_waker(Waker::noop());
    match Pin::new(stream).poll_read(&mut cx, &mut byte) {
        Poll::Ready(Err(error)) => Err(error),
        Poll::Ready(Ok(())) | Poll::Pending => Ok(byte.filled().len()),
    }
}
