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
mod threads;
mod token;
mod watch;

use clap::Parser;

use args::{Cli, Subcommand};
use exit::Exit;
use threads::{Threads, Wants};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> Exit {
    let _running = tikv_jemalloc_ctl::background_thread::write(true);
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    let wants = match &cli.subcommand {
        Subcommand::Relay(args) if args.pin_threads => Wants::PinnedLanes,
        Subcommand::Relay(_) | Subcommand::Host(_) => Wants::Lanes,
        _ => Wants::NoLanes,
    };
    let threads = match Threads::start(wants) {
        Ok(threads) => threads,
        Err(message) => return exit::failure(&message),
    };
    let outcome = match cli.subcommand {
        Subcommand::Relay(args) => {
            logging::init(&args.logging);
            threads.run(relay::run(args))
        }
        Subcommand::Host(args) => {
            logging::init(&args.logging);
            match host::Host::of(&args) {
                Ok(host) => {
                    // Programs that it runs would have the limit too, and some of them use `select`.
                    if !host.runs_programs() {
                        descriptors::raise_limit();
                    }
                    threads.run(host::run(host, args.drain_timeout, args.until_stdin_closes))
                }
                Err(message) => exit::failure(&message),
            }
        }
        Subcommand::Demo(args) => threads.runtime().block_on(demo::run(args)),
        Subcommand::Token(args) => token::run(&args),
        Subcommand::Key(args) => key::run(&args),
        Subcommand::Check(args) => check::run(&args),
        Subcommand::Explain(args) => explain::run(args),
        Subcommand::Status(args) => status::run(&args),
        Subcommand::Bench(args) => threads.run(bench::run(args.what)),
    };
    threads.end();
    outcome
}
