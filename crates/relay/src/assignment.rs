//! The book of `relayserver-core` under its lock, and the performing of what it decides. An assignment is one call in
//! here: no task stands between a client and its channel.
//!
//! Outputs are performed under the lock, in order, so announcements to a host go out in the order of the decisions.
//! Performing never waits: everything is a send into a bounded queue or a one-shot.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use relayserver_core::record::Header;
use relayserver_core::{
    Announcement, Assignment, Book, ChannelId, ChannelKey, CommandId, Grant, GrantId, Handles,
    HostId, Input, Membership, Occupancy, Output, Phase, Reason, ServiceName, SessionId, Time,
};
use relayserver_transport::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tracing::{debug, info};

use crate::clock::sleep_until;
use crate::config::Config;
use crate::counts::{Counts, count};
use crate::offer::Held;
use crate::record::Recorder;
use crate::snapshot::Snapshot;
use crate::traffic::{Carried, Traffic};

mod guards;

pub(crate) use guards::{ChannelGuard, CommandGuard, SessionGuard};

/// How the book reaches what stands in it.
pub(crate) struct Reach;

impl Handles for Reach {
    type Command = CommandHandle;
    type Channel = oneshot::Sender<Box<Start>>;
    type Client = WaitingClient;
    type Stop = oneshot::Sender<Stop>;
}

/// Reaches the task of a command channel.
#[derive(Clone)]
pub(crate) struct CommandHandle {
    pub(crate) announcements: mpsc::Sender<Announcement>,
    /// Notified when the queue of announcements is full: the host does not read them.
    pub(crate) overflow: Arc<Notify>,
    /// Set when the book did not take it.
    pub(crate) refusal: Arc<OnceLock<Reason>>,
}

/// Reaches the task of a client that waits.
pub(crate) struct WaitingClient {
    pub(crate) service: ServiceName,
    pub(crate) verdict: oneshot::Sender<Verdict>,
}

/// What becomes of a client.
pub(crate) enum Verdict {
    /// It goes to the task of this channel.
    Assigned(Assignment, oneshot::Sender<Box<Start>>),
    /// It is closed.
    Refused(Reason),
}

/// What the book asks of an assigned session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// To end.
    End(Reason),
    /// To give its client back, as its host has not accepted it.
    Withdraw(Reason),
}

/// All that a channel's task needs to run a session. It travels in a box, which a channel that waits has no room for.
pub(crate) struct Start {
    pub(crate) assignment: Assignment,
    pub(crate) client: TcpStream,
    pub(crate) client_addr: SocketAddr,
    /// Its reset was noticed while it waited, so that its socket reports an end now and no error any more.
    pub(crate) client_was_reset: bool,
    /// What was read of it for a host that did not accept it.
    pub(crate) held: Held,
    /// What the book asks.
    pub(crate) stop: oneshot::Receiver<Stop>,
    /// Reports the session's end when dropped.
    pub(crate) guard: SessionGuard,
}

/// The book, shared by all tasks of one relay.
pub(crate) struct Assignments {
    started: Instant,
    /// What the sessions carry.
    pub(crate) traffic: Arc<Traffic>,
    state: Mutex<State>,
    /// Notified when the book's next timeout has come nearer.
    timeout_nearer: Notify,
    /// Notified when the last session has ended.
    no_session: Notify,
}

struct State {
    book: Book<Reach>,
    recorder: Option<Recorder>,
    next_command: u64,
    counts: Counts,
}

impl Assignments {
    /// An empty book with `config`'s limits.
    pub(crate) fn new(config: &Config) -> std::io::Result<Assignments> {
        let first = ChannelId::new(fastrand::i32(1..)).unwrap_or(ChannelId::MAX);
        let header = Header { limits: config.limits, policy: config.policy(), first };
        let recorder = match &config.record {
            Some(path) => Some(Recorder::create(path, &header)?),
            None => None,
        };
        let book = Book::new(header.limits, header.policy, first);
        Ok(Assignments {
            started: Instant::now(),
            traffic: Arc::default(),
            state: Mutex::new(State { book, recorder, next_command: 0, counts: Counts::default() }),
            timeout_nearer: Notify::new(),
            no_session: Notify::new(),
        })
    }

    /// Enters a command channel of `host`, with what makes it a member if it is of version 2. It leaves the book when the guard is
    /// dropped.
    pub(crate) fn command_up(
        self: &Arc<Self>,
        host: HostId,
        membership: Option<Membership>,
        handle: CommandHandle,
    ) -> CommandGuard {
        let mut state = self.lock();
        let command = CommandId(state.next_command);
        state.next_command += 1;
        self.drive(&mut state, Input::CommandUp { command, host, membership, handle });
        CommandGuard { assignments: Arc::clone(self), command }
    }

    /// Names a data channel of `host`. It leaves the book when the guard is dropped, unless a session has it by then.
    pub(crate) fn reserve_channel(
        self: &Arc<Self>,
        host: HostId,
        service: ServiceName,
        key: Option<ChannelKey>,
    ) -> Result<ChannelGuard, Reason> {
        let input = Input::ReserveChannel { host, service, key };
        let reserved = self.drive(&mut self.lock(), input);
        let channel = reserved.unwrap_or(Err(Reason::ChannelLimit))?;
        Ok(ChannelGuard { assignments: Arc::clone(self), channel, is_assigned: false })
    }

    /// Puts a channel into the pool.
    pub(crate) fn channel_idle(&self, channel: ChannelId, handle: oneshot::Sender<Box<Start>>) {
        self.drive(&mut self.lock(), Input::ChannelIdle { channel, handle });
    }

    /// Puts the channel of a session that has ended in order back into the pool, where it is taken back. It leaves the book when the guard
    /// is dropped, unless another session has it by then.
    pub(crate) fn channel_returned(
        self: &Arc<Self>,
        of: &Assignment,
        handle: oneshot::Sender<Box<Start>>,
    ) -> ChannelGuard {
        self.drive(&mut self.lock(), Input::ChannelReturned { session: of.session, handle });
        ChannelGuard { assignments: Arc::clone(self), channel: of.channel, is_assigned: false }
    }

    /// Enters a client. It leaves the book, and its session ends there, when the guard is dropped.
    pub(crate) fn client_arrived(
        self: &Arc<Self>,
        client: WaitingClient,
        stop: oneshot::Sender<Stop>,
    ) -> SessionGuard {
        let session = SessionId(fastrand::u128(..));
        let service = client.service.clone();
        let input = Input::ClientArrived { session, service, client, stop };
        self.drive(&mut self.lock(), input);
        SessionGuard { assignments: Arc::clone(self), session, has_ended: false }
    }

    /// Enters a client again that a host has not accepted.
    pub(crate) fn offer_failed(
        &self,
        session: SessionId,
        reason: Reason,
        client: WaitingClient,
        stop: oneshot::Sender<Stop>,
    ) {
        self.drive(&mut self.lock(), Input::OfferFailed { session, reason, client, stop });
    }

    /// Tells that the host has accepted the session; `false` where that comes too late. `stop` is what reaches it from now on.
    pub(crate) fn accepted(&self, session: SessionId, stop: &mut oneshot::Receiver<Stop>) -> bool {
        let (handle, next_stop) = oneshot::channel();
        let mut state = self.lock();
        let was_withdrawn = state.book.phase(session) == Some(Phase::Withdrawn);
        self.drive(&mut state, Input::Accepted { session, stop: handle });
        let is_accepted = is_accepted(&state.book, session);
        if was_withdrawn && is_accepted {
            *stop = next_stop;
        }
        is_accepted
    }

    pub(crate) fn client_finished(&self, session: SessionId) {
        self.drive(&mut self.lock(), Input::ClientFinished { session });
    }

    pub(crate) fn host_finished(&self, session: SessionId) {
        self.drive(&mut self.lock(), Input::HostFinished { session });
    }

    /// A grant was made or changed, or, where there are no terms, ended.
    pub(crate) fn grant_changed(&self, grant: GrantId, terms: Option<Grant>) {
        self.drive(&mut self.lock(), Input::GrantChanged { grant, terms });
    }

    /// The first of `services` that may not be served under `grant`.
    pub(crate) fn refused_service<'a>(
        &self,
        grant: Option<&GrantId>,
        services: impl IntoIterator<Item = &'a ServiceName>,
    ) -> Option<&'a ServiceName> {
        let (state, now) = (self.lock(), self.now());
        let mut services = services.into_iter();
        services.find(|service| state.book.refusal_of_service(now, grant, service).is_some())
    }

    /// The time as the book is told it.
    pub(crate) fn now(&self) -> Time {
        Time::from_start(self.started.elapsed())
    }

    /// No new clients and channels from now on.
    pub(crate) fn drain(&self) {
        self.drive(&mut self.lock(), Input::Drain);
    }

    /// Ends every session.
    pub(crate) fn end_all(&self, reason: Reason) {
        self.drive(&mut self.lock(), Input::EndAll { reason });
    }

    /// Hands what was recorded to the file: the process may end before this is dropped.
    pub(crate) fn flush_recording(&self) {
        if let Some(recorder) = &mut self.lock().recorder {
            recorder.flush();
        }
    }

    /// A connection on a port of hosts was taken for what it asked to be.
    pub(crate) fn count_taken_host(&self) {
        self.lock().counts.taken_hosts += 1;
    }

    /// A connection on a port of hosts was refused.
    pub(crate) fn count_refused_host(&self, reason: Reason) {
        count(&mut self.lock().counts.refused_hosts, reason);
    }

    /// What the relay is doing now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let Carried { to_host, to_client } = self.traffic.carried();
        let state = self.lock();
        let book = state.book.snapshot();
        let mut counts = state.counts.clone();
        (counts.bytes_to_host, counts.bytes_to_client) = (to_host, to_client);
        Snapshot { uptime: self.started.elapsed(), book, counts }
    }

    pub(crate) fn occupancy(&self) -> Occupancy {
        self.lock().book.occupancy()
    }

    /// How many sessions run.
    pub(crate) fn sessions(&self) -> usize {
        self.lock().book.sessions()
    }

    /// Resolves when no session runs.
    pub(crate) async fn no_session(&self) {
        loop {
            let notified = self.no_session.notified();
            if self.sessions() == 0 {
                return;
            }
            notified.await;
        }
    }

    /// Tells the book of time passing, when it is due. Runs for as long as the relay.
    pub(crate) async fn keep_time(&self) {
        loop {
            let nearer = self.timeout_nearer.notified();
            let due = self.lock().book.poll_timeout();
            // One beyond all clocks is none.
            let due = due.and_then(|due| self.started.checked_add(due.since_start()));
            tokio::select! {
                () = nearer => {}
                () = sleep_until(due) => {
                    self.drive(&mut self.lock(), Input::TimePassed);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the book, and performs what it decides. Gives the answer to [`Input::ReserveChannel`].
    fn drive(&self, state: &mut State, input: Input<Reach>) -> Option<Result<ChannelId, Reason>> {
        let now = Time::from_start(self.started.elapsed());
        let due_before = state.book.poll_timeout();
        if let Some(recorder) = &mut state.recorder {
            recorder.input(now, &input);
        }
        let ends_session = matches!(input, Input::SessionEnded { .. });
        let (opens, ends) = (unaccepted(&state.book, &input), ended_by(&state.book, &input));
        state.book.handle(now, input);
        let mut reserved = None;
        while let Some(output) = state.book.poll_output() {
            if let Some(recorder) = &mut state.recorder {
                recorder.output(now, &output);
            }
            match output {
                Output::Reserved { channel } => reserved = Some(Ok(channel)),
                Output::ReserveRefused { reason } => reserved = Some(Err(reason)),
                output => {
                    count_output(&mut state.counts, &output);
                    perform(output);
                }
            }
        }
        let due = state.book.poll_timeout();
        if due.is_some_and(|due| due_before.is_none_or(|before| due < before)) {
            self.timeout_nearer.notify_one();
        }
        if let Some((session, service)) = opens
            && (ends_session || is_accepted(&state.book, session))
        {
            state.counts.service(&service).opened += 1;
        }
        if let Some((service, reason)) = ends {
            count(&mut state.counts.service(&service).ended, reason);
        }
        if ends_session && state.book.sessions() == 0 {
            self.no_session.notify_waiters();
        }
        reserved
    }
}

/// The session that no host has accepted yet, with its service, and that a host may accept by `input`, or that ends.
fn unaccepted(book: &Book<Reach>, input: &Input<Reach>) -> Option<(SessionId, ServiceName)> {
    let (Input::Accepted { session, .. } | Input::SessionEnded { session, .. }) = input else {
        return None;
    };
    let is_unaccepted = matches!(book.phase(*session)?, Phase::Offered | Phase::Withdrawn);
    book.service_of(*session).filter(|_| is_unaccepted).map(|it| (*session, it.clone()))
}

/// Whether a host serves it.
fn is_accepted(book: &Book<Reach>, session: SessionId) -> bool {
    !matches!(book.phase(session), None | Some(Phase::Waiting | Phase::Offered | Phase::Withdrawn))
}

/// The service of the session that ends by `input`, and why. Of one that the book does not know, or that waits, this is late news.
fn ended_by(book: &Book<Reach>, input: &Input<Reach>) -> Option<(ServiceName, Reason)> {
    let Input::SessionEnded { session, end } = input else { return None };
    let runs = book.phase(*session).is_some_and(|phase| phase != Phase::Waiting);
    book.service_of(*session).filter(|_| runs).map(|service| (service.clone(), end.reason))
}

fn count_output(counts: &mut Counts, output: &Output<Reach>) {
    match output {
        Output::Refused { reason, client, .. } => {
            count(&mut counts.service(&client.service).refused_clients, *reason);
        }
        Output::Assigned { assignment: Assignment { service, waited, is_offer, .. }, .. } => {
            let counts = counts.service(service);
            counts.waits.add(*waited);
            counts.opened += u64::from(!is_offer);
        }
        _ => {}
    }
}

fn perform(output: Output<Reach>) {
    match output {
        // Answered by `drive` itself.
        Output::Reserved { .. } | Output::ReserveRefused { .. } => {}
        Output::CommandTaken { command: _ } => {}
        Output::HostJoined { host } => info!(host.id = %host, "host joined"),
        Output::HostLeft { host } => info!(host.id = %host, "host left"),
        // Without its handle the command channel's task ends.
        Output::CloseCommand { handle, reason } => {
            let _first = handle.refusal.set(reason);
        }
        // A receiver that is gone drops what it was sent, and with it the other side's handle: each side's task
        // finds out and reports for itself.
        Output::Assigned { assignment, client, channel_handle } => {
            drop(client.verdict.send(Verdict::Assigned(assignment, channel_handle)));
        }
        Output::Announce { command: _, to, announcement } => {
            if let Err(mpsc::error::TrySendError::Full(_)) = to.announcements.try_send(announcement)
            {
                to.overflow.notify_one();
            }
        }
        Output::Refused { session: _, reason, client } => {
            drop(client.verdict.send(Verdict::Refused(reason)));
        }
        Output::CloseChannel { channel, reason, handle } => {
            debug!(channel.id = %channel, %reason, "idle channel closed");
            drop(handle);
        }
        Output::Withdraw { session: _, reason, stop } => drop(stop.send(Stop::Withdraw(reason))),
        Output::EndSession { session: _, reason, stop } => drop(stop.send(Stop::End(reason))),
    }
}
