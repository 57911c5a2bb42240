//! A simulation of the whole: `scripts/simulate` runs it. See `world.rs` for what is in it, and `history.rs` for what happens there.

#[cfg(simulation)]
mod checks;
#[cfg(simulation)]
mod clients;
#[cfg(simulation)]
mod history;
#[cfg(simulation)]
mod hosts;
#[cfg(simulation)]
mod ledger;
#[cfg(simulation)]
mod world;

#[cfg(not(simulation))]
fn main() -> std::process::ExitCode {
    // Of a usual build nothing is simulated.
    std::process::ExitCode::FAILURE
}

/// `simulation FIRST_SEED COUNT`: lives each seed's history, and ends with the first that breaks a rule.
#[cfg(simulation)]
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a program for people")]
fn main() -> std::process::ExitCode {
    let mut numbers = std::env::args().skip(1).map(|word| word.parse::<u64>());
    let (Some(Ok(first)), Some(Ok(count))) = (numbers.next(), numbers.next()) else {
        eprintln!("expected the first seed and how many");
        return std::process::ExitCode::from(2);
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .with_timer(WorldTime)
        .init();
    let mut total = checks::Summary::default();
    for seed in first..first.saturating_add(count) {
        match history::live(seed) {
            Ok(summary) => total.add(&summary),
            Err(broken) => {
                eprintln!("seed {seed}: {broken}\nreplay it: scripts/simulate --seed {seed}");
                return std::process::ExitCode::FAILURE;
            }
        }
        // Two lives of one seed are one: else a failure could not be replayed.
        if seed == first && history::live(seed).map(|again| again.trace) != Ok(total.trace) {
            eprintln!("seed {seed} is not the same when it is lived again");
            return std::process::ExitCode::FAILURE;
        }
    }
    println!("{count} seeds from {first}: {total}");
    std::process::ExitCode::SUCCESS
}

/// The time of the world, in what is logged.
#[cfg(simulation)]
struct WorldTime;

#[cfg(simulation)]
impl tracing_subscriber::fmt::time::FormatTime for WorldTime {
    fn format_time(
        &self,
        writer: &mut tracing_subscriber::fmt::format::Writer<'_>,
    ) -> std::fmt::Result {
        // What is logged as the network drops what it held is not timed: the network is in use.
        let now = relayserver_transport::net::simulated::now();
        write!(writer, "{:>10.3}", now.unwrap_or_default().as_secs_f64())
    }
}
