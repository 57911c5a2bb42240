//! The relay: accepts hosts and clients, assigns one to the other, and moves their bytes.
//!
//! The way of a byte is four rooms, forward only: `listener` accepts and does nothing else; `handshake` learns, under a
//! deadline and in the connection's own task, who this is; `assignment` pairs it, by the rules of `relayserver-core`;
//! `session` moves bytes until both sides have ended.

mod admission;
mod assignment;
mod channel;
mod client;
mod clock;
mod closing;
mod command;
mod config;
mod context;
mod counts;
mod drain;
mod error;
mod grants;
mod handshake;
mod host_port;
mod listener;
mod member;
mod offer;
mod rate;
mod record;
mod relay;
mod session;
mod snapshot;
pub mod state;
mod status;
mod talk;
mod traffic;

pub use config::{Access, Config, Network, NetworkError, Service, Version1};
pub use counts::{Counts, ReasonCounts, ServiceCounts, Waits};
pub use error::BindError;
pub use grants::{FixedGrants, GrantSource, TokenRecord, Tokens};
pub use rate::Rates;
pub use relay::{Relay, RelayHandle};
pub use relayserver_core::{
    BookSnapshot, GrantId, HostId, HostSnapshot, InvalidServicePattern, Limits, MemberSnapshot,
    Occupancy, Reason, Role, ServiceLimits, ServiceName, ServicePattern, ServiceSnapshot,
};
pub use snapshot::Snapshot;
pub use status::STATUS_SOCKET;
