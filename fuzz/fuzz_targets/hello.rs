//! Any payload is decoded or refused; what was decoded is encoded to a frame that is decoded to the same again.
//!
//! Input: a payload.

#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use relayserver_wire::command::Announcement;
use relayserver_wire::frame::Decoder;
use relayserver_wire::hello::{Answer, Hello};
use relayserver_wire::{FRAME_MAX, MessageError};

fuzz_target!(|payload: &[u8]| {
    check(payload, Hello::decode, Hello::encode);
    check(payload, Answer::decode, Answer::encode);
    check(payload, Announcement::decode, Announcement::encode);
});

fn check<M: Debug + PartialEq>(
    payload: &[u8],
    decode: fn(&[u8]) -> Result<M, MessageError>,
    encode: fn(&M) -> Vec<u8>,
) {
    let Ok(message) = decode(payload) else {
        return;
    };
    let frame = encode(&message);
    let mut input = frame.as_slice();
    let payload = Decoder::new(FRAME_MAX).next(&mut input);
    assert!(input.is_empty(), "bytes behind the frame");
    let payload = payload.expect("a frame of our own").expect("a whole frame");
    assert_eq!(decode(&payload), Ok(message));
}
