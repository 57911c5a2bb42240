//! The world: machines, each with a runtime of its own whose clock stands unless the world moves it, and the network between them. One
//! thread, one step after the other, so that a seed gives one history.
//!
//! A machine that is frozen is not polled, as a process after SIGSTOP; when it goes on, its clock has jumped.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use relayserver_relay::{Access, Config, Relay, RelayHandle};
use relayserver_transport::net::simulated as network;
use tokio::runtime::{Builder, RngSeed, Runtime};

/// How long a step is. Nothing happens faster.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// How long a segment takes from one machine to another.
pub(crate) const LATENCY: Duration = Duration::from_millis(20);

pub(crate) const RELAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
pub(crate) const CLIENTS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 1));

/// The address of a host.
pub(crate) fn host_ip(index: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 1, u8::try_from(index + 1).unwrap_or(u8::MAX)).into()
}

/// Where clients connect.
pub(crate) fn clients_address() -> SocketAddr {
    SocketAddr::new(RELAY, 8002)
}

/// A machine with the program that runs on it.
pub(crate) struct Machine {
    pub(crate) ip: IpAddr,
    seed: u64,
    /// `None`: no program runs.
    runtime: Option<Runtime>,
    is_frozen: bool,
    /// How long its clock stood.
    behind: Duration,
}

impl Machine {
    pub(crate) fn new(ip: IpAddr, seed: u64) -> Machine {
        Machine { ip, seed, runtime: None, is_frozen: false, behind: Duration::ZERO }
    }

    /// Starts a program, which is what `program` spawns in the runtime that it gets.
    pub(crate) fn start<R>(&mut self, program: impl FnOnce(&Runtime) -> R) -> Option<R> {
        self.seed = self.seed.wrapping_add(1);
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .rng_seed(RngSeed::from_bytes(&self.seed.to_be_bytes()))
            .build();
        let runtime = self.runtime.insert(runtime.ok()?);
        (self.is_frozen, self.behind) = (false, Duration::ZERO);
        network::with(|network| network.enter(self.ip));
        let _entered = runtime.enter();
        Some(program(runtime))
    }

    /// SIGKILL: the system closes what the program had.
    pub(crate) fn kill(&mut self) {
        network::with(|network| network.kill(self.ip));
        self.end();
    }

    /// The power fails: nobody is told.
    pub(crate) fn switch_off(&mut self) {
        network::with(|network| network.switch_off(self.ip));
        self.end();
    }

    fn end(&mut self) {
        network::with(|network| network.enter(self.ip));
        drop(self.runtime.take());
    }

    pub(crate) fn freeze(&mut self) {
        self.is_frozen = true;
    }

    pub(crate) fn thaw(&mut self) {
        self.is_frozen = false;
        let behind = std::mem::take(&mut self.behind);
        if let Some(runtime) = &self.runtime {
            network::with(|network| network.enter(self.ip));
            runtime.block_on(async { tokio::time::advance(behind).await });
        }
    }

    /// Its program runs for one step of the world.
    pub(crate) fn step(&mut self) {
        let Some(runtime) = &self.runtime else { return };
        if self.is_frozen {
            self.behind += TICK;
            return;
        }
        network::with(|network| network.enter(self.ip));
        runtime.block_on(async { tokio::time::sleep(TICK).await });
    }
}

/// Starts a relay on its machine.
pub(crate) fn start_relay(machine: &mut Machine) -> Option<RelayHandle> {
    machine.start(|runtime| {
        let mut config = Config { access: Access::Insecure, ..Config::default() };
        config.hosts = SocketAddr::new(RELAY, 8000);
        config.default_service().listen = clients_address();
        config.v1 = config
            .v1
            .map(|v1| relayserver_relay::Version1 { command: SocketAddr::new(RELAY, 8001), ..v1 });
        let relay = Relay::bind(config).ok()?;
        let handle = relay.handle();
        runtime.spawn(relay.run());
        Some(handle)
    })?
}
