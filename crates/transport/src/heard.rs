//! What an idle connection has to tell, found out without taking a byte from it.
//!
//! Each of these wakes only who polled last, and takes the place of a read that waits: nobody may read at the same time.

use std::io;
use std::task::{Context, Poll, ready};

#[cfg(unix)]
use tokio::io::Interest;
use tokio::io::ReadBuf;
#[cfg(unix)]
use tokio::net::UnixStream;

use crate::net::TcpStream;

/// What came over an idle connection.
#[derive(Debug)]
pub enum Heard {
    /// Bytes, which are still to be read.
    Bytes,
    /// The peer's end, with no byte ahead of it that was not read.
    End,
    /// The connection has failed, or the peer has aborted it.
    Failed(io::Error),
}

impl From<io::Result<bool>> for Heard {
    fn from(there_are_bytes: io::Result<bool>) -> Heard {
        match there_are_bytes {
            Ok(true) => Heard::Bytes,
            Ok(false) => Heard::End,
            Err(error) => Heard::Failed(error),
        }
    }
}

pub(crate) fn poll_on_tcp(stream: &TcpStream, cx: &mut Context<'_>) -> Poll<Heard> {
    let mut byte = [0];
    let peeked = ready!(stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)));
    Poll::Ready(peeked.map(|count| count > 0).into())
}

#[cfg(unix)]
pub(crate) fn poll_on_unix(stream: &UnixStream, cx: &mut Context<'_>) -> Poll<Heard> {
    use std::mem::MaybeUninit;

    let socket = socket2::SockRef::from(stream);
    loop {
        if let Err(error) = ready!(stream.poll_read_ready(cx)) {
            return Poll::Ready(Heard::Failed(error));
        }
        let peek = || socket.peek(&mut [MaybeUninit::uninit()]);
        match stream.try_io(Interest::READABLE, peek) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            peeked => return Poll::Ready(peeked.map(|count| count > 0).into()),
        }
    }
}
