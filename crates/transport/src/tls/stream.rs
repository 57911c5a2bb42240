//! A connection inside TLS, after its handshake.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use super::opening::Opening;
use crate::net::TcpStream;

/// An encrypted connection. Its end is TLS's own (close_notify) together with TCP's, so that nobody else can make one; TCP's
/// end alone is an error, [`io::ErrorKind::UnexpectedEof`].
///
/// What is written is buffered, up to 64 KiB, where the socket takes no more: flush or shut down before dropping it.
pub struct TlsStream {
    pub(super) inner: tokio_rustls::TlsStream<Opening>,
    /// Our end is due and was not yet taken by the socket, and nobody is left who would write it.
    end_is_due: bool,
}

impl TlsStream {
    pub(super) fn new(inner: tokio_rustls::TlsStream<Opening>) -> TlsStream {
        TlsStream { inner, end_is_due: false }
    }

    /// The socket underneath, for its options and addresses.
    pub fn tcp(&self) -> &TcpStream {
        &self.inner.get_ref().0.stream
    }

    /// How the keys were agreed on, such as `X25519MLKEM768`.
    pub fn key_exchange(&self) -> Option<String> {
        let group = self.inner.get_ref().1.negotiated_key_exchange_group()?;
        Some(format!("{:?}", group.name()))
    }

    /// Whether a session ticket stood in for the certificate.
    pub fn is_resumed(&self) -> bool {
        self.inner.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// Resolves when there is plaintext to read (`true`), or the peer has ended (`false`). What there is stays to be read.
    pub(crate) fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.poll_due_end(cx);
        let plaintext = Pin::new(&mut self.inner).poll_fill_buf(cx);
        plaintext.map_ok(|plaintext| !plaintext.is_empty())
    }

    /// Sends our end, without waiting: what the socket does not take now goes out while the other direction is read.
    pub(crate) fn end_now(&mut self) {
        self.end_is_due = true;
        self.poll_due_end(&mut Context::from_waker(Waker::noop()));
    }

    fn poll_due_end(&mut self, cx: &mut Context<'_>) {
        // Where it fails, so does reading.
        if self.end_is_due && Pin::new(&mut self.inner).poll_shutdown(cx).is_ready() {
            self.end_is_due = false;
        }
    }
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("tcp", self.tcp()).finish_non_exhaustive()
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_due_end(cx);
        Pin::new(&mut this.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
