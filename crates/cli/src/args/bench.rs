//! The flags of `relayserver bench`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{count, positive_duration, socket_address};
use crate::exit;

/// Measure a relay, or whatever else connections go through: the server at the far end, and the load.
#[derive(Debug, Args)]
#[command(after_help = bench_help())]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) what: Bench,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Run the server that the load talks to
    Server {
        /// Where to listen
        #[arg(value_name = "ADDR", default_value = "127.0.0.1:8080", value_parser = socket_address)]
        listen: SocketAddr,
    },
    /// Receive as fast as it comes
    Bulk {
        #[command(flatten)]
        load: LoadArgs,
        /// On how many connections
        #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = count)]
        connections: usize,
    },
    /// Send a request, wait for its answer, and again
    Requests {
        #[command(flatten)]
        load: LoadArgs,
        /// On how many connections
        #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = count)]
        connections: usize,
        /// How many bytes a request has, and its answer
        #[arg(short, long, value_name = "BYTES", default_value_t = 64, value_parser = count)]
        size: usize,
    },
    /// Connect, send some bytes, receive them, close, and again
    Sessions {
        #[command(flatten)]
        load: LoadArgs,
        /// How many at a time
        #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = count)]
        at_a_time: usize,
        /// How many bytes each sends at once, and receives
        #[arg(short, long, value_name = "BYTES", default_value_t = 64, value_parser = count)]
        size: usize,
    },
    /// Connect, and see when the first byte is back: one after the other, or all at once
    FirstByte {
        #[command(flatten)]
        load: LoadArgs,
        /// How many at once; none: one after the other, with a pause of 20 ms
        #[arg(long, value_name = "N", value_parser = count)]
        at_once: Option<usize>,
    },
    /// Receive so many bytes on a fresh connection, and again
    Fetch {
        #[command(flatten)]
        load: LoadArgs,
        /// How many bytes
        #[arg(short, long, value_name = "BYTES", default_value_t = 100_000, value_parser = count)]
        size: usize,
    },
    /// Carry packets between two TUN devices, standard input and standard output, as a long line does
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    Link(LinkArgs),
    /// Open connections on which nothing happens, say so, and close them when standard input ends
    Idle {
        /// Where to connect: where a relay listens for clients
        #[arg(value_name = "ADDR", value_parser = socket_address)]
        to: SocketAddr,
        /// How many
        #[arg(short, long, value_name = "N", default_value_t = 1000, value_parser = count)]
        connections: usize,
    },
}

/// What a long line is like. It is the same in both directions.
#[cfg(target_os = "linux")]
#[derive(Clone, Debug, Args)]
pub(crate) struct LinkArgs {
    /// How long a packet is under way
    #[arg(long, value_name = "TIME", default_value = "25ms", value_parser = positive_duration)]
    pub(crate) delay: Duration,

    /// How many megabits a second it carries
    #[arg(long, value_name = "MBIT", default_value_t = 100.0, value_parser = megabits)]
    pub(crate) mbit: f64,

    /// How many packets of a hundred are lost
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = percent)]
    pub(crate) loss: f64,

    /// How many bytes may wait for the line
    #[arg(long, value_name = "BYTES", default_value_t = 512 * 1024, value_parser = count)]
    pub(crate) queue: usize,

    /// Which packets are lost, of those that may be
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
}

#[cfg(target_os = "linux")]
fn megabits(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=1e6).contains(&rate) => Ok(rate),
        _ => Err("expected megabits a second, like 100 or 0.5".to_owned()),
    }
}

#[cfg(target_os = "linux")]
fn percent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(percent) if (0.0..100.0).contains(&percent) => Ok(percent),
        _ => Err("expected a part of a hundred, like 1 or 0.5".to_owned()),
    }
}

/// What all loads have.
#[derive(Clone, Debug, Args)]
pub(crate) struct LoadArgs {
    /// Where to connect: where a relay listens for clients
    #[arg(value_name = "ADDR", value_parser = socket_address)]
    pub(crate) to: SocketAddr,

    /// For how long. What is done all at once takes what it takes
    #[arg(short, long, value_name = "TIME", default_value = "3s", value_parser = positive_duration)]
    pub(crate) time: Duration,

    /// Count the processor time of these processes too (Linux)
    #[arg(long, value_name = "PID,…", value_delimiter = ',')]
    pub(crate) cpu_of: Vec<u32>,

    /// Print the figures as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn bench_help() -> String {
    format!(
        "\
Examples:
  relayserver bench server 127.0.0.1:8080
          what the load talks to
  relayserver host --forward 8080
          puts it on the air through the relay on this machine
  relayserver bench requests 127.0.0.1:8002 --connections 64
          64 clients that send 64 bytes and wait for them

What is measured includes the load and the server, which take their part of the machine.
`bench/run` in the source compares with other programs.

{}",
        exit::HELP
    )
}
