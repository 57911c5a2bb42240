//! Any payload is decoded as a hello and as an answer, or refused; what was decoded survives the way back.
//!
//! Input: a payload.

#![no_main]

mod round_trip;

use libfuzzer_sys::fuzz_target;
use relayserver_wire::hello::{Answer, Hello};

fuzz_target!(|payload: &[u8]| {
    round_trip::check(payload, Hello::decode, Hello::encode);
    round_trip::check(payload, Answer::decode, Answer::encode);
});
