//! What is said on a command channel of version 2 once it is up: announcements and pings go out, pongs come in, and silence is
//! noticed.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use relayserver_core::liveness::{Event, Liveness, Standstill};
use relayserver_core::{Announcement, HostId, Reason, ServiceName, Time, limits};
use relayserver_transport::{ReadHalf, Stream, WriteHalf};
use relayserver_wire::FRAME_MAX;
use relayserver_wire::command::Announcement as Message;
use relayserver_wire::frame::Decoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::assignment::CommandGuard;
use crate::clock::sleep_until;
use crate::command::encode;
use crate::context::Context;
use crate::drain;
use crate::traffic::Watched;

/// How long the news that a session has ended may wait for others, so that many of them cost one write. Nobody acts on it.
const NEWS_INTERVAL: Duration = Duration::from_millis(5);

/// How many announcements go out in one write.
const BATCH_MAX: usize = 256;

/// How many pings and pongs may wait to be written. A host that asks more often than it reads gets fewer answers.
const SIGNS_MAX: usize = 16;

/// What the book has to say to a host.
pub(crate) struct Talk {
    pub(crate) queue: mpsc::Receiver<Announcement>,
    /// Notified when that is full.
    pub(crate) overflow: Arc<Notify>,
    /// Why the book gave the command channel up, where it did.
    pub(crate) refusal: Arc<OnceLock<Reason>>,
}

/// Talks to the host until the channel is to end. Gives why.
pub(crate) async fn run(
    stream: Stream,
    host: HostId,
    guard: &CommandGuard,
    talk: Talk,
    context: &Context,
) -> Reason {
    let Talk { queue, overflow, refusal } = talk;
    let (signs, signs_queue) = mpsc::channel(SIGNS_MAX);
    let (reader, writer) = stream.into_split();
    let mut listener = Listener::new(signs, host, guard, context);
    tokio::select! {
        // What was to be said when the relay is over is said.
        biased;
        () = speak(queue, signs_queue, writer, context) => {
            refusal.get().copied().unwrap_or(Reason::CommandStuck)
        }
        reason = listener.listen(reader) => reason,
        () = overflow.notified() => Reason::CommandStuck,
        () = context.over.cancelled() => Reason::Draining,
    }
}

/// Writes what there is to say until the book drops the queue's other end, or the host does not take it.
async fn speak(
    mut queue: mpsc::Receiver<Announcement>,
    mut signs: mpsc::Receiver<Message>,
    mut writer: WriteHalf,
    context: &Context,
) {
    let mut said_leaving = false;
    let mut batch = Vec::new();
    loop {
        let frames = tokio::select! {
            biased;
            Some(sign) = signs.recv() => sign.encode(),
            more = gather(&mut queue, &mut batch, &context.leaving) => match more {
                true => batch.drain(..).map(encode).collect::<Vec<_>>().concat(),
                false => return,
            },
            () = context.leaving.cancelled(), if !said_leaving => {
                said_leaving = true;
                let retry_after = drain::retry_after(context.assignments.occupancy().hosts);
                leaving(retry_after).encode()
            }
        };
        let writing = async {
            writer.write_all(&frames).await?;
            writer.flush().await
        };
        match timeout(limits::COMMAND_WRITE_TIMEOUT, writing).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// Waits until `batch` has something to announce, and, where all of that are a few ended sessions, a moment for more, unless the relay is
/// `leaving`: the last session's end may be the relay's too. `false` when there will be nothing more.
///
/// Cancel safe: what was taken off the queue is in `batch`.
async fn gather(
    queue: &mut mpsc::Receiver<Announcement>,
    batch: &mut Vec<Announcement>,
    leaving: &CancellationToken,
) -> bool {
    if batch.is_empty() && queue.recv_many(batch, BATCH_MAX).await == 0 {
        return false;
    }
    // Where there is a batch of them already, waiting would let the queue grow.
    if batch.len() < BATCH_MAX && batch.iter().all(|it| matches!(it, Announcement::Ended(..))) {
        let _waited = leaving.run_until_cancelled(sleep(NEWS_INTERVAL)).await;
        while batch.len() < BATCH_MAX
            && let Ok(more) = queue.try_recv()
        {
            batch.push(more);
        }
    }
    true
}

fn leaving(retry_after: Duration) -> Message {
    let retry_after_ms = u32::try_from(retry_after.as_millis()).ok();
    Message::Leaving { reason: Reason::Draining.code().to_owned(), retry_after_ms }
}

/// Hears what a host says, and that it does not.
struct Listener<'a> {
    started: Instant,
    liveness: Liveness,
    signs: mpsc::Sender<Message>,
    nonce: u64,
    /// When the last ping was sent, until its pong has come.
    pinged: Option<Instant>,
    standstill: Standstill,
    /// How often its sessions had brought something when that was last looked at, and when that was.
    arrivals: u64,
    looked: Time,
    watched: Watched,
    guard: &'a CommandGuard,
    decoder: Decoder,
}

impl Listener<'_> {
    fn new<'a>(
        signs: mpsc::Sender<Message>,
        host: HostId,
        guard: &'a CommandGuard,
        context: &'a Context,
    ) -> Listener<'a> {
        let watched = context.assignments.traffic.watch(host);
        Listener {
            started: Instant::now(),
            liveness: Liveness::new(Time::ZERO, context.patience),
            signs,
            nonce: 0,
            pinged: None,
            standstill: Standstill::default(),
            arrivals: watched.arrivals(),
            looked: Time::ZERO,
            watched,
            guard,
            decoder: Decoder::new(FRAME_MAX),
        }
    }

    /// Listens until the host has ended, has said what it must not, or is gone. Gives why.
    async fn listen(&mut self, mut reader: ReadHalf) -> Reason {
        let mut buffer = [0; 1024];
        // How far away it is says how many idle channels it is to keep.
        self.ping();
        loop {
            let due = self.liveness.poll_timeout();
            let wake = due.map(|due| self.standstill.wake_at(due));
            let wake = wake.and_then(|wake| self.started.checked_add(wake.since_start()));
            let heard = tokio::select! {
                biased;
                read = reader.read(&mut buffer) => Some(read),
                () = sleep_until(wake) => None,
            };
            let now = Time::from_start(self.started.elapsed());
            if heard.is_none() && due.is_some_and(|due| self.standstill.explains(now, due)) {
                continue;
            }
            let events = match heard {
                Some(Ok(0) | Err(_)) => return Reason::PeerClosed,
                Some(Ok(_)) => self.liveness.handle_heard_late(now),
                None => match self.arrived_since(now) {
                    // Whatever comes from it on a session is a sign of life too.
                    Some(since) => self.liveness.handle_heard_late(since),
                    None => self.liveness.handle_timeout(now),
                },
            };
            if let Err(reason) = events.into_iter().try_for_each(|event| self.perform(event)) {
                return reason;
            }
            let read = heard.and_then(Result::ok).and_then(|count| buffer.get(..count));
            if let Err(reason) = self.take_in(read.unwrap_or_default()) {
                return reason;
            }
        }
    }

    /// When this was last asked, if something has come on its sessions since. It may have come right then, so that it is all that is
    /// known of when it was heard.
    fn arrived_since(&mut self, now: Time) -> Option<Time> {
        let arrivals = self.watched.arrivals();
        let before = std::mem::replace(&mut self.arrivals, arrivals);
        let looked = std::mem::replace(&mut self.looked, now);
        (arrivals > before).then_some(looked)
    }

    fn perform(&mut self, event: Event) -> Result<(), Reason> {
        match event {
            Event::Ping => self.ping(),
            Event::Suspect => self.guard.set_suspect(true),
            Event::Well => self.guard.set_suspect(false),
            Event::Gone => {
                self.guard.gone();
                return Err(Reason::HostLost);
            }
        }
        Ok(())
    }

    fn take_in(&mut self, mut bytes: &[u8]) -> Result<(), Reason> {
        while let Some(payload) = self.decoder.next(&mut bytes).map_err(|_| Reason::Malformed)? {
            match Message::decode(&payload).map_err(|_| Reason::Malformed)? {
                Message::Ping { nonce } => self.sign(Message::Pong { nonce }),
                Message::Pong { nonce } => self.ponged(nonce),
                Message::Unknown { .. } => {}
                Message::Leaving { reason, .. } => {
                    debug!(reason, "host is leaving");
                    self.guard.leaving();
                }
                Message::PoolBounds { service, idle_min, idle_max } => {
                    let bound = |idle| usize::try_from(idle).unwrap_or(usize::MAX);
                    let (min, max) = (bound(idle_min), bound(idle_max));
                    self.guard.pool_bounds(ServiceName::new(&service), min, max);
                }
                Message::PoolSurplus { service, idle } => {
                    let idle = usize::try_from(idle).unwrap_or(usize::MAX);
                    self.guard.pool_surplus(ServiceName::new(&service), idle);
                }
                Message::Open { .. }
                | Message::Drop { .. }
                | Message::SessionEnded { .. }
                | Message::PoolWanted { .. } => return Err(Reason::Malformed),
            }
        }
        Ok(())
    }

    fn ping(&mut self) {
        self.nonce += 1;
        self.pinged = Some(Instant::now());
        self.sign(Message::Ping { nonce: self.nonce });
    }

    /// That it came counts anyhow; one that answers an earlier ping measures nothing.
    fn ponged(&mut self, nonce: u64) {
        if nonce == self.nonce
            && let Some(pinged) = self.pinged.take()
        {
            self.guard.round_trip(pinged.elapsed());
        }
    }

    /// A sign that does not fit is none too many: the host does not read those before it.
    fn sign(&self, sign: Message) {
        drop(self.signs.try_send(sign));
    }
}
