//! The decisions of RelayServer, without I/O, clock or randomness: an input and the time go in, outputs come out.
//!
//! The relay drives the [`Book`] and its [`Admission`], the host process drives the [`keeper`]. Nothing in here may open a
//! socket, ask what time it is, or roll dice: whoever calls passes those in, so that every history can be generated, checked
//! and replayed.

mod admission;
mod assignment;
mod demand;
mod grant;
mod ids;
pub mod keeper;
pub mod limits;
pub mod liveness;
mod policy;
mod pool;
mod reason;
pub mod record;
mod session;
mod time;
mod vocabulary;

pub use admission::{Admission, SILENCE_MAX, Ticket, Verdict};
pub use assignment::Book;
pub use assignment::snapshot::{BookSnapshot, HostSnapshot, MemberSnapshot, ServiceSnapshot};
pub use grant::{Grant, InvalidServicePattern, Role, ServicePattern};
pub use ids::{ChannelId, ChannelKey, CommandId, GrantId, HostId, ServiceName, SessionId};
pub use limits::{Limits, ServiceLimits};
pub use policy::Policy;
pub use reason::Reason;
pub use session::Phase;
pub use time::Time;
pub use vocabulary::{
    Announcement, Assignment, Capacity, End, Handles, Input, Membership, Occupancy, Output,
};
