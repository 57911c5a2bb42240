//! However a stream is cut into chunks, the decoder makes the same payloads and the same error of it, keeps its bounds, and
//! leaves nothing unread.
//!
//! Input: a byte n, n chunk lengths of a byte each (taken over and over; 0 is an empty chunk), then the stream.

#![no_main]

use libfuzzer_sys::fuzz_target;
use relayserver_wire::frame::Decoder;
use relayserver_wire::{FrameError, HELLO_FRAME_MAX};

fuzz_target!(|data: &[u8]| {
    let Some((&count, rest)) = data.split_first() else {
        return;
    };
    let (chunk_lens, stream) = rest.split_at(rest.len().min(usize::from(count)));
    let whole = decode(std::iter::once(stream));
    let cut = decode(Chunks::new(stream, chunk_lens));
    assert_eq!(whole, cut);
    assert_eq!(whole, decode(stream.chunks(1)));

    let (payloads, error) = whole;
    let framed: Vec<u8> = payloads.iter().flat_map(|it| frame(it)).collect();
    assert!(stream.starts_with(&framed), "payloads that were not sent");
    if error.is_none() {
        let behind = &stream[framed.len()..];
        assert!(decode(std::iter::once(behind)).0.is_empty(), "a whole frame was kept back");
    }
});

fn decode<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let mut decoder = Decoder::new(HELLO_FRAME_MAX);
    let mut payloads = Vec::new();
    for mut chunk in chunks {
        loop {
            match decoder.next(&mut chunk) {
                Ok(Some(payload)) => {
                    assert!(payload.len() <= HELLO_FRAME_MAX);
                    payloads.push(payload);
                }
                Ok(None) => break assert!(chunk.is_empty(), "bytes left over"),
                Err(error) => {
                    assert_eq!(decoder.next(&mut chunk), Err(error), "went on after an error");
                    return (payloads, Some(error));
                }
            }
        }
    }
    (payloads, None)
}

fn frame(payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_be_bytes(), payload].concat()
}

/// A stream in chunks of the given lengths, over and over.
struct Chunks<'a> {
    rest: &'a [u8],
    lens: Vec<usize>,
    turn: usize,
}

impl<'a> Chunks<'a> {
    fn new(stream: &'a [u8], lens: &[u8]) -> Chunks<'a> {
        let mut lens: Vec<usize> = lens.iter().copied().map(usize::from).collect();
        // Where all are empty, the stream would never end.
        lens.push(7);
        Chunks { rest: stream, lens, turn: 0 }
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let len = self.lens[self.turn % self.lens.len()];
        self.turn += 1;
        self.rest.split_off(..len.min(self.rest.len()))
    }
}
