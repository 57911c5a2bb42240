//! Closing a connection without taking from the peer what is still on its way to it.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::net::TcpStream;

/// Resolves when the peer has acknowledged all that was sent, the end included. For a connection on which both sides have
/// sent their end: one that is closed before that is an orphan, and the kernel resets an orphan whose peer takes more than some
/// minutes to read.
///
/// With the last acknowledgement the kernel's connection is closed, and a closed one has no peer: that is what is looked at,
/// with growing pauses. There is no deadline in here. Elsewhere than on Linux it resolves at once, and so it does for what is no
/// TCP connection: what was written to a Unix domain socket is the reader's already.
///
/// Takes a `TcpStream`, or what [`Stream::tcp`](crate::Stream::tcp) gives. Over TLS both sides' ends must be TCP's too: a peer that
/// sends close_notify and never FIN keeps it waiting.
///
/// Cancel safe.
pub async fn acknowledged<'a>(connection: impl Into<Option<&'a TcpStream>>) {
    const PAUSE_MAX: Duration = Duration::from_secs(1);
    let Some(stream) = connection.into() else { return };
    let mut pause = Duration::from_millis(1);
    while !is_acknowledged(stream) {
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Whether [`acknowledged`] would resolve at once.
pub fn is_acknowledged(stream: &TcpStream) -> bool {
    !cfg!(target_os = "linux") || stream.peer_addr().is_err()
}

/// Ends our side of a connection whose peer may still be sending: our end goes out, and what comes in is taken off and thrown
/// away, so that the peer reads all that we sent and not a reset. Resolves when the peer has ended too, was silent for `silence`,
/// or `bound` has passed; drop the connection then.
pub async fn close_politely<S>(stream: &mut S, silence: Duration, bound: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut discarded = [0; 1024];
    let linger = async {
        stream.shutdown().await?;
        while timeout(silence, stream.read(&mut discarded)).await?? > 0 {}
        io::Result::Ok(())
    };
    // Whatever comes of it, the connection is of no more use.
    let _ended = timeout(bound, linger).await;
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (dialled.unwrap(), accepted.unwrap().0)
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_the_peer_has_not_read_is_not_acknowledged() {
        let (mut ours, mut theirs) = pair().await;
        theirs.shutdown().await.unwrap();
        let chunk = vec![7; 1 << 20];
        let mut sent = 0;
        // Until nobody takes any more: both kernels' buffers are full.
        while let Ok(written) = timeout(Duration::from_millis(200), ours.write(&chunk)).await {
            sent += written.unwrap();
        }
        ours.shutdown().await.unwrap();
        assert!(timeout(Duration::from_millis(200), acknowledged(&ours)).await.is_err());

        let mut received = Vec::new();
        timeout(DEADLINE, theirs.read_to_end(&mut received)).await.unwrap().unwrap();
        assert_eq!(received.len(), sent);
        timeout(DEADLINE, acknowledged(&ours)).await.unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_still_sends_reads_our_last_bytes() {
        let (mut ours, mut theirs) = pair().await;
        theirs.write_all(&[1; 100_000]).await.unwrap();
        ours.write_all(b"no").await.unwrap();
        let closing = async move {
            close_politely(&mut ours, DEADLINE, DEADLINE).await;
        };
        let reading = async {
            let mut received = String::new();
            theirs.read_to_string(&mut received).await.unwrap();
            drop(theirs);
            received
        };
        let ((), received) = tokio::join!(closing, reading);
        assert_eq!(received, "no");
    }
}
