//! Connects each session to a server that listens somewhere.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use relayserver_splice::{Counts, Failure, Path, Splice, Until, lanes};
use relayserver_transport::{HostPort, Stream, acknowledged, dial};
use thiserror::Error;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::leg_name;
use crate::session::leg;
use crate::{Handler, Session};

/// How long the server may take to accept. It is near, or it is down.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);

/// How often a server is tried whose queue of connections is full.
#[cfg(unix)]
const QUEUE_RETRY: Duration = Duration::from_millis(10);

/// For how long the word that a session is accepted waits for the server's first bytes. A server near by that is asked has answered by
/// then; who sends much waits no longer than that for its next bytes to be asked for.
const WORD_HELD_MAX: Duration = Duration::from_millis(1);

/// Connects each session to a server, when the session opens.
///
/// Reads from text: `22` (a port of this machine), `host:port`, or `unix:/path`. A session whose server cannot be reached is
/// rejected, and the next one tries again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward(Target);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Tcp(HostPort),
    #[cfg(unix)]
    Unix(std::path::PathBuf),
}

/// A text names no server.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected a port, host:port or unix:/path, got {0:?}")]
pub struct TargetError(String);

impl Forward {
    /// Connects to the server, and closes again: whether it can be reached.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn reach(&self) -> io::Result<()> {
        self.0.connect().await.map(drop)
    }
}

impl Handler for Forward {
    /// # Errors
    /// The server cannot be reached; the session is rejected then.
    async fn handle(&self, mut session: Session) -> io::Result<()> {
        let server = match self.0.connect().await {
            Ok(stream) => Server { stream, in_order: false },
            Err(error) => {
                let id = session.id();
                warn!(session.id = id.session(), channel.id = id.channel(), target = %self, %error, "server cannot be reached");
                session.reject("target_unreachable");
                return Err(error);
            }
        };
        session.accept_held().await?;
        let splice = Splice::new(Path::Auto);
        Forwarding { session, server, splice, counts: Counts::default() }.run().await
    }
}

/// A session whose server was reached.
struct Forwarding {
    session: Session,
    server: Server,
    splice: Splice,
    counts: Counts,
}

impl Forwarding {
    async fn run(mut self) -> io::Result<()> {
        let until = lanes::until();
        let ran = match timeout(WORD_HELD_MAX, self.serve(until)).await {
            Ok(ran) => ran,
            Err(_elapsed) => {
                self.push();
                self.serve(until).await
            }
        };
        self.push();
        match ran {
            Ok(Until::Busy(_)) => Box::pin(self.change_lane()).await,
            ran => {
                Box::pin(self.end(ran)).await;
                Ok(())
            }
        }
    }

    /// Sends the word that the session is accepted, unless the server's first bytes have taken it along.
    fn push(&mut self) {
        let sent = self.counts.to_client.load(Ordering::Relaxed);
        self.session.note_sent(usize::try_from(sent).unwrap_or(usize::MAX));
        self.session.push();
    }

    /// Goes on where a busy session is best served. There it ends when this is dropped, too.
    async fn change_lane(mut self) -> io::Result<()> {
        let lane = lanes::quietest().filter(|lane| {
            let _entered = lane.enter();
            // Where one does not move it goes on here, and the other there.
            self.session.move_here().and_then(|()| self.server.stream.move_here()).is_ok()
        });
        let rest = async move {
            let ran = self.serve(Until::End).await;
            self.end(ran).await;
        };
        match lane {
            Some(lane) => AbortOnDropHandle::new(lane.spawn(rest)).await.map_err(io::Error::other),
            None => {
                rest.await;
                Ok(())
            }
        }
    }

    async fn serve(&mut self, until: Until) -> Result<Until, Failure> {
        loop {
            // It may turn into a plain connection meanwhile.
            let until = if self.session.may_go_bare() { Until::Woken } else { until };
            let mut lent = None;
            let (client, host) = (self.session.leg(&mut lent), leg(&mut self.server.stream));
            match self.splice.run_until(until, client, host, &self.counts, &mut |_| {}).await? {
                Until::Woken => {}
                over => return Ok(over),
            }
        }
    }

    async fn end(self, ran: Result<Until, Failure>) {
        let Forwarding { mut session, mut server, .. } = self;
        match ran {
            Ok(_) => {
                // A reader may take longer over the last bytes than the kernel gives a connection that was closed.
                // And one that is gone is given up by the kernel.
                session.acknowledged().await;
                drop(session);
                acknowledged(server.stream.tcp()).await;
                server.in_order = true;
            }
            Err(Failure { side, operation, error }) => {
                let id = session.id();
                debug!(session.id = id.session(), channel.id = id.channel(), leg = leg_name(side), ?operation, %error, "leg failed");
                // An abort on one leg is an abort on the other.
                session.reset();
            }
        }
    }
}

/// A connection to the server. It ends with a reset, unless both sides have ended in order: also where the serving is cut
/// short, so that the server does not take half a request for a whole one.
struct Server {
    stream: Stream,
    in_order: bool,
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.in_order {
            self.stream.reset_on_close();
        }
    }
}

impl Target {
    async fn connect(&self) -> io::Result<Stream> {
        match self {
            Target::Tcp(address) => {
                let dialled = dial(address, DIAL_TIMEOUT).await;
                dialled.map(Stream::Tcp).map_err(io::Error::other)
            }
            #[cfg(unix)]
            Target::Unix(path) => {
                timeout(DIAL_TIMEOUT, connect_unix(path)).await?.map(Stream::Unix)
            }
        }
    }
}

/// Connects once there is room for it: unlike with TCP, a server that is behind with accepting has everybody told so at once.
#[cfg(unix)]
async fn connect_unix(path: &std::path::Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(QUEUE_RETRY).await,
            connected => return connected,
        }
    }
}

impl FromStr for Forward {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Forward, TargetError> {
        #[cfg(unix)]
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Forward(Target::Unix(path.into())));
        }
        let port = text.parse::<u16>().ok().filter(|port| *port != 0);
        let address = match port {
            Some(port) => Ok(HostPort { host: "127.0.0.1".to_owned(), port }),
            None => text.parse(),
        };
        address
            .map(|address| Forward(Target::Tcp(address)))
            .map_err(|_| TargetError(text.to_owned()))
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Target::Tcp(address) => address.fmt(f),
            #[cfg(unix)]
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_read_and_print() {
        for (text, printed) in [
            ("22", "127.0.0.1:22"),
            ("db.local:5432", "db.local:5432"),
            ("[::1]:22", "[::1]:22"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
        ] {
            assert_eq!(text.parse::<Forward>().unwrap().to_string(), printed);
        }
        for text in ["", "0", "65536", "host", "unix:", "http://x:1"] {
            assert!(text.parse::<Forward>().is_err(), "{text:?}");
        }
    }
}
