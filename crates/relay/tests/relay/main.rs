//! The relay as its peers see it: the real one, over real sockets on loopback, with hosts and clients that speak the protocol
//! byte by byte and do as each test says. One file a theme, one test a rule.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod assignment;
mod counts;
mod drain;
mod floods;
mod grants;
mod handshake;
mod hostile;
mod liveness;
mod lost_host;
mod members;
mod offers;
mod offers_in_parts;
mod parts;
mod peers;
mod places;
mod rates;
mod record;
mod refusals;
mod returns;
mod sessions;
mod status;
mod tls;
