//! The rules of the host's keeper, each by itself, and in generated histories.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod channels;
mod command;
mod delays;
mod histories;
mod host;
mod pools;
mod returns;
