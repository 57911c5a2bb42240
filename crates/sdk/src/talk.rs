//! What is said on a command channel of version 2: the relay's announcements and pings come in, ours go out, and silence is
//! noticed.

use std::time::Duration;

use relayserver_core::liveness::{Event, Liveness, Patience};
use relayserver_core::{Reason, limits};
use relayserver_transport::Stream;
use relayserver_wire::FRAME_MAX;
use relayserver_wire::command::Announcement;
use relayserver_wire::frame::Decoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::clock;
use crate::report::{Fault, Report};
use crate::shared::Shared;

/// How a command channel ended.
pub(crate) enum Ended {
    /// It was lost.
    Lost(Fault),
    /// The relay was not heard of for too long: what came from it meanwhile must not be acted on.
    Silent,
}

/// One command channel.
struct Talk<'a> {
    stream: Stream,
    shared: &'a Shared,
    reports: &'a mpsc::Sender<Report>,
    liveness: Liveness,
    decoder: Decoder,
    nonce: u64,
}

/// Talks until the channel ends, or the relay is silent for too long.
pub(crate) async fn run(
    stream: Stream,
    shared: &Shared,
    reports: &mpsc::Sender<Report>,
    patience: Patience,
) -> Ended {
    let mut talk = Talk {
        stream,
        shared,
        reports,
        liveness: Liveness::new(clock::now(), patience),
        decoder: Decoder::new(FRAME_MAX),
        nonce: 0,
    };
    match talk.run().await {
        Ok(ended) => ended,
        Err(fault) => Ended::Lost(fault),
    }
}

impl Talk<'_> {
    async fn run(&mut self) -> Result<Ended, Fault> {
        let mut buffer = [0; 1024];
        let mut said_leaving = false;
        loop {
            let due = self.liveness.poll_timeout();
            // From one clock to another: this one goes on while the machine sleeps.
            let due = due.map_or(Duration::MAX, |due| due.since(clock::now()));
            let events = tokio::select! {
                biased;
                read = self.stream.read(&mut buffer) => {
                    let received = buffer.get(..read?).unwrap_or_default();
                    // What waited while we were away comes from before: the gap counts first.
                    let was_away = self.shared.contact.heard();
                    let events = self.liveness.handle_heard(clock::now());
                    if was_away || events.contains(&Event::Suspect) {
                        return Ok(Ended::Silent);
                    }
                    if received.is_empty() {
                        let what = "closed the command channel".to_owned();
                        return Ok(Ended::Lost(Fault::Lost(what)));
                    }
                    self.take_in(received).await?;
                    continue;
                }
                () = self.shared.leaving.cancelled(), if !said_leaving => {
                    said_leaving = true;
                    let reason = Reason::Draining.code().to_owned();
                    self.send(&Announcement::Leaving { reason, retry_after_ms: None }).await?;
                    continue;
                }
                () = sleep(due) => self.liveness.handle_timeout(clock::now()),
            };
            for event in events {
                match event {
                    Event::Ping => {
                        self.nonce += 1;
                        self.send(&Announcement::Ping { nonce: self.nonce }).await?;
                    }
                    Event::Suspect | Event::Gone => return Ok(Ended::Silent),
                    Event::Well => {}
                }
            }
        }
    }

    async fn take_in(&mut self, mut received: &[u8]) -> Result<(), Fault> {
        while let Some(payload) = self.decoder.next(&mut received).map_err(Fault::not_a_relay)? {
            match Announcement::decode(&payload).map_err(Fault::not_a_relay)? {
                Announcement::Ping { nonce } => self.send(&Announcement::Pong { nonce }).await?,
                // That it came is what counts. Opens and drops are for hosts of version 1.
                Announcement::Pong { .. }
                | Announcement::Open { .. }
                | Announcement::Drop { .. } => {}
                announcement => {
                    let _taken = self.reports.send(Report::Announced(announcement)).await;
                }
            }
        }
        Ok(())
    }

    async fn send(&mut self, announcement: &Announcement) -> Result<(), Fault> {
        let frame = announcement.encode();
        let sending = async {
            self.stream.write_all(&frame).await?;
            self.stream.flush().await
        };
        match timeout(limits::COMMAND_WRITE_TIMEOUT, sending).await {
            Ok(sent) => Ok(sent?),
            Err(_elapsed) => Err(Fault::Lost("does not read its command channel".to_owned())),
        }
    }
}
