//! A connection, whatever it goes over: TCP, a Unix domain socket, TLS over TCP, or one of these in parts.
//!
//! Driven by relay and SDK for every leg. What a caller must do otherwise for one of them than for another is asked for here.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
#[cfg(unix)]
use tokio::net::UnixStream;

use crate::heard::{self, Heard};
use crate::net::TcpStream;
use crate::options::{self, reset_on_close};
use crate::parts::Parts;
#[cfg(feature = "tls")]
use crate::tls::TlsStream;

/// A connection: ordered bytes both ways, with half-close, and an abort that can be told from an end.
///
/// Over TLS an end is close_notify together with FIN; FIN alone is an abort, and reading it fails with
/// [`io::ErrorKind::UnexpectedEof`]. So a TLS connection that is dropped without having been shut down is aborted, where one over TCP
/// is ended. And TLS buffers: what was written is on its way only once it was flushed or our side was shut down.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix domain socket.
    #[cfg(unix)]
    Unix(UnixStream),
    /// Over TLS over TCP.
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream>),
    /// Over one of the others, which carries one session after another: see [`Stream::for_many`].
    Parts(Box<Parts>),
}

impl Stream {
    /// The TCP socket underneath, for options and to see whether it lives. Never to be read or written: TLS may lie between.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Stream::Tcp(stream) => Some(stream),
            #[cfg(unix)]
            Stream::Unix(_) => None,
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => Some(stream.tcp()),
            Stream::Parts(parts) => parts.stream().tcp(),
        }
    }

    /// Where the peer is.
    ///
    /// # Errors
    /// What the system says, as where the peer has gone; `Unsupported` for a Unix domain socket.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().ok_or(io::ErrorKind::Unsupported)?.peer_addr()
    }

    /// Where the connection arrives here.
    ///
    /// # Errors
    /// As [`Stream::peer_addr`].
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().ok_or(io::ErrorKind::Unsupported)?.local_addr()
    }

    /// Whether nobody on the way can read or change what is sent.
    pub fn is_encrypted(&self) -> bool {
        match self {
            Stream::Tcp(_) => false,
            #[cfg(unix)]
            Stream::Unix(_) => false,
            #[cfg(feature = "tls")]
            Stream::Tls(_) => true,
            Stream::Parts(parts) => parts.stream().is_encrypted(),
        }
    }

    /// Has the connection wait for readiness in the runtime that is entered, from now on. What is no plain TCP connection stays where it
    /// is.
    ///
    /// # Errors
    /// What the system says, as where no descriptor is left for a moment. The connection goes on as before then.
    #[cfg(not(simulation))]
    pub fn move_here(&mut self) -> io::Result<()> {
        if let Stream::Tcp(stream) = self.barest() {
            let same = socket2::SockRef::from(&*stream).try_clone()?;
            *stream = TcpStream::from_std(same.into())?;
        }
        Ok(())
    }

    /// Sockets of the simulated network belong to no runtime.
    ///
    /// # Errors
    /// None.
    #[cfg(simulation)]
    pub fn move_here(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Hands `bytes`, which are no session's, to the kernel so that they leave together with what is written next: one packet less.
    /// Without that they leave with [`push`](Stream::push), and anyhow after 200 ms or what the way takes (`MSG_MORE` of send(2)), also
    /// where this process stands still or is gone, unless it is gone with bytes unread: that is a reset, which takes them along. Gives how
    /// many were taken: none where this cannot be had, as over TLS, or where something else waits to be sent. What was not taken is to be
    /// written.
    ///
    /// # Errors
    /// As of a write.
    pub fn hold(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Parts(parts) => parts.hold(bytes),
            #[cfg(all(target_os = "linux", not(simulation)))]
            Stream::Tcp(stream) => {
                use rustix::net::{SendFlags, send};
                let flags = SendFlags::MORE | SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                match send(stream, bytes, flags) {
                    Ok(taken) => Ok(taken),
                    Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(0),
                    Err(errno) => Err(errno.into()),
                }
            }
            _ => {
                let _ = bytes;
                Ok(0)
            }
        }
    }

    /// Sends what [`hold`](Stream::hold) holds.
    pub fn push(&mut self) {
        match self {
            // Linux sends what is held when this is set, also where it is set already.
            Stream::Tcp(stream) => options::log_failure(options::set_nodelay(stream)),
            Stream::Parts(parts) => parts.stream_mut().push(),
            _ => {}
        }
    }

    /// Makes the close of the connection, whenever it comes, an abort, where the transport can: over TCP a RST. Of what was sent
    /// last, TLS's own end included, the peer may then see nothing. A Unix domain socket knows no abort.
    pub fn reset_on_close(&self) {
        if let Some(stream) = self.tcp() {
            reset_on_close(stream);
        }
    }

    /// Ends the connection so that the peer can tell it from an end, where the transport can: over TCP with a RST, and over TLS
    /// without close_notify besides. A Unix domain socket knows no abort while nothing is unread.
    pub fn abort(self) {
        self.reset_on_close();
    }

    /// Sends our end without waiting for it to be taken, for where nobody can wait, as in a `Drop`. Over TLS what the socket does
    /// not take at once goes out while the stream is read; if it is dropped before, that is an abort. Elsewhere the socket takes it.
    /// Of a connection for many sessions the connection ends, not the session on it.
    pub fn end_now(&mut self) {
        // TCP and Unix domain sockets end at once or have ended.
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match self {
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.end_now(),
            Stream::Tcp(stream) => drop(Pin::new(stream).poll_shutdown(&mut cx)),
            #[cfg(unix)]
            Stream::Unix(stream) => drop(Pin::new(stream).poll_shutdown(&mut cx)),
            Stream::Parts(parts) => {
                parts.push();
                parts.stream_mut().end_now();
            }
        }
    }

    /// Resolves when the peer of an idle connection has something to tell. What there is to read stays to be read, and what TLS
    /// says for itself (tickets, new keys) is nothing to be told.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub fn waits(&mut self) -> impl Future<Output = Heard> + Send {
        // No `async fn`, whose future is larger: most channels do nothing but wait here.
        poll_fn(|cx| self.poll_heard(cx))
    }

    fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        match self {
            Stream::Tcp(stream) => heard::poll_on_tcp(stream, cx),
            #[cfg(unix)]
            Stream::Unix(stream) => heard::poll_on_unix(stream, cx),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.poll_heard(cx).map(Heard::from),
            Stream::Parts(parts) if parts.has_read_ahead() => Poll::Ready(Heard::Bytes),
            Stream::Parts(parts) => parts.stream_mut().poll_heard(cx),
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
            #[cfg(feature = "tls")]
            Stream::Tls($stream) => $call,
            Stream::Parts($stream) => $call,
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

    /// Loopback hands over what is sent before the call that sends it returns.
    #[cfg(all(target_os = "linux", not(simulation)))]
    #[tokio::test]
    async fn what_is_held_leaves_when_pushed_and_with_what_is_written() {
        let now_there = |stream: &TcpStream| {
            let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
            let peeked = rustix::net::recv(stream, &mut [0; 32], flags);
            peeked.map(|(len, _)| len).map_err(std::io::Error::from)
        };
        for (pushes, for_many) in [(true, false), (true, true), (false, false), (false, true)] {
            let (one, mut other) = pair().await;
            one.set_nodelay(true).unwrap();
            let began = std::time::Instant::now();
            let one = Stream::Tcp(one);
            let mut one = if for_many { one.for_many(None) } else { one };
            assert_eq!(one.hold(b"word").unwrap(), 4);
            let held = now_there(&other);
            // Linux lets it go after 200 ms, which may have passed on a machine that stood still.
            if began.elapsed() < std::time::Duration::from_millis(100) {
                assert_eq!(held.unwrap_err().kind(), ErrorKind::WouldBlock);
            }
            one.begin_outgoing();
            let expected = match (pushes, for_many) {
                (true, _) => &b"word"[..],
                (false, false) => b"word and more",
                (false, true) => b"word\0\0\0\x09 and more",
            };
            if pushes {
                one.push();
            } else {
                one.write_all(b" and more").await.unwrap();
            }
            assert_eq!(now_there(&other).unwrap(), expected.len());
            drop(one);
            let mut received = Vec::new();
            other.read_to_end(&mut received).await.unwrap();
            assert_eq!(received, expected);
        }
    }

    /// What a future gives when it is asked once.
    async fn polled_once<T>(future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            given = future => Some(given),
            () = std::future::ready(()) => None,
        }
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
    async fn over_tcp_a_peer_is_heard_without_a_byte_being_taken() {
        let (one, other) = pair().await;
        is_heard(Stream::Tcp(one), Stream::Tcp(other)).await;

        let (one, other) = pair().await;
        let mut one = Stream::Tcp(one);
        Stream::Tcp(other).abort();
        let Heard::Failed(error) = one.waits().await else { panic!("an abort is a failure") };
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn over_unix_a_peer_is_heard_without_a_byte_being_taken() {
        let (one, other) = UnixStream::pair().unwrap();
        is_heard(Stream::Unix(one), Stream::Unix(other)).await;
    }

    async fn is_heard(mut one: Stream, mut other: Stream) {
        assert!(!one.is_encrypted());
        assert!(polled_once(one.waits()).await.is_none(), "nothing was said");
        other.write_all(b"word").await.unwrap();
        assert!(matches!(one.waits().await, Heard::Bytes));
        assert!(matches!(one.waits().await, Heard::Bytes), "it stays to be read");
        let mut word = [0; 4];
        one.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"word");
        other.end_now();
        assert!(matches!(one.waits().await, Heard::End));
        assert_eq!(one.read(&mut word).await.unwrap(), 0);
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
