//! What goes over a connection in parts: puts their lengths ahead, and decides when a direction goes on without.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::{BARE, END, HEADER_LEN, PART_MAX};

/// After so many parts, or so many bytes, a direction goes on bare, where bytes then go a faster way. A connection in place of the one
/// that is used up then costs both processes some 100 µs of CPU; 256 KiB are moved by `splice(2)` for as much less than by copying, and
/// 64 answers on a thread of their own.
const PARTS_BEFORE_BARE: u8 = 64;
const BYTES_BEFORE_BARE: u32 = 256 * 1024;

/// What was written of one direction, and what of it the connection has not taken.
#[derive(Debug)]
pub(crate) struct Outgoing {
    writing: Writing,
    /// To go out ahead of all that is written. Behind a pointer: most of the time there is nothing.
    unsent: Option<Box<Unsent>>,
    /// It waits for what is written next.
    is_held: bool,
    /// The end of the session is not only written, but on its way.
    is_end_flushed: bool,
    /// A write has failed of which nobody was told: a reset that was reported to it looks like an end to who reads next.
    has_failed: bool,
    /// Who writes was told to wait, and is to be woken by the connection.
    is_awaited: bool,
    /// Whether there is a faster way for much.
    may_go_bare: bool,
    /// Whether the connection is to carry another session; where that does not change, it is.
    stays: Option<Arc<AtomicBool>>,
    parts: u8,
    bytes: u32,
}

/// Bytes of which the first `sent` are with the connection.
#[derive(Debug, Default)]
struct Unsent {
    bytes: Vec<u8>,
    sent: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writing {
    /// No session's: passes as it is.
    Plain,
    /// A session's, in parts.
    Parts,
    /// The session's direction has ended.
    Ended,
    /// The session's, to the connection's end.
    Bare,
}

impl Outgoing {
    pub(crate) fn new(may_go_bare: bool, stays: Option<Arc<AtomicBool>>) -> Outgoing {
        Outgoing {
            writing: Writing::Plain,
            unsent: None,
            is_held: false,
            is_end_flushed: false,
            has_failed: false,
            is_awaited: false,
            may_go_bare,
            stays,
            parts: 0,
            bytes: 0,
        }
    }

    pub(crate) fn begin(&mut self) {
        self.writing = Writing::Parts;
    }

    pub(crate) fn begin_anew(&mut self) {
        (self.writing, self.parts, self.bytes) = (Writing::Plain, 0, 0);
        self.is_end_flushed = false;
    }

    /// Takes what is to go out ahead of what is written next, and not before that unless it is pushed, flushed or the end.
    pub(crate) fn queue(&mut self, bytes: &[u8]) {
        self.add_unsent(bytes);
        self.is_held = true;
    }

    /// Whether the end of the session's direction was written.
    pub(crate) fn has_ended(&self) -> bool {
        self.writing == Writing::Ended
    }

    /// Whether all of a session's is with the connection, the end included.
    pub(crate) fn is_over(&self) -> bool {
        self.has_ended() && !self.holds_unsent() && self.is_end_flushed
    }

    /// Whether the connection has failed, as far as what was sent on the side has told.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Whether our direction ends with the connection.
    pub(crate) fn has_gone_bare(&self) -> bool {
        self.writing == Writing::Bare
    }

    pub(crate) fn holds_unsent(&self) -> bool {
        self.unsent.is_some()
    }

    /// Whether nothing is left to be sent in another way than as it is.
    pub(crate) fn is_bare(&self) -> bool {
        self.writing == Writing::Bare && !self.holds_unsent()
    }

    /// Whether something waits that ought to be on its way, and that nobody else is about to send: who reads may do it then.
    pub(crate) fn is_due(&self) -> bool {
        self.holds_unsent() && !self.is_held && !self.is_awaited
    }

    /// The peer's direction ends with the connection, and so does ours, without another word: with what is written next the word comes.
    pub(crate) fn end_with_connection(&mut self) {
        if self.writing == Writing::Parts {
            self.writing = Writing::Bare;
        }
    }

    /// All that is written from now on goes as it is, to the connection's end. Nothing happens where no session is, or has ended.
    pub(crate) fn go_bare(&mut self) {
        if self.writing == Writing::Parts {
            self.writing = Writing::Bare;
            self.add_unsent(&BARE.to_be_bytes());
            self.is_held = false;
        }
    }

    /// Writes some of `buf`, or takes it, so that it goes out with what is written next or flushed.
    ///
    /// # Errors
    /// What writing fails with; `BrokenPipe` behind the end.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.poll_write_some(cx, stream, buf);
        self.is_awaited = written.is_pending();
        written
    }

    fn poll_write_some(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            // A part without bytes would be the end.
            return Poll::Ready(Ok(0));
        }
        let is_worth_it = self.parts >= PARTS_BEFORE_BARE || self.bytes >= BYTES_BEFORE_BARE;
        if self.may_go_bare && is_worth_it {
            self.go_bare();
        }
        match self.writing {
            Writing::Ended => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Writing::Parts => self.poll_write_part(cx, stream, buf),
            Writing::Plain | Writing::Bare if !self.holds_unsent() => {
                Pin::new(stream).poll_write(cx, buf)
            }
            Writing::Plain | Writing::Bare => self.poll_write_behind(cx, stream, buf),
        }
    }

    /// What is unsent, and `buf` with it.
    fn poll_write_behind(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let slices = [IoSlice::new(self.rest()), IoSlice::new(buf)];
            let written = ready!(poll_some(cx, stream, &slices))?;
            match self.advance(written) {
                0 => {}
                of_buf => return Poll::Ready(Ok(of_buf)),
            }
        }
    }

    /// A part, with what is unsent. One that has begun is taken whole, since its length was said.
    fn poll_write_part(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let payload = buf.get(..PART_MAX).unwrap_or(buf);
        let header = u32::try_from(payload.len()).unwrap_or(BARE).to_be_bytes();
        loop {
            let slices = [IoSlice::new(self.rest()), IoSlice::new(&header), IoSlice::new(payload)];
            let written = ready!(poll_some(cx, stream, &slices))?;
            let of_part = self.advance(written);
            if of_part == 0 {
                continue;
            }
            let of_payload = of_part.saturating_sub(HEADER_LEN);
            self.add_unsent(header.get(of_part..).unwrap_or_default());
            self.add_unsent(payload.get(of_payload..).unwrap_or_default());
            // Neither can be large before it goes bare; and over TLS, where it does not, they are of no use.
            self.parts = self.parts.saturating_add(1);
            self.bytes = self.bytes.saturating_add(payload.len() as u32);
            return Poll::Ready(Ok(payload.len()));
        }
    }

    /// Resolves when nothing is left that was to go out ahead.
    pub(crate) fn poll_unsent(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        self.is_held = false;
        while self.holds_unsent() {
            let written = ready!(poll_some(cx, stream, &[IoSlice::new(self.rest())]));
            self.has_failed |= written.is_err();
            self.advance(written?);
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        let flushed = match self.poll_unsent(cx, stream) {
            Poll::Ready(Ok(())) => Pin::new(stream).poll_flush(cx),
            unsent => unsent,
        };
        self.is_awaited = flushed.is_pending();
        flushed
    }

    pub(crate) fn poll_shutdown(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        if self.stays.as_ref().is_some_and(|stays| !stays.load(Ordering::Relaxed)) {
            // Its own end is the connection's: so the peer knows before it could give the connection another session.
            self.go_bare();
        }
        if self.writing == Writing::Parts {
            self.writing = Writing::Ended;
            self.add_unsent(&END.to_be_bytes());
        }
        if self.has_ended() {
            let flushed = self.poll_flush(cx, stream);
            self.is_end_flushed = matches!(flushed, Poll::Ready(Ok(())));
            return flushed;
        }
        let ended = match self.poll_unsent(cx, stream) {
            Poll::Ready(Ok(())) => Pin::new(stream).poll_shutdown(cx),
            unsent => unsent,
        };
        self.is_awaited = ended.is_pending();
        ended
    }

    fn add_unsent(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.unsent.get_or_insert_default().bytes.extend_from_slice(bytes);
        }
    }

    fn rest(&self) -> &[u8] {
        let unsent = self.unsent.as_ref();
        unsent.and_then(|unsent| unsent.bytes.get(unsent.sent..)).unwrap_or_default()
    }

    /// So many bytes are with the connection: gives how many of them are not of what was unsent.
    fn advance(&mut self, written: usize) -> usize {
        let of_unsent = self.rest().len();
        match written.checked_sub(of_unsent) {
            None => {
                self.unsent.iter_mut().for_each(|unsent| unsent.sent += written);
                0
            }
            Some(more) => {
                (self.unsent, self.is_held) = (None, false);
                more
            }
        }
    }
}

/// Writes at least a byte.
fn poll_some(
    cx: &mut Context<'_>,
    stream: &mut (impl AsyncWrite + Unpin),
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    // An empty one ahead would be all that some streams look at.
    let begin = slices.iter().take_while(|slice| slice.is_empty()).count();
    let slices = slices.get(begin..).unwrap_or_default();
    match ready!(Pin::new(stream).poll_write_vectored(cx, slices))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        written => Poll::Ready(Ok(written)),
    }
}
