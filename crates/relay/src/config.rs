//! What a relay is told before it starts. Nothing here opens a socket; [`Config::check`] refuses what would not be safe.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use relayserver_core::liveness::Patience;
use relayserver_core::{Limits, Policy, ServiceLimits, ServiceName, limits};
use relayserver_transport::ServerTls;
use thiserror::Error;

use crate::error::BindError;
use crate::grants::GrantSource;
use crate::rate::Rates;

/// How a relay is set up. The default listens on loopback only, on the ports of protocol version 1.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where hosts open channels.
    pub hosts: SocketAddr,
    /// Protocol version 1, where it is on.
    pub v1: Option<Version1>,
    /// From where connections without TLS are accepted.
    pub access: Access,
    /// The key and certificate for TLS; `None`: it is off.
    pub tls: Option<ServerTls>,
    /// Where tokens come from; `None`: there are none.
    pub grants: Option<Arc<dyn GrantSource>>,
    /// How long a host of version 2 may take to accept a session.
    pub accept_timeout: Duration,
    /// When a host of version 2 is suspect, and gone.
    pub patience: Patience,
    /// The name under which clients and hosts know this relay, to be shown to them.
    pub public_host: Option<String>,
    /// What clients can ask for, each on a port of its own.
    pub services: BTreeMap<ServiceName, Service>,
    /// Caps.
    pub limits: Limits,
    /// How long running sessions get when the relay leaves.
    pub drain_timeout: Duration,
    /// How long a connection may take to say hello.
    pub hello_timeout: Duration,
    /// How long a host may leave bytes on a waiting connection unacknowledged, keepalive probes included.
    pub user_timeout: Duration,
    /// How long a session with one finished side may be silent.
    pub half_closed_timeout: Duration,
    /// Where to write what the book was told and answered, for a replay.
    pub record: Option<PathBuf>,
    /// Where to listen for those who ask what the relay is doing: [`STATUS_SOCKET`](crate::STATUS_SOCKET) in its state directory.
    pub status_socket: Option<PathBuf>,
}

/// How hosts of version 1 are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version1 {
    /// Where they open command channels.
    pub command: SocketAddr,
    /// What they serve: they cannot say.
    pub service: ServiceName,
    /// Whether hosts with tokens may serve it as well.
    pub mixed: bool,
}

/// What clients can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Where its clients connect.
    pub listen: SocketAddr,
    /// How many it may have, and how long they may wait.
    pub limits: ServiceLimits,
    /// How fast its sessions may go.
    pub rates: Rates,
}

impl Service {
    /// A service with the default limits.
    pub fn on(listen: SocketAddr) -> Service {
        Service { listen, limits: ServiceLimits::default(), rates: Rates::default() }
    }
}

impl Default for Config {
    fn default() -> Config {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let service = ServiceName::default();
        Config {
            hosts: local(8000),
            services: BTreeMap::from([(service.clone(), Service::on(local(8002)))]),
            v1: Some(Version1 { command: local(8001), service, mixed: false }),
            access: Access::Loopback,
            tls: None,
            grants: None,
            accept_timeout: limits::ACCEPT_TIMEOUT,
            patience: Patience::default(),
            public_host: None,
            limits: Limits::default(),
            drain_timeout: Duration::from_secs(10),
            hello_timeout: limits::HELLO_TIMEOUT,
            user_timeout: limits::USER_TIMEOUT,
            half_closed_timeout: limits::HALF_CLOSED_TIMEOUT,
            record: None,
            status_socket: None,
        }
    }
}

impl Config {
    /// The service called `default`, to be changed; made on a free loopback port where there is none.
    pub fn default_service(&mut self) -> &mut Service {
        let free = Service::on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        self.services.entry(ServiceName::default()).or_insert(free)
    }

    /// What is listened on, and for whom.
    fn listeners(&self) -> Vec<(String, SocketAddr)> {
        let hosts = [("hosts".to_owned(), self.hosts)].into_iter();
        let command = self.v1.iter().map(|v1| ("command channels".to_owned(), v1.command));
        let services = self.services.iter();
        let clients = services.map(|(name, it)| (format!("clients of {name}"), it.listen));
        hosts.chain(command).chain(clients).collect()
    }

    /// Who may serve what without a token, for the book.
    pub(crate) fn policy(&self) -> Policy {
        Policy {
            services: self.services.iter().map(|(name, it)| (name.clone(), it.limits)).collect(),
            open_service: self.v1.as_ref().map(|v1| v1.service.clone()),
            mixed: self.v1.as_ref().is_some_and(|v1| v1.mixed),
        }
    }

    /// Checks that each port is for one thing, and that nothing is open to more than its operator said.
    ///
    /// # Errors
    /// The first address that was given twice, or that is not loopback although [`Access::Loopback`] is set.
    pub fn check(&self) -> Result<(), BindError> {
        let listeners = self.listeners();
        for (index, (other, again)) in listeners.iter().enumerate() {
            let mut before = listeners.iter().take(index);
            if let Some((what, _)) = before.find(|(_, address)| overlap(*address, *again)) {
                let (address, what, other) = (*again, what.clone(), other.clone());
                return Err(BindError::SamePort { address, what, other });
            }
        }
        if self.access == Access::TlsOnly && self.tls.is_none() {
            return Err(BindError::NoTls { address: self.hosts });
        }
        if self.access != Access::Loopback {
            return Ok(());
        }
        // Who has no token serves nobody without version 1: then the clients' ports may be open.
        let exposed = if self.v1.is_some() || self.grants.is_none() { listeners.len() } else { 1 };
        let mut addresses = listeners.into_iter().take(exposed).map(|(_, address)| address);
        let open = addresses.find(|address| !address.ip().to_canonical().is_loopback());
        open.map_or(Ok(()), |address| Err(BindError::NotLoopback { address }))
    }
}

/// Whether who listens on one of them has the other too, or some of it.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    // All addresses of version 6 are those of version 4 too.
    let covers = |all: SocketAddr, one: SocketAddr| {
        all.ip().is_unspecified() && (all.is_ipv6() || one.is_ipv4())
    };
    let same = one.ip() == other.ip() || covers(one, other) || covers(other, one);
    one.port() == other.port() && one.port() != 0 && same
}

/// From where connections without TLS are accepted. Version 1 has no authentication: whoever may connect may serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// From this machine; and all ports must be on loopback.
    Loopback,
    /// From this machine and these networks.
    Networks(Vec<Network>),
    /// From anywhere.
    Insecure,
    /// From nowhere: TLS is due.
    TlsOnly,
}

impl Access {
    /// Whether a host at `address` is accepted.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        match self {
            Access::Insecure => true,
            Access::TlsOnly => false,
            Access::Loopback => address.is_loopback(),
            Access::Networks(networks) => {
                address.is_loopback() || networks.iter().any(|network| network.contains(address))
            }
        }
    }
}

/// A network in CIDR notation: `10.0.0.0/8`, `2001:db8::/32`, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_len: u8,
}

impl Network {
    /// Whether `address` lies in this network. An IPv4 address never lies in an IPv6 network, nor the reverse.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = u64::from(network.to_bits() ^ address.to_bits());
                differing >> (32 - self.prefix_len) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                self.prefix_len == 0 || differing >> (128 - self.prefix_len) == 0
            }
            _ => false,
        }
    }

    /// A network of IPv4 addresses mapped into IPv6 is the network of the IPv4 addresses.
    fn to_canonical(self) -> Network {
        match (self.address.to_canonical(), self.prefix_len.checked_sub(96)) {
            (address @ IpAddr::V4(_), Some(prefix_len)) if self.address.is_ipv6() => {
                Network { address, prefix_len }
            }
            _ => self,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Network, NetworkError> {
        let malformed = || NetworkError::Malformed(text.to_owned());
        let (address, prefix_len) = match text.split_once('/') {
            Some((address, prefix_len)) => (address, Some(prefix_len)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix_len = match prefix_len {
            Some(prefix_len) => prefix_len.parse().map_err(|_| malformed())?,
            None => longest,
        };
        if prefix_len > longest {
            return Err(NetworkError::TooLong { text: text.to_owned(), longest });
        }
        Ok(Network { address, prefix_len }.to_canonical())
    }
}

/// A text is not a network.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NetworkError {
    /// It is not an address and a prefix length.
    #[error("expected a network like 10.0.0.0/8 or 2001:db8::/32, got {0:?}")]
    Malformed(String),
    /// The prefix is longer than the address.
    #[error("prefix of {text:?} is longer than {longest} bits")]
    TooLong {
        /// What was given.
        text: String,
        /// What the address family has.
        longest: u8,
    },
}

#[cfg(test)]
mod tests {
    use relayserver_transport::options;

    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        assert!(network("10.0.0.0/8").contains(address("10.255.1.2")));
        assert!(!network("10.0.0.0/8").contains(address("11.0.0.1")));
        assert!(network("0.0.0.0/0").contains(address("203.0.113.9")));
        assert!(!network("0.0.0.0/0").contains(address("2001:db8::1")));
        assert!(network("2001:db8::/32").contains(address("2001:db8:ffff::1")));
        assert!(!network("2001:db8::/32").contains(address("2001:db9::1")));
        assert!(network("::/0").contains(address("2001:db9::1")));
        assert!(network("::ffff:10.0.0.0/104").contains(address("10.255.1.2")));
        assert!(!network("::ffff:10.0.0.0/104").contains(address("11.0.0.1")));
        assert!(network("192.0.2.7").contains(address("192.0.2.7")));
        assert!(!network("192.0.2.7").contains(address("192.0.2.6")));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in
            ["", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0/8", "example.com/8", "1.2.3.4/-1"]
        {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn loopback_is_always_allowed_and_others_only_when_named() {
        let named = Access::Networks(vec![network("192.0.2.0/24")]);
        assert!(named.allows(address("127.0.0.1")));
        assert!(named.allows(address("::ffff:192.0.2.9")));
        assert!(!named.allows(address("198.51.100.1")));
        assert!(!Access::Loopback.allows(address("192.0.2.9")));
        assert!(Access::Insecure.allows(address("198.51.100.1")));
    }

    #[test]
    fn an_open_port_without_the_operators_word_is_refused() {
        let mut config = Config::default();
        config.default_service().listen = "0.0.0.0:8002".parse().unwrap();
        assert!(matches!(config.check(), Err(BindError::NotLoopback { .. })));
        config.access = Access::Insecure;
        assert!(config.check().is_ok());
    }

    #[test]
    fn the_user_timeout_is_what_the_keepalive_probes_come_to() {
        let probes = options::KEEPALIVE;
        assert_eq!(limits::USER_TIMEOUT, probes.idle + probes.interval * probes.probes_max);
    }

    #[test]
    fn a_port_is_for_one_thing() {
        let with = |address: &str| {
            let mut config = Config { access: Access::Insecure, ..Config::default() };
            config.default_service().listen = address.parse().unwrap();
            config.check()
        };
        assert!(matches!(with("127.0.0.1:8001"), Err(BindError::SamePort { .. })));
        assert!(
            matches!(with("0.0.0.0:8001"), Err(BindError::SamePort { .. })),
            "loopback is in it"
        );
        assert!(with("127.0.0.2:8001").is_ok());
        let free: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut config = Config { hosts: free, v1: None, ..Config::default() };
        config.default_service().listen = free;
        assert!(config.check().is_ok());
    }
}
