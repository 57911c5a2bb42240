//! Looks after a server behind `--forward`: while it does not answer, the host takes no sessions of its service.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use relayserver::Listener;
use relayserver::handlers::Forward;
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::{debug, info, warn};

/// How long the server may take to accept, where that is less than the time from look to look. It is near, or it is down.
const REACH_TIMEOUT_MAX: Duration = Duration::from_secs(2);

/// One server that is looked after.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    service: String,
    server: Forward,
    every: Duration,
    /// Notified where a session could not be connected to it.
    doubted: Arc<Notify>,
}

impl Watch {
    pub(crate) fn new(service: String, server: Forward, every: Duration) -> Watch {
        Watch { service, server, every, doubted: Arc::default() }
    }

    pub(crate) fn service(&self) -> &str {
        &self.service
    }

    /// A session could not be connected to it: it is looked at now.
    pub(crate) fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Looks once, and says so where it does not answer. Gives whether it does.
    pub(crate) async fn is_well(&self) -> bool {
        let reached = self.reach().await;
        if let Err(error) = &reached {
            self.say_ill(error);
        }
        reached.is_ok()
    }

    /// Looks again and again, and tells `listener` whenever that has changed. It was well when this was last looked at, or not.
    pub(crate) async fn run(self, listener: &Listener, mut was_well: bool) {
        loop {
            // In either case it is time.
            let _elapsed = timeout(self.every, self.doubted.notified()).await;
            let reached = self.reach().await;
            if was_well == reached.is_ok() {
                continue;
            }
            was_well = reached.is_ok();
            match reached {
                Ok(()) => {
                    info!(service = self.service, target = %self.server, "server answers again: taking sessions")
                }
                Err(error) => self.say_ill(&error),
            }
            if let Err(error) = listener.set_available(&self.service, was_well) {
                debug!(service = self.service, %error, "not served");
            }
        }
    }

    async fn reach(&self) -> io::Result<()> {
        let bound = REACH_TIMEOUT_MAX.min(self.every);
        timeout(bound, self.server.reach()).await.unwrap_or_else(|elapsed| Err(elapsed.into()))
    }

    fn say_ill(&self, error: &io::Error) {
        warn!(service = self.service, target = %self.server, %error, "server does not answer: taking no sessions");
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_server_is_well_where_somebody_listens() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let target = server.local_addr().unwrap().to_string().parse().unwrap();
        let watch = Watch::new("web".to_owned(), target, Duration::from_secs(5));
        assert!(watch.is_well().await);
        drop(server);
        assert!(!watch.is_well().await);
    }
}
