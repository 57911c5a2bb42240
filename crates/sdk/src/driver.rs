//! Performs what the keeper decides: one task a listener, which starts the tasks of channels, hears from them, and tells the
//! world how it stands.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use relayserver_core::Time;
use relayserver_core::keeper::{Action, Chance, EarlyOpens, Failure, Keeper};
use relayserver_transport::{DialError, DialErrorKind, HostPort};
use relayserver_wire::command::Announcement;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;
use tracing::{debug, info, warn};

use crate::events::DropReason;
use crate::session::Session;
use crate::shared::Shared;
use crate::status::Status;
use crate::{Error, SessionId, channel, command};

/// How many reports may wait for the driver, which never waits for anybody.
const REPORTS_MAX: usize = 256;

/// What the tasks of channels tell the driver.
pub(crate) enum Report {
    CommandUp,
    CommandFailed(Trouble),
    CommandLost(Trouble),
    Announced(Announcement),
    /// A channel is idle; `opener` tells its task that a client was assigned.
    ChannelAnswered {
        channel_id: i32,
        clients: String,
        opener: oneshot::Sender<()>,
    },
    ChannelFailed(Trouble),
    ChannelOpened {
        channel_id: i32,
    },
    ChannelLost {
        channel_id: i32,
        life: Duration,
    },
}

/// What went wrong with a connection to the relay.
#[derive(Debug)]
pub(crate) struct Trouble {
    failure: Failure,
    /// Whether what answered is no relay, which waiting cannot mend.
    not_a_relay: bool,
    message: String,
}

/// Keeps one host in its relay's pool until it leaves.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    keeper: Keeper,
    early_opens: EarlyOpens,
    /// The idle channels.
    openers: HashMap<i32, oneshot::Sender<()>>,
    /// Until it leaves.
    sessions: Option<mpsc::Sender<Session>>,
    reports: mpsc::Receiver<Report>,
    reporter: mpsc::Sender<Report>,
    /// Hears of trouble that waiting cannot mend, until the relay has accepted this host once.
    hopeless: Option<oneshot::Sender<Error>>,
    clients: String,
    last_error: Option<String>,
    /// How long the wait is that was decided on last.
    next_try: Duration,
    started: Instant,
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        sessions: mpsc::Sender<Session>,
        hopeless: oneshot::Sender<Error>,
    ) -> Driver {
        let (reporter, reports) = mpsc::channel(REPORTS_MAX);
        Driver {
            keeper: Keeper::new(shared.config.pool_size),
            shared,
            early_opens: EarlyOpens::default(),
            openers: HashMap::new(),
            sessions: Some(sessions),
            reports,
            reporter,
            hopeless: Some(hopeless),
            clients: String::new(),
            last_error: None,
            next_try: Duration::ZERO,
            started: Instant::now(),
        }
    }

    /// Drives until the listener has left and its last session has gone.
    pub(crate) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let _command_ends_with_the_driver = shared.over.clone().drop_guard();
        loop {
            self.keeper.set_unaccepted(shared.unaccepted.load(Ordering::Acquire));
            self.act();
            self.publish();
            let wake =
                self.keeper.poll_timeout(self.now()).map(|due| self.started + due.since_start());
            tokio::select! {
                () = shared.leaving.cancelled() => break,
                Some(report) = self.reports.recv() => self.take(report),
                () = shared.accepted.notified() => {}
                () = wait_until(wake) => {}
            }
        }
        self.leave().await;
    }

    /// Closes what is idle, and stays for the sessions: the relay takes a host without a command channel for lost.
    async fn leave(mut self) {
        let shared = Arc::clone(&self.shared);
        shared.status.send_replace(Status::Draining);
        self.keeper.leave();
        self.openers.clear();
        // Once the channels' tasks have ended too, the queue has an end: what is in it is still accepted.
        self.sessions = None;
        let mut sessions = shared.sessions.subscribe();
        loop {
            tokio::select! {
                // The sender lives in `shared`, so this ends with the last session.
                _gone = sessions.wait_for(|sessions| *sessions == 0) => break,
                Some(report) = self.reports.recv() => {
                    if let Report::Announced(announcement) = report {
                        self.announced(announcement);
                    }
                }
            }
        }
        shared.status.send_replace(Status::Closed);
    }

    fn now(&self) -> Time {
        Time::from_start(self.started.elapsed())
    }

    fn act(&mut self) {
        let Some(sessions) = self.sessions.clone() else { return };
        while let Some(action) = self.keeper.poll(self.now()) {
            let (shared, reporter) = (Arc::clone(&self.shared), self.reporter.clone());
            match action {
                Action::DialCommand => tokio::spawn(command::run(shared, reporter)),
                Action::DialChannel => {
                    tokio::spawn(channel::run(shared, reporter, sessions.clone()))
                }
            };
        }
    }

    fn take(&mut self, report: Report) {
        let (now, chance) = (self.now(), Chance(fastrand::u32(..)));
        match report {
            Report::CommandUp => self.keeper.command_up(),
            Report::CommandFailed(trouble) => {
                self.keeper.command_failed(now, trouble.failure, chance);
                self.troubled(trouble);
            }
            Report::CommandLost(trouble) => {
                self.keeper.command_lost(now, chance);
                self.troubled(trouble);
            }
            Report::Announced(announcement) => self.announced(announcement),
            Report::ChannelAnswered { channel_id, clients, opener } => {
                self.keeper.channel_answered();
                self.clients = clients;
                if self.early_opens.take(channel_id) {
                    // Its task is there: it has just reported.
                    let _told = opener.send(());
                } else {
                    self.openers.insert(channel_id, opener);
                }
            }
            Report::ChannelFailed(trouble) => {
                self.keeper.channel_failed(now, trouble.failure, chance);
                self.troubled(trouble);
            }
            Report::ChannelOpened { channel_id } => {
                self.openers.remove(&channel_id);
                self.keeper.channel_opened();
            }
            Report::ChannelLost { channel_id, life } => {
                debug!(channel.id = channel_id, ?life, "idle channel lost");
                self.openers.remove(&channel_id);
                self.keeper.channel_lost(now, life, chance);
            }
        }
        if !self.keeper.is_dialling() {
            self.early_opens.clear();
        }
    }

    fn announced(&mut self, announcement: Announcement) {
        match announcement {
            Announcement::Open { channel_id } => match self.openers.remove(&channel_id) {
                // A task that is gone has reported why.
                Some(opener) => drop(opener.send(())),
                None => self.early_opens.remember(channel_id),
            },
            Announcement::Drop { channel_id } => {
                self.shared.session_dropped(SessionId(channel_id), DropReason::ClientLeft);
            }
            Announcement::Unknown { message_type } => {
                debug!(message_type, "unknown announcement ignored");
            }
        }
    }

    /// Something went wrong: says so where it is news.
    fn troubled(&mut self, trouble: Trouble) {
        let Trouble { message, not_a_relay, .. } = trouble;
        if not_a_relay && let Some(hopeless) = self.hopeless.take() {
            let address = self.shared.config.hosts.to_string();
            // Whoever was waiting for the listener may have stopped.
            let _told = hopeless.send(Error::NotARelay { address, detail: message.clone() });
        }
        let now = self.now();
        self.next_try = self.keeper.poll_timeout(now).map_or(Duration::ZERO, |due| due - now);
        if self.last_error.as_ref() != Some(&message) {
            let next_try_ms = self.next_try.as_millis();
            warn!(error = message, next_try_ms, "no way to the relay, trying again");
        }
        self.last_error = Some(message);
    }

    /// Sets the status, where it is another.
    fn publish(&mut self) {
        let status = if self.keeper.is_ready() {
            self.hopeless = None;
            self.last_error = None;
            Status::Ready { clients: self.clients.clone() }
        } else {
            let waiting = self.keeper.poll_timeout(self.now()).is_some();
            let next_try = waiting.then_some(self.next_try);
            Status::Connecting { last_error: self.last_error.clone(), next_try }
        };
        let is_ready = matches!(status, Status::Ready { .. });
        let was_ready = matches!(*self.shared.status.borrow(), Status::Ready { .. });
        if is_ready && !was_ready {
            info!(relay = %self.shared.config.hosts, clients = self.clients, "host ready");
        }
        self.shared.status.send_if_modified(|current| {
            let modified = *current != status;
            *current = status;
            modified
        });
    }
}

async fn wait_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}

impl Trouble {
    pub(crate) fn other(message: String) -> Trouble {
        Trouble { failure: Failure::Refused, not_a_relay: false, message }
    }

    pub(crate) fn not_a_relay(detail: impl fmt::Display) -> Trouble {
        Trouble { failure: Failure::Refused, not_a_relay: true, message: detail.to_string() }
    }

    /// Says where it happened.
    pub(crate) fn at(self, address: &HostPort) -> Trouble {
        Trouble { message: format!("{address}: {}", self.message), ..self }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                Trouble::other("the relay closed the connection without an answer".to_owned())
            }
            _ => Trouble::other(error.to_string()),
        }
    }
}

impl From<DialError> for Trouble {
    fn from(error: DialError) -> Trouble {
        let failure = match error.kind {
            DialErrorKind::TimedOut | DialErrorKind::Unreachable => Failure::Unreachable,
            DialErrorKind::Refused | DialErrorKind::NameNotResolved | DialErrorKind::Other => {
                Failure::Refused
            }
        };
        Trouble { failure, not_a_relay: false, message: error.to_string() }
    }
}
