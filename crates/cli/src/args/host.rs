//! The flags of `relayserver host`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use relayserver_config::ServiceName;

use super::{Logging, RelayArg, duration, relay};
use crate::exit;
use crate::targets::ForwardArg;

/// Put a server on the air: dial out to a relay, and serve whoever it sends.
#[derive(Debug, Args)]
#[command(after_help = host_help())]
pub(crate) struct HostArgs {
    /// The join line that `relayserver token create` printed, or the name or address of a relay that asks for none [default:
    /// RELAYSERVER_JOIN, else localhost]
    #[arg(value_name = "JOIN|RELAY", value_parser = relay)]
    pub(crate) relay: Option<RelayArg>,

    /// The relay's port for data channels
    #[arg(value_name = "DPORT", default_value_t = 8000, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) hosts_port: u16,

    /// An original relay's port for command channels
    #[arg(value_name = "CPORT", default_value_t = 8001, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) command_port: u16,

    /// The file that the join line is in
    #[arg(long, value_name = "FILE", conflicts_with = "relay")]
    pub(crate) join_file: Option<PathBuf>,

    /// Read what to serve from a file instead of the flags below
    #[arg(long, value_name = "FILE", conflicts_with_all = ["target", "pool_size", "pool_max", "weight", "max_sessions", "check", "service", "command"])]
    pub(crate) config: Option<PathBuf>,

    /// The service that a target without a name is for [default: default]
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<ServiceName>,

    /// How many data channels to keep waiting for the clients of each service at least, 1 to 1000
    #[arg(short = 'n', long = "pool-size", value_name = "N", default_value_t = 10, value_parser = pool_size)]
    pub(crate) pool_size: usize,

    /// How many are dialled at most, however many the relay asks for, which goes by how clients arrive [default: 256, or N if that is more]
    #[arg(long, value_name = "N", value_parser = pool_size)]
    pub(crate) pool_max: Option<usize>,

    /// This host's share of the sessions beside other hosts: one of twice the weight gets twice as many, 1 to 10000
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) weight: u32,

    /// How many sessions to take at once [default: any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_sessions: Option<u32>,

    /// Connect to the servers of --forward every so often, 1s to 1h, and take no sessions for one that does not answer
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "5s", value_parser = check_interval, requires = "forward")]
    pub(crate) check: Option<Duration>,

    #[command(flatten)]
    pub(crate) target: TargetArgs,

    /// How long running sessions get when the host leaves
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) drain_timeout: Duration,

    #[command(flatten)]
    pub(crate) logging: Logging,

    /// Leave when standard input ends, as on SIGTERM
    #[arg(long, hide = true)]
    pub(crate) until_stdin_closes: bool,

    /// The program that --exec runs, with its arguments
    #[arg(value_name = "CMD", last = true, requires = "exec")]
    pub(crate) command: Vec<std::ffi::OsString>,
}

/// What a session is connected to: one of these.
#[derive(Debug, Args)]
#[group(id = "target", multiple = false)]
pub(crate) struct TargetArgs {
    /// Send every byte back (the default)
    #[arg(long)]
    pub(crate) echo: bool,

    /// Connect each session to this server: 22, 192.0.2.7:22, db.local:5432, unix:/run/app.sock (repeatable, each for its service)
    #[arg(long, value_name = "[SERVICE=]ADDR")]
    pub(crate) forward: Vec<ForwardArg>,

    /// Run a program for each session: its stdin and stdout are the session, its stderr goes to the log
    #[arg(long, requires = "command")]
    pub(crate) exec: bool,

    /// Serve the demo's page and echo
    #[arg(long, hide = true)]
    pub(crate) demo_target: bool,

    /// Serve what `relayserver bench server` serves, without a server behind it
    #[arg(long, hide = true)]
    pub(crate) bench_target: bool,
}

fn host_help() -> String {
    format!(
        "\
Examples:
  relayserver host --join-file join --forward 22
          this machine's ssh, for whoever dials the relay of that join line
  relayserver host --join-file join --forward ssh=22 --forward web=unix:/run/app.sock
          two services
  relayserver host relay.example.com --forward 22
          at a relay that asks for no token
  relayserver host relay.example.com --forward unix:/run/app.sock -n 50
          a server on a Unix socket, with 50 channels waiting
  relayserver host --join-file join --forward 8080 --check
          takes no clients while the server on port 8080 does not answer
  relayserver host relay.example.com --exec -- python3 -u quiz.py
          a program of its own for each client

A relay that cannot be reached is tried again and again, less often as time passes.
On Ctrl-C or SIGTERM it leaves the pool and gives running sessions the drain timeout.

{}",
        exit::HELP
    )
}

fn pool_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size @ 1..=1000) => Ok(size),
        _ => Err("expected a number from 1 to 1000".to_owned()),
    }
}

/// How often a server is looked after.
fn check_interval(text: &str) -> Result<Duration, String> {
    let bounds = Duration::from_secs(1)..=Duration::from_secs(3600);
    duration(text)
        .ok()
        .filter(|interval| bounds.contains(interval))
        .ok_or_else(|| "expected a time from 1s to 1h".to_owned())
}
