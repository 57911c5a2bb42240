//! `relayserver bench`: the server at the far end, the loads, and what they have measured.

mod figures;
#[cfg(target_os = "linux")]
mod link;
mod load;
pub(crate) mod server;

use std::io;

use crate::args::{Bench, LoadArgs};
use crate::descriptors;
use crate::exit::{self, Exit};
use crate::signals::Signals;
use figures::Figures;

/// Does what the command line says.
pub(crate) async fn run(what: Bench) -> Exit {
    descriptors::raise_limit();
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return exit::failure(&format!("cannot listen for signals: {error}")),
    };
    let done = tokio::select! {
        biased;
        number = signals.next() => return Exit::Signal(number),
        done = act(what) => done,
    };
    done.unwrap_or_else(|error| exit::failure(&format!("the benchmark did not work: {error}")))
}

async fn act(what: Bench) -> io::Result<Exit> {
    let (figures, load) = match what {
        Bench::Server { listen } => return server::run(listen).await,
        #[cfg(target_os = "linux")]
        Bench::Link(args) => return link::run(&args).await,
        Bench::Idle { to, connections } => return load::idle(to, connections).await,
        Bench::Bulk { load, connections } => (load::bulk(&load, connections).await?, load),
        Bench::Requests { load, connections, size } => {
            (load::requests(&load, connections, size).await?, load)
        }
        Bench::Sessions { load, at_a_time, size } => {
            (load::sessions(&load, at_a_time, size).await?, load)
        }
        Bench::FirstByte { load, at_once: None } => (load::first_byte(&load).await?, load),
        Bench::FirstByte { load, at_once: Some(count) } => {
            (load::first_bytes_at_once(&load, count).await?, load)
        }
        Bench::Fetch { load, size } => (load::fetch(&load, size).await?, load),
    };
    Ok(print(&figures, &load))
}

fn print(figures: &Figures, load: &LoadArgs) -> Exit {
    let printed = match load.json {
        true => exit::print(&format!("{}\n", figures.json())),
        false => exit::print(&figures.to_string()),
    };
    match printed {
        Exit::Success if figures.is_nothing() => exit::failure("nothing came back"),
        printed => printed,
    }
}
