//! The command `relayserver`: reads the command line, sets up logging, runs one subcommand, and turns its outcome into an
//! exit code. What the subcommands do lives in the crates; here is only how a person meets it.

mod args;
mod bench;
mod check;
mod demo;
mod descriptors;
mod exit;
mod explain;
mod host;
mod key;
mod logging;
mod operator;
mod relay;
mod signals;
mod status;
mod targets;
mod token;
mod watch;

use std::time::Duration;

use clap::Parser;
use relayserver_splice::lanes;
use tokio::runtime::{Builder, Runtime};

use args::{Cli, Subcommand};
use exit::Exit;

/// How long what still runs at the end may take to be dropped. It is done at once, or it is stuck.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> Exit {
    let _running = tikv_jemalloc_ctl::background_thread::write(true);
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    let runtime = match Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::failure(&format!("cannot start: {error}")),
    };
    // On a single core there is nothing to choose.
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let moves = matches!(cli.subcommand, Subcommand::Relay(_) | Subcommand::Host(_)) && cores > 1;
    let lanes = match lanes::open(if moves { cores } else { 0 }) {
        Ok(lanes) => lanes,
        Err(error) => return exit::failure(&format!("cannot start: {error}")),
    };
    let outcome = match cli.subcommand {
        Subcommand::Relay(args) => {
            logging::init(&args.logging);
            run(&runtime, relay::run(args))
        }
        Subcommand::Host(args) => {
            logging::init(&args.logging);
            match host::Host::of(&args) {
                Ok(host) => {
                    // Programs that it runs would have the limit too, and some of them use `select`.
                    if !host.runs_programs() {
                        descriptors::raise_limit();
                    }
                    run(&runtime, host::run(host, args.drain_timeout, args.until_stdin_closes))
                }
                Err(message) => exit::failure(&message),
            }
        }
        Subcommand::Demo(args) => runtime.block_on(demo::run(args)),
        Subcommand::Token(args) => token::run(&args),
        Subcommand::Key(args) => key::run(&args),
        Subcommand::Check(args) => check::run(&args),
        Subcommand::Explain(args) => explain::run(args),
        Subcommand::Status(args) => status::run(&args),
        Subcommand::Bench(args) => run(&runtime, bench::run(args.what)),
    };
    // What tasks hold is dropped, and programs that they run end with it. A blocking read of standard input cannot be ended, and
    // does not hold up the exit for longer.
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    drop(lanes);
    outcome
}

/// Runs it on the runtime's own threads. What this thread waits for itself has to wake it each time, and there is one more to take turns.
fn run(runtime: &Runtime, what: impl Future<Output = Exit> + Send + 'static) -> Exit {
    match runtime.block_on(runtime.spawn(what)) {
        Ok(exit) => exit,
        // It has said why where it panicked.
        Err(_) => Exit::Failure,
    }
}
