//! One side of a session, as it is lent to [`Splice::run`](crate::Splice::run).
//!
//! A leg is borrowed, never closed here, and its options are left as they are.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use crate::socket::Socket;

/// One side of a session: an ordered stream of bytes in each direction, with half-close.
///
/// Between two sockets bulk may bypass this process, and an abort of either is noticed even while nothing is read
/// from it. Of any other stream an abort is noticed when it is next read from or written to.
pub enum Leg<'a> {
    /// A TCP connection.
    Tcp(&'a TcpStream),
    /// A connection over a Unix domain socket.
    #[cfg(unix)]
    Unix(&'a UnixStream),
    /// Any other stream, such as TLS.
    Other(&'a mut dyn ByteStream),
    /// One that has a TCP connection of its own beneath, by which an abort is noticed.
    Over(&'a mut dyn ByteStream, &'a TcpStream),
}

/// What a stream must be to be a [`Leg::Other`]; everything that can be, is.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + ?Sized> ByteStream for T {}

impl<'a> Leg<'a> {
    /// The socket below, if there is one and nothing in between.
    pub(crate) fn socket(&self) -> Option<Socket<'a>> {
        match self {
            Leg::Tcp(stream) => Some(Socket::Tcp(stream)),
            #[cfg(unix)]
            Leg::Unix(stream) => Some(Socket::Unix(stream)),
            Leg::Other(_) | Leg::Over(..) => None,
        }
    }

    /// The socket that tells of an abort.
    pub(crate) fn watched(&self) -> Option<Socket<'a>> {
        match self {
            Leg::Over(_, beneath) => Some(Socket::Tcp(beneath)),
            leg => leg.socket(),
        }
    }

    /// The same leg, lent on for a shorter time.
    pub(crate) fn reborrow(&mut self) -> Leg<'_> {
        match self {
            Leg::Tcp(stream) => Leg::Tcp(stream),
            #[cfg(unix)]
            Leg::Unix(stream) => Leg::Unix(stream),
            Leg::Other(stream) => Leg::Other(&mut **stream),
            Leg::Over(stream, beneath) => Leg::Over(&mut **stream, beneath),
        }
    }

    /// Reads at most `buf.len()` bytes; 0 is the peer's end.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Leg::Tcp(stream) => Socket::Tcp(stream).poll_read(cx, buf),
            #[cfg(unix)]
            Leg::Unix(stream) => Socket::Unix(stream).poll_read(cx, buf),
            Leg::Other(stream) | Leg::Over(stream, _) => {
                let mut buf = ReadBuf::new(buf);
                ready!(Pin::new(&mut **stream).poll_read(cx, &mut buf))?;
                Poll::Ready(Ok(buf.filled().len()))
            }
        }
    }

    /// Writes some of `buf`, at least a byte of it.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Leg::Tcp(stream) => Socket::Tcp(stream).poll_write(cx, buf),
            #[cfg(unix)]
            Leg::Unix(stream) => Socket::Unix(stream).poll_write(cx, buf),
            Leg::Other(stream) | Leg::Over(stream, _) => {
                match ready!(Pin::new(&mut **stream).poll_write(cx, buf))? {
                    0 => Poll::Ready(Err(ErrorKind::WriteZero.into())),
                    written => Poll::Ready(Ok(written)),
                }
            }
        }
    }

    /// Hands on what the leg itself may have buffered. Sockets do not buffer.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Leg::Tcp(_) => Poll::Ready(Ok(())),
            #[cfg(unix)]
            Leg::Unix(_) => Poll::Ready(Ok(())),
            Leg::Other(stream) | Leg::Over(stream, _) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    /// Flushes and sends our end. That the peer has gone already is no error.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Leg::Tcp(stream) => Poll::Ready(Socket::Tcp(stream).shutdown()),
            #[cfg(unix)]
            Leg::Unix(stream) => Poll::Ready(Socket::Unix(stream).shutdown()),
            Leg::Other(stream) | Leg::Over(stream, _) => {
                match ready!(Pin::new(&mut **stream).poll_shutdown(cx)) {
                    Err(error) if error.kind() == ErrorKind::NotConnected => Poll::Ready(Ok(())),
                    done => Poll::Ready(done),
                }
            }
        }
    }
}
