//! `relayserver host`: what the command line and the configuration file say becomes a listener, and it serves.

use std::convert::Infallible;
use std::future::Future;
use std::path::Path;
use std::task::Poll;
use std::time::Duration;

use relayserver::{Builder, Error, Join, JoinError, Listener, Status};
use relayserver_config::HostFile;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::args::{HostArgs, LogFormat, RelayArg};
use crate::check::has_services;
use crate::exit::{self, Exit};
use crate::operator::read_text;
use crate::signals::Leaving;
use crate::targets::Targets;
use crate::watch::Watch;

/// How long the tasks of aborted sessions may take to drop what they hold.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

/// What a host is to be.
pub(crate) struct Host {
    builder: Builder,
    targets: Targets,
    /// The relay, for the log: its address, and no secret.
    relay: String,
    /// Whether a person is told where clients connect; programs read it in the log.
    says_where: bool,
}

impl Host {
    /// What the command line says, and the files that it names.
    pub(crate) fn of(args: &HostArgs) -> Result<Host, String> {
        let file = args.config.as_deref().map(read_host_file).transpose()?;
        let targets = match &file {
            Some(file) => {
                let name = args.config.clone().unwrap_or_default().display().to_string();
                has_services(&name, file.services.len(), "forward")?;
                Targets::of_file(file)?
            }
            None => Targets::of_flags(args)?,
        };
        let (builder, relay) = match join(args, file.as_ref())? {
            Some(join) => {
                let relay = join.addresses().join(", ");
                (Listener::join(join), relay)
            }
            None => {
                let relay = args.relay.as_ref().and_then(RelayArg::name).unwrap_or("localhost");
                (Listener::builder(relay), relay.to_owned())
            }
        };
        let builder = builder.hosts_port(args.hosts_port).command_port(args.command_port);
        let says_where = args.logging.log_format == LogFormat::Text;
        Ok(Host { builder: targets.add_to(builder), targets, relay, says_where })
    }

    /// Whether sessions run programs.
    pub(crate) fn runs_programs(&self) -> bool {
        self.targets.runs_programs()
    }
}

/// The join line: from the argument, a file, the configuration, or the environment. `None`: there is none.
fn join(args: &HostArgs, file: Option<&HostFile>) -> Result<Option<Join>, String> {
    let wrong = |error: JoinError| error.to_string();
    if let Some(line) = args.relay.as_ref().and_then(RelayArg::join_line) {
        return line.parse().map(Some).map_err(wrong);
    }
    if let Some(path) = &args.join_file {
        return Join::from_file(path).map(Some).map_err(wrong);
    }
    if let Some(secret) = file.and_then(|file| file.join.as_ref()) {
        let found = secret.resolve().map_err(|error| format!("join: {error}"))?;
        if let Some(warning) = found.warning() {
            warn!(%warning, "the join line is no secret here");
        }
        return found.expose().parse().map(Some).map_err(wrong);
    }
    if args.relay.is_some() {
        return Ok(None);
    }
    match Join::from_env() {
        Err(JoinError::NotSet) => Ok(None),
        found => found.map(Some).map_err(|error| format!("RELAYSERVER_JOIN: {error}")),
    }
}

fn read_host_file(path: &Path) -> Result<HostFile, String> {
    let text = read_text(path)?;
    HostFile::parse(&text, &path.display().to_string()).map_err(|errors| errors.to_string())
}

/// Runs a host until it is told to leave, or its relay will not have it.
pub(crate) async fn run(host: Host, drain_timeout: Duration, until_stdin_closes: bool) -> Exit {
    let Host { builder, targets, relay, says_where } = host;
    info!(relay, target = %targets, "host started");
    let mut leaving = match Leaving::new(until_stdin_closes) {
        Ok(leaving) => leaving,
        Err(error) => return exit::failure(&format!("cannot listen for signals: {error}")),
    };
    let listening = async {
        let (builder, watches) = look(builder, targets.watches()).await;
        builder.listen().await.map(|listener| (listener, watches))
    };
    let (listener, watches) = tokio::select! {
        biased;
        // There is nothing to drain yet.
        () = leaving.asked() => return Exit::Success,
        listening = listening => match listening {
            Ok(listening) => listening,
            Err(error) => return failed(&error),
        },
    };
    let saying = says_where.then(|| tokio::spawn(say_where(listener.status(), targets.clone())));
    let serving = async {
        let served = tokio::select! {
            served = listener.serve(targets) => served,
            never = watch(watches, &listener) => match never {},
        };
        finish(&listener, drain_timeout).await;
        match served {
            Ok(()) => Exit::Success,
            Err(error) => failed(&error),
        }
    };
    let (drain, abort) = (|| listener.close(), || listener.abort());
    let exit = leaving.drain_on_signal(serving, drain, abort).await;
    if let Some(saying) = saying {
        saying.abort();
    }
    exit
}

/// Looks at each server for the first time, before anybody is given to this host. Gives them with whether they were well.
async fn look(mut builder: Builder, watches: Vec<Watch>) -> (Builder, Vec<(Watch, bool)>) {
    let mut looked = Vec::new();
    for watch in watches {
        let is_well = watch.is_well().await;
        if !is_well {
            builder = builder.unavailable(watch.service());
        }
        looked.push((watch, is_well));
    }
    (builder, looked)
}

/// Looks after all of them, at the same time.
async fn watch(watches: Vec<(Watch, bool)>, listener: &Listener) -> Infallible {
    let mut running: Vec<_> = watches
        .into_iter()
        .map(|(watch, was_well)| Box::pin(watch.run(listener, was_well)))
        .collect();
    std::future::poll_fn(|cx| {
        for watch in &mut running {
            let _never_ready = watch.as_mut().poll(cx);
        }
        Poll::Pending
    })
    .await
}

/// Says where clients connect, whenever that is another place than before.
async fn say_where(mut status: relayserver::StatusWatch, targets: Targets) {
    let mut said = String::new();
    let mut now = Some(status.get());
    while let Some(current) = now {
        if let Status::Ready { services } = current {
            let text = targets.reachable(&services);
            if text != said {
                exit::print(&text);
                said = text;
            }
        }
        now = status.changed().await;
    }
}

/// Why there is no listener any more, and whether waiting could mend it.
fn failed(error: &Error) -> Exit {
    match error {
        Error::Refused { .. } | Error::Untrusted { .. } if error.is_permanent() => {
            exit::refused(&error.to_string())
        }
        _ => exit::failure(&error.to_string()),
    }
}

/// Waits for the sessions that run, up to the drain timeout; then they are reset, so that no client takes half an answer for
/// a whole one.
async fn finish(listener: &Listener, drain_timeout: Duration) {
    let sessions = listener.sessions_open();
    if sessions > 0 {
        info!(sessions, timeout = ?drain_timeout, "draining: waiting for sessions to end");
    }
    if timeout(drain_timeout, listener.drain()).await.is_err() {
        let sessions = listener.sessions_open();
        info!(sessions, "drain timeout: ending the sessions that are left");
        listener.abort();
        // They end at once: nothing but a drop is left to do.
        let _ended = timeout(ABORT_TIMEOUT, listener.drain()).await;
    }
    info!("host ended");
}
