//! The files of RelayServer: `relay.toml` and `host.toml`, read into plain data. What is wrong with one is said all at once,
//! each error with its line, its place in the line, what was expected and what was found.
//!
//! The command line drives it. It opens no socket, starts nothing and decides nothing about running; the only thing it ever
//! reads besides the text it is given is the variable or the file that a [`Secret`] names, when asked to by
//! [`Secret::resolve`].
//!
//! ```
//! use relayserver_config::RelayFile;
//!
//! let text = "[services.ssh]\nlisen = '0.0.0.0:2222'\n";
//! let errors = RelayFile::parse(text, "relay.toml", false).unwrap_err();
//! assert_eq!(
//!     errors.to_string(),
//!     "\
//! relay.toml:2:1: unknown key `lisen` in [services.ssh], expected one of listen, max_sessions, queue, rate; did you mean `listen`?
//!     2 | lisen = '0.0.0.0:2222'
//!       | ^^^^^"
//! );
//! ```
//!
//! A key is one field with its documentation, in `relay_file.rs` or `host_file.rs`: from it come the struct, the reading, the
//! default, the list of [`Effective`] values and the tables of `docs/configuration.md`.

mod address;
mod effective;
mod errors;
mod host_file;
mod kind;
mod leaf;
mod name;
mod network;
mod reader;
mod relay_file;
mod schema;
mod secret;
mod source;
mod syntax;
mod tls;
mod units;

pub use address::{Forward, PublicAddress};
pub use effective::{Effective, Origin};
pub use errors::{ConfigError, Errors};
pub use host_file::{Check, HostFile, HostService, Pool, PoolSize, Target, True, Weight};
pub use kind::{FileKind, UnknownKind, kind_of};
pub use name::{InvalidServiceName, ServiceName};
pub use network::{Cidr, InvalidCidr};
pub use relay_file::{Limits, Metrics, Queue, Rate, Relay, RelayFile, RelayService, V1};
pub use schema::{Key, Shape};
pub use secret::{Resolved, Secret, SecretError, SecretWarning};
pub use tls::Tls;
pub use units::Size;
