//! Whole sessions over real sockets and in-memory streams, through the public interface only. Every rule is proven on
//! both paths. Nothing here looks inside; what must is in `src/tests.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod aborts;
mod bounds;
mod busy;
mod content;
mod ends;
mod resume;
mod rig;
