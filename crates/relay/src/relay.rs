//! The relay as a whole: binds its ports, runs its loops, and leaves.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use relayserver_core::Occupancy;
use relayserver_transport::listen;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::admission::Places;
use crate::assignment::Assignments;
use crate::config::Config;
use crate::context::Context;
use crate::error::BindError;
use crate::{channel, client, command, drain, listener};

/// A relay with its ports bound, ready to [`run`](Relay::run).
pub struct Relay {
    config: Config,
    hosts: TcpListener,
    command: TcpListener,
    clients: TcpListener,
    addresses: Addresses,
    shared: Shared,
}

/// The ports that a relay got.
#[derive(Clone, Copy)]
struct Addresses {
    hosts: SocketAddr,
    command: SocketAddr,
    clients: SocketAddr,
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
        let bind = |(what, address)| {
            let listener = listen(address)
                .and_then(|listener| listener.local_addr().map(|bound| (listener, bound)));
            listener.map_err(|source| BindError::Listen { what, address, source })
        };
        let [hosts, command, clients] = config.listeners();
        let (hosts, hosts_addr) = bind(hosts)?;
        let (command, command_addr) = bind(command)?;
        let (clients, clients_addr) = bind(clients)?;
        let addresses =
            Addresses { hosts: hosts_addr, command: command_addr, clients: clients_addr };
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
        Ok(Relay { config, hosts, command, clients, addresses, shared })
    }

    /// Where hosts open data channels.
    pub fn hosts_addr(&self) -> SocketAddr {
        self.addresses.hosts
    }

    /// Where hosts open command channels.
    pub fn command_addr(&self) -> SocketAddr {
        self.addresses.command
    }

    /// Where clients connect.
    pub fn clients_addr(&self) -> SocketAddr {
        self.addresses.clients
    }

    /// A handle that steers this relay while it runs.
    pub fn handle(&self) -> RelayHandle {
        RelayHandle(self.shared.clone())
    }

    /// Serves until [`RelayHandle::drain`] or [`RelayHandle::abort`], and resolves when every session has ended. Dropping
    /// the future ends every session at once.
    pub async fn run(self) {
        let Relay { config, hosts, command, clients, addresses, shared } = self;
        let end_all_when_dropped = EndAll(shared.clone());
        let Addresses { hosts: hosts_addr, command: command_addr, clients: clients_addr } =
            addresses;
        info!(hosts = %hosts_addr, command = %command_addr, clients = %clients_addr, "relay ready");
        let context = Arc::new(Context {
            assignments: Arc::clone(&shared.assignments),
            places: Arc::new(Places::new(&config.limits)),
            access: config.access,
            hello_timeout: config.hello_timeout,
            user_timeout: config.user_timeout,
            half_closed_timeout: config.half_closed_timeout,
            leaving: shared.leaving.clone(),
            over: shared.over.clone(),
            clients_port: clients_addr.port(),
        });
        let accepting = async {
            tokio::join!(
                shared.accept_channels(hosts, Arc::clone(&context)),
                shared.accept_commands(command, context),
                shared.accept_clients(clients),
            );
        };
        tokio::select! {
            () = accepting => {}
            () = shared.assignments.keep_time() => {}
        }
        tokio::select! {
            () = drain::drain(&shared.assignments, config.drain_timeout) => {}
            () = shared.aborted.cancelled() => drain::end_all(&shared.assignments).await,
        }
        drop(end_all_when_dropped);
        drain::tasks_ended(&shared.tasks).await;
        info!("relay ended");
    }
}

impl Shared {
    fn accept_channels(
        &self,
        listener: TcpListener,
        context: Arc<Context>,
    ) -> impl Future<Output = ()> {
        self.accept(listener, "hosts", move |stream, peer| {
            channel::serve(stream, peer, Arc::clone(&context))
        })
    }

    fn accept_commands(
        &self,
        listener: TcpListener,
        context: Arc<Context>,
    ) -> impl Future<Output = ()> {
        self.accept(listener, "command", move |stream, peer| {
            command::serve(stream, peer, Arc::clone(&context))
        })
    }

    fn accept_clients(&self, listener: TcpListener) -> impl Future<Output = ()> {
        let assignments = Arc::clone(&self.assignments);
        let farewells = Arc::new(client::Farewells::new(self.over.clone()));
        self.accept(listener, "clients", move |stream, peer| {
            client::serve(stream, peer, Arc::clone(&assignments), Arc::clone(&farewells))
        })
    }

    fn accept<Fut>(
        &self,
        listener: TcpListener,
        name: &'static str,
        serve: impl Fn(tokio::net::TcpStream, SocketAddr) -> Fut,
    ) -> impl Future<Output = ()>
    where
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
