//! What the tests of the command share: child processes whose output can be waited for, and the real programs that they
//! relay for. Drives everything from outside, as a user does; never reaches into the crates.

#![allow(dead_code, reason = "each test file uses its own part of this")]

pub(crate) mod checked;
#[cfg(target_os = "linux")]
pub(crate) mod namespace;
pub(crate) mod net;
pub(crate) mod peers;
pub(crate) mod program;
pub(crate) mod secure;
pub(crate) mod servers;
#[cfg(target_os = "linux")]
pub(crate) mod world;
