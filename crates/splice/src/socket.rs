//! A leg that the system knows: readiness-driven calls on a borrowed TCP or Unix socket.
//!
//! Used by [`Leg`](crate::Leg) for copying, by `direction` for splicing and by `watch` for aborts. It never closes,
//! and never changes an option of, a socket: both belong to whoever lent it.

use std::io::{self, ErrorKind};
#[cfg(not(target_os = "linux"))]
use std::io::{Read, Write};
use std::net::Shutdown;
use std::task::{Context, Poll, ready};

#[cfg(target_os = "linux")]
use rustix::net::{RecvFlags, SendFlags};
use socket2::SockRef;
use tokio::io::{Interest, Ready};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

#[derive(Clone, Copy)]
pub(crate) enum Socket<'a> {
    Tcp(&'a TcpStream),
    #[cfg(unix)]
    Unix(&'a UnixStream),
}

impl<'a> Socket<'a> {
    /// Reads at most `buf.len()` bytes; 0 is the peer's end.
    pub(crate) fn poll_read(self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut short = 0;
        loop {
            ready!(self.poll_read_ready(cx))?;
            let read = self.try_io(Interest::READABLE, || match self.receive(buf)? {
                // The socket has been emptied. Saying so here saves the call that would find out.
                n if 0 < n && n < buf.len() => {
                    short = n;
                    Err(ErrorKind::WouldBlock.into())
                }
                n => Ok(n),
            });
            match read {
                Err(_) if short > 0 => return Poll::Ready(Ok(short)),
                Err(error) if is_passing(&error) => {}
                read => return Poll::Ready(read),
            }
        }
    }

    /// Calls `write`, an attempt to give bytes to this socket, whenever it may get on, until it does or fails.
    pub(crate) fn poll_write_with(
        self,
        cx: &mut Context<'_>,
        mut write: impl FnMut() -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(cx))?;
            match self.try_io(Interest::WRITABLE, &mut write) {
                Ok(0) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Err(error) if is_passing(&error) => {}
                written => return Poll::Ready(written),
            }
        }
    }

    pub(crate) fn poll_write(self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(cx))?;
            let written = self.try_io(Interest::WRITABLE, || self.send(buf));
            match written {
                Ok(0) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Err(error) if is_passing(&error) => {}
                written => return Poll::Ready(written),
            }
        }
    }

    /// Resolves when a read may have something. An ordinary read must follow before it is polled again, since only
    /// that finds out whether there is something and, if not, starts the waiting anew.
    pub(crate) fn poll_read_ready(self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(stream) => stream.poll_read_ready(cx),
            #[cfg(unix)]
            Socket::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Sends our end. That the peer has gone already is no error: who reads from it learns how it went.
    pub(crate) fn shutdown(self) -> io::Result<()> {
        match self.sock().shutdown(Shutdown::Write) {
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
            done => done,
        }
    }

    /// Resolves when the system reports an error on this socket, now or earlier.
    pub(crate) async fn error_reported(self) -> io::Result<Ready> {
        match self {
            Socket::Tcp(stream) => stream.ready(Interest::ERROR).await,
            #[cfg(unix)]
            Socket::Unix(stream) => stream.ready(Interest::ERROR).await,
        }
    }

    /// Takes the reported error. `None`: there is none (any more), and the report is withdrawn.
    pub(crate) fn take_reported_error(self) -> Option<io::Error> {
        let taken = self.try_io(Interest::ERROR, || match self.sock().take_error()? {
            Some(error) => Ok(error),
            None => Err(ErrorKind::WouldBlock.into()),
        });
        match taken {
            Ok(reported) => Some(reported),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => Some(error),
        }
    }

    /// The socket as the system's calls want it.
    pub(crate) fn sock(self) -> SockRef<'a> {
        match self {
            Socket::Tcp(stream) => SockRef::from(stream),
            #[cfg(unix)]
            Socket::Unix(stream) => SockRef::from(stream),
        }
    }

    fn poll_write_ready(self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(stream) => stream.poll_write_ready(cx),
            #[cfg(unix)]
            Socket::Unix(stream) => stream.poll_write_ready(cx),
        }
    }

    /// Calls `call` if the socket is thought ready; where it says `WouldBlock`, it is not any more.
    fn try_io<T>(self, interest: Interest, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self {
            Socket::Tcp(stream) => stream.try_io(interest, call),
            #[cfg(unix)]
            Socket::Unix(stream) => stream.try_io(interest, call),
        }
    }

    /// The system's own call: the C library's is one that threads can be cancelled in, which costs on each side of it.
    #[cfg(target_os = "linux")]
    fn receive(self, buf: &mut [u8]) -> io::Result<usize> {
        let (received, _) = rustix::net::recv(&*self.sock(), buf, RecvFlags::empty())?;
        Ok(received)
    }

    #[cfg(not(target_os = "linux"))]
    fn receive(self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self.sock()).read(buf)
    }

    #[cfg(target_os = "linux")]
    fn send(self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(&*self.sock(), bytes, SendFlags::NOSIGNAL)?)
    }

    #[cfg(not(target_os = "linux"))]
    fn send(self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.sock()).write(bytes)
    }
}

/// Not an answer: ask again, and that will either work or wait.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
