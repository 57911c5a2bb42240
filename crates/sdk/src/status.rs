//! Where a listener stands with its relay.

use std::fmt;
use std::time::Duration;

use relayserver_wire::hello::ServedService;
use tokio::sync::watch;

/// Where a listener stands with its relay.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// No relay has this host in its pool.
    Connecting {
        /// What went wrong last; `None` at the first attempt.
        last_error: Option<String>,
        /// How long the wait before the next attempt is; `None` while one is under way.
        next_try: Option<Duration>,
    },
    /// Clients can come.
    Ready {
        /// What is served where.
        services: Vec<Served>,
    },
    /// The pool is left; sessions run on.
    Draining,
    /// The pool is left and no session runs.
    Closed,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::Connecting { last_error: None, .. } => f.write_str("connecting"),
            Status::Connecting { last_error: Some(error), next_try: None } => {
                write!(f, "connecting again after: {error}")
            }
            Status::Connecting { last_error: Some(error), next_try: Some(next_try) } => {
                write!(f, "next try in {} ms after: {error}", next_try.as_millis())
            }
            Status::Ready { services } => {
                write!(f, "ready: clients connect to {}", listed(services))
            }
            Status::Draining => f.write_str("draining"),
            Status::Closed => f.write_str("closed"),
        }
    }
}

/// A service, and where its clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Its name; `default` where the relay knows no others.
    pub service: String,
    /// The address that clients dial, as the relay gives it; `None` where it does not say.
    pub clients: Option<String>,
}

impl From<ServedService> for Served {
    fn from(served: ServedService) -> Served {
        Served { service: served.name, clients: served.clients }
    }
}

/// For people: the addresses, with the services' names where there are several.
pub(crate) fn listed(services: &[Served]) -> String {
    let one = |served: &Served| {
        let clients = served.clients.as_deref().unwrap_or("the relay");
        match services.len() {
            1 => clients.to_owned(),
            _ => format!("{clients} ({})", served.service),
        }
    };
    services.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Follows a listener's status.
#[derive(Clone, Debug)]
pub struct StatusWatch(pub(crate) watch::Receiver<Status>);

impl StatusWatch {
    /// The status now.
    pub fn get(&self) -> Status {
        self.0.borrow().clone()
    }

    /// Resolves with the next status that is another. `None` when the listener is gone.
    ///
    /// Cancel safe. What changes faster than it is asked for is skipped; the last status never is.
    pub async fn changed(&mut self) -> Option<Status> {
        self.0.changed().await.ok()?;
        Some(self.0.borrow_and_update().clone())
    }
}
