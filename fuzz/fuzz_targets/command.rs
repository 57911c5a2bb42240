//! Any payload is decoded as an announcement, or refused; what was decoded survives the way back.
//!
//! Input: a payload.

#![no_main]

mod round_trip;

use libfuzzer_sys::fuzz_target;
use relayserver_wire::command::Announcement;

fuzz_target!(|payload: &[u8]| {
    round_trip::check(payload, Announcement::decode, Announcement::encode);
});
