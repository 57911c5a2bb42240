//! Performs what the keeper decides: one task a listener, which starts the tasks of channels, hears from them, and tells the
//! world how it stands.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use relayserver_core::Time;
use relayserver_core::keeper::{Output, PoolIndex, Slot};
use relayserver_wire::command::Announcement;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{debug, info, warn};

use crate::channel::Open;
use crate::channels::State;
use crate::complaints::Complaints;
use crate::events::DropReason;
use crate::report::{CommandReport, CommandReporter, Hopeless, Report, Trouble};
use crate::session::Session;
use crate::shared::{PoolState, Shared};
use crate::status::{Served, Status, listed};
use crate::{Error, SessionId, channel, command, network};

/// How many reports may wait for the driver, which never waits for anybody.
const REPORTS_MAX: usize = 256;

/// How many announcements may wait for a command channel: one for each service every two seconds, as long as a relay that does
/// not read is borne: ten seconds. What does not fit is said again later.
const ANNOUNCEMENTS_MAX: usize = 320;

/// Keeps one host in its relay's pool until it leaves.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    /// The number of the command channel that there is, or that was dialled last.
    command: u64,
    /// By which it is told what to say.
    announcements: Option<mpsc::Sender<Announcement>>,
    /// Its task, and that of the one before whose relay is leaving: its sessions need it. They end when these are dropped.
    command_task: Option<AbortOnDropHandle<()>>,
    left_task: Option<AbortOnDropHandle<()>>,
    /// The tasks of channels, with the sessions that they serve.
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
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        sessions: mpsc::Sender<Session>,
        hopeless: oneshot::Sender<Error>,
    ) -> Driver {
        let (reporter, reports) = mpsc::channel(REPORTS_MAX);
        Driver {
            command: 0,
            announcements: None,
            command_task: None,
            left_task: None,
            shared,
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
        }
    }

    /// Drives until the listener has left and its last session has gone.
    pub(crate) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let _command_ends_with_the_driver = shared.over.clone().drop_guard();
        let (mut pools, mut changes) = (shared.pools.subscribe(), shared.network.subscribe());
        self.pause(&pools.borrow_and_update());
        let mut network = std::pin::pin!(network::watch(&shared.network));
        self.state().keeper.handle_timeout(self.now());
        let mut reports = Vec::new();
        loop {
            self.perform();
            self.publish();
            let due = self.state().keeper.poll_timeout();
            let wake = due.map(|due| shared.channels.started + due.since_start());
            tokio::select! {
                () = shared.leaving.cancelled() => break,
                // What has come together is answered together.
                1.. = self.reports.recv_many(&mut reports, REPORTS_MAX) => {
                    reports.drain(..).for_each(|report| self.take(report));
                }
                () = shared.channels.due.notified() => {}
                () = shared.accepted.notified() => {}
                () = wait_until(wake) => self.state().keeper.handle_timeout(self.now()),
                Ok(()) = pools.changed() => {
                    self.pause(&pools.borrow_and_update());
                }
                Ok(()) = changes.changed() => self.state().keeper.handle_return(self.now()),
                () = &mut network => {}
            }
            let unaccepted = shared.unaccepted.load(Ordering::Acquire);
            self.state().keeper.handle_backlog(self.now(), unaccepted);
        }
        self.leave().await;
    }

    /// Closes what is idle, and stays for the sessions: the relay takes a host without a command channel for lost.
    async fn leave(mut self) {
        let shared = Arc::clone(&self.shared);
        shared.status.send_replace(Status::Draining);
        self.state().keeper.handle_drain();
        self.perform();
        shared.channels.publish(&self.state());
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
            self.state().keeper.handle_paused(self.now(), index, !pool.is_available);
        }
    }

    fn now(&self) -> Time {
        self.shared.channels.now()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.channels.lock()
    }

    fn perform(&mut self) {
        loop {
            let output = self.state().keeper.poll_output();
            let Some(output) = output else { return };
            let (shared, reporter) = (Arc::clone(&self.shared), self.reporter.clone());
            match output {
                Output::DialCommand => {
                    self.command += 1;
                    let reporter = CommandReporter { number: self.command, reports: reporter };
                    let (announcements, queue) = mpsc::channel(ANNOUNCEMENTS_MAX);
                    let task = tokio::spawn(command::run(shared, reporter, queue));
                    self.announcements = Some(announcements);
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
                    let verdict = self.state().take_verdict(slot);
                    if let Some(verdict) = verdict {
                        let _told = verdict.send(Open);
                    }
                }
                Output::Close(slot) => drop(self.state().take_verdict(slot)),
                Output::Surplus(pool, idle) => self.say_surplus(pool, idle),
            }
        }
    }

    /// Has the relay close so many idle channels.
    fn say_surplus(&self, pool: PoolIndex, idle: usize) {
        let Some(service) = self.shared.link.services().get(pool).cloned() else { return };
        debug!(service, idle, "idle channels are too many");
        let idle = u32::try_from(idle).unwrap_or(u32::MAX);
        let announcement = Announcement::PoolSurplus { service, idle };
        // Where it does not fit they stay too many, and it is said again.
        let _queued = self.announcements.as_ref().map(|queue| queue.try_send(announcement));
    }

    /// What a channel's task works with; `None` when the listener is leaving.
    fn channel(&mut self, slot: Slot) -> Option<channel::Task> {
        let sessions = self.sessions.clone()?;
        let verdict = self.shared.channels.enter(slot);
        let (shared, reports) = (Arc::clone(&self.shared), self.reporter.clone());
        Some(channel::Task { slot, shared, reports, sessions, verdict })
    }

    fn take(&mut self, report: Report) {
        let now = self.now();
        let was_ready = self.state().keeper.is_ready();
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
                let service = self.shared.link.services().first().cloned().unwrap_or_default();
                self.served = vec![Served { service, clients: Some(clients) }];
                self.state().keeper.handle_answered(now, slot, channel_id);
            }
            Report::ChannelFailed(slot, trouble) => {
                drop(self.state().take_verdict(slot));
                self.state().keeper.handle_failed(now, slot, trouble.failure);
                self.troubled(was_ready, false, trouble);
            }
            Report::ChannelOpened(slot) => {
                drop(self.state().take_verdict(slot));
                self.state().keeper.handle_first_byte(now, slot);
            }
            Report::ChannelEnded(slot) => self.state().keeper.handle_ended(now, slot),
            Report::ChannelLost(slot) => {
                drop(self.state().take_verdict(slot));
                self.state().keeper.handle_lost(now, slot);
            }
        }
    }

    /// The command channel has something to tell.
    fn of_command(&mut self, now: Time, was_ready: bool, report: CommandReport) {
        match report {
            CommandReport::Up => self.state().keeper.handle_command_up(now),
            CommandReport::Answered { services } => {
                self.served = services;
                self.hopeless_in_a_row = 0;
                self.state().keeper.handle_command_answered(now);
            }
            CommandReport::Silence => {
                warn!(relay = %self.shared.link.hosts(), "relay not heard of for too long, connecting anew");
                self.state().keeper.handle_silence(now);
            }
            CommandReport::Original { stream, answer } => {
                // Where no channel is wanted it is closed, as any idle channel may be.
                let slot = self.state().keeper.handle_adopted(now, answer.channel_id);
                if let Some(slot) = slot
                    && let Some(task) = self.channel(slot)
                {
                    self.tasks.spawn(task.adopt(stream, answer));
                }
            }
            CommandReport::Failed(trouble) => {
                self.state().keeper.handle_command_failed(now, trouble.failure);
                self.troubled(was_ready, true, trouble);
            }
            CommandReport::Lost(trouble) => {
                self.state().keeper.handle_command_lost(now);
                self.troubled(was_ready, true, trouble);
            }
            CommandReport::Announced(announcement) => self.announced(announcement),
        }
    }

    fn announced(&mut self, announcement: Announcement) {
        match announcement {
            Announcement::Open { channel_id } => {
                self.state().keeper.handle_announced(self.now(), channel_id);
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
                self.state().keeper.handle_relay_leaving(self.now(), pause);
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
                    self.state().keeper.handle_wanted(self.now(), index, idle);
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
            self.state().keeper.handle_pause(now, pause);
        }
        let next_try = self.state().keeper.next_try();
        self.next_try = next_try.map_or(Duration::ZERO, |due| due - now);
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
        if !was_ready && self.state().keeper.is_arriving(self.now()) {
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
        let is_ready = self.state().keeper.is_ready();
        match (was_ready, is_ready) {
            (true, false) => warn!(error, ?next_try, "relay lost, trying again"),
            (true, true) => warn!(error, ?next_try, "no further channel, trying again"),
            (false, _) => warn!(error, ?next_try, "no way to the relay, trying again"),
        }
    }

    /// Sets the status, where it is another, and says which channels are to come back.
    fn publish(&mut self) {
        self.shared.channels.publish(&self.state());
        let status = if self.state().keeper.is_ready() {
            self.hopeless = None;
            self.last_error = None;
            Status::Ready { services: self.served.clone() }
        } else {
            let waiting = self.state().keeper.next_try().is_some_and(|due| due > self.now());
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
