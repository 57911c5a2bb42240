//! What is said on a command channel of version 2: the relay's announcements and pings come in, ours go out, with what the pools may
//! hold and what is too many of it, and silence is noticed.

use std::convert::Infallible;
use std::time::Duration;

use relayserver_core::liveness::{Event, Liveness, Patience};
use relayserver_core::{Reason, Time, limits};
use relayserver_transport::Stream;
use relayserver_wire::FRAME_MAX;
use relayserver_wire::command::Announcement;
use relayserver_wire::frame::Decoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::clock;
use crate::contact::Contact;
use crate::report::{CommandReport, CommandReporter, Fault};
use crate::shared::{PoolState, Shared};

/// How often the clock is looked at that goes on while the machine sleeps: the timers that wake this task do not, and a machine that
/// wakes up is to be back within a second.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How long the relay may take to answer when the network has changed. A round trip to the other end of the world takes less, and to be
/// wrong costs a new command channel.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// How a command channel ended.
pub(crate) enum Ended {
    /// It was lost.
    Lost(Fault),
    /// There was no contact for too long: what came from the relay meanwhile must not be acted on.
    Silent,
}

impl<F: Into<Fault>> From<F> for Ended {
    fn from(fault: F) -> Ended {
        Ended::Lost(fault.into())
    }
}

/// One command channel.
struct Talk<'a> {
    stream: Stream,
    /// What the driver has to say.
    announcements: mpsc::Receiver<Announcement>,
    shared: &'a Shared,
    contact: &'a Contact,
    reporter: &'a CommandReporter,
    liveness: Liveness,
    decoder: Decoder,
    nonce: u64,
    /// By when the relay has to be heard, where the network has changed.
    probe_until: Option<Time>,
    /// What it was told of the pools.
    told: Vec<PoolState>,
}

/// Talks, and says what comes in `announcements`, until the channel ends, or there was no contact for too long.
pub(crate) async fn run(
    (stream, announcements): (Stream, mpsc::Receiver<Announcement>),
    (shared, contact): (&Shared, &Contact),
    reporter: &CommandReporter,
    patience: Patience,
) -> Ended {
    let mut talk = Talk {
        stream,
        announcements,
        shared,
        contact,
        reporter,
        liveness: Liveness::new(clock::now(), patience),
        decoder: Decoder::new(FRAME_MAX),
        nonce: 0,
        probe_until: None,
        told: Vec::new(),
    };
    let Err(ended) = talk.run().await;
    ended
}

impl Talk<'_> {
    async fn run(&mut self) -> Result<Infallible, Ended> {
        let mut buffer = [0; 1024];
        let mut said_leaving = false;
        let (mut pools, mut network) =
            (self.shared.pools.subscribe(), self.shared.network.subscribe());
        pools.mark_changed();
        loop {
            let (silence, word) = (self.liveness.poll_timeout(), self.contact.poll_timeout());
            let due = silence.into_iter().chain(self.probe_until).chain(word).min();
            // From one clock to another: this one goes on while the machine sleeps.
            let due = due.map_or(LOOK_INTERVAL, |due| due.since(clock::now()).min(LOOK_INTERVAL));
            let events = tokio::select! {
                biased;
                read = self.stream.read(&mut buffer) => {
                    self.heard(buffer.get(..read?).unwrap_or_default()).await?;
                    continue;
                }
                () = self.shared.leaving.cancelled(), if !said_leaving => {
                    said_leaving = true;
                    let reason = Reason::Draining.code().to_owned();
                    self.send(&Announcement::Leaving { reason, retry_after_ms: None }).await?;
                    continue;
                }
                Ok(()) = pools.changed() => {
                    let now = pools.borrow_and_update().clone();
                    self.say_bounds(now).await?;
                    continue;
                }
                Some(announcement) = self.announcements.recv() => {
                    self.send(&announcement).await?;
                    continue;
                }
                Ok(()) = network.changed() => {
                    self.probe_until = Some(clock::now() + PROBE_TIMEOUT);
                    vec![Event::Ping]
                }
                () = sleep(due) => {
                    let now = clock::now();
                    if self.probe_until.is_some_and(|until| until <= now) {
                        return Err(Ended::Silent);
                    }
                    let mut events = self.liveness.handle_timeout(now);
                    if events.is_empty() && word.is_some_and(|due| due <= now) {
                        events.push(Event::Ping);
                    }
                    events
                }
            };
            for event in events {
                match event {
                    Event::Ping => {
                        self.nonce += 1;
                        self.send(&Announcement::Ping { nonce: self.nonce }).await?;
                    }
                    Event::Suspect | Event::Gone => return Err(Ended::Silent),
                    Event::Well => {}
                }
            }
        }
    }

    /// These bytes were read, or the end.
    async fn heard(&mut self, received: &[u8]) -> Result<(), Ended> {
        // What waited while we were away comes from before: the gap counts first.
        let was_away = self.contact.heard();
        let events = self.liveness.handle_heard(clock::now());
        if was_away || events.contains(&Event::Suspect) {
            return Err(Ended::Silent);
        }
        self.probe_until = None;
        if received.is_empty() {
            let what = "closed the command channel".to_owned();
            return Err(Ended::Lost(Fault::Lost(what)));
        }
        self.take_in(received).await
    }

    async fn take_in(&mut self, mut received: &[u8]) -> Result<(), Ended> {
        while let Some(payload) = self.decoder.next(&mut received).map_err(Fault::not_a_relay)? {
            match Announcement::decode(&payload).map_err(Fault::not_a_relay)? {
                Announcement::Ping { nonce } => self.send(&Announcement::Pong { nonce }).await?,
                // That it came is what counts. Opens and drops are for hosts of version 1.
                Announcement::Pong { .. }
                | Announcement::Open { .. }
                | Announcement::Drop { .. } => {}
                announcement => {
                    self.reporter.tell(CommandReport::Announced(announcement)).await;
                }
            }
        }
        Ok(())
    }

    /// Says between what bounds the pools are, those of them that the relay does not know yet.
    async fn say_bounds(&mut self, pools: Vec<PoolState>) -> Result<(), Ended> {
        let shared = self.shared;
        for (index, (service, pool)) in shared.link.services().iter().zip(&pools).enumerate() {
            if self.told.get(index) != Some(pool) {
                let (service, (idle_min, idle_max)) = (service.clone(), pool.announced());
                self.send(&Announcement::PoolBounds { service, idle_min, idle_max }).await?;
            }
        }
        self.told = pools;
        Ok(())
    }

    async fn send(&mut self, announcement: &Announcement) -> Result<(), Ended> {
        if self.contact.tells() {
            return Err(Ended::Silent);
        }
        let frame = announcement.encode();
        let sending = async {
            self.stream.write_all(&frame).await?;
            self.stream.flush().await
        };
        match timeout(limits::COMMAND_WRITE_TIMEOUT, sending).await {
            Ok(sent) => Ok(sent?),
            Err(_elapsed) => {
                Err(Ended::Lost(Fault::Lost("does not read its command channel".to_owned())))
            }
        }
    }
}
