//! The parts of a connection over TCP, and the socket beneath beside them: for who moves the bytes and has to notice an abort that nobody
//! reads of.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::{Framing, Parts};
use crate::Stream;

/// Reads and writes parts as [`Parts`] does, and leaves the socket to be looked at.
#[derive(Debug)]
pub struct PartsOverTcp<'a> {
    socket: Borrowed<'a>,
    framing: &'a mut Framing,
}

impl Parts {
    /// The same over the socket itself; `None` over anything but TCP alone.
    pub(crate) fn over_tcp(&mut self) -> Option<PartsOverTcp<'_>> {
        let Parts { stream: Stream::Tcp(socket), framing } = self else { return None };
        Some(PartsOverTcp { socket: Borrowed(socket), framing })
    }
}

impl<'a> PartsOverTcp<'a> {
    /// The socket: never to be read or written.
    pub fn socket(&self) -> &'a TcpStream {
        self.socket.0
    }
}

impl AsyncRead for PartsOverTcp<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let PartsOverTcp { socket, framing } = self.get_mut();
        framing.poll_read(cx, socket, buf)
    }
}

impl AsyncWrite for PartsOverTcp<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let PartsOverTcp { socket, framing } = self.get_mut();
        framing.poll_write(cx, socket, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let PartsOverTcp { socket, framing } = self.get_mut();
        framing.outgoing.poll_flush(cx, socket)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let PartsOverTcp { socket, framing } = self.get_mut();
        framing.poll_shutdown(cx, socket)
    }
}

/// A socket that is lent. Tokio lets it be read and written so, but not by these traits.
#[derive(Debug)]
struct Borrowed<'a>(&'a TcpStream);

impl AsyncRead for Borrowed<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let unfilled = buf.initialize_unfilled();
        let mut short = 0;
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            let read = self.0.try_io(Interest::READABLE, || match self.0.try_read(unfilled)? {
                // The socket has been emptied. Saying so here saves the call that would find out: so reads `splice`, too.
                len if 0 < len && len < unfilled.len() => {
                    short = len;
                    Err(ErrorKind::WouldBlock.into())
                }
                len => Ok(len),
            });
            let len = match read {
                Err(_) if short > 0 => short,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                read => read?,
            };
            buf.advance(len);
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for Borrowed<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write_vectored(bufs) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = socket2::SockRef::from(self.0).shutdown(std::net::Shutdown::Write);
        // Its peer has gone already.
        Poll::Ready(shut.or_else(|error| match error.kind() {
            ErrorKind::NotConnected => Ok(()),
            _ => Err(error),
        }))
    }
}
