//! How a listener is set up.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use relayserver_core::keeper::{BACKLOG_MAX, PoolBounds};
use relayserver_transport::HostPort;
use relayserver_wire::hello::{Capacity, WEIGHT_MAX};
use relayserver_wire::is_service_name;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::driver::Driver;
use crate::link::{Link, Relay};
use crate::shared::Shared;
use crate::{Error, Join, Listener, Status};

/// The original's ports.
const HOSTS_PORT: u16 = 8000;
const COMMAND_PORT: u16 = 8001;

/// Sets up a [`Listener`]. Made by [`Listener::builder`] and [`Listener::join`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    relay: Whom,
    hosts_port: u16,
    command_port: u16,
    pool: PoolBounds,
    /// With their pools, where they have their own.
    services: Vec<(String, Option<PoolBounds>)>,
    /// Those of which no sessions are to be had yet.
    unavailable: Vec<String>,
    capacity: Capacity,
    connect_timeout: Option<Duration>,
    bind_addr: Option<IpAddr>,
}

/// The relay, as it was given.
#[derive(Clone, Debug)]
enum Whom {
    Named(String),
    Joined(Join),
}

impl Builder {
    pub(crate) fn named(relay: String) -> Builder {
        Builder::new(Whom::Named(relay))
    }

    pub(crate) fn joined(join: Join) -> Builder {
        Builder::new(Whom::Joined(join))
    }

    fn new(relay: Whom) -> Builder {
        Builder {
            relay,
            hosts_port: HOSTS_PORT,
            command_port: COMMAND_PORT,
            pool: PoolBounds::default(),
            services: Vec::new(),
            unavailable: Vec::new(),
            capacity: Capacity::default(),
            connect_timeout: None,
            bind_addr: None,
        }
    }

    /// The relay's port for data channels, where its address names none; 8000 unless said otherwise. A join line names its own.
    pub fn hosts_port(mut self, port: u16) -> Builder {
        self.hosts_port = port;
        self
    }

    /// An original relay's port for command channels; 8001 unless said otherwise.
    pub fn command_port(mut self, port: u16) -> Builder {
        self.command_port = port;
        self
    }

    /// How many data channels to keep waiting for the clients of each service: at least so many, and as many as the relay asks for,
    /// which goes by how clients arrive, but this host dials no more than the upper bound. As many again may wait that have carried a
    /// session. 10 to 256 unless said otherwise; at least 1. Sessions are not counted.
    pub fn pool(mut self, channels: RangeInclusive<usize>) -> Builder {
        self.pool = PoolBounds::new(*channels.start(), *channels.end());
        self
    }

    /// How many data channels to keep waiting for the clients of each service, with none dialled beyond: [`pool`](Builder::pool)
    /// with both bounds the same.
    pub fn pool_size(self, channels: usize) -> Builder {
        self.pool(channels..=channels)
    }

    /// This host's share of the sessions beside other hosts of the same services: one of twice the weight gets twice as many. 1 to
    /// 10,000, and 100 unless said otherwise. An original relay goes by addresses, and does not heed it.
    pub fn weight(mut self, weight: u32) -> Builder {
        self.capacity.weight = weight.clamp(1, WEIGHT_MAX);
        self
    }

    /// How many sessions this host takes at once, of all its services together, at least 1; any number unless this is said. The relay
    /// keeps to it, and gives further clients to other hosts, or has them wait. An original relay does not heed it.
    pub fn max_sessions(mut self, sessions: u32) -> Builder {
        self.capacity.sessions_max = Some(sessions.max(1));
        self
    }

    /// A service to serve; may be said again for others. Unless this is said: `default`. An original relay knows just one.
    pub fn service(mut self, name: impl Into<String>) -> Builder {
        self.services.push((name.into(), None));
        self
    }

    /// A service to serve, with a [pool](Builder::pool) of its own.
    pub fn service_with_pool(
        mut self,
        name: impl Into<String>,
        channels: RangeInclusive<usize>,
    ) -> Builder {
        let pool = PoolBounds::new(*channels.start(), *channels.end());
        self.services.push((name.into(), Some(pool)));
        self
    }

    /// Takes no sessions of a service until [`Listener::set_available`] says that they are to be had.
    pub fn unavailable(mut self, service: impl Into<String>) -> Builder {
        self.unavailable.push(service.into());
        self
    }

    /// How long [`listen`](Builder::listen) may try. Unless this is said, for ever.
    pub fn connect_timeout(mut self, connect_timeout: Duration) -> Builder {
        self.connect_timeout = Some(connect_timeout);
        self
    }

    /// The address of this machine to dial from, where it has several.
    pub fn bind_addr(mut self, address: IpAddr) -> Builder {
        self.bind_addr = Some(address);
        self
    }

    /// Dials the relay, and returns once it has accepted this host. Tries again, less often as time passes, whatever
    /// waiting can mend.
    ///
    /// Cancel safe: dropping it leaves nothing behind.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    ///
    /// # Errors
    /// The address is none, or what answers there is no relay; or no relay accepted this host within the
    /// [connect timeout](Builder::connect_timeout).
    pub async fn listen(self) -> Result<Listener, Error> {
        let Builder { connect_timeout, .. } = self;
        let unavailable = self.unavailable.clone();
        let (link, pools) = self.link()?;
        let shared = Arc::new(Shared::new(link, &pools));
        for service in unavailable {
            let index = shared.link.services().iter().position(|it| *it == service);
            if !index.is_some_and(|index| shared.set_available(index, false)) {
                return Err(Error::Service(service));
            }
        }
        // Room for all that the keeper lets open: the backlog, and channels that were idle when it was reached.
        let (queue, sessions) =
            mpsc::channel(BACKLOG_MAX + 2 * pools.iter().map(|pool| pool.max).sum::<usize>());
        let (hopeless_sender, hopeless) = oneshot::channel();
        let listener = Listener::new(Arc::clone(&shared), sessions);
        tokio::spawn(Driver::new(Arc::clone(&shared), queue, hopeless_sender).run());
        let mut status = shared.status.subscribe();
        let ready = status.wait_for(|status| matches!(status, Status::Ready { .. }));
        let accepted = async {
            tokio::select! {
                biased;
                Ok(error) = hopeless => Err(error),
                ready = ready => ready.map(drop).map_err(|_gone| Error::Closed),
            }
        };
        match connect_timeout {
            None => accepted.await?,
            Some(connect_timeout) => match timeout(connect_timeout, accepted).await {
                Ok(accepted) => accepted?,
                Err(_elapsed) => {
                    let last_error = match &*shared.status.borrow() {
                        Status::Connecting { last_error: Some(error), .. } => error.clone(),
                        _ => "no answer from the relay yet".to_owned(),
                    };
                    return Err(Error::ConnectTimeout { connect_timeout, last_error });
                }
            },
        }
        Ok(listener)
    }

    /// How the relay is reached, and how many channels wait for each service.
    fn link(self) -> Result<(Link, Vec<PoolBounds>), Error> {
        let Builder { relay, hosts_port, command_port, pool, services, bind_addr, .. } = self;
        let capacity = self.capacity;
        let (mut names, mut pools) = (Vec::new(), Vec::new());
        for (name, own) in services {
            if !is_service_name(&name) || names.contains(&name) {
                return Err(Error::Service(name));
            }
            names.push(name);
            pools.push(own.unwrap_or(pool));
        }
        if names.is_empty() {
            names.push("default".to_owned());
            pools.push(pool);
        }
        let relay = match relay {
            Whom::Joined(join) => joined(join)?,
            Whom::Named(relay) => {
                let hosts = data_address(&relay, hosts_port)?;
                if hosts.port == 0 || command_port == 0 {
                    return Err(Error::Address("port 0 is no relay's".to_owned()));
                }
                let command = HostPort { port: command_port, ..hosts.clone() };
                Relay::Anyone { hosts, command }
            }
        };
        Ok((Link::new(relay, bind_addr, names, capacity), pools))
    }
}

#[cfg(not(feature = "tls"))]
fn joined(_join: Join) -> Result<Relay, Error> {
    Err(Error::NoTls)
}

#[cfg(feature = "tls")]
fn joined(Join(join): Join) -> Result<Relay, Error> {
    use relayserver_transport::ClientTls;

    // One for all connections: they share session tickets.
    let tls = match join.pins() {
        [] => ClientTls::system_roots(),
        pins => ClientTls::pinned(pins),
    };
    let tls = tls.map_err(|error| Error::Tls(error.to_string()))?;
    Ok(Relay::Joined { join, tls })
}

/// `host`, `host:port`, `[v6]:port`, or a bare IPv6 address.
fn data_address(relay: &str, port_default: u16) -> Result<HostPort, Error> {
    HostPort::parse_with_default(relay, port_default)
        .map_err(|error| Error::Address(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_may_be_left_out() {
        for (text, host, port) in [
            ("relay.example.com", "relay.example.com", 8000),
            ("relay.example.com:9", "relay.example.com", 9),
            ("::1", "::1", 8000),
            ("[::1]", "::1", 8000),
            ("[::1]:9", "::1", 9),
        ] {
            let address = data_address(text, HOSTS_PORT).unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port));
        }
        for text in ["", "http://relay", "relay:port", "a b"] {
            assert!(data_address(text, HOSTS_PORT).unwrap_err().is_permanent());
        }
    }
}
