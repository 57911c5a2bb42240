//! A session in two, for tasks of their own.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use relayserver_core::limits;
use relayserver_transport::Stream;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::{Life, Session, out_of_contact};

/// Reads a session. Made by [`Session::into_split`].
#[derive(Debug)]
pub struct ReadHalf {
    /// There is none of a session that had ended in both directions.
    inner: Option<relayserver_transport::ReadHalf>,
    is_accepted: bool,
    life: Arc<Life>,
}

/// Writes a session; dropping it is half-close. Made by [`Session::into_split`].
#[derive(Debug)]
pub struct WriteHalf {
    /// Taken when it is dropped. There is none of a session that had ended in both directions.
    inner: Option<relayserver_transport::WriteHalf>,
    is_accepted: bool,
    life: Arc<Life>,
}

impl Session {
    /// Divides it into a half to read and a half to write, for tasks of their own. The session is over when both are
    /// dropped; dropping the half to write is half-close. A session that is divided takes its channel along: the host dials another for
    /// the next one.
    ///
    /// That accepts it; where [`accept`](Session::accept) would fail, every read and write of the halves does.
    pub fn into_split(mut self) -> (ReadHalf, WriteHalf) {
        // Nothing was written since the hello: there is room for the word that it is accepted, or it has failed.
        let mut cx = Context::from_waker(Waker::noop());
        let is_accepted = matches!(self.poll_accept(&mut cx), Poll::Ready(Ok(())));
        let stream = self.stream.take();
        if !is_accepted {
            stream.iter().for_each(Stream::reset_on_close);
            self.offer = None;
        }
        let (reader, writer) = stream.map(Stream::into_split).unzip();
        let life = Arc::clone(&self.life);
        (
            ReadHalf { inner: reader, is_accepted, life: Arc::clone(&life) },
            WriteHalf { inner: writer, is_accepted, life },
        )
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.is_accepted {
            return Poll::Ready(Err(out_of_contact()));
        }
        match &mut self.inner {
            Some(inner) => Pin::new(inner).poll_read(cx, buf),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().inner()?).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().inner()?).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().inner()?).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().inner()?).poll_shutdown(cx)
    }
}

impl WriteHalf {
    /// # Errors
    /// The session is not this host's.
    fn inner(&mut self) -> io::Result<&mut relayserver_transport::WriteHalf> {
        if !self.is_accepted {
            return Err(out_of_contact());
        }
        self.inner.as_mut().ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        let Some(mut inner) = self.inner.take() else {
            return;
        };
        if self.life.must_reset() || !self.is_accepted {
            inner.reset_on_close();
            // Else its own drop sends an end ahead of the reset.
            inner.forget();
        } else if inner.is_encrypted() || inner.holds_unsent() {
            // As with a whole session.
            self.life.outlive(async move {
                let _ended = timeout(limits::DELIVERY_TIMEOUT, inner.shutdown()).await;
            });
        }
    }
}

impl Drop for ReadHalf {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        if self.life.must_reset() || !self.is_accepted {
            inner.reset_on_close();
        } else if inner.may_hear_bare() && !self.life.is_to_be_reset() {
            let aborted = self.life.shared.aborted.clone();
            self.life.shared.runtime.spawn(async move {
                let _cut_short = aborted.run_until_cancelled(hear_out(inner)).await;
            });
        }
    }
}

/// Reads on until the relay has said that it goes on bare, or its end: to a socket that is closed by then the first of those would be a
/// reset. What comes of the client's is one, as with any connection.
async fn hear_out(mut inner: relayserver_transport::ReadHalf) {
    let mut byte = [0];
    let hearing = poll_fn(|cx| {
        let mut byte = ReadBuf::new(&mut byte);
        match Pin::new(&mut inner).poll_read(cx, &mut byte) {
            Poll::Ready(read) => Poll::Ready(read.is_ok() && !byte.filled().is_empty()),
            Poll::Pending if inner.may_hear_bare() => Poll::Pending,
            Poll::Pending => Poll::Ready(false),
        }
    });
    if let Ok(true) = timeout(limits::HALF_CLOSED_TIMEOUT, hearing).await {
        inner.reset_on_close();
    }
}
