//! What comes over a connection in parts: finds them in the bytes, and gives what is in them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::{BARE, END, HEADER_LEN, PART_MAX};

/// Who asks for less is given it out of so much that is read at once: what is said ahead of a session, and the session's first bytes,
/// mostly come together.
const READ_AHEAD: usize = 1024;

/// What was read of one direction, and where in its parts it stands.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    reading: Reading,
    /// Read, and not asked for yet: from `taken` on. No more than was read at once.
    ahead: Box<[u8]>,
    taken: u32,
    /// The last read left nothing with the system.
    is_drained: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reading {
    /// No session's: passes as it is.
    #[default]
    Plain,
    /// A part's length, of which so many bytes were read.
    Header { value: u32, read: u8 },
    /// A part, of which so many bytes are left.
    Payload { left: u32 },
    /// The session's direction has ended. What follows is no more of it.
    Ended,
    /// The session's, to the connection's end; whether that has come.
    Bare { has_ended: bool },
}

/// What becomes of bytes that were read.
enum Step {
    /// So many are none of the session's.
    Skip(usize),
    /// So many are given.
    Give(usize),
    /// All that is there is to wait for whoever asks next.
    Keep,
}

impl Incoming {
    pub(crate) fn begin(&mut self) {
        self.reading = Reading::START;
    }

    pub(crate) fn begin_anew(&mut self) {
        self.reading = Reading::Plain;
    }

    pub(crate) fn has_read_ahead(&self) -> bool {
        !self.ahead.is_empty()
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.is_drained
    }

    pub(crate) fn is_over(&self) -> bool {
        self.reading == Reading::Ended
    }

    /// Whether the peer has said that what follows is bare.
    pub(crate) fn has_heard_bare(&self) -> bool {
        matches!(self.reading, Reading::Bare { .. })
    }

    /// Whether the session's end was the connection's.
    pub(crate) fn has_ended_with_connection(&self) -> bool {
        self.reading == Reading::Bare { has_ended: true }
    }

    /// Whether nothing of what comes is here or in parts.
    pub(crate) fn is_bare(&self) -> bool {
        self.has_heard_bare() && !self.has_read_ahead()
    }

    /// Gives what `stream` has of a session, or, where none has begun, of what is said ahead of it. The end of a session's direction is
    /// an end; that of the connection is none, before that, unless it `ends_with_connection` since our direction does.
    ///
    /// # Errors
    /// What reading fails with; `UnexpectedEof` where the connection ends and the session has not; `InvalidData` for what is no part.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncRead + Unpin),
        ends_with_connection: bool,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let before = buf.filled().len();
            if self.has_read_ahead() {
                self.give_ahead(buf)?;
            } else if self.is_over() || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            } else if self.reads_ahead(buf) {
                if ready!(self.poll_read_ahead(cx, stream))? == 0 {
                    return Poll::Ready(self.connection_ended(ends_with_connection));
                }
                continue;
            } else {
                ready!(Pin::new(&mut *stream).poll_read(cx, buf))?;
                self.is_drained = buf.remaining() > 0;
                if buf.filled().len() == before {
                    return Poll::Ready(self.connection_ended(ends_with_connection));
                }
                self.take_parts_off(buf, before)?;
            }
            if buf.filled().len() > before || self.is_over() || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Whether it pays to read more than is asked for. Not once it is bare: then it soon goes on without all this.
    fn reads_ahead(&self, buf: &ReadBuf<'_>) -> bool {
        !self.has_heard_bare() && buf.remaining() < READ_AHEAD
    }

    fn poll_read_ahead(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<usize>> {
        let mut chunk = [0; READ_AHEAD];
        let mut chunk = ReadBuf::new(&mut chunk);
        ready!(Pin::new(stream).poll_read(cx, &mut chunk))?;
        self.is_drained = chunk.remaining() > 0;
        (self.ahead, self.taken) = (chunk.filled().into(), 0);
        Poll::Ready(Ok(self.ahead.len()))
    }

    /// What the end of the connection is, where a session stands so.
    fn connection_ended(&mut self, ends_with_connection: bool) -> io::Result<()> {
        match &mut self.reading {
            Reading::Plain | Reading::Ended => Ok(()),
            Reading::Bare { has_ended } => {
                *has_ended = true;
                Ok(())
            }
            Reading::Header { read: 0, .. } if ends_with_connection => {
                self.reading = Reading::Bare { has_ended: true };
                Ok(())
            }
            Reading::Header { .. } | Reading::Payload { .. } => {
                let why = "the connection has ended, and the session on it has not";
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, why))
            }
        }
    }

    /// Gives what was read ahead, as far as there is room.
    fn give_ahead(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        while let Some(rest) = self.ahead.get(self.taken as usize..).filter(|it| !it.is_empty()) {
            let step = self.reading.step(rest)?;
            match step {
                Step::Keep => return Ok(()),
                Step::Skip(len) => self.taken += len as u32,
                Step::Give(len) => {
                    let len = len.min(buf.remaining());
                    if len == 0 {
                        return Ok(());
                    }
                    buf.put_slice(rest.get(..len).unwrap_or_default());
                    self.reading.given(len);
                    self.taken += len as u32;
                }
            }
        }
        (self.ahead, self.taken) = (Box::default(), 0);
        Ok(())
    }

    /// Takes all that is none of the session's out of what was read behind `start`.
    fn take_parts_off(&mut self, buf: &mut ReadBuf<'_>, start: usize) -> io::Result<()> {
        let bytes = buf.filled_mut();
        let (mut from, mut to) = (start, start);
        while let Some(rest) = bytes.get(from..).filter(|rest| !rest.is_empty()) {
            match self.reading.step(rest)? {
                Step::Keep => {
                    (self.ahead, self.taken) = (rest.into(), 0);
                    break;
                }
                Step::Skip(len) => from += len,
                Step::Give(len) => {
                    if from != to {
                        bytes.copy_within(from..from + len, to);
                    }
                    self.reading.given(len);
                    (from, to) = (from + len, to + len);
                }
            }
        }
        buf.set_filled(to);
        Ok(())
    }
}

impl Reading {
    const START: Reading = Reading::Header { value: 0, read: 0 };

    /// What becomes of `bytes`, of which there are some. Nothing is given of more than one part at once.
    fn step(&mut self, bytes: &[u8]) -> io::Result<Step> {
        match self {
            Reading::Plain | Reading::Bare { .. } => Ok(Step::Give(bytes.len())),
            Reading::Ended => Ok(Step::Keep),
            Reading::Payload { left } => Ok(Step::Give(bytes.len().min(*left as usize))),
            Reading::Header { value, read } => {
                let taken = bytes.len().min(HEADER_LEN - usize::from(*read));
                let of_header = bytes.iter().take(taken);
                *value = of_header.fold(*value, |value, byte| value << 8 | u32::from(*byte));
                *read += taken as u8;
                if usize::from(*read) == HEADER_LEN {
                    *self = Reading::after(*value)?;
                }
                Ok(Step::Skip(taken))
            }
        }
    }

    fn after(header: u32) -> io::Result<Reading> {
        match header {
            END => Ok(Reading::Ended),
            BARE => Ok(Reading::Bare { has_ended: false }),
            left if left as usize <= PART_MAX => Ok(Reading::Payload { left }),
            len => {
                let why = format!("a part of {len} bytes exceeds {PART_MAX}");
                Err(io::Error::new(io::ErrorKind::InvalidData, why))
            }
        }
    }

    /// So many bytes were given.
    fn given(&mut self, len: usize) {
        if let Reading::Payload { left } = self {
            *left -= len as u32;
            if *left == 0 {
                *self = Reading::START;
            }
        }
    }
}
