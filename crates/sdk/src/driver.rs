//! Performs what the keeper decides: one task a listener, which starts the tasks of channels, hears from them, and tells the
//! world how it stands.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use relayserver_core::Time;
use relayserver_core::keeper::{Keeper, Output, PoolBounds, Slot};
use relayserver_wire::command::Announcement;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{debug, info, warn};

use crate::channel::Open;
use crate::complaints::Complaints;
use crate::events::DropReason;
use crate::report::{CommandReport, CommandReporter, Hopeless, Report, Returned, Trouble};
use crate::session::Session;
use crate::shared::{PoolState, Shared};
use crate::status::{Served, Status, listed};
use crate::{Error, SessionId, channel, command, network};

/// How many reports may wait for the driver, which never waits for anybody.
const REPORTS_MAX: usize = 256;

/// Keeps one host in its relay's pool until it leaves.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    keeper: Keeper,
    /// The number of the command channel that there is, or that was dialled last.
    command: u64,
    /// Its task, and that of the one before whose relay is leaving: its sessions need it. They end when these are dropped.
    command_task: Option<AbortOnDropHandle<()>>,
    left_task: Option<AbortOnDropHandle<()>>,
    /// Reaches the tasks of channels that no session has opened on. Dropping a sender closes the channel.
    channels: HashMap<Slot, oneshot::Sender<Open>>,
    /// Those tasks, until they have handed their sessions on or ended without one.
    tasks: TaskTracker,
    /// Until it leaves.
    sessions: Option<mpsc::Sender<Session>>,
    reports: mpsc::Receiver<Report>,
    reporter: mpsc::Sender<Report>,
    /// Hears of trouble that waiting cannot mend, until the relay has accepted this host once.
    hopeless: Option<oneshot::Sender<Error>>,
    served: Vec<Served>,
    /// How many command channels failed in a way that waiting cannot mend, since one did not.
    hopeless_in_a_row: usize,
    last_error: Option<String>,
    /// What was complained of.
    complaints: Complaints,
    /// How long the wait is that was decided on last.
    next_try: Duration,
    started: Instant,
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        pools: &[PoolBounds],
        sessions: mpsc::Sender<Session>,
        hopeless: oneshot::Sender<Error>,
    ) -> Driver {
        let (reporter, reports) = mpsc::channel(REPORTS_MAX);
        Driver {
            keeper: Keeper::new(pools, Box::new(|| fastrand::u64(..))),
            command: 0,
            command_task: None,
            left_task: None,
            shared,
            channels: HashMap::new(),
            tasks: TaskTracker::new(),
            sessions: Some(sessions),
            reports,
            reporter,
            hopeless: Some(hopeless),
            served: Vec::new(),
            hopeless_in_a_row: 0,
            last_error: None,
            complaints: Complaints::default(),
            next_try: Duration::ZERO,
            started: Instant::now(),
        }
    }

    /// Drives until the listener has left and its last session has gone.
    pub(crate) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let _command_ends_with_the_driver = shared.over.clone().drop_guard();
        let (mut pools, mut changes) = (shared.pools.subscribe(), shared.network.subscribe());
        self.pause(&pools.borrow_and_update());
        let mut network = std::pin::pin!(network::watch(&shared.network));
        self.keeper.handle_timeout(self.now());
        let mut reports = Vec::new();
        loop {
            self.perform();
            self.publish();
            let wake = self.keeper.poll_timeout().map(|due| self.started + due.since_start());
            tokio::select! {
                () = shared.leaving.cancelled() => break,
                // What has come together is answered together.
                1.. = self.reports.recv_many(&mut reports, REPORTS_MAX) => {
                    reports.drain(..).for_each(|report| self.take(report));
                }
                () = shared.accepted.notified() => {}
                () = wait_until(wake) => self.keeper.handle_timeout(self.now()),
                Ok(()) = pools.changed() => {
                    self.pause(&pools.borrow_and_update());
                }
                Ok(()) = changes.changed() => self.keeper.handle_return(self.now()),
                () = &mut network => {}
            }
            let unaccepted = shared.unaccepted.load(Ordering::Acquire);
            self.keeper.handle_backlog(self.now(), unaccepted);
        }
        self.leave().await;
    }

    /// Closes what is idle, and stays for the sessions: the relay takes a host without a command channel for lost.
    async fn leave(mut self) {
        let shared = Arc::clone(&self.shared);
        shared.status.send_replace(Status::Draining);
        self.keeper.handle_drain();
        self.perform();
        shared.wants_back.iter().for_each(|it| it.store(false, Ordering::Relaxed));
        // Once the channels' tasks have ended too, the queue has an end: what is in it is still accepted.
        self.sessions = None;
        self.tasks.close();
        let tasks = self.tasks.clone();
        let mut sessions = shared.sessions.subscribe();
        let mut last_gone = std::pin::pin!(async {
            // A session whose channel was told to open is counted when the channel's task has ended, not before.
            tasks.wait().await;
            // The sender lives in `shared`, so this ends with the last session.
            let _gone = sessions.wait_for(|sessions| *sessions == 0).await;
        });
        loop {
            tokio::select! {
                () = &mut last_gone => break,
                Some(report) = self.reports.recv() => {
                    if let Report::Command(_, CommandReport::Announced(announcement)) = report {
                        self.announced(announcement);
                    }
                }
            }
        }
        shared.status.send_replace(Status::Closed);
    }

    /// Tells the keeper which pools are not to be had for now.
    fn pause(&mut self, pools: &[PoolState]) {
        for (index, pool) in pools.iter().enumerate() {
            self.keeper.handle_paused(self.now(), index, !pool.is_available);
        }
    }

    fn now(&self) -> Time {
        Time::from_start(self.started.elapsed())
    }

    fn perform(&mut self) {
        while let Some(output) = self.keeper.poll_output() {
            let (shared, reporter) = (Arc::clone(&self.shared), self.reporter.clone());
            match output {
                Output::DialCommand => {
                    self.command += 1;
                    let reporter = CommandReporter { number: self.command, reports: reporter };
                    let task = tokio::spawn(command::run(shared, reporter));
                    self.command_task = Some(AbortOnDropHandle::new(task));
                }
                Output::AbandonCommand => self.command_task = None,
                Output::DialChannel(slot, pool) => {
                    if let Some(task) = self.channel(slot) {
                        self.tasks.spawn(task.run(pool));
                    }
                }
                // A task that opened its session already, by the first byte, is not told again.
                Output::Open(slot) => {
                    if let Some(channel) = self.channels.remove(&slot) {
                        let _told = channel.send(Open);
                    }
                }
                Output::Close(slot) => drop(self.channels.remove(&slot)),
            }
        }
    }

    /// What a channel's task works with; `None` when the listener is leaving.
    fn channel(&mut self, slot: Slot) -> Option<channel::Task> {
        let sessions = self.sessions.clone()?;
        let (sender, verdict) = oneshot::channel();
        self.channels.insert(slot, sender);
        let (shared, reports) = (Arc::clone(&self.shared), self.reporter.clone());
        Some(channel::Task { slot, shared, reports, sessions, verdict })
    }

    fn take(&mut self, report: Report) {
        let now = self.now();
        let was_ready = self.keeper.is_ready();
        match report {
            Report::Command(number, report) if number == self.command => {
                self.of_command(now, was_ready, report);
            }
            // That of a relay that is leaving: it tells how the sessions end that run there.
            Report::Command(_, CommandReport::Announced(announcement)) => {
                if let Announcement::SessionEnded { .. } = announcement {
                    self.announced(announcement);
                }
            }
            Report::Command(..) => debug!("an older command channel has ended"),
            Report::ChannelAnswered { slot, channel_id, clients } => {
                if clients.is_some() {
                    let service = self.shared.link.services().first().cloned();
                    self.served = vec![Served { service: service.unwrap_or_default(), clients }];
                }
                self.keeper.handle_answered(now, slot, channel_id);
            }
            Report::ChannelFailed(slot, trouble) => {
                self.channels.remove(&slot);
                self.keeper.handle_failed(now, slot, trouble.failure);
                self.troubled(was_ready, false, trouble);
            }
            Report::ChannelOpened(slot) => {
                self.channels.remove(&slot);
                self.keeper.handle_first_byte(now, slot);
            }
            Report::ChannelEnded(slot) => self.keeper.handle_ended(now, slot),
            Report::ChannelLost(slot) => {
                self.channels.remove(&slot);
                self.keeper.handle_lost(now, slot);
            }
            Report::ChannelReturned(returned) => self.returned(*returned),
        }
    }

    /// Keeps a channel that has carried a session, for another, where it is wanted. The relay takes none back of an earlier command
    /// channel, and one that it was not heard of over for a while may have been another host's to answer on.
    fn returned(&mut self, Returned { mut stream, origin }: Returned) {
        let is_current = origin.keys == self.shared.link.keys() && origin.since.is_unbroken();
        let (pool, id) = (origin.pool, origin.channel_id);
        let slot = is_current.then(|| self.keeper.handle_returned(self.now(), pool, id)).flatten();
        match slot.and_then(|slot| self.channel(slot)) {
            Some(task) => drop(self.tasks.spawn(task.wait_again(stream, origin))),
            // Over TLS, to be dropped alone would be an abort.
            None => stream.end_now(),
        }
    }

    /// The command channel has something to tell.
    fn of_command(&mut self, now: Time, was_ready: bool, report: CommandReport) {
        match report {
            CommandReport::Up => self.keeper.handle_command_up(now),
            CommandReport::Answered { services } => {
                self.served = services;
                self.hopeless_in_a_row = 0;
                self.keeper.handle_command_answered(now);
            }
            CommandReport::Silence => {
                warn!(relay = %self.shared.link.hosts(), "relay not heard of for too long, connecting anew");
                self.keeper.handle_silence(now);
            }
            CommandReport::Original { stream, answer } => {
                // Where no channel is wanted it is closed, as any idle channel may be.
                if let Some(slot) = self.keeper.handle_adopted(now, answer.channel_id)
                    && let Some(task) = self.channel(slot)
                {
                    self.tasks.spawn(task.adopt(stream, answer));
                }
            }
            CommandReport::Failed(trouble) => {
                self.keeper.handle_command_failed(now, trouble.failure);
                self.troubled(was_ready, true, trouble);
            }
            CommandReport::Lost(trouble) => {
                self.keeper.handle_command_lost(now);
                self.troubled(was_ready, true, trouble);
            }
            CommandReport::Announced(announcement) => self.announced(announcement),
        }
    }

    fn announced(&mut self, announcement: Announcement) {
        match announcement {
            Announcement::Open { channel_id } => {
                self.keeper.handle_announced(self.now(), channel_id);
            }
            Announcement::Drop { channel_id } => {
                let id = SessionId::of_channel(channel_id);
                self.shared.session_dropped(id, DropReason::ClientLeft);
            }
            Announcement::SessionEnded { session_id, reason, bytes_to_host, bytes_to_client } => {
                let id = SessionId::of_session(session_id);
                debug!(session.id = %id, end.reason = reason, bytes.to_host = bytes_to_host, bytes.to_client = bytes_to_client, "session ended");
                self.shared.session_ended(id, reason, bytes_to_host, bytes_to_client);
            }
            Announcement::Leaving { reason, retry_after_ms } => {
                let pause = Duration::from_millis(retry_after_ms.unwrap_or_default().into());
                info!(reason, ?pause, "relay is leaving");
                self.keeper.handle_relay_leaving(self.now(), pause);
                self.shared.begin_contact_anew();
                // From now on it tells of the sessions that run there, and of nothing else. Of those that have left, one is kept.
                self.command += 1;
                self.left_task = self.command_task.take();
            }
            Announcement::PoolWanted { service, idle } => {
                let index = self.shared.link.services().iter().position(|it| *it == service);
                if let Some(index) = index {
                    let idle = usize::try_from(idle).unwrap_or(usize::MAX);
                    debug!(service, idle, "idle channels wanted");
                    self.keeper.handle_wanted(self.now(), index, idle);
                }
            }
            Announcement::Unknown { message_type } => {
                debug!(message_type, "unknown announcement ignored");
            }
            of_version_2 => debug!(announcement = ?of_version_2, "announcement ignored"),
        }
    }

    /// Something went wrong: tells the one who waits for the listener where trying again is of no use, and else says so
    /// where it is news. What a relay refuses on the command channel ends a listener that served, too.
    fn troubled(&mut self, was_ready: bool, is_command: bool, trouble: Trouble) {
        let Trouble { message, mut hopeless, retry_after, .. } = trouble;
        let now = self.now();
        // Where a join line names several addresses, one of them is not the last word.
        if is_command && hopeless.is_some() {
            self.hopeless_in_a_row += 1;
            if self.hopeless_in_a_row < self.shared.link.addresses_len() {
                hopeless = None;
            }
        }
        if let Some(pause) = retry_after {
            self.keeper.handle_pause(now, pause);
        }
        self.next_try = self.keeper.next_try().map_or(Duration::ZERO, |due| due - now);
        if let Some(hopeless) = hopeless {
            if let Some(waiting) = self.hopeless.take() {
                // Whoever was waiting for the listener may have stopped.
                drop(waiting.send(hopeless.into()));
            } else if is_command && let Hopeless::Refused { .. } = hopeless {
                warn!(error = message, "the relay will not have this host any more");
                let _first = self.shared.failure.set(hopeless);
                self.shared.leaving.cancel();
            } else {
                self.say(was_ready, &message);
            }
        } else {
            self.say(was_ready, &message);
        }
        self.last_error = Some(message);
    }

    /// Says what went wrong, where it is news.
    fn say(&mut self, was_ready: bool, message: &str) {
        if !was_ready && self.keeper.is_arriving(self.now()) {
            // Of channels that were dialled together one may be refused before another is answered. If it was the last, it will be said
            // of the next.
            return;
        }
        if self.complaints.is_news(message, Instant::now()) {
            self.complain(was_ready, message);
        }
    }

    fn complain(&self, was_ready: bool, error: &str) {
        // To the millisecond, which is as much as anyone wants to read.
        let next_try = self.next_try
            - Duration::from_nanos(u64::from(self.next_try.subsec_nanos() % 1_000_000));
        match (was_ready, self.keeper.is_ready()) {
            (true, false) => warn!(error, ?next_try, "relay lost, trying again"),
            (true, true) => warn!(error, ?next_try, "no further channel, trying again"),
            (false, _) => warn!(error, ?next_try, "no way to the relay, trying again"),
        }
    }

    /// Sets the status, where it is another, and says which channels are to come back.
    fn publish(&mut self) {
        for (pool, wants_back) in self.shared.wants_back.iter().enumerate() {
            wants_back.store(self.keeper.wants_back(pool), Ordering::Relaxed);
        }
        let status = if self.keeper.is_ready() {
            self.hopeless = None;
            self.last_error = None;
            Status::Ready { services: self.served.clone() }
        } else {
            let waiting = self.keeper.next_try().is_some_and(|due| due > self.now());
            let next_try = waiting.then_some(self.next_try);
            Status::Connecting { last_error: self.last_error.clone(), next_try }
        };
        let is_ready = matches!(status, Status::Ready { .. });
        let was_ready = matches!(*self.shared.status.borrow(), Status::Ready { .. });
        if is_ready && !was_ready {
            self.complaints = Complaints::default();
            let clients = listed(&self.served);
            info!(relay = %self.shared.link.hosts(), clients, "host ready");
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
        Some(wake) => sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
