//! Frames: a 4-byte big-endian length, then as many bytes of payload.
//!
//! Whoever reads exact counts (a handshake, which must not take a byte beyond its hello) uses [`payload_len`]; whoever
//! reads whatever has arrived (a command channel) uses [`Decoder`]. Nothing in here may hold more than one frame, nor know
//! what a payload means.

use std::mem;

use thiserror::Error;

/// The bytes of a frame's header: the payload's length, big-endian.
pub const HEADER_LEN: usize = 4;

/// The longest payload of any frame. Below 2^24, so that a frame's first byte is 0 and tells it from TLS (`0x16`) and text.
pub const FRAME_MAX: usize = 65_536;

/// The longest payload from a peer that has not authenticated itself. A hello of version 1 has 2 bytes; what version 2
/// adds (names, a token) stays under 1 KiB, and 4,096 such peers hold 16 MiB at most.
pub const HELLO_FRAME_MAX: usize = 4_096;

/// The longest payload of a [`Start`](crate::start::Start). What it holds now fits 256 bytes; the rest is room for what may come.
pub const START_FRAME_MAX: usize = 4_096;

/// The longest payload of a [`Verdict`](crate::start::Verdict). What it holds now fits 70 bytes; the rest, as above.
pub const VERDICT_FRAME_MAX: usize = 1_024;

/// The bytes are not a frame, or not one that may come now. The stream cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The first byte is not 0, as that of every frame is.
    #[error("first byte is {first:#04x}, expected 0x00")]
    NotOurProtocol {
        /// The first byte. `0x16` opens a TLS handshake.
        first: u8,
    },
    /// The payload is longer than may come now.
    #[error("frame of {len} bytes exceeds {max}")]
    TooLarge {
        /// The payload's length, as the header says.
        len: usize,
        /// The longest that may come.
        max: usize,
    },
}

/// The length of the payload that follows `header`: 0 to `max` bytes.
///
/// To tell a stranger by its first byte without waiting for three more, pass that byte and zeroes.
///
/// # Errors
/// [`FrameError::NotOurProtocol`] if the first byte is not 0, else [`FrameError::TooLarge`] beyond `max`.
pub fn payload_len(header: [u8; HEADER_LEN], max: usize) -> Result<usize, FrameError> {
    let [first, high, middle, low] = header;
    if first != 0 {
        return Err(FrameError::NotOurProtocol { first });
    }
    let len = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
    if len > max {
        return Err(FrameError::TooLarge { len, max });
    }
    Ok(len)
}

/// Cuts a stream of bytes, which arrives in chunks of any size, into payloads.
///
/// ```
/// use relayserver_wire::{FRAME_MAX, frame::Decoder};
///
/// let mut decoder = Decoder::new(FRAME_MAX);
/// let mut payloads = Vec::new();
/// for chunk in [&[0, 0, 0, 2, 8][..], &[1, 0, 0, 0, 0]] {
///     let mut input = chunk;
///     while let Some(payload) = decoder.next(&mut input)? {
///         payloads.push(payload);
///     }
/// }
/// assert_eq!(payloads, [vec![8, 1], vec![]]);
/// # Ok::<(), relayserver_wire::FrameError>(())
/// ```
///
/// It holds the bytes of one frame that is not whole yet and no others: never more than [`HEADER_LEN`] plus its maximum.
/// What a call does not need stays in the caller's chunk. Each byte is copied once, however small the chunks are.
#[derive(Debug)]
pub struct Decoder {
    max: usize,
    part: Part,
}

/// What is being read, as far as it has come.
#[derive(Debug)]
enum Part {
    /// The bytes beyond `filled` are 0.
    Header {
        header: [u8; HEADER_LEN],
        filled: usize,
    },
    Payload {
        payload: Vec<u8>,
        len: usize,
    },
    /// Nothing: the stream made no sense from here on.
    Failed(FrameError),
}

impl Decoder {
    /// Expects frames with payloads of at most `max` bytes.
    pub fn new(max: usize) -> Decoder {
        Decoder { max, part: Part::START }
    }

    /// The next whole payload. Takes from the front of `input` the bytes that it needs for it, and no more: call it until
    /// it gives `None`, when `input` is empty and the next chunk may come.
    ///
    /// # Errors
    /// A header that is none, or announces too much: as soon as its first byte, or all of it, is known, and ever after.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, FrameError> {
        let next = self.part.advance(input, self.max);
        if let Err(error) = next {
            self.part = Part::Failed(error);
        }
        next
    }
}

impl Part {
    const START: Part = Part::Header { header: [0; HEADER_LEN], filled: 0 };

    fn advance(&mut self, input: &mut &[u8], max: usize) -> Result<Option<Vec<u8>>, FrameError> {
        loop {
            match self {
                Part::Header { header, filled } => {
                    while let Some(slot) = header.get_mut(*filled) {
                        let Some(&byte) = input.split_off_first() else {
                            return Ok(None);
                        };
                        *slot = byte;
                        *filled += 1;
                        if *filled == 1 {
                            payload_len(*header, max)?;
                        }
                    }
                    let len = payload_len(*header, max)?;
                    let payload = Vec::with_capacity(len);
                    *self = Part::Payload { payload, len };
                }
                Part::Payload { payload, len } => {
                    let missing = *len - payload.len();
                    let (taken, rest) = input.split_at(missing.min(input.len()));
                    payload.extend_from_slice(taken);
                    *input = rest;
                    if payload.len() < *len {
                        return Ok(None);
                    }
                    let whole = mem::take(payload);
                    *self = Part::START;
                    return Ok(Some(whole));
                }
                Part::Failed(error) => return Err(*error),
            }
        }
    }
}

/// A message as a whole frame, header included.
///
/// What we send is far below [`FRAME_MAX`]. A text of our own that is not makes a frame that every peer refuses.
pub(crate) fn encode(message: &impl prost::Message) -> Vec<u8> {
    let payload = message.encode_to_vec();
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    [&len.to_be_bytes(), payload.as_slice()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_gives_its_payloads_length() {
        assert_eq!(payload_len([0, 0, 0, 0], FRAME_MAX), Ok(0));
        assert_eq!(payload_len([0, 0, 1, 2], FRAME_MAX), Ok(258));
        assert_eq!(payload_len([0, 1, 0, 0], FRAME_MAX), Ok(FRAME_MAX));
    }

    #[test]
    fn a_payload_longer_than_may_come_now_is_refused() {
        let error = payload_len([0, 1, 0x11, 0x70], FRAME_MAX).unwrap_err();
        assert_eq!(error.to_string(), "frame of 70000 bytes exceeds 65536");
        let len = 4097;
        let max = HELLO_FRAME_MAX;
        assert_eq!(payload_len([0, 0, 0x10, 1], max), Err(FrameError::TooLarge { len, max }));
        assert_eq!(payload_len([0, 0, 0x10, 0], max), Ok(max));
    }

    #[test]
    fn a_stranger_is_told_by_its_first_byte() {
        for (bytes, message) in [
            (&b"\x16"[..], "first byte is 0x16, expected 0x00"),
            (b"GET / HTTP/1.1\r\n", "first byte is 0x47, expected 0x00"),
            (b"\xff\xff\xff\xff", "first byte is 0xff, expected 0x00"),
        ] {
            let mut input = bytes;
            let error = Decoder::new(FRAME_MAX).next(&mut input).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn a_decoder_that_failed_stays_failed() {
        let mut decoder = Decoder::new(FRAME_MAX);
        let failed = Err(FrameError::NotOurProtocol { first: 1 });
        assert_eq!(decoder.next(&mut &[1][..]), failed);
        assert_eq!(decoder.next(&mut &[0, 0, 0, 0][..]), failed);
    }

    #[test]
    fn a_decoder_takes_no_byte_beyond_the_frame() {
        let mut input = &[0, 0, 0, 2, 8, 1, 0, 0, 0, 1, 7, 0, 0][..];
        let mut decoder = Decoder::new(FRAME_MAX);
        assert_eq!(decoder.next(&mut input), Ok(Some(vec![8, 1])));
        assert_eq!(input, [0, 0, 0, 1, 7, 0, 0]);
        assert_eq!(decoder.next(&mut input), Ok(Some(vec![7])));
        assert_eq!(input, [0, 0]);
        assert_eq!(decoder.next(&mut input), Ok(None));
        assert_eq!(input, b"");
    }

    #[test]
    fn a_decoder_holds_no_more_than_the_frame_that_was_announced() {
        let mut input = &[0, 0, 0, 9, 1, 2, 3][..];
        let mut decoder = Decoder::new(FRAME_MAX);
        assert_eq!(decoder.next(&mut input), Ok(None));
        let Part::Payload { payload, .. } = &decoder.part else {
            panic!("{decoder:?}");
        };
        assert_eq!(payload.capacity(), 9);
    }

    #[test]
    fn a_payload_that_arrives_a_byte_at_a_time_is_never_moved() {
        let mut decoder = Decoder::new(FRAME_MAX);
        let header = [0, 1, 0, 0];
        assert_eq!(decoder.next(&mut &header[..]), Ok(None));
        let collected_at = |decoder: &Decoder| match &decoder.part {
            Part::Payload { payload, .. } => payload.as_ptr(),
            Part::Header { .. } | Part::Failed(_) => panic!("{decoder:?}"),
        };
        let start = collected_at(&decoder);
        for _ in 1..FRAME_MAX {
            assert_eq!(decoder.next(&mut &[7][..]), Ok(None));
            assert_eq!(collected_at(&decoder), start);
        }
        let payload = decoder.next(&mut &[7][..]).unwrap().unwrap();
        assert_eq!(payload.as_ptr(), start);
        assert_eq!(payload, [7; FRAME_MAX]);
    }
}
