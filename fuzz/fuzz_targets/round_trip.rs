//! What every message must hold, whatever came: the targets that decode payloads drive it.

use std::fmt::Debug;

use relayserver_wire::frame::Decoder;
use relayserver_wire::{FRAME_MAX, MessageError};

/// A payload is decoded or refused; what was decoded is encoded to a frame that is decoded to the same again.
pub fn check<M: Debug + PartialEq>(
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
