//! A session: a client's connection, as a stream of bytes.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use relayserver_splice::Leg;
use relayserver_transport::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tracing::{debug, info};

use crate::events::DropReason;
use crate::shared::Shared;

/// Names a session. With protocol version 1 it is the channel's id: `channel.id` in the relay's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub(crate) i32);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A client, connected through the relay. It reads and writes as a `TcpStream` does.
///
/// [`shutdown`](tokio::io::AsyncWriteExt::shutdown) is half-close: the client reads the end, and what it still sends can be
/// read. Dropping a session closes it as dropping a `TcpStream` does: what was written still arrives, unless the
/// client's bytes were not all read, in which case the client sees a reset. A session that is dropped by a panic is reset.
#[derive(Debug)]
pub struct Session {
    /// Taken when the session is divided or ended by value.
    stream: Option<Stream>,
    life: Arc<Life>,
}

/// The part of a session that its halves share: when the last is gone, the session is.
struct Life {
    id: SessionId,
    shared: Arc<Shared>,
    reason: Mutex<DropReason>,
}

impl Session {
    /// A session on a channel to which a client was assigned.
    pub(crate) fn open(id: SessionId, stream: Stream, shared: Arc<Shared>) -> Session {
        shared.session_opened(id);
        debug!(channel.id = %id, "session opened");
        let life = Life { id, shared, reason: Mutex::new(DropReason::Closed) };
        Session { stream: Some(stream), life: Arc::new(life) }
    }

    /// The session's name.
    pub fn id(&self) -> SessionId {
        self.life.id
    }

    /// Where the client is. `None` where the relay does not say, as with protocol version 1.
    pub fn client_addr(&self) -> Option<SocketAddr> {
        None
    }

    /// Refuses the client: it sees its connection reset. `why` goes to the log and the events.
    pub fn reject(self, why: impl Into<String>) {
        let why = why.into();
        info!(channel.id = %self.id(), reason = why, "session rejected");
        self.end(DropReason::Rejected(why));
    }

    /// Aborts: the client sees its connection reset.
    pub fn reset(self) {
        self.end(DropReason::Reset);
    }

    /// Divides it into a half to read and a half to write, for tasks of their own. The session is over when both are
    /// dropped; dropping the half to write is half-close.
    pub fn into_split(mut self) -> (ReadHalf, WriteHalf) {
        let (reader, writer) = self.take_stream().into_split();
        let life = Arc::clone(&self.life);
        (
            ReadHalf { inner: reader, life: Arc::clone(&life) },
            WriteHalf { inner: Some(writer), life },
        )
    }

    /// The connection underneath, for handlers that splice.
    pub(crate) fn leg(&mut self) -> Leg<'_> {
        leg(self.stream_mut())
    }

    /// The socket underneath.
    pub(crate) fn socket(&self) -> Option<&tokio::net::TcpStream> {
        self.stream.as_ref().and_then(Stream::tcp)
    }

    fn stream_mut(&mut self) -> &mut Stream {
        self.stream.as_mut().unwrap_or_else(|| unreachable!("taken only by value"))
    }

    fn take_stream(&mut self) -> Stream {
        self.stream.take().unwrap_or_else(|| unreachable!("taken only by value"))
    }

    fn end(mut self, reason: DropReason) {
        self.life.set_reason(reason);
        self.take_stream().abort();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(stream) = &self.stream
            && self.life.must_reset()
        {
            stream.reset_on_close();
        }
    }
}

impl WriteHalf {
    fn inner(&mut self) -> &mut relayserver_transport::WriteHalf {
        self.inner.as_mut().unwrap_or_else(|| unreachable!("taken only when dropped"))
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take()
            && self.life.must_reset()
        {
            inner.reset_on_close();
            // Else its own drop sends an end ahead of the reset.
            inner.forget();
        }
    }
}

impl Drop for ReadHalf {
    fn drop(&mut self) {
        if self.life.must_reset() {
            self.inner.reset_on_close();
        }
    }
}

impl Life {
    fn set_reason(&self, reason: DropReason) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Decides how a connection that is being dropped ends: `true` where that is a reset. So it is where a panic or an abort
    /// drops it, as the client must not take half an answer for a whole one.
    fn must_reset(&self) -> bool {
        let resets = std::thread::panicking() || self.shared.aborted.is_cancelled();
        if resets {
            self.set_reason(DropReason::Reset);
        }
        resets
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let reason = self.reason.get_mut().unwrap_or_else(PoisonError::into_inner).clone();
        debug!(channel.id = %self.id, %reason, "session dropped");
        self.shared.session_dropped(self.id, reason);
        self.shared.session_gone();
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Life").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Reads a session. Made by [`Session::into_split`].
#[derive(Debug)]
pub struct ReadHalf {
    inner: relayserver_transport::ReadHalf,
    life: Arc<Life>,
}

/// Writes a session; dropping it is half-close. Made by [`Session::into_split`].
#[derive(Debug)]
pub struct WriteHalf {
    /// Taken when it is dropped.
    inner: Option<relayserver_transport::WriteHalf>,
    life: Arc<Life>,
}

impl AsyncRead for Session {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(self.stream_mut()).poll_read(cx, buf)
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

macro_rules! write_through {
    ($type:ty, |$session:ident| $inner:expr) => {
        impl AsyncWrite for $type {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                let $session = self.get_mut();
                Pin::new($inner).poll_write(cx, buf)
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                let $session = self.get_mut();
                Pin::new($inner).poll_write_vectored(cx, bufs)
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                let $session = self.get_mut();
                Pin::new($inner).poll_flush(cx)
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                let $session = self.get_mut();
                Pin::new($inner).poll_shutdown(cx)
            }
        }
    };
}

write_through!(Session, |session| session.stream_mut());
write_through!(WriteHalf, |half| half.inner());

/// A connection as a leg, by the best way that there is for its kind.
pub(crate) fn leg(stream: &mut Stream) -> Leg<'_> {
    match stream {
        Stream::Tcp(stream) => Leg::Tcp(stream),
        #[cfg(unix)]
        Stream::Unix(stream) => Leg::Unix(stream),
        #[allow(unreachable_patterns, reason = "TLS, where the transport has it")]
        layered => Leg::Other(layered),
    }
}
