//! Any payload is decoded as a start frame and as a verdict, or refused; what was decoded survives the way back.
//!
//! Input: a payload.

#![no_main]

mod round_trip;

use libfuzzer_sys::fuzz_target;
use relayserver_wire::start::{Start, Verdict};

fuzz_target!(|payload: &[u8]| {
    round_trip::check(payload, Start::decode, Start::encode);
    round_trip::check(payload, Verdict::decode, Verdict::encode);
});
