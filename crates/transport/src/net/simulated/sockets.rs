//! The sockets of the simulated network, with as much of Tokio's interface as the product uses.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};

use super::{Dial, End, Listening, Segment, Side, WINDOW, with};

/// A connection of the simulated network.
#[derive(Debug)]
pub struct TcpStream {
    end: Arc<OpenEnd>,
}

/// Closes its end when the last who holds it drops it.
#[derive(Debug)]
struct OpenEnd(End);

/// A listener of the simulated network.
#[derive(Debug)]
pub struct TcpListener(SocketAddr);

/// Connects from the machine whose program runs to `to`.
///
/// # Errors
/// Nobody listens there. Where nobody answers it never resolves.
pub async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let number = with(|network| {
        let number = network.number();
        let ip = network.current.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let from = SocketAddr::new(ip, u16::try_from(1024 + number % 60_000).unwrap_or(1024));
        // There and back.
        let due = network.now + 2 * network.latency;
        network.dials.insert(number, Dial { from, to, due, outcome: None, waker: None });
        number
    });
    let _dialling = Dialling(number);
    let asked = |cx: &mut Context<'_>| {
        with(|network| {
            let Some(dial) = network.dials.get_mut(&number) else {
                return Poll::Ready(Err(io::Error::from(ErrorKind::NetworkDown)));
            };
            match dial.outcome.take() {
                Some(outcome) => Poll::Ready(outcome.map_err(io::Error::from)),
                None => {
                    dial.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
    };
    poll_fn(asked).await.map(TcpStream::new)
}

/// A connection that is not asked for any more when this is dropped.
struct Dialling(u64);

impl Drop for Dialling {
    fn drop(&mut self) {
        let Dialling(number) = *self;
        with(|network| {
            if let Some(Dial { outcome: Some(Ok(end)), .. }) = network.dials.remove(&number) {
                network.close(end, true);
            }
        });
    }
}

impl TcpListener {
    /// Listens on this address.
    ///
    /// # Errors
    /// Somebody does already.
    pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
        with(|network| {
            if network.listeners.contains_key(&address) {
                return Err(ErrorKind::AddrInUse.into());
            }
            network.listeners.insert(address, Listening::default());
            Ok(TcpListener(address))
        })
    }

    /// As Tokio's.
    ///
    /// # Errors
    /// None.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let next = |cx: &mut Context<'_>| {
            with(|network| {
                let Some(listening) = network.listeners.get_mut(&self.0) else {
                    return Poll::Pending;
                };
                match listening.backlog.pop_front() {
                    Some(end) => Poll::Ready(end),
                    None => {
                        listening.wakers.push(cx.waker().clone());
                        Poll::Pending
                    }
                }
            })
        };
        let stream = TcpStream::new(poll_fn(next).await);
        let peer = stream.peer_addr().unwrap_or(self.0);
        Ok((stream, peer))
    }

    /// As Tokio's.
    ///
    /// # Errors
    /// None.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0)
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        with(|network| {
            if let Some(listening) = network.listeners.remove(&self.0) {
                listening.backlog.into_iter().for_each(|end| network.close(end, true));
            }
        });
    }
}

impl TcpStream {
    fn new(end: End) -> TcpStream {
        TcpStream { end: Arc::new(OpenEnd(end)) }
    }

    fn with_side<R>(&self, apply: impl FnOnce(&mut Side) -> io::Result<R>) -> io::Result<R> {
        with(|network| match network.ends.get_mut(&self.end.0) {
            Some(side) => apply(side),
            None => Err(ErrorKind::ConnectionReset.into()),
        })
    }

    /// As Tokio's.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.with_side(|side| Ok(side.address))
    }

    /// As Tokio's.
    ///
    /// # Errors
    /// The connection is over: it has no peer any more.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.with_side(|side| {
            let is_over = side.failure.is_some() || (side.has_end && side.end_has_arrived);
            if is_over { Err(ErrorKind::NotConnected.into()) } else { Ok(side.peer_address) }
        })
    }

    /// Makes its close a reset.
    pub fn reset_on_close(&self) {
        let _gone = self.with_side(|side| {
            side.resets_on_close = true;
            Ok(())
        });
    }

    /// As Tokio's.
    ///
    /// # Errors
    /// The connection was reset.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_peek(cx, &mut ReadBuf::new(buf))).await
    }

    /// As Tokio's.
    ///
    /// # Errors
    /// The connection was reset.
    pub fn poll_peek(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let peeked = self.with_side(|side| {
            let len = side.arrived.len().min(buf.remaining());
            if len == 0 {
                side.check()?;
            }
            if len > 0 || side.has_end {
                side.arrived.iter().take(len).for_each(|byte| buf.put_slice(&[*byte]));
                return Ok(Some(len));
            }
            side.wait(cx);
            Ok(None)
        });
        match peeked {
            Ok(None) => Poll::Pending,
            Ok(Some(len)) => Poll::Ready(Ok(len)),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// As Tokio's, for [`Interest::READABLE`] and [`Interest::ERROR`].
    ///
    /// # Errors
    /// None.
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        let asked = |cx: &mut Context<'_>| {
            let ready = self.with_side(|side| {
                if side.failure.is_some() {
                    return Ok(Some(Ready::ERROR));
                }
                if interest.is_readable() && (side.has_end || !side.arrived.is_empty()) {
                    return Ok(Some(Ready::READABLE));
                }
                side.wait(cx);
                Ok(None)
            });
            match ready {
                Ok(None) => Poll::Pending,
                Ok(Some(ready)) => Poll::Ready(Ok(ready)),
                Err(_gone) => Poll::Ready(Ok(Ready::ERROR)),
            }
        };
        poll_fn(asked).await
    }

    /// As Tokio's.
    ///
    /// # Errors
    /// There is nothing to read now (`WouldBlock`), or the connection was reset.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        with(|network| {
            let gone = || io::Error::from(ErrorKind::ConnectionReset);
            let side = network.ends.get_mut(&self.end.0).ok_or_else(gone)?;
            let len = side.arrived.len().min(buf.len());
            if len == 0 {
                side.check()?;
            }
            if len == 0 && !side.has_end {
                return Err(ErrorKind::WouldBlock.into());
            }
            let taken = side.arrived.drain(..len);
            buf.iter_mut().zip(taken).for_each(|(to, from)| *to = from);
            let peer = side.peer;
            if let Some(peer) = network.ends.get_mut(&peer) {
                peer.unread = peer.unread.saturating_sub(len);
                peer.wakers.drain(..).for_each(Waker::wake);
            }
            Ok(len)
        })
    }

    fn poll_read_from(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.try_read(buf.initialize_unfilled()) {
            Ok(len) => {
                buf.advance(len);
                Poll::Ready(Ok(()))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.poll_wait(cx),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_write_to(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written: io::Result<usize> = with(|network| {
            let gone = || io::Error::from(ErrorKind::ConnectionReset);
            let side = network.ends.get_mut(&self.end.0).ok_or_else(gone)?;
            side.check()?;
            if side.has_sent_end {
                return Err(ErrorKind::BrokenPipe.into());
            }
            let len = buf.len().min(WINDOW - side.unread);
            if len == 0 && !buf.is_empty() {
                return Err(ErrorKind::WouldBlock.into());
            }
            side.unread += len;
            let peer = side.peer;
            network.send(peer, Segment::Bytes(buf.get(..len).unwrap_or_default().to_vec()));
            Ok(len)
        });
        match written {
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.poll_wait(cx),
            written => Poll::Ready(written),
        }
    }

    fn poll_wait<T>(&self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let waits = self.with_side(|side| {
            side.wait(cx);
            Ok(())
        });
        waits.map_or_else(|error| Poll::Ready(Err(error)), |()| Poll::Pending)
    }

    fn send_end(&self) {
        with(|network| network.send_end(self.end.0));
    }

    /// As Tokio's.
    pub fn into_split(self) -> (tcp::OwnedReadHalf, tcp::OwnedWriteHalf) {
        let other = TcpStream { end: Arc::clone(&self.end) };
        (tcp::OwnedReadHalf(other), tcp::OwnedWriteHalf { stream: self, ends_on_drop: true })
    }

    /// As Tokio's.
    pub fn split(&mut self) -> (tcp::ReadHalf<'_>, tcp::WriteHalf<'_>) {
        (tcp::ReadHalf(self), tcp::WriteHalf(self))
    }
}

impl Drop for OpenEnd {
    fn drop(&mut self) {
        with(|network| network.close(self.0, false));
    }
}

macro_rules! reads_and_writes {
    ($($Type:ty: $of:ident => $stream:expr;)+) => {
        $(
            impl AsyncRead for $Type {
                fn poll_read(
                    self: Pin<&mut Self>,
                    cx: &mut Context<'_>,
                    buf: &mut ReadBuf<'_>,
                ) -> Poll<io::Result<()>> {
                    let $of = self.get_mut();
                    $stream.poll_read_from(cx, buf)
                }
            }

            impl AsyncWrite for $Type {
                fn poll_write(
                    self: Pin<&mut Self>,
                    cx: &mut Context<'_>,
                    buf: &[u8],
                ) -> Poll<io::Result<usize>> {
                    let $of = self.get_mut();
                    $stream.poll_write_to(cx, buf)
                }

                fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                    Poll::Ready(Ok(()))
                }

                fn poll_shutdown(
                    self: Pin<&mut Self>,
                    _: &mut Context<'_>,
                ) -> Poll<io::Result<()>> {
                    let $of = self.get_mut();
                    $stream.send_end();
                    Poll::Ready(Ok(()))
                }
            }
        )+
    };
}

reads_and_writes! {
    TcpStream: it => it;
    tcp::OwnedReadHalf: it => it.0;
    tcp::OwnedWriteHalf: it => it.stream;
    tcp::ReadHalf<'_>: it => it.0;
    tcp::WriteHalf<'_>: it => it.0;
}

/// Halves of connections.
pub mod tcp {
    use super::{TcpStream, io};

    /// As Tokio's.
    #[derive(Debug)]
    pub struct OwnedReadHalf(pub(super) TcpStream);

    /// As Tokio's.
    #[derive(Debug)]
    pub struct OwnedWriteHalf {
        pub(super) stream: TcpStream,
        pub(super) ends_on_drop: bool,
    }

    /// As Tokio's.
    #[derive(Debug)]
    pub struct ReadHalf<'a>(pub(super) &'a TcpStream);

    /// As Tokio's.
    #[derive(Debug)]
    pub struct WriteHalf<'a>(pub(super) &'a TcpStream);

    impl AsRef<TcpStream> for OwnedReadHalf {
        fn as_ref(&self) -> &TcpStream {
            &self.0
        }
    }

    impl AsRef<TcpStream> for OwnedWriteHalf {
        fn as_ref(&self) -> &TcpStream {
            &self.stream
        }
    }

    impl OwnedWriteHalf {
        /// As Tokio's.
        pub fn forget(mut self) {
            self.ends_on_drop = false;
        }
    }

    impl Drop for OwnedWriteHalf {
        fn drop(&mut self) {
            if self.ends_on_drop {
                self.stream.send_end();
            }
        }
    }

    impl ReadHalf<'_> {
        /// As Tokio's.
        ///
        /// # Errors
        /// The connection was reset.
        pub async fn peek(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.0.peek(buf).await
        }
    }
}
