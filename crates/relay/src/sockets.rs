//! How the relay sets its sockets up, by what they are used for.

use std::io;
use std::time::Duration;

use relayserver_core::limits;
use relayserver_transport::options::{self, Keepalive};
use tokio::net::TcpStream;
use tracing::debug;

const KEEPALIVE: Keepalive = Keepalive {
    idle: limits::KEEPALIVE_IDLE,
    interval: limits::KEEPALIVE_INTERVAL,
    probes_max: limits::KEEPALIVE_PROBES_MAX,
};

/// For command channels and data channels without a session: what is dead is to be noticed, and NATs kept awake.
pub(crate) fn prepare_waiting(stream: &TcpStream, user_timeout: Duration) {
    log_failure(options::set_keepalive(stream, KEEPALIVE));
    set_user_timeout(stream, Some(user_timeout));
}

/// For a data channel that gets a session: a peer that does not read for as long as it likes is not dead.
pub(crate) fn prepare_session(stream: &TcpStream) {
    set_user_timeout(stream, None);
}

/// For clients: one that has vanished is to be noticed.
pub(crate) fn prepare_client(stream: &TcpStream) {
    log_failure(options::set_keepalive(stream, KEEPALIVE));
}

fn set_user_timeout(stream: &TcpStream, user_timeout: Option<Duration>) {
    log_failure(options::set_user_timeout(stream, user_timeout));
}

/// A socket that takes no options is one whose peer has gone already, which its reader will find out.
fn log_failure(set: io::Result<()>) {
    if let Err(error) = set {
        debug!(%error, "socket option not set");
    }
}
