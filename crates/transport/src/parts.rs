//! A connection that carries one session after another: each direction of a session goes in *parts*, which say where it ends, so that
//! the connection need not. `docs/wire.md`, section 15, describes the bytes.
//!
//! Driven by relay and SDK through [`Stream`]: what they say before a session's bytes passes as it is, and they say when these begin. A
//! direction with much to carry leaves the parts behind for good (it goes on *bare*): then the connection is as good as any other, and
//! ends with the session. When that is, its sender decides, in `outgoing.rs`.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Stream;

mod incoming;
mod outgoing;
#[cfg(not(simulation))]
mod over_tcp;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use incoming::Incoming;
pub(crate) use outgoing::Outgoing;
#[cfg(not(simulation))]
pub use over_tcp::PartsOverTcp;

/// The length ahead of each part, as of every frame: 4 bytes, big-endian.
const HEADER_LEN: usize = 4;

/// No part has more bytes: as no frame has.
const PART_MAX: usize = 65_536;

/// A part without bytes is the end of its direction.
const END: u32 = 0;

/// Stands where a length would: all that follows is the session's, to the connection's own end.
const BARE: u32 = u32::MAX;

/// A connection that carries one session after another. Made by [`Stream::for_many`].
#[derive(Debug)]
pub struct Parts {
    stream: Stream,
    framing: Framing,
}

/// The parts of both directions.
#[derive(Debug)]
pub(crate) struct Framing {
    incoming: Incoming,
    outgoing: Outgoing,
    /// Whether the peer's word that it goes on bare is answered at once: by who reads on to the end, whatever comes.
    answers_bare: bool,
}

impl Parts {
    pub(crate) fn new(stream: Stream, stays: Option<Arc<AtomicBool>>) -> Parts {
        let answers_bare = stays.is_some();
        let outgoing = Outgoing::new(!stream.is_encrypted(), stays);
        let framing = Framing { incoming: Incoming::default(), outgoing, answers_bare };
        Parts { stream, framing }
    }

    /// Goes on bare where the peer does, and more of it may come.
    pub(crate) fn answer_bare(&mut self) {
        let more_may_come =
            self.framing.incoming.is_bare() && !self.framing.incoming.has_ended_with_connection();
        if more_may_come && !self.framing.outgoing.has_gone_bare() {
            self.framing.outgoing.go_bare();
            self.push();
        }
    }

    /// Whether the peer has said that it goes on bare.
    pub(crate) fn has_heard_bare(&self) -> bool {
        self.framing.incoming.has_heard_bare()
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(crate) fn stream_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// Whether something was read that nobody has asked for yet.
    pub(crate) fn has_read_ahead(&self) -> bool {
        self.framing.incoming.has_read_ahead()
    }

    /// As [`Stream::is_drained`].
    pub(crate) fn is_drained(&self) -> bool {
        self.framing.incoming.is_drained()
    }

    /// What comes from now on is a session's.
    pub(crate) fn begin_incoming(&mut self) {
        self.framing.incoming.begin();
    }

    /// What is written from now on is a session's.
    pub(crate) fn begin_outgoing(&mut self) {
        self.framing.outgoing.begin();
    }

    /// Takes what is to go out ahead of what is written next.
    pub(crate) fn queue(&mut self, bytes: &[u8]) {
        self.framing.outgoing.queue(bytes);
    }

    /// As [`Stream::hold`]. Passes as it is, so that it is for what goes ahead of a session; and nothing is taken where something waits here
    /// that it would overtake.
    ///
    /// # Errors
    /// As of a write.
    pub(crate) fn hold(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.holds_unsent() { Ok(0) } else { self.stream.hold(bytes) }
    }

    /// Sends what is queued, as far as the connection takes it now. A failure is told to who reads or writes next.
    pub(crate) fn push(&mut self) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let _pushed = self.framing.outgoing.poll_unsent(&mut cx, &mut self.stream);
    }

    /// Whether both directions of a session have ended, and all of ours is with the connection: it may carry another.
    pub(crate) fn is_over(&self) -> bool {
        self.framing.incoming.is_over() && self.framing.outgoing.is_over()
    }

    /// Whether ours has ended in parts, and the peer's with the connection.
    pub(crate) fn is_over_with_it(&self) -> bool {
        self.framing.outgoing.is_over() && self.framing.incoming.has_ended_with_connection()
    }

    /// It carries another session, of which nothing has begun.
    pub(crate) fn begin_anew(&mut self) {
        self.framing.incoming.begin_anew();
        self.framing.outgoing.begin_anew();
    }

    /// Whether both directions go on bare, and nothing of either waits here: so that what is beneath serves as well.
    pub(crate) fn is_bare(&self) -> bool {
        self.framing.incoming.is_bare() && self.framing.outgoing.is_bare()
    }

    /// What is written from now on goes as it is, to the connection's own end: it is to carry no other session.
    pub(crate) fn go_bare(&mut self) {
        self.framing.outgoing.go_bare();
    }

    /// Whether the end of ours was written, be it on its way or not.
    pub(crate) fn has_sent_end(&self) -> bool {
        self.framing.outgoing.has_ended()
    }

    /// Whether all that comes of the session has come.
    pub(crate) fn has_read_end(&self) -> bool {
        self.framing.incoming.is_over()
    }

    /// Whether something waits for room in the connection, or for what is written next.
    pub(crate) fn holds_unsent(&self) -> bool {
        self.framing.outgoing.holds_unsent()
    }

    /// The connection, what its reader has to take the parts off, and what its writer has to send ahead. The writer goes on bare: with
    /// halves in two hands nobody could give the connection back.
    pub(crate) fn into_pieces(self) -> (Stream, Incoming, Outgoing) {
        let Parts { mut stream, framing: Framing { incoming, mut outgoing, .. } } = self;
        outgoing.go_bare();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        // What fails here fails again with the next write.
        let _sent = outgoing.poll_unsent(&mut cx, &mut stream);
        (stream, incoming, outgoing)
    }
}

impl Framing {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Framing { incoming, outgoing, answers_bare } = self;
        let before = buf.filled().len();
        let read = incoming.poll_read(cx, stream, outgoing.has_gone_bare(), buf);
        if *answers_bare && incoming.has_heard_bare() {
            // The peer has reckoned that the session is worth a connection of its own, for both ways.
            outgoing.go_bare();
        }
        if outgoing.is_due() {
            let _sent = outgoing.poll_unsent(cx, stream);
        }
        // What failed there is not reported again, and a reset would pass for an end.
        let is_told = matches!(read, Poll::Ready(Err(_))) || buf.filled().len() > before;
        if outgoing.has_failed() && !is_told && !incoming.is_over() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        read
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.incoming.has_heard_bare() {
            self.outgoing.go_bare();
        }
        self.outgoing.poll_write(cx, stream, buf)
    }

    fn poll_shutdown(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        if self.incoming.has_heard_bare() {
            self.outgoing.end_with_connection();
        }
        self.outgoing.poll_shutdown(cx, stream)
    }
}

impl AsyncRead for Parts {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Parts { stream, framing } = self.get_mut();
        framing.poll_read(cx, stream, buf)
    }
}

impl AsyncWrite for Parts {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Parts { stream, framing } = self.get_mut();
        framing.poll_write(cx, stream, buf)
    }

    /// Only the first that is not empty is written: a part has one length.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = bufs.iter().find(|buf| !buf.is_empty());
        self.poll_write(cx, first.map_or(&[], |buf| buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Parts { stream, framing } = self.get_mut();
        framing.outgoing.poll_flush(cx, stream)
    }

    /// Ends our direction of the session; the connection itself stays, unless it has gone bare or carries no session.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Parts { stream, framing } = self.get_mut();
        framing.poll_shutdown(cx, stream)
    }
}
