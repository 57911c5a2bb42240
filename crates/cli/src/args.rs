//! The command line: what can be said, what it means when it is not said, and the help. Nothing here does anything.

mod bench;
mod host;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgAction, Args, Parser, ValueEnum};
use relayserver_relay::Network;
use relayserver_transport::HostPort;

use crate::exit;
#[cfg(target_os = "linux")]
pub(crate) use bench::LinkArgs;
pub(crate) use bench::{Bench, BenchArgs, LoadArgs};
pub(crate) use host::HostArgs;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Reach servers that cannot be reached: a relay in the middle, hosts that dial out to it, clients that dial in.
#[derive(Debug, Parser)]
#[command(name = "relayserver", version, styles = STYLES, arg_required_else_help = true)]
#[command(after_help = top_help())]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) subcommand: Subcommand,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Subcommand {
    Relay(RelayArgs),
    #[command(alias = "server")]
    Host(HostArgs),
    Demo(DemoArgs),
    Token(crate::token::TokenArgs),
    Key(crate::key::KeyArgs),
    Check(crate::check::CheckArgs),
    Status(crate::status::StatusArgs),
    Explain(crate::explain::ExplainArgs),
    Bench(BenchArgs),
}

fn top_help() -> String {
    format!(
        "\
Examples:
  relayserver demo                          see it work, on this machine alone
  relayserver relay                         run a relay, on this machine alone
  relayserver host --forward 22             put this machine's ssh on the air through it
  ssh -p 8002 localhost                     and reach it

`relayserver help COMMAND` tells more.

{}",
        exit::HELP
    )
}

/// Run the relay: the public process in the middle.
#[derive(Debug, Args)]
#[command(after_help = relay_help())]
pub(crate) struct RelayArgs {
    /// Where hosts open data channels
    #[arg(value_name = "DPORT", default_value_t = 8000)]
    pub(crate) hosts_port: u16,

    /// Where hosts open command channels
    #[arg(value_name = "CPORT", default_value_t = 8001)]
    pub(crate) command_port: u16,

    /// Where clients connect
    #[arg(value_name = "TPORT", default_value_t = 8002)]
    pub(crate) clients_port: u16,

    /// Open to the world, with TLS and tokens: the address that hosts dial, HOST or HOST:PORT
    #[arg(long, value_name = "ADDR", value_parser = public_address, conflicts_with_all = ["v1_allow", "insecure", "listen_command"])]
    pub(crate) public: Option<HostPort>,

    /// Read the relay's configuration from a file instead of the flags below
    #[arg(long, value_name = "FILE", conflicts_with_all = FLAGS_OF_THE_FILE)]
    pub(crate) config: Option<PathBuf>,

    /// Where the relay keeps its key and its tokens
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,

    /// The address that the ports are on: all, with --public, else 127.0.0.1
    #[arg(long, value_name = "IP", value_parser = ip)]
    pub(crate) bind: Option<IpAddr>,

    /// Address and port for data channels, instead of DPORT
    #[arg(long, value_name = "ADDR", value_parser = socket_address)]
    pub(crate) listen_hosts: Option<SocketAddr>,

    /// Address and port for command channels, instead of CPORT
    #[arg(long, value_name = "ADDR", value_parser = socket_address)]
    pub(crate) listen_command: Option<SocketAddr>,

    /// Address and port for clients, instead of TPORT
    #[arg(long, value_name = "ADDR", value_parser = socket_address)]
    pub(crate) listen_clients: Option<SocketAddr>,

    /// A network that hosts may come from, besides this machine (repeatable)
    #[arg(long = "v1-allow", value_name = "CIDR")]
    pub(crate) v1_allow: Vec<Network>,

    /// Accept hosts from anywhere: whoever can connect can serve your clients
    #[arg(long, conflicts_with = "v1_allow")]
    pub(crate) insecure: bool,

    /// How long a client may wait for a channel; 0 refuses at once
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(crate) assign_timeout: Duration,

    /// How long running sessions get when the relay leaves
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) drain_timeout: Duration,

    /// How many clients may be connected
    #[arg(long, value_name = "N", default_value_t = relayserver_relay::Limits::default().clients_max, value_parser = count)]
    pub(crate) clients_max: usize,

    /// How many clients may wait for a channel
    #[arg(long, value_name = "N", default_value_t = relayserver_relay::ServiceLimits::default().queue_max)]
    pub(crate) queue_max: usize,

    /// How many data channels may be connected
    #[arg(long, value_name = "N", default_value_t = relayserver_relay::Limits::default().channels_max, value_parser = count)]
    pub(crate) channels_max: usize,

    /// How many command channels may be connected
    #[arg(long, value_name = "N", default_value_t = relayserver_relay::Limits::default().commands_max, value_parser = count)]
    pub(crate) commands_max: usize,

    /// How many connections that have not said hello may be open; others wait for their turn
    #[arg(long, value_name = "N", default_value_t = relayserver_relay::Limits::default().handshakes_max, value_parser = count)]
    pub(crate) handshakes_max: usize,

    /// Address and port where Prometheus may ask how the relay is: GET /metrics
    #[arg(long, value_name = "ADDR", value_parser = socket_address)]
    pub(crate) metrics: Option<SocketAddr>,

    /// Keep each thread for busy sessions on a core of its own, and move bulk there too (Linux): more of it where the machine does nothing else, and less beside a busy program
    #[arg(long)]
    pub(crate) pin_threads: bool,

    /// Write every decision to a file, to be replayed
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) record: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) logging: Logging,

    /// Leave when standard input ends, as on SIGTERM
    #[arg(long, hide = true)]
    pub(crate) until_stdin_closes: bool,
}

/// What a configuration file says instead.
const FLAGS_OF_THE_FILE: [&str; 16] = [
    "hosts_port",
    "command_port",
    "clients_port",
    "bind",
    "listen_hosts",
    "listen_command",
    "listen_clients",
    "v1_allow",
    "assign_timeout",
    "drain_timeout",
    "clients_max",
    "queue_max",
    "channels_max",
    "commands_max",
    "handshakes_max",
    "metrics",
];

fn relay_help() -> String {
    format!(
        "\
Examples:
  relayserver relay --public relay.example.com
          open to the world: TLS, tokens, a join line to start with
  relayserver relay --config relay.toml
          the same with services, limits and more
  relayserver relay
          on this machine alone: data 8000, command 8001, clients 8002
  relayserver relay 9000 9001 9002
          the same on other ports
  relayserver relay --bind 0.0.0.0 --v1-allow 198.51.100.0/24
          clients from anywhere, hosts from one network

On Ctrl-C or SIGTERM it takes no new clients and gives running sessions the drain timeout.

{}",
        exit::HELP
    )
}

/// See it work: a relay, a host and a client on this machine, and an address to try yourself.
#[derive(Debug, Args)]
#[command(after_help = demo_help())]
pub(crate) struct DemoArgs {
    /// End after the first round trip instead of waiting for Ctrl-C
    #[arg(long)]
    pub(crate) once: bool,
}

fn demo_help() -> String {
    format!(
        "\
Examples:
  relayserver demo             stays until Ctrl-C, with a page to open and an echo to type to
  relayserver demo --once      one round trip, and exit code 0 if it came back whole

{}",
        exit::HELP
    )
}

/// How much to log, and in which form.
#[derive(Debug, Args)]
pub(crate) struct Logging {
    /// Log more; twice: everything (RUST_LOG, where it is set, decides instead)
    #[arg(short, long, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Log for people (text) or for programs (json: an object a line)
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text, hide_possible_values = true)]
    pub(crate) log_format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text)
        .map_err(|_| "expected a time with its unit, like 500ms, 5s or 2m".to_owned())
}

pub(crate) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text) {
        Ok(Duration::ZERO) => Err("expected a time beyond 0, like 12h or 30d".to_owned()),
        read => read,
    }
}

/// A name or an address, with a port or without one, which is 0 then.
pub(crate) fn public_address(text: &str) -> Result<HostPort, String> {
    let address = HostPort::parse_with_default(text, 0).map_err(|_| {
        "expected the relay's public name or address, like relay.example.com".to_owned()
    })?;
    let is_everywhere =
        address.host.parse::<IpAddr>().is_ok_and(|it| it.to_canonical().is_unspecified());
    if is_everywhere || text.ends_with(":0") {
        return Err("expected an address that hosts can dial, like relay.example.com".to_owned());
    }
    Ok(address)
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..) => Ok(count),
        _ => Err("expected a number from 1".to_owned()),
    }
}

fn ip(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "expected an address like 0.0.0.0, 192.0.2.7 or ::".to_owned())
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "expected an address with a port, like 0.0.0.0:8000 or [::]:8000".to_owned())
}

/// Where the relay is: a join line, which is a secret, or a name.
#[derive(Clone)]
pub(crate) enum RelayArg {
    Join(String),
    Name(String),
}

impl RelayArg {
    pub(crate) fn join_line(&self) -> Option<&str> {
        match self {
            RelayArg::Join(line) => Some(line),
            RelayArg::Name(_) => None,
        }
    }

    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            RelayArg::Name(name) => Some(name),
            RelayArg::Join(_) => None,
        }
    }
}

impl fmt::Debug for RelayArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().unwrap_or("***"))
    }
}

/// What looks like a join line, or like a part of one, is not read here: what is wrong with an argument is shown with it.
fn relay(text: &str) -> Result<RelayArg, String> {
    if text.starts_with("relayserver") && text.contains(':') || text.contains("rls_") {
        return Ok(RelayArg::Join(text.to_owned()));
    }
    relay_name(text).map(RelayArg::Name)
}

/// A name or an address, and no port.
fn relay_name(text: &str) -> Result<String, String> {
    let wrong = |detail| format!("expected a name or an address{detail}");
    // No port may be 0, so this one stands for none.
    match HostPort::parse_with_default(text, 0) {
        Ok(HostPort { port: 0, host }) => Ok(host),
        Err(_) if !text.contains(':') || text.contains('/') => Err(wrong("")),
        Ok(_) | Err(_) => Err(wrong(" without a port, which comes after it: RELAY DPORT CPORT")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_originals_positionals_and_defaults_hold() {
        let Subcommand::Relay(relay) = parse("relayserver relay 1 2 3").unwrap().subcommand else {
            panic!("expected relay");
        };
        assert_eq!((relay.hosts_port, relay.command_port, relay.clients_port), (1, 2, 3));
        let Subcommand::Host(host) = parse("relayserver server").unwrap().subcommand else {
            panic!("expected host");
        };
        assert!(host.relay.is_none());
        assert_eq!((host.hosts_port, host.command_port, host.pool_size), (8000, 8001, 10));
    }

    #[test]
    fn a_host_serves_one_target() {
        assert!(parse("relayserver host --echo --forward 22").is_err());
        assert!(parse("relayserver host --exec").is_err());
        assert!(parse("relayserver host r 1 2 -- cat").is_err());
        assert!(parse("relayserver host r 1 2 -n 3 --exec -- cat -u").is_ok());
    }

    #[test]
    fn a_relay_is_a_name_or_an_address() {
        for (text, host) in
            [("relay.example.com", "relay.example.com"), ("::1", "::1"), ("[::1]", "::1")]
        {
            assert_eq!(relay_name(text).as_deref(), Ok(host));
        }
        assert_eq!(relay_name("fe80::1%eth0").as_deref(), Ok("fe80::1%eth0"));
        for text in ["", "a b", "http://relay", "me@relay", "relay:8000", "[::1]:8000", "relay:0"] {
            assert!(relay_name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert!(duration("5").is_err());
        assert!(duration("soon").is_err());
    }
}
