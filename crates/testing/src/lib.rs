//! A real relay on free loopback ports, for the tests of servers written with RelayServer.
//!
//! ```no_run
//! # async fn test() -> Result<(), Box<dyn std::error::Error>> {
//! use relayserver_testing::TestRelay;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! let relay = TestRelay::start();
//! let listener = relay.listener().listen().await?;
//! let mut client = relay.connect().await?;
//! let mut session = listener.accept().await?;
//! session.write_all(b"hello").await?;
//! session.shutdown().await?;
//! let mut received = String::new();
//! client.read_to_string(&mut received).await?;
//! assert_eq!(received, "hello");
//! # Ok(())
//! # }
//! ```
//!
//! It is the very relay that `relayserver relay` runs, on a thread of its own, so that it can be frozen and restarted under
//! the feet of its hosts.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use relayserver_relay::{
    FixedGrants, Relay, RelayHandle, Role, ServicePattern, TokenRecord, Tokens,
};
use relayserver_transport::{HostPort, ServerTls, Token, generate_identity};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

pub use relayserver_relay::{
    Config, Limits, Occupancy, Service, ServiceLimits, ServiceName, Snapshot, Version1,
};

/// How long [`TestRelay::wait_until`] waits. Far beyond what anything takes that works.
const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// A running relay. Ends, with all its sessions, when dropped.
pub struct TestRelay {
    config: Config,
    hosts: SocketAddr,
    command: SocketAddr,
    clients: SocketAddr,
    running: Option<Running>,
    grants: Arc<FixedGrants>,
    tokens: AtomicU32,
}

struct Running {
    handle: RelayHandle,
    runtime: tokio::runtime::Handle,
    thread: JoinHandle<()>,
}

/// A relay that stands still; it goes on when this is dropped.
pub struct Frozen {
    _thaw: mpsc::Sender<()>,
}

impl TestRelay {
    /// Starts a relay with its default settings.
    ///
    /// # Panics
    /// When no port is free, which is no matter of the test.
    pub fn start() -> TestRelay {
        TestRelay::with(|_| {})
    }

    /// Starts a relay with other settings. Its ports are free ones unless `change` names some.
    ///
    /// # Panics
    /// When it cannot be started: a port that `change` named is taken, or the settings are not safe.
    #[expect(clippy::panic, reason = "a test without its relay has failed")]
    pub fn with(change: impl FnOnce(&mut Config)) -> TestRelay {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut config = Config { hosts: free, ..Config::default() };
        set_ports(&mut config, [free, free, free]);
        change(&mut config);
        match Running::start(config.clone()) {
            Ok((running, addresses @ [hosts, command, clients])) => {
                set_ports(&mut config, addresses);
                TestRelay {
                    config,
                    hosts,
                    command,
                    clients,
                    running: Some(running),
                    grants: Arc::new(FixedGrants::new(Tokens::new())),
                    tokens: AtomicU32::new(1),
                }
            }
            Err(error) => panic!("the test's relay cannot start: {error}"),
        }
    }

    /// Starts a relay with TLS and tokens, for hosts with a [join line](TestRelay::join). It has no hosts of version 1.
    ///
    /// # Panics
    /// As [`TestRelay::with`].
    pub fn secure() -> TestRelay {
        TestRelay::secure_with(|_| {})
    }

    /// As [`secure`](TestRelay::secure), with other settings.
    ///
    /// # Panics
    /// As [`TestRelay::with`].
    #[expect(clippy::expect_used, reason = "a test without its relay has failed")]
    pub fn secure_with(change: impl FnOnce(&mut Config)) -> TestRelay {
        let identity = generate_identity(&["localhost".to_owned()]).expect("a new key");
        let tls =
            ServerTls::from_pem(identity.certificate_pem.as_bytes(), identity.key_pem.as_bytes());
        let grants = Arc::new(FixedGrants::new(Tokens::new()));
        let mut relay = TestRelay::with(|config| {
            config.v1 = None;
            config.tls = Some(tls.expect("a new key is good for TLS"));
            config.grants = Some(grants.clone());
            change(config);
        });
        relay.grants = grants;
        relay
    }

    /// A join line with a token of its own, for the service `default`.
    ///
    /// # Panics
    /// The relay is not a [`secure`](TestRelay::secure) one.
    pub fn join(&self) -> relayserver::Join {
        self.join_for(&["default"]).0
    }

    /// A join line with a token of its own, for these services or patterns, and the token's id.
    ///
    /// # Panics
    /// The relay is not a [`secure`](TestRelay::secure) one, or a service's name is none.
    #[expect(clippy::expect_used, reason = "a test without its token has failed")]
    pub fn join_for(&self, services: &[&str]) -> (relayserver::Join, String) {
        let id = format!("test-{}", self.tokens.fetch_add(1, Ordering::Relaxed));
        let token = Token::generate(&id).expect("a new token");
        let services = services.iter().map(|name| name.parse::<ServicePattern>());
        let services = services.collect::<Result<Vec<_>, _>>().expect("names of services");
        let secret_hash = token.secret_hash();
        let record =
            TokenRecord { secret_hash, role: Role::Host, services, expires: None, revoked: false };
        self.grants.change(|tokens| tokens.insert(&id, record));
        let pin = self.config.tls.as_ref().expect("a secure relay").pin();
        let address = HostPort { host: self.hosts.ip().to_string(), port: self.hosts.port() };
        let line = relayserver_transport::Join::new(token, vec![address], vec![pin]);
        let line = line.expect("a join line").expose();
        (line.parse().expect("a join line"), id)
    }

    /// Takes back the token with this id.
    pub fn revoke(&self, id: &str) {
        self.grants.change(|tokens| {
            if let Some(record) = tokens.get_mut(id) {
                record.revoked = true;
            }
        });
    }

    /// Where hosts open data channels.
    pub fn hosts_addr(&self) -> SocketAddr {
        self.hosts
    }

    /// Where hosts open command channels.
    pub fn command_addr(&self) -> SocketAddr {
        self.command
    }

    /// Where clients connect.
    pub fn clients_addr(&self) -> SocketAddr {
        self.clients
    }

    /// A builder for a host of this relay.
    pub fn listener(&self) -> relayserver::Builder {
        relayserver::Listener::builder(self.hosts.to_string()).command_port(self.command.port())
    }

    /// Connects a client.
    ///
    /// # Errors
    /// The relay is stopped.
    pub async fn connect(&self) -> io::Result<TcpStream> {
        TcpStream::connect(self.clients).await
    }

    /// How much of everything the relay has now. Nothing while it is stopped.
    pub fn occupancy(&self) -> Occupancy {
        self.running.as_ref().map(|running| running.handle.occupancy()).unwrap_or_default()
    }

    /// What the relay is doing now; `None` while it is stopped.
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.running.as_ref().map(|running| running.handle.snapshot())
    }

    /// Resolves when the relay's occupancy is as `wanted`.
    ///
    /// # Panics
    /// When it is not within 30 seconds.
    #[expect(clippy::panic, reason = "a test whose relay does not get there has failed")]
    pub async fn wait_until(&self, wanted: impl Fn(&Occupancy) -> bool) {
        let reached = async {
            while !wanted(&self.occupancy()) {
                // The book has no event for everything that a test may ask: look again soon.
                sleep(Duration::from_millis(1)).await;
            }
        };
        if timeout(WAIT_TIMEOUT, reached).await.is_err() {
            panic!("the relay did not get there: {:?}", self.occupancy());
        }
    }

    /// Asks the relay to leave as SIGTERM does. Running sessions get its drain timeout.
    pub fn drain(&self) {
        if let Some(running) = &self.running {
            running.handle.drain();
        }
    }

    /// Stops the whole relay, as SIGSTOP does, until the guard is dropped. Returns once it stands still.
    pub fn freeze(&self) -> Frozen {
        let (thaw, thawed) = mpsc::channel();
        let (standing, stands) = mpsc::channel();
        if let Some(running) = &self.running {
            running.runtime.spawn(async move {
                // Blocks the relay's one thread: that is the point.
                let _told = standing.send(());
                let _dropped = thawed.recv();
            });
            let _standing = stands.recv();
        }
        Frozen { _thaw: thaw }
    }

    /// Ends the relay at once, with all its sessions. Its ports refuse connections from then on.
    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
    }

    /// Ends the relay at once, where it runs, and starts a new one on the same ports.
    ///
    /// # Panics
    /// When the ports were taken by somebody else meanwhile.
    #[expect(clippy::panic, reason = "a test without its relay has failed")]
    pub fn restart(&mut self) {
        self.stop();
        match Running::start(self.config.clone()) {
            Ok((running, _addresses)) => self.running = Some(running),
            Err(error) => panic!("the test's relay cannot start again: {error}"),
        }
    }
}

/// Names the ports of hosts, command channels and clients of the service `default`.
fn set_ports(config: &mut Config, [hosts, command, clients]: [SocketAddr; 3]) {
    config.hosts = hosts;
    if let Some(v1) = &mut config.v1 {
        v1.command = command;
    }
    config.default_service().listen = clients;
}

impl Drop for TestRelay {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Running {
    fn start(config: Config) -> io::Result<(Running, [SocketAddr; 3])> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let bound = {
            let _entered = runtime.enter();
            Relay::bind(config)
        };
        let relay = match bound {
            Ok(relay) => relay,
            Err(error) => {
                // To be dropped where a caller awaits would be a panic, which says nothing of why.
                runtime.shutdown_background();
                return Err(io::Error::other(error));
            }
        };
        let none = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let clients = relay.clients_addr(&ServiceName::default());
        let addresses =
            [relay.hosts_addr(), relay.command_addr().unwrap_or(none), clients.unwrap_or(none)];
        let handle = relay.handle();
        let runtime_handle = runtime.handle().clone();
        let thread = std::thread::Builder::new()
            .name("test-relay".to_owned())
            .spawn(move || runtime.block_on(relay.run()))?;
        Ok((Running { handle, runtime: runtime_handle, thread }, addresses))
    }

    fn stop(self) {
        self.handle.abort();
        // A relay that panicked has ended as well; its message is on standard error.
        let _ended = self.thread.join();
    }
}
