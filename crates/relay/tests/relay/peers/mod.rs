//! What the tests put around a relay: the relay itself, in the test's own runtime, and the ends of connections to it. Every
//! wait in here has the same generous deadline; nothing in here sleeps to wait for something.

mod host;
mod member;
mod parts;
mod secure;
mod streams;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use relayserver_relay::{Config, Occupancy, Relay, RelayHandle, ServiceName};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

pub(crate) use host::{Channel, Command, Host, session};
pub(crate) use member::{Data, Knock, Member};
pub(crate) use parts::{BARE, END, Part, idle_for_many, in_parts, serve};
pub(crate) use secure::Secure;
pub(crate) use streams::{
    assert_closed, assert_ended, assert_reset, connect_from, content, echo, exchange, read_exactly,
    read_rest, reset, silent, write,
};

/// Far beyond what anything takes that works.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A relay on free loopback ports. Ends with all its sessions when dropped.
pub(crate) struct TestRelay {
    pub(crate) hosts: SocketAddr,
    pub(crate) command: SocketAddr,
    pub(crate) clients: SocketAddr,
    services: BTreeMap<ServiceName, SocketAddr>,
    handle: RelayHandle,
    running: JoinHandle<()>,
}

impl TestRelay {
    pub(crate) fn start() -> TestRelay {
        TestRelay::with(|_| {})
    }

    /// A relay with other settings than the default ones. Nobody is sent away for taking too long unless `change` says
    /// otherwise.
    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> TestRelay {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut config = Config { hosts: free, ..Config::default() };
        config.v1.as_mut().unwrap().command = free;
        config.default_service().listen = free;
        config.default_service().limits.assign_timeout = DEADLINE * 10;
        config.hello_timeout = DEADLINE * 10;
        config.drain_timeout = DEADLINE * 10;
        change(&mut config);
        let names = config.services.clone().into_keys();
        let relay = Relay::bind(config).unwrap();
        TestRelay {
            hosts: relay.hosts_addr(),
            command: relay.command_addr().unwrap_or(free),
            clients: relay.clients_addr(&ServiceName::default()).unwrap(),
            services: names.map(|it| (it.clone(), relay.clients_addr(&it).unwrap())).collect(),
            handle: relay.handle(),
            running: tokio::spawn(relay.run()),
        }
    }

    /// A host at 127.0.0.`last` whose command channel is up.
    pub(crate) async fn host(&self, last: u8) -> Host {
        Host::join(self, last).await
    }

    pub(crate) async fn client(&self) -> TcpStream {
        within("connecting a client", TcpStream::connect(self.clients)).await.unwrap()
    }

    /// A client of a service other than the default one.
    pub(crate) async fn client_of(&self, service: &str) -> TcpStream {
        let clients = self.clients_addr(service);
        within("connecting a client", TcpStream::connect(clients)).await.unwrap()
    }

    /// Where the clients of `service` connect.
    pub(crate) fn clients_addr(&self, service: &str) -> SocketAddr {
        self.services[&ServiceName::new(service)]
    }

    pub(crate) fn handle(&self) -> &RelayHandle {
        &self.handle
    }

    pub(crate) fn occupancy(&self) -> Occupancy {
        self.handle.occupancy()
    }

    /// Waits until `holds` of what is in the relay.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(Occupancy) -> bool) {
        self.until_within(DEADLINE, what, holds).await;
    }

    /// [`until`](TestRelay::until), for what takes its time.
    pub(crate) async fn until_within(
        &self,
        deadline: Duration,
        what: &str,
        holds: impl Fn(Occupancy) -> bool,
    ) {
        let polling = async {
            while !holds(self.occupancy()) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        if timeout(deadline, polling).await.is_err() {
            panic!("not in time: {what}; the relay holds {:?}", self.occupancy());
        }
    }

    pub(crate) async fn until_idle(&self, count: usize) {
        self.until(&format!("{count} idle channels"), |it| it.idle == count).await;
    }

    pub(crate) async fn until_sessions(&self, count: usize) {
        self.until(&format!("{count} sessions"), |it| it.sessions == count).await;
    }

    pub(crate) async fn until_waiting(&self, count: usize) {
        self.until(&format!("{count} waiting clients"), |it| it.waiting == count).await;
    }

    pub(crate) async fn until_empty(&self) {
        self.until("nothing is left", |it| it == Occupancy::default()).await;
    }

    /// Waits until the relay's `run` has returned.
    pub(crate) async fn ended(&mut self) {
        within("the relay's end", &mut self.running).await.unwrap();
    }

    /// Whether the relay's `run` has not returned.
    pub(crate) fn is_running(&self) -> bool {
        !self.running.is_finished()
    }

    /// Drops the relay's `run` as it stands.
    pub(crate) async fn cut_off(&mut self) {
        self.running.abort();
        let ended = within("the drop of the relay", &mut self.running).await;
        assert!(ended.unwrap_err().is_cancelled());
    }
}

impl Drop for TestRelay {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// What `future` gives, or a failed test that says what was not there in time.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_elapsed) => panic!("not within {DEADLINE:?}: {what}"),
    }
}
