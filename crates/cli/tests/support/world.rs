//! A relay in the middle, clients on one side, and homes on the other, each in a network of its own behind a cable that can be cut.
//!
//! ```text
//! client 198.51.100.2 ── 198.51.100.1 relay 192.0.2.1 ── 192.0.2.2 home 0
//!                          203.0.113.1     192.0.2.5 ── 192.0.2.6 home 1 …
//! ```

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::namespace::Namespace;
use super::peers::relayserver_in;
use super::program::{Program, output_of};

/// The relay, as its hosts know it.
const RELAY: &str = "203.0.113.1";

/// The relay, as its clients know it.
const RELAY_FOR_CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// Where clients dial it, and where each home's server listens.
const CLIENTS: u16 = 8002;
const SERVER: u16 = 7000;

/// A hardware address that nobody has.
const NOBODY: &str = "02:00:00:00:00:99";

/// The networks. What runs in them must have ended before this is dropped.
pub(crate) struct World {
    relay: Namespace,
    client: Namespace,
    homes: Vec<Home>,
    folder: TempDir,
}

/// A home's network, and both ends of its cable.
struct Home {
    namespace: Namespace,
    relay_end: End,
    home_end: End,
}

/// Which ways of a cable are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ways {
    Both,
    ToRelay,
    ToHome,
}

struct End {
    name: String,
    address: Ipv4Addr,
    hardware: String,
}

impl World {
    /// With so many homes. `settings` go into the relay's file, into the table of its one service. `None`, and says why, where it
    /// cannot be made.
    pub(crate) fn new(homes: u8, settings: &str) -> Option<World> {
        let (relay, client) = (Namespace::new("relay")?, Namespace::new("client")?);
        client.join(["uplink", "198.51.100.2/24"], &relay, ["client", "198.51.100.1/24"]);
        relay.ip(&format!("addr add {RELAY}/32 dev lo"));
        let homes = (0..homes).map(|index| Home::new(index, &relay)).collect::<Option<_>>()?;
        let world = World { relay, client, homes, folder: TempDir::new().unwrap() };
        let text = format!(
            "[relay]\nlisten = \"0.0.0.0:8000\"\npublic = \"{RELAY}:8000\"\nstate_dir = {:?}\n\
             [services.default]\nlisten = \"0.0.0.0:{CLIENTS}\"\n{settings}\n",
            world.state()
        );
        fs::write(world.config(), text).unwrap();
        Some(world)
    }

    /// Where clients dial.
    pub(crate) fn clients(&self) -> SocketAddr {
        (RELAY_FOR_CLIENT, CLIENTS).into()
    }

    /// The network that clients are in.
    pub(crate) fn client(&self) -> &Namespace {
        &self.client
    }

    pub(crate) fn home(&self, home: usize) -> &Namespace {
        &self.homes[home].namespace
    }

    /// The relay's command line, with TLS and tokens.
    pub(crate) fn relay_command(&self) -> Command {
        let config = self.config().display().to_string();
        relayserver_in(
            &self.relay.prefix(),
            &["relay", "--config", &config, "--log-format", "json"],
        )
    }

    /// A relay that is ready.
    pub(crate) fn relay(&self) -> Program {
        let relay = Program::start(self.relay_command());
        relay.event("relay ready");
        relay
    }

    /// The command line of a host at home, for the server there. The relay must have been ready once.
    pub(crate) fn host_command(&self, home: usize, args: &[&str]) -> Command {
        let join = self.join_file().display().to_string();
        let server = SERVER.to_string();
        let mut line =
            vec!["host", "--join-file", &join, "--forward", &server, "--log-format", "json"];
        line.extend(args);
        relayserver_in(&self.home(home).prefix(), &line)
    }

    /// A host at home that is ready.
    pub(crate) fn host(&self, home: usize, args: &[&str]) -> Program {
        let host = Program::start(self.host_command(home, args));
        host.event("host ready");
        host
    }

    /// Where a server at home is to listen that its host forwards to.
    pub(crate) fn listen(&self, home: usize) -> TcpListener {
        self.home(home).inside(|| TcpListener::bind((Ipv4Addr::LOCALHOST, SERVER)).unwrap())
    }

    /// What the relay says of itself.
    pub(crate) fn status_command(&self) -> Command {
        let state = self.state().display().to_string();
        relayserver_in(&[], &["status", "--json", "--state-dir", &state])
    }

    /// From now on what is sent over this home's cable in these ways is lost, and nobody is told.
    pub(crate) fn cut(&self, home: usize, ways: Ways) {
        self.homes[home].address_neighbours(&self.relay, Some(ways));
    }

    /// The opposite of [`cut`](World::cut).
    pub(crate) fn mend(&self, home: usize) {
        self.homes[home].address_neighbours(&self.relay, None);
    }

    /// The join line of all hosts; made when it is asked for first.
    fn join_file(&self) -> PathBuf {
        let path = self.folder.path().join("join");
        if !path.exists() {
            let config = self.config().display().to_string();
            let made = relayserver_in(&[], &["token", "create", "homes", "--config", &config]);
            fs::write(&path, output_of(made)).unwrap();
        }
        path
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("relay.toml")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }
}

impl Home {
    fn new(index: u8, relay: &Namespace) -> Option<Home> {
        let namespace = Namespace::new(&format!("home{index}"))?;
        let address = |last: u8| Ipv4Addr::new(192, 0, 2, 4 * index + last);
        let (of_relay, of_home) = (address(1), address(2));
        let name = format!("home{index}");
        namespace.join(
            ["uplink", &format!("{of_home}/30")],
            relay,
            [&name, &format!("{of_relay}/30")],
        );
        namespace.ip(&format!("route add {RELAY} via {of_relay}"));
        let relay_end = End::of(relay, name, of_relay);
        let home_end = End::of(&namespace, "uplink".to_owned(), of_home);
        let home = Home { namespace, relay_end, home_end };
        home.address_neighbours(relay, None);
        Some(home)
    }

    /// Each end is told the other's hardware address, so that none has to ask, or one that nobody has: what is sent there goes
    /// over the cable and is dropped by whoever is at its end.
    fn address_neighbours(&self, relay: &Namespace, lost: Option<Ways>) {
        let ends = [
            (relay, &self.relay_end, &self.home_end, Ways::ToHome),
            (&self.namespace, &self.home_end, &self.relay_end, Ways::ToRelay),
        ];
        for (namespace, near, far, way) in ends {
            let is_lost = lost.is_some_and(|ways| ways == Ways::Both || ways == way);
            let hardware = if is_lost { NOBODY } else { &far.hardware };
            let (address, name) = (far.address, &near.name);
            namespace
                .ip(&format!("neigh replace {address} lladdr {hardware} nud permanent dev {name}"));
        }
    }
}

impl End {
    fn of(namespace: &Namespace, name: String, address: Ipv4Addr) -> End {
        let hardware = namespace.hardware_address(&name);
        End { name, address, hardware }
    }
}
