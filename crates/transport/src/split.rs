//! A [`Stream`] in two, for tasks of their own.
//!
//! TCP and Unix domain sockets divide without a lock. The halves of a TLS connection share its state under one, which is held
//! while a half reads or writes what is there, and never while it waits.

use std::io::{self, IoSlice};
use std::pin::Pin;
#[cfg(feature = "tls")]
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
#[cfg(unix)]
use tokio::net::unix;

use crate::Stream;
use crate::net::tcp;
use crate::options::reset_on_close;
use crate::parts::{Incoming, Outgoing};
#[cfg(feature = "tls")]
use crate::tls::TlsStream;

/// Reads a [`Stream`]. Made by [`Stream::into_split`].
#[derive(Debug)]
pub struct ReadHalf {
    reader: Reader,
    /// Takes the parts off, where the connection was for many sessions.
    incoming: Option<Box<Incoming>>,
}

/// Writes a [`Stream`]. Made by [`Stream::into_split`]. Dropping it sends our end, as [`Stream::end_now`] does; over TLS, shut it
/// down first where nobody reads the other half to the end.
#[derive(Debug)]
pub struct WriteHalf {
    writer: Writer,
    /// What is to go out ahead, where the connection was for many sessions.
    outgoing: Option<Box<Outgoing>>,
}

#[derive(Debug)]
enum Reader {
    Tcp(tcp::OwnedReadHalf),
    #[cfg(unix)]
    Unix(unix::OwnedReadHalf),
    #[cfg(feature = "tls")]
    Tls(Shared),
}

#[derive(Debug)]
enum Writer {
    Tcp(tcp::OwnedWriteHalf),
    #[cfg(unix)]
    Unix(unix::OwnedWriteHalf),
    #[cfg(feature = "tls")]
    Tls(TlsWriter),
}

impl Stream {
    /// Divides it into a half to read and a half to write. The connection is closed when both are dropped: it carries no other session
    /// after that, whatever it was for.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        let (stream, incoming, outgoing) = match self {
            Stream::Parts(parts) => {
                let (stream, incoming, outgoing) = parts.into_pieces();
                (stream, Some(Box::new(incoming)), Some(Box::new(outgoing)))
            }
            stream => (stream, None, None),
        };
        let (reader, writer) = stream.into_halves();
        (ReadHalf { reader, incoming }, WriteHalf { writer, outgoing })
    }

    fn into_halves(self) -> (Reader, Writer) {
        match self {
            Stream::Tcp(stream) => {
                let (reader, writer) = stream.into_split();
                (Reader::Tcp(reader), Writer::Tcp(writer))
            }
            #[cfg(unix)]
            Stream::Unix(stream) => {
                let (reader, writer) = stream.into_split();
                (Reader::Unix(reader), Writer::Unix(writer))
            }
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => {
                let reader = Shared(Arc::new(Mutex::new(stream)));
                let writer = TlsWriter { shared: reader.clone(), ends_on_drop: true };
                (Reader::Tls(reader), Writer::Tls(writer))
            }
            // One in another is none that anybody makes.
            Stream::Parts(parts) => parts.into_pieces().0.into_halves(),
        }
    }
}

impl ReadHalf {
    /// As [`Stream::reset_on_close`].
    pub fn reset_on_close(&self) {
        match &self.reader {
            Reader::Tcp(reader) => reset_on_close(reader.as_ref()),
            #[cfg(unix)]
            Reader::Unix(_) => {}
            #[cfg(feature = "tls")]
            Reader::Tls(shared) => reset_on_close(shared.lock().tcp()),
        }
    }
}

impl ReadHalf {
    /// Whether the peer may say still that it goes on as it is: to a connection that is closed by then that is a word that it resets.
    pub fn may_hear_bare(&self) -> bool {
        self.incoming.as_ref().is_some_and(|it| !it.has_heard_bare() && !it.is_over())
    }
}

impl WriteHalf {
    /// Whether something waits here for room in the connection.
    pub fn holds_unsent(&self) -> bool {
        self.outgoing.as_ref().is_some_and(|outgoing| outgoing.holds_unsent())
    }

    /// As [`Stream::reset_on_close`].
    pub fn reset_on_close(&self) {
        match &self.writer {
            Writer::Tcp(writer) => reset_on_close(writer.as_ref()),
            #[cfg(unix)]
            Writer::Unix(_) => {}
            #[cfg(feature = "tls")]
            Writer::Tls(writer) => reset_on_close(writer.shared.lock().tcp()),
        }
    }

    /// As [`Stream::is_encrypted`].
    pub fn is_encrypted(&self) -> bool {
        match &self.writer {
            Writer::Tcp(_) => false,
            #[cfg(unix)]
            Writer::Unix(_) => false,
            #[cfg(feature = "tls")]
            Writer::Tls(_) => true,
        }
    }

    /// Drops it without sending our end.
    pub fn forget(self) {
        match self.writer {
            Writer::Tcp(writer) => writer.forget(),
            #[cfg(unix)]
            Writer::Unix(writer) => writer.forget(),
            #[cfg(feature = "tls")]
            Writer::Tls(mut writer) => writer.ends_on_drop = false,
        }
    }
}

/// A TLS connection that two halves hold.
#[cfg(feature = "tls")]
#[derive(Clone, Debug)]
struct Shared(Arc<Mutex<Box<TlsStream>>>);

#[cfg(feature = "tls")]
#[derive(Debug)]
struct TlsWriter {
    shared: Shared,
    ends_on_drop: bool,
}

#[cfg(feature = "tls")]
impl Shared {
    fn lock(&self) -> MutexGuard<'_, Box<TlsStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(feature = "tls")]
impl Drop for TlsWriter {
    fn drop(&mut self) {
        if self.ends_on_drop {
            self.shared.lock().end_now();
        }
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let ReadHalf { reader, incoming } = self.get_mut();
        match incoming {
            // The other half ends with the connection.
            Some(incoming) => incoming.poll_read(cx, reader, true, buf),
            None => Pin::new(reader).poll_read(cx, buf),
        }
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Reader::Tcp(reader) => Pin::new(reader).poll_read(cx, buf),
            #[cfg(unix)]
            Reader::Unix(reader) => Pin::new(reader).poll_read(cx, buf),
            #[cfg(feature = "tls")]
            Reader::Tls(shared) => Pin::new(&mut **shared.lock()).poll_read(cx, buf),
        }
    }
}

macro_rules! on_each {
    ($self:ident, $writer:ident => $call:expr) => {
        match $self.get_mut() {
            Writer::Tcp($writer) => $call,
            #[cfg(unix)]
            Writer::Unix($writer) => $call,
            #[cfg(feature = "tls")]
            Writer::Tls(TlsWriter { shared, .. }) => {
                let $writer = &mut **shared.lock();
                $call
            }
        }
    };
}

impl AsyncWrite for WriteHalf {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let WriteHalf { writer, outgoing } = self.get_mut();
        match outgoing {
            Some(outgoing) => outgoing.poll_write(cx, writer, buf),
            None => Pin::new(writer).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let WriteHalf { writer, outgoing } = self.get_mut();
        match outgoing {
            Some(outgoing) if !outgoing.is_bare() => {
                let first = bufs.iter().find(|buf| !buf.is_empty());
                outgoing.poll_write(cx, writer, first.map_or(&[], |buf| buf))
            }
            _ => Pin::new(writer).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let WriteHalf { writer, outgoing } = self.get_mut();
        match outgoing {
            Some(outgoing) => outgoing.poll_flush(cx, writer),
            None => Pin::new(writer).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let WriteHalf { writer, outgoing } = self.get_mut();
        match outgoing {
            Some(outgoing) => outgoing.poll_shutdown(cx, writer),
            None => Pin::new(writer).poll_shutdown(cx),
        }
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_each!(self, writer => Pin::new(writer).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_each!(self, writer => Pin::new(writer).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_each!(self, writer => Pin::new(writer).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_each!(self, writer => Pin::new(writer).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn tcp_pair() -> (Stream, Stream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Stream::Tcp(one), Stream::Tcp(listener.accept().await.unwrap().0))
    }

    async fn divide(one: Stream, mut other: Stream) {
        let (mut reader, mut writer) = one.into_split();
        assert!(writer.is_write_vectored());
        let parts = [IoSlice::new(b"ques"), IoSlice::new(b"tion")];
        assert_eq!(writer.write_vectored(&parts).await.unwrap(), 8);
        drop(writer);
        let mut received = Vec::new();
        other.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"question");

        other.write_all(b"answer").await.unwrap();
        drop(other);
        received.clear();
        reader.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"answer");
    }

    #[tokio::test]
    async fn tcp_divides() {
        let (one, other) = tcp_pair().await;
        divide(one, other).await;
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn unix_divides() {
        let (one, other) = tokio::net::UnixStream::pair().unwrap();
        divide(Stream::Unix(one), Stream::Unix(other)).await;
    }

    #[tokio::test]
    async fn halves_that_are_to_be_reset_end_in_no_other_way() {
        let (one, mut other) = tcp_pair().await;
        let (reader, writer) = one.into_split();
        reader.reset_on_close();
        writer.forget();
        drop(reader);
        let error = other.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn behind_the_end_of_a_session_nothing_is_written_in_whatever_way() {
        let (one, other) = tcp_pair().await;
        let mut one = one.for_many(None);
        one.begin_outgoing();
        one.shutdown().await.unwrap();
        let (_reader, mut writer) = one.into_split();
        let error = writer.write(b"more").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        let error = writer.write_vectored(&[IoSlice::new(b"more")]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        drop((_reader, writer));
        let mut received = Vec::new();
        let Stream::Tcp(mut other) = other else { panic!("it is none") };
        other.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, [0; 4], "the end, and nothing behind it");
    }

    #[tokio::test]
    async fn all_of_it_can_go_to_another_task() {
        fn can(_: impl Send) {}
        let (mut one, _other) = tcp_pair().await;
        can(one.waits());
        can(one.read(&mut [0]));
        can(crate::acknowledged(one.tcp()));
        can(one.into_split());
    }
}
