//! One direction of a session: takes bytes from one leg, gives them to the other, and passes the end on.
//!
//! Driven by `Splice::run`, once for each direction in a poll. All state is here, none in a future, so that a run can
//! be dropped anywhere and taken up again. It never reads while it holds bytes, and holds them only while the
//! receiver does not take them.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use crate::failure::{Failure, Side};
use crate::leg::Leg;
use crate::pipe::{self, Pipe, Pool};
use crate::remainder::{End, Undelivered};
use crate::scratch::{SCRATCH_LEN, with_scratch};
use crate::socket::Socket;

/// The most steps (a read with its write, a fill, a drain) and the most bytes before the other direction and the other
/// sessions of this thread have their turn. 1 MiB is 16 full copies or one full pipe; 32 steps are 16 fills and drains.
/// Both directions together stay within what Tokio lets a task do at a stretch (128), so that neither starves.
const STEPS_PER_POLL: usize = 32;
const BYTES_PER_POLL: usize = 1 << 20;

/// This many full reads in a row make a direction bulk: one may be a large answer, two are a transfer.
const FULL_READS_FOR_BULK: u8 = 2;
/// This many small ones in a row end it again.
const SMALL_READS_FOR_END_OF_BULK: u8 = 2;
/// Below this, copying costs less than the second system call and the pipe.
const SMALL_READ: usize = 16 * 1024;

/// The state of a direction.
pub(crate) struct Direction {
    held: Held,
    end: End,
    pace: Pace,
    /// The sender had nothing when it was asked last.
    starved: bool,
    /// Bytes were given to a leg that may have buffered them.
    unflushed: bool,
    /// The system does not splice these legs.
    splice_refused: bool,
}

/// What a poll of a direction works on.
pub(crate) struct Crossing<'a> {
    /// Where the bytes come from.
    pub(crate) from: Leg<'a>,
    /// Where they go.
    pub(crate) to: Leg<'a>,
    /// Which leg `from` is.
    pub(crate) side: Side,
    /// Where pipes come from; none: copy.
    pub(crate) pool: Option<&'static Pool>,
    /// The bytes written to `to`.
    pub(crate) count: &'a AtomicU64,
    /// Counts how often bytes came after there were none, where somebody wants to know.
    pub(crate) arrivals: Option<&'a AtomicU64>,
    /// Told when the end of `from` was read.
    pub(crate) on_eof: &'a mut (dyn FnMut(Side) + Send),
}

/// Bytes that were read and not yet written.
enum Held {
    Nothing,
    Bytes(Rest),
    Pipe(Pipe),
}

/// Bytes of which the first `written` are.
struct Rest {
    bytes: Box<[u8]>,
    written: usize,
}

/// What the traffic looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Small, so far.
    Small { full_reads: u8 },
    /// A transfer.
    Bulk { small_reads: u8 },
}

impl Direction {
    pub(crate) fn new() -> Direction {
        Direction {
            held: Held::Nothing,
            end: End::Open,
            pace: Pace::START,
            starved: true,
            unflushed: false,
            splice_refused: false,
        }
    }

    pub(crate) fn from_undelivered(undelivered: Undelivered) -> Direction {
        Direction {
            held: Held::new(&undelivered.bytes),
            end: undelivered.end,
            // Whether the leg was left unflushed is not known; once more does no harm.
            unflushed: true,
            ..Direction::new()
        }
    }

    pub(crate) fn into_undelivered(self) -> io::Result<Undelivered> {
        Ok(Undelivered { bytes: self.held.into_bytes()?, end: self.end })
    }

    /// Moves bytes until the direction is over, a leg fails, neither leg gets on, or it is others' turn.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        crossing: &mut Crossing<'_>,
    ) -> Poll<Result<(), Failure>> {
        let mut moved = 0;
        for _ in 0..STEPS_PER_POLL {
            if self.is_over() {
                return Poll::Ready(Ok(()));
            }
            if moved >= BYTES_PER_POLL {
                break;
            }
            moved += match (&self.held, self.end) {
                (Held::Nothing, End::Open) => ready!(self.poll_read(cx, crossing))?,
                (Held::Nothing, _) => ready!(self.poll_pass_on_end(cx, crossing))?,
                (Held::Bytes(_) | Held::Pipe(_), _) => ready!(self.poll_write_held(cx, crossing))?,
            };
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Gives up: what is held is dropped, nothing more is read, and the receiver is not told.
    pub(crate) fn abandon(&mut self) {
        if !self.is_over() {
            self.held = Held::Nothing;
            self.end = End::Abandoned;
        }
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_over(&self) -> bool {
        self.end.is_over()
    }

    /// Whether the sender has said all that will be read of it.
    pub(crate) fn has_read_end(&self) -> bool {
        self.end != End::Open
    }

    /// Whether it is open, and moves no bulk.
    pub(crate) fn is_chatty(&self) -> bool {
        self.end == End::Open && !self.pace.is_bulk()
    }

    /// Whether a poll that found nothing to do waits for the sender, whose abort it would then be told by the read.
    pub(crate) fn waits_for_sender(&self) -> bool {
        matches!((&self.held, self.end), (Held::Nothing, End::Open))
    }

    fn poll_pass_on_end(
        &mut self,
        cx: &mut Context<'_>,
        crossing: &mut Crossing<'_>,
    ) -> Poll<Result<usize, Failure>> {
        let told = ready!(crossing.to.poll_shutdown(cx));
        told.map_err(|error| crossing.write_failure(error))?;
        self.end = End::PassedOn;
        Poll::Ready(Ok(0))
    }

    /// Reads once and writes at once. Resolves with the number of bytes written.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        crossing: &mut Crossing<'_>,
    ) -> Poll<Result<usize, Failure>> {
        if let Some((pool, from)) = self.way_of_bulk(crossing)
            && ready!(self.poll_fill(cx, crossing, pool, from))?
        {
            return Poll::Ready(Ok(0));
        }
        with_scratch(|scratch| match crossing.from.poll_read(cx, scratch) {
            Poll::Pending => {
                self.starved = true;
                ready!(self.poll_flush(cx, crossing))?;
                Poll::Pending
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(crossing.read_failure(error))),
            Poll::Ready(Ok(0)) => {
                self.end = End::Read;
                (crossing.on_eof)(crossing.side);
                Poll::Ready(Ok(0))
            }
            Poll::Ready(Ok(read)) => {
                self.note_read(crossing, read);
                let bytes = scratch.get(..read).unwrap_or_default();
                self.poll_write_through(cx, crossing, bytes)
            }
        })
    }

    /// Writes what was just read, and holds what the receiver does not take.
    fn poll_write_through(
        &mut self,
        cx: &mut Context<'_>,
        crossing: &mut Crossing<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, Failure>> {
        let outcome = crossing.to.poll_write(cx, bytes);
        let written = match &outcome {
            Poll::Ready(Ok(written)) => *written,
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        };
        self.held = Held::new(bytes.get(written..).unwrap_or_default());
        self.note_written(crossing, written);
        outcome.map_err(|error| crossing.write_failure(error))
    }

    fn poll_write_held(
        &mut self,
        cx: &mut Context<'_>,
        crossing: &mut Crossing<'_>,
    ) -> Poll<Result<usize, Failure>> {
        let outcome = match &mut self.held {
            Held::Nothing => return Poll::Ready(Ok(0)),
            Held::Bytes(rest) => ready!(crossing.to.poll_write(cx, rest.unwritten())),
            Held::Pipe(pipe) => match crossing.to.socket() {
                Some(to) => ready!(to.poll_write_with(cx, || pipe.drain(to))),
                // The leg was replaced by one that the system does not know.
                None => return Poll::Ready(self.hold_as_bytes(crossing)),
            },
        };
        match outcome {
            Ok(written) => {
                self.held.advance(written);
                self.note_written(crossing, written);
                Poll::Ready(Ok(written))
            }
            Err(error) if self.held.is_pipe() && pipe::is_refusal(&error) => {
                self.splice_refused = true;
                Poll::Ready(self.hold_as_bytes(crossing))
            }
            Err(error) => Poll::Ready(Err(crossing.write_failure(error))),
        }
    }

    /// Takes the bytes out of the pipe, to copy them.
    fn hold_as_bytes(&mut self, crossing: &Crossing<'_>) -> Result<usize, Failure> {
        let bytes = self.held.take().into_bytes();
        let bytes = bytes.map_err(|error| crossing.write_failure(error))?;
        self.held = Held::new(&bytes);
        Ok(0)
    }

    fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        crossing: &mut Crossing<'_>,
    ) -> Poll<Result<(), Failure>> {
        if self.unflushed {
            let flushed = ready!(crossing.to.poll_flush(cx));
            flushed.map_err(|error| crossing.write_failure(error))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Moves what the sender has into a pipe. `false`: nothing came that way, and an ordinary read must ask why.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        crossing: &Crossing<'_>,
        pool: &'static Pool,
        from: Socket<'_>,
    ) -> Poll<Result<bool, Failure>> {
        let Poll::Ready(ready) = from.poll_read_ready(cx) else {
            self.starved = true;
            return Poll::Pending;
        };
        ready.map_err(|error| crossing.read_failure(error))?;
        let Some(mut pipe) = pool.take() else {
            // Not worth asking again before each read.
            self.pace = Pace::START;
            return Poll::Ready(Ok(false));
        };
        match pipe.fill(from) {
            Ok(0) => Poll::Ready(Ok(false)),
            Ok(filled) => {
                self.note_read(crossing, filled);
                self.held = Held::Pipe(pipe);
                Poll::Ready(Ok(true))
            }
            Err(error) if pipe::is_refusal(&error) => {
                self.splice_refused = true;
                Poll::Ready(Ok(false))
            }
            Err(error) => Poll::Ready(Err(crossing.read_failure(error))),
        }
    }

    /// The sender's socket, and where a pipe may come from, if bytes are to go through one now.
    fn way_of_bulk<'a>(&self, crossing: &Crossing<'a>) -> Option<(&'static Pool, Socket<'a>)> {
        if self.splice_refused || !self.pace.is_bulk() {
            return None;
        }
        crossing.to.socket()?;
        Some((crossing.pool?, crossing.from.socket()?))
    }

    fn note_read(&mut self, crossing: &Crossing<'_>, read: usize) {
        self.pace = self.pace.after(read);
        if std::mem::take(&mut self.starved)
            && let Some(arrivals) = crossing.arrivals
        {
            // Nobody else writes it.
            arrivals.store(arrivals.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    fn note_written(&mut self, crossing: &Crossing<'_>, written: usize) {
        if written > 0 {
            self.unflushed = true;
            crossing.count.fetch_add(written as u64, Ordering::Relaxed);
        }
    }

    #[cfg(all(test, target_os = "linux"))]
    pub(crate) fn pace(&self) -> Pace {
        self.pace
    }

    #[cfg(all(test, target_os = "linux"))]
    pub(crate) fn begin_as_bulk(&mut self) {
        self.pace = Pace::Bulk { small_reads: 0 };
    }

    #[cfg(all(test, target_os = "linux"))]
    pub(crate) fn is_splice_refused(&self) -> bool {
        self.splice_refused
    }

    #[cfg(all(test, target_os = "linux"))]
    pub(crate) fn holds_pipe(&self) -> bool {
        self.held.is_pipe()
    }
}

impl Crossing<'_> {
    fn read_failure(&self, error: io::Error) -> Failure {
        Failure::read(self.side, error)
    }

    fn write_failure(&self, error: io::Error) -> Failure {
        Failure::write(self.side.other(), error)
    }
}

impl Held {
    /// Holds a copy that is no larger than it must be.
    fn new(bytes: &[u8]) -> Held {
        if bytes.is_empty() {
            return Held::Nothing;
        }
        Held::Bytes(Rest { bytes: bytes.into(), written: 0 })
    }

    fn take(&mut self) -> Held {
        std::mem::replace(self, Held::Nothing)
    }

    fn into_bytes(self) -> io::Result<Vec<u8>> {
        match self {
            Held::Nothing => Ok(Vec::new()),
            Held::Bytes(rest) => Ok(rest.unwritten().to_vec()),
            Held::Pipe(pipe) => pipe.into_bytes(),
        }
    }

    fn is_pipe(&self) -> bool {
        matches!(self, Held::Pipe(_))
    }

    /// `written` bytes more are with the receiver. When that was all, memory and pipe are given back.
    fn advance(&mut self, written: usize) {
        let is_done = match self {
            Held::Nothing => true,
            Held::Bytes(rest) => {
                rest.written += written;
                rest.unwritten().is_empty()
            }
            // It keeps count itself.
            Held::Pipe(pipe) => pipe.is_empty(),
        };
        if is_done {
            *self = Held::Nothing;
        }
    }
}

impl Rest {
    fn unwritten(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }
}

impl Pace {
    pub(crate) const START: Pace = Pace::Small { full_reads: 0 };

    pub(crate) fn is_bulk(self) -> bool {
        matches!(self, Pace::Bulk { .. })
    }

    /// The pace after another read of `read` bytes.
    fn after(self, read: usize) -> Pace {
        match self {
            Pace::Small { .. } if read < SCRATCH_LEN => Pace::START,
            Pace::Small { full_reads } if full_reads + 1 < FULL_READS_FOR_BULK => {
                Pace::Small { full_reads: full_reads + 1 }
            }
            Pace::Bulk { .. } if read >= SMALL_READ => Pace::Bulk { small_reads: 0 },
            Pace::Small { .. } => Pace::Bulk { small_reads: 0 },
            Pace::Bulk { small_reads } if small_reads + 1 < SMALL_READS_FOR_END_OF_BULK => {
                Pace::Bulk { small_reads: small_reads + 1 }
            }
            Pace::Bulk { .. } => Pace::START,
        }
    }
}
