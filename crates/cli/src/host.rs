//! `relayserver host`.

use std::time::Duration;

use relayserver::handlers::{Echo, Exec};
use relayserver::{Handler, Listener};
use tokio::time::timeout;
use tracing::info;

use crate::args::HostArgs;
use crate::demo;
use crate::exit::{self, Exit};
use crate::signals::Leaving;

/// How long the tasks of aborted sessions may take to drop what they hold.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs a host until it is told to leave.
pub(crate) async fn run(args: HostArgs) -> Exit {
    if let Some(forward) = args.target.forward.clone() {
        let target = forward.to_string();
        serve(&args, forward, &target).await
    } else if let Some((program, arguments)) = args.command.split_first() {
        let target = program.to_string_lossy();
        serve(&args, Exec::new(program).args(arguments), &target).await
    } else if args.target.demo_target {
        serve(&args, demo::target::serve, "the demo").await
    } else {
        serve(&args, Echo, "echo").await
    }
}

async fn serve(args: &HostArgs, handler: impl Handler, target: &str) -> Exit {
    let builder = Listener::builder(args.relay.as_str())
        .hosts_port(args.hosts_port)
        .command_port(args.command_port)
        .pool_size(args.pool_size);
    info!(relay = args.relay, target, "host started");
    let listening = async {
        match builder.listen().await {
            Ok(listener) => Ok(listener),
            Err(error) => Err(exit::failure(&error.to_string())),
        }
    };
    let mut leaving = match Leaving::new(args.until_stdin_closes) {
        Ok(leaving) => leaving,
        Err(error) => return exit::failure(&format!("cannot listen for signals: {error}")),
    };
    let listener = tokio::select! {
        biased;
        // There is nothing to drain yet.
        () = leaving.asked() => return Exit::Success,
        listening = listening => match listening {
            Ok(listener) => listener,
            Err(exit) => return exit,
        },
    };
    let serving = async {
        if let Err(error) = listener.serve(handler).await {
            return exit::failure(&error.to_string());
        }
        finish(&listener, args.drain_timeout).await;
        Exit::Success
    };
    let (drain, abort) = (|| listener.close(), || listener.abort());
    leaving.drain_on_signal(serving, drain, abort).await
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
