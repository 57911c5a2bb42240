//! Write a server that is reachable through a relay: a listener of sessions, with no port of its own.
//!
//! ```no_run
//! use relayserver::{Listener, Session};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # async fn example() -> Result<(), relayserver::Error> {
//! let listener = Listener::builder("relay.example.com").listen().await?;
//! listener
//!     .serve(async |mut session: Session| {
//!         let mut name = [0; 64];
//!         let len = session.read(&mut name).await?;
//!         session.write_all(b"hello, ").await?;
//!         session.write_all(&name[..len]).await
//!     })
//!     .await
//! # }
//! ```
//!
//! Connecting, pooling, replenishing, backing off and reconnecting are this crate's matter. For tests there is
//! `relayserver-testing`, with the real relay on a free port.
//!
//! Features: `tls` (join lines; on by default), `axum` ([`Listener::into_axum`]), `exec` ([`handlers::Exec`]).

#[cfg(feature = "axum")]
mod axum;
pub mod blocking;
mod builder;
mod channel;
mod channels;
mod clock;
mod command;
mod complaints;
mod contact;
mod driver;
mod error;
mod events;
mod handler;
pub mod handlers;
mod join;
mod link;
mod listener;
mod network;
mod report;
mod session;
mod session_id;
mod shared;
mod status;
mod talk;

#[cfg(feature = "axum")]
pub use axum::AxumListener;
pub use builder::Builder;
pub use error::Error;
pub use events::{DropReason, Event, Events};
pub use handler::Handler;
pub use join::{Join, JoinError};
pub use listener::Listener;
pub use session::{ReadHalf, Session, WriteHalf};
pub use session_id::SessionId;
pub use status::{Served, Status, StatusWatch};

/// The examples of the README are compiled with those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
