//! A TCP connection that remembers how its peer began, so that a peer that speaks something else than TLS can be told by what
//! it said.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::TcpStream;

/// As much as names a protocol: `HTTP/1.1 400 Bad`, `SSH-2.0-OpenSSH_`.
const KEPT: usize = 16;

#[derive(Debug)]
pub(super) struct Opening {
    pub(super) stream: TcpStream,
    first: [u8; KEPT],
    len: usize,
}

impl Opening {
    pub(super) fn new(stream: TcpStream) -> Opening {
        Opening { stream, first: [0; KEPT], len: 0 }
    }

    /// The first bytes that came in, at most 16.
    pub(super) fn first_bytes(&self) -> &[u8] {
        self.first.get(..self.len).unwrap_or_default()
    }

    /// Whether they begin a record of TLS, as far as they go (RFC 8446, section 5.1: type, then version 3.x).
    pub(super) fn is_tls(&self) -> bool {
        match self.first_bytes() {
            [] => false,
            [kind] => matches!(kind, 0x14..=0x17),
            [kind, major, ..] => matches!(kind, 0x14..=0x17) && *major == 3,
        }
    }

    fn note(&mut self, read: &[u8]) {
        if let Some(free) = self.first.get_mut(self.len..) {
            let count = free.len().min(read.len());
            for (place, byte) in free.iter_mut().zip(read) {
                *place = *byte;
            }
            self.len += count;
        }
    }
}

impl AsyncRead for Opening {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        if this.len < KEPT {
            this.note(buf.filled().get(before..).unwrap_or_default());
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Opening {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
