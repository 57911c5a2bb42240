//! Logs: to standard error, for people or as JSON, in colour only on a terminal that wants it.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::args::{LogFormat, Logging};

/// Sets up logging for the process. `RUST_LOG`, where it is set, decides over `-v`.
pub(crate) fn init(logging: &Logging) {
    let level = match logging.verbose {
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let filter = EnvFilter::builder().with_default_directive(level.into()).from_env_lossy();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false)
        // Else a closed standard error makes the subscriber complain to standard error.
        .log_internal_errors(false);
    match logging.log_format {
        LogFormat::Text => subscriber.with_ansi(wants_colour(&io::stderr())).init(),
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
}

/// Whether `stream` is a terminal whose user did not refuse colour.
pub(crate) fn wants_colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
