//! What an idle connection has to tell, found out without taking a byte from it.

use std::io;

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

pub(crate) async fn on_tcp(stream: &TcpStream) -> Heard {
    stream.peek(&mut [0]).await.map(|count| count > 0).into()
}

#[cfg(unix)]
pub(crate) async fn on_unix(stream: &UnixStream) -> Heard {
    use std::mem::MaybeUninit;

    let socket = socket2::SockRef::from(stream);
    let peek = || socket.peek(&mut [MaybeUninit::uninit()]);
    let peeked = stream.async_io(tokio::io::Interest::READABLE, peek).await;
    peeked.map(|count| count > 0).into()
}
