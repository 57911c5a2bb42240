//! How the command ends: exit codes, and the one line on standard error that says why.

use std::io::{self, Write};
use std::process::{ExitCode, Termination};

/// The exit codes, as every help text lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All was done, or the drain is over.
    Success,
    /// Something failed; a line on standard error says what.
    Failure,
    /// The command line is wrong.
    Usage,
    /// The relay will not have this host, and waiting cannot mend it.
    Refused,
    /// A signal of this number cut it short: the second one, where the first asks for a drain.
    Signal(u8),
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        match self {
            Exit::Success => ExitCode::SUCCESS,
            Exit::Failure => ExitCode::FAILURE,
            Exit::Usage => ExitCode::from(2),
            // EX_NOPERM of sysexits.h.
            Exit::Refused => ExitCode::from(77),
            Exit::Signal(number) => ExitCode::from(128_u8.saturating_add(number)),
        }
    }
}

/// What every help text says about them.
pub(crate) const HELP: &str = "Exit codes: 0 after all was done or drained, 1 when something failed, 2 for a wrong command \
                               line, 77 when the relay will not have this host for good (host), 130 or 143 when Ctrl-C or SIGTERM cut it short (relay and host: the second one).";

/// Prints what clap found, or the help that was asked for.
pub(crate) fn usage(error: &clap::Error) -> Exit {
    // A closed pipe on the other end is no concern of ours.
    let _printed = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Success }
}

/// Says what failed.
pub(crate) fn failure(message: &str) -> Exit {
    say(message);
    Exit::Failure
}

/// Says what is wrong with a file, a line for each error, which begins with the file's name.
pub(crate) fn failed_check(message: &str) -> Exit {
    let _printed = writeln!(io::stderr(), "{message}");
    Exit::Failure
}

/// Says why the relay will not have this host.
pub(crate) fn refused(message: &str) -> Exit {
    say(message);
    Exit::Refused
}

fn say(message: &str) {
    let _printed = writeln!(io::stderr(), "relayserver: {message}");
}

/// Prints what was asked for. A reader that has gone is no concern of ours.
pub(crate) fn print(text: &str) -> Exit {
    let mut stdout = io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            failure(&format!("cannot print: {error}"))
        }
        _ => Exit::Success,
    }
}
