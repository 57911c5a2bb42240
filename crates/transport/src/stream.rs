//! A connection, whatever it goes over. TLS joins the others here when its turn comes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use crate::options::reset_on_close;

/// A connection: ordered bytes both ways, with half-close.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix domain socket.
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Stream {
    /// Ends the connection so that the peer can tell it from an end, where the transport can: over TCP with a RST. A Unix
    /// domain socket knows no abort while nothing is unread.
    pub fn abort(self) {
        match self {
            Stream::Tcp(stream) => abort(stream),
            #[cfg(unix)]
            Stream::Unix(stream) => drop(stream),
        }
    }
}

/// Ends a connection with a RST: what is unsent is thrown away, and the peer can tell that it was no orderly end.
pub fn abort(stream: TcpStream) {
    reset_on_close(&stream);
}

macro_rules! on_each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($stream) => $call,
            #[cfg(unix)]
            Stream::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_each!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (one, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn an_abort_can_be_told_from_an_end() {
        let (one, mut other) = pair().await;
        abort(one);
        let error = other.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);

        let (one, mut other) = pair().await;
        drop(one);
        assert_eq!(other.read(&mut [0]).await.unwrap(), 0);
    }

    async fn passes_bytes_and_a_half_close(mut one: Stream, mut other: Stream) {
        one.write_all(b"question").await.unwrap();
        one.shutdown().await.unwrap();
        let mut received = Vec::new();
        other.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"question");
        let parts = [IoSlice::new(b"ans"), IoSlice::new(b"wer")];
        assert!(other.is_write_vectored());
        assert_eq!(other.write_vectored(&parts).await.unwrap(), 6);
        drop(other);
        received.clear();
        one.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"answer");
    }

    #[tokio::test]
    async fn tcp_passes_bytes_and_a_half_close() {
        let (one, other) = pair().await;
        passes_bytes_and_a_half_close(Stream::Tcp(one), Stream::Tcp(other)).await;
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn unix_passes_bytes_and_a_half_close() {
        let (one, other) = UnixStream::pair().unwrap();
        passes_bytes_and_a_half_close(Stream::Unix(one), Stream::Unix(other)).await;
    }
}
