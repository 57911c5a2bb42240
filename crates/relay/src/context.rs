//! What the connections of hosts need to know about their relay.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use relayserver_core::ServiceName;
use relayserver_core::liveness::Patience;
use relayserver_transport::ServerTls;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Places;
use crate::assignment::Assignments;
use crate::client::Farewells;
use crate::config::Access;
use crate::grants::{GrantSource, KnownTokens};
use crate::rate::ServiceRates;

/// One for all connections of one relay.
pub(crate) struct Context {
    pub(crate) assignments: Arc<Assignments>,
    pub(crate) places: Arc<Places>,
    pub(crate) access: Access,
    /// What this relay's TLS is; `None`: it is off.
    pub(crate) tls: Option<ServerTls>,
    /// Where tokens come from.
    pub(crate) grants: Option<Arc<dyn GrantSource>>,
    /// The tokens that the book knows.
    pub(crate) tokens: Arc<KnownTokens>,
    pub(crate) accept_timeout: Duration,
    /// When hosts are suspect, and gone.
    pub(crate) patience: Patience,
    /// Where clients of each service connect, as hosts are told; missing where that is not known.
    pub(crate) served: BTreeMap<ServiceName, String>,
    /// How fast the sessions of those services may go that have a rate.
    pub(crate) rates: BTreeMap<ServiceName, ServiceRates>,
    /// Whether hosts of version 1 are served.
    pub(crate) v1: bool,
    pub(crate) hello_timeout: Duration,
    pub(crate) user_timeout: Duration,
    pub(crate) half_closed_timeout: Duration,
    /// Where channels wait and sessions run.
    pub(crate) tasks: TaskTracker,
    /// For refused hosts that are closed politely; beyond so many they are just dropped.
    pub(crate) farewells: Semaphore,
    /// And for refused clients.
    pub(crate) client_farewells: Arc<Farewells>,
    /// Drain has begun: whoever has not said hello is dropped.
    pub(crate) leaving: CancellationToken,
    /// Everything ends.
    pub(crate) over: CancellationToken,
    /// What hosts of version 1 serve.
    pub(crate) service_of_v1: ServiceName,
    /// And where its clients connect: what the answer calls `relay_port`.
    pub(crate) clients_port_of_v1: u16,
}
