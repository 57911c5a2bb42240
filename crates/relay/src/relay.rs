//! The relay as a whole: binds its ports, runs its loops, and leaves.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use relayserver_core::{Occupancy, ServiceName};
use relayserver_transport::listen;
use relayserver_transport::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::field::display;
use tracing::{debug, info, warn};

use crate::admission::Places;
use crate::assignment::Assignments;
use crate::config::Config;
use crate::context::Context;
use crate::error::BindError;
use crate::grants::{KnownTokens, Tokens};
use crate::rate::ServiceRates;
use crate::snapshot::Snapshot;
use crate::status::{self, StatusSocket};
use crate::{client, command, drain, host_port, listener};

/// A relay with its ports bound, ready to [`run`](Relay::run).
pub struct Relay {
    config: Config,
    hosts: Bound,
    command: Option<Bound>,
    clients: BTreeMap<ServiceName, Bound>,
    status: Option<StatusSocket>,
    shared: Shared,
}

/// A port that is listened on.
struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

#[derive(Clone)]
struct Shared {
    assignments: Arc<Assignments>,
    tasks: TaskTracker,
    /// Drain has begun: nobody new.
    leaving: CancellationToken,
    /// Drain has been cut short.
    aborted: CancellationToken,
    /// Everything ends.
    over: CancellationToken,
}

/// Steers a running relay from another task.
#[derive(Clone)]
pub struct RelayHandle(Shared);

impl Relay {
    /// Binds the ports. Port 0 takes a free one. From here on connections wait in the system's queue, so whoever was told
    /// the addresses may dial them before [`run`](Relay::run).
    ///
    /// # Errors
    /// The configuration is not safe, or a port cannot be had.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with I/O and time.
    pub fn bind(config: Config) -> Result<Relay, BindError> {
        config.check()?;
        let hosts = Bound::on("hosts", config.hosts)?;
        let command = match &config.v1 {
            Some(v1) => Some(Bound::on("command channels", v1.command)?),
            None => None,
        };
        let mut clients = BTreeMap::new();
        for (name, service) in &config.services {
            let bound = Bound::on(&format!("clients of {name}"), service.listen)?;
            clients.insert(name.clone(), bound);
        }
        let assignments = Assignments::new(&config).map_err(|source| BindError::Record {
            path: config.record.clone().unwrap_or_default(),
            source,
        })?;
        let shared = Shared {
            assignments: Arc::new(assignments),
            tasks: TaskTracker::new(),
            leaving: CancellationToken::new(),
            aborted: CancellationToken::new(),
            over: CancellationToken::new(),
        };
        let status = config.status_socket.as_deref().and_then(bind_status);
        Ok(Relay { config, hosts, command, clients, status, shared })
    }

    /// Where hosts open channels.
    pub fn hosts_addr(&self) -> SocketAddr {
        self.hosts.address
    }

    /// Where hosts of version 1 open command channels.
    pub fn command_addr(&self) -> Option<SocketAddr> {
        self.command.as_ref().map(|bound| bound.address)
    }

    /// Where clients of a service connect.
    pub fn clients_addr(&self, service: &ServiceName) -> Option<SocketAddr> {
        self.clients.get(service).map(|bound| bound.address)
    }

    /// A handle that steers this relay while it runs.
    pub fn handle(&self) -> RelayHandle {
        RelayHandle(self.shared.clone())
    }

    /// Serves until [`RelayHandle::drain`] or [`RelayHandle::abort`], and resolves when every session has ended. Dropping
    /// the future ends every session at once.
    pub async fn run(mut self) {
        let assignments = Arc::clone(&self.shared.assignments);
        let status = self.status.take();
        tokio::select! {
            () = self.serve() => {}
            () = status::serve(status, &assignments) => {}
        }
    }

    async fn serve(self) {
        let end_all_when_dropped = EndAll(self.shared.clone());
        self.announce();
        let Relay { config, hosts, command, clients, shared, .. } = self;
        let source = config.grants.as_ref().map(|grants| grants.watch());
        let tokens = Arc::new(KnownTokens::default());
        if let Some(source) = &source {
            tokens.change(Arc::clone(&source.borrow()), &shared.assignments);
        }
        let drain_timeout = config.drain_timeout;
        let context = Arc::new(context(config, &clients, &shared, Arc::clone(&tokens)));
        let mut accepting = JoinSet::new();
        accepting.spawn(shared.accept_channels(hosts.listener, Arc::clone(&context)));
        if let Some(command) = command {
            accepting.spawn(shared.accept_commands(command.listener, Arc::clone(&context)));
        }
        for (service, clients) in clients {
            accepting.spawn(shared.accept_clients(clients.listener, service, &context));
        }
        tokio::select! {
            () = async { while accepting.join_next().await.is_some() {} } => {}
            () = shared.assignments.keep_time() => {}
            () = context.places.keep_time() => {}
            () = follow(source, &tokens, &shared.assignments) => {}
        }
        tokio::select! {
            () = drain::drain(&shared.assignments, drain_timeout) => {}
            () = shared.aborted.cancelled() => drain::end_all(&shared.assignments).await,
        }
        drop(end_all_when_dropped);
        drain::tasks_ended(&shared.tasks).await;
        info!("relay ended");
    }

    /// Says where it can be reached.
    fn announce(&self) {
        let command = self.command.as_ref().map(|command| display(command.address));
        let default = self.clients.get(&ServiceName::default());
        info!(
            hosts = %self.hosts.address,
            command,
            clients = default.map(|clients| display(clients.address)),
            "relay ready"
        );
        for (service, clients) in &self.clients {
            debug!(%service, clients = %clients.address, "service ready");
        }
    }
}

/// What the connections of hosts need to know.
fn context(
    config: Config,
    clients: &BTreeMap<ServiceName, Bound>,
    shared: &Shared,
    tokens: Arc<KnownTokens>,
) -> Context {
    let public = |name: &ServiceName| {
        let bound = clients.get(name)?.address;
        public_address(config.public_host.as_deref(), bound)
    };
    let served = clients.keys().filter_map(|name| Some((name.clone(), public(name)?))).collect();
    let rates = config.services.iter().filter_map(|(name, service)| {
        ServiceRates::new(service.rates).map(|rates| (name.clone(), rates))
    });
    let rates = rates.collect();
    let v1 = config.v1.is_some();
    let service_of_v1 = config.v1.map(|v1| v1.service).unwrap_or_default();
    Context {
        assignments: Arc::clone(&shared.assignments),
        places: Arc::new(Places::new(&config.limits)),
        access: config.access,
        tls: config.tls,
        grants: config.grants,
        tokens,
        accept_timeout: config.accept_timeout,
        patience: config.patience,
        served,
        rates,
        v1,
        hello_timeout: config.hello_timeout,
        user_timeout: config.user_timeout,
        half_closed_timeout: config.half_closed_timeout,
        tasks: shared.tasks.clone(),
        farewells: Semaphore::new(client::Farewells::MAX),
        client_farewells: Arc::new(client::Farewells::new(shared.over.clone())),
        leaving: shared.leaving.clone(),
        over: shared.over.clone(),
        clients_port_of_v1: clients.get(&service_of_v1).map_or(0, |it| it.address.port()),
        service_of_v1,
    }
}

/// The relay can do without: sessions need nothing of it.
fn bind_status(path: &Path) -> Option<StatusSocket> {
    let bound = StatusSocket::bind(path);
    bound.inspect_err(|error| warn!(path = %path.display(), %error, "no status socket")).ok()
}

/// Follows the tokens for as long as the relay runs; without a source there are none.
async fn follow(
    source: Option<watch::Receiver<Arc<Tokens>>>,
    tokens: &KnownTokens,
    assignments: &Assignments,
) {
    match source {
        Some(source) => tokens.follow(source, assignments).await,
        None => std::future::pending().await,
    }
}

/// What people dial to reach `bound`; `None` where that is not known: a wildcard names no machine.
fn public_address(public_host: Option<&str>, bound: SocketAddr) -> Option<String> {
    match public_host {
        Some(host) => Some(format!("{host}:{}", bound.port())),
        None => (!bound.ip().is_unspecified()).then(|| bound.to_string()),
    }
}

impl Bound {
    fn on(what: &str, address: SocketAddr) -> Result<Bound, BindError> {
        let failed = |source| BindError::Listen { what: what.to_owned(), address, source };
        let listener = listen(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Bound { listener, address })
    }
}

impl Shared {
    fn accept_channels(
        &self,
        listener: TcpListener,
        context: Arc<Context>,
    ) -> impl Future<Output = ()> + use<> {
        self.accept(listener, "hosts", move |stream, peer| {
            Some(host_port::serve(stream, peer, Arc::clone(&context)))
        })
    }

    fn accept_commands(
        &self,
        listener: TcpListener,
        context: Arc<Context>,
    ) -> impl Future<Output = ()> + use<> {
        self.accept(listener, "command", move |stream, peer| {
            Some(command::serve(stream, peer, Arc::clone(&context)))
        })
    }

    fn accept_clients(
        &self,
        listener: TcpListener,
        service: ServiceName,
        context: &Context,
    ) -> impl Future<Output = ()> + use<> {
        let assignments = Arc::clone(&self.assignments);
        let farewells = Arc::clone(&context.client_farewells);
        self.accept(listener, "clients", move |stream, peer| {
            client::serve(stream, peer, service.clone(), &assignments, &farewells)
        })
    }

    fn accept<Serve, Fut>(
        &self,
        listener: TcpListener,
        name: &'static str,
        serve: Serve,
    ) -> impl Future<Output = ()> + use<Serve, Fut>
    where
        Serve: Fn(TcpStream, SocketAddr) -> Option<Fut>,
        Fut: Future<Output = ()> + Send + 'static,
    {
        listener::accept(listener, name, self.leaving.clone(), self.tasks.clone(), serve)
    }
}

impl RelayHandle {
    /// Asks the relay to leave: no new clients, running sessions get the drain timeout.
    pub fn drain(&self) {
        self.0.leaving.cancel();
    }

    /// Asks the relay to end at once, its sessions with it.
    pub fn abort(&self) {
        self.0.aborted.cancel();
        self.0.leaving.cancel();
    }

    /// How much of everything there is now.
    pub fn occupancy(&self) -> Occupancy {
        self.0.assignments.occupancy()
    }

    /// What the relay is doing now.
    pub fn snapshot(&self) -> Snapshot {
        self.0.assignments.snapshot()
    }
}

/// Ends whatever still runs when the relay's future is done or dropped: no task outlives it.
struct EndAll(Shared);

impl Drop for EndAll {
    fn drop(&mut self) {
        self.0.leaving.cancel();
        self.0.assignments.drain();
        self.0.assignments.end_all(relayserver_core::Reason::Drained);
        self.0.over.cancel();
        self.0.assignments.flush_recording();
    }
}
