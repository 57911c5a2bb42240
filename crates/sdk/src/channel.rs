//! A data channel from its dial to the moment its session opens, in a task of its own; and from there on again, where it is for many.
//! Reads the answer byte-exact, and, where the relay sends one, the start frame.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use relayserver_core::keeper::{PoolIndex, Slot};
use relayserver_core::limits;
use relayserver_transport::options::prepare_session;
use relayserver_transport::{Heard, Stream};
use relayserver_wire::hello::{Answer, AnswerV2, MANY_SESSIONS};
use relayserver_wire::start::Start;
use relayserver_wire::{HEADER_LEN, HELLO_FRAME_MAX, START_FRAME_MAX, frame};
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::contact::Since;
use crate::report::{Fault, Port, Report, Trouble};
use crate::session::{Home, Opening, Session};
use crate::shared::{Serving, Shared};

/// What the driver tells a channel's task. Dropping the sender closes the channel.
pub(crate) struct Open;

/// A channel's task: what it is called, whom it tells, and from whom it hears.
pub(crate) struct Task {
    pub(crate) slot: Slot,
    pub(crate) shared: Arc<Shared>,
    pub(crate) reports: mpsc::Sender<Report>,
    pub(crate) sessions: mpsc::Sender<Session>,
    pub(crate) verdict: oneshot::Receiver<Open>,
}

impl Task {
    /// Dials a data channel for the pool at `pool`, keeps it idle, and hands on the session that opens on it. Ends when the driver
    /// drops the other end of `verdict`.
    pub(crate) async fn run(mut self, pool: PoolIndex) {
        let (since, keys) = (self.shared.contact().since(), self.shared.link.keys());
        let established = tokio::select! {
            established = establish(&self.shared, pool) => established,
            _closed = &mut self.verdict => return,
        };
        match established {
            // Another gap while it dialled: nothing can ever open on it.
            Ok((_, answer)) if answer.v2.is_some() && !since.is_unbroken() => {
                let fault = Fault::Lost("was not heard of while a channel was dialled".to_owned());
                let trouble = Trouble::at(Port::Hosts, self.shared.link.hosts(), fault);
                self.report(Report::ChannelFailed(self.slot, trouble)).await;
            }
            Ok((stream, answer)) if answer.v2.is_some() => {
                self.shared.channels.answered(self.slot, answer.channel_id);
                let stream = match is_for_many(&answer) {
                    true => stream.for_many(self.shared.channels.wants_back(pool)),
                    false => stream,
                };
                let channel_id = answer.channel_id;
                self.serve(stream, Origin { pool, channel_id, since, keys }).await;
            }
            Ok((stream, answer)) => self.adopt(stream, answer).await,
            Err(trouble) => self.report(Report::ChannelFailed(self.slot, trouble)).await,
        }
    }

    /// The same for a channel of version 1 that has had its answer.
    pub(crate) async fn adopt(mut self, mut stream: Stream, answer: Answer) {
        let channel_id = answer.channel_id;
        let clients = match answer.relay_host.contains(':') {
            true => format!("[{}]:{}", answer.relay_host, answer.relay_port),
            false => format!("{}:{}", answer.relay_host, answer.relay_port),
        };
        let slot = self.slot;
        self.report(Report::ChannelAnswered { slot, channel_id, clients }).await;
        if self.idle(&mut stream).await {
            prepare(&stream);
            let session = Session::open(Opening::Announced { channel_id }, stream, &self.shared);
            if let Some(serving) = self.hand_on(session) {
                serving.await;
            }
        }
    }

    /// Has one session after another on a channel of version 2, as far as it is for many.
    async fn serve(mut self, mut stream: Stream, origin: Origin) {
        let mut is_first = true;
        while let Some(start) = self.next(&mut stream, &origin).await {
            if std::mem::take(&mut is_first) {
                prepare(&stream);
            }
            stream.begin_incoming();
            let (home, back) = oneshot::channel();
            let opening = Opening::Offered { start, since: origin.since.clone(), home: Home(home) };
            let session = Session::open(opening, stream, &self.shared);
            let Task { shared, reports, .. } = &self;
            let (shared, reports) = (Arc::clone(shared), reports.clone());
            let sessions = self.sessions.downgrade();
            let serving = self.hand_on(session);
            let Some(returned) = carried(serving, back, &shared.leaving).await else { return };
            stream = returned;
            let kept = origin.is_current(&shared).then(|| {
                let sessions = sessions.upgrade()?;
                let (slot, verdict) = shared.channels.returned(origin.pool, origin.channel_id)?;
                Some(Task { slot, shared, reports, sessions, verdict })
            });
            match kept.flatten() {
                Some(task) => self = task,
                // Over TLS, to be dropped alone would be an abort.
                None => return stream.end_now(),
            }
            stream.begin_anew();
        }
    }

    /// Waits until a session opens on a channel of version 2. `None` when it was lost, or closed, before one did.
    async fn next(&mut self, stream: &mut Stream, origin: &Origin) -> Option<Start> {
        let slot = self.slot;
        let heard = tokio::select! {
            biased;
            _closed = &mut self.verdict => {
                stream.end_now();
                return None;
            }
            heard = stream.waits() => heard,
        };
        let Heard::Bytes = heard else {
            self.report(Report::ChannelLost(slot)).await;
            return None;
        };
        // What came while the relay was not heard of may be another host's by now.
        let service = self.shared.link.services().get(origin.pool);
        let start = match origin.since.is_unbroken() {
            true => read_start(stream, service.map_or("", String::as_str)).await,
            false => Err("the relay was not heard of meanwhile".to_owned()),
        };
        match start {
            Ok(start) => {
                let waits = usize::from(self.shared.serving().is_none());
                let unaccepted = self.shared.unaccepted.load(Ordering::Acquire) + waits;
                self.shared.channels.opened(slot, unaccepted);
                Some(start)
            }
            Err(why) => {
                debug!(
                    channel.id = origin.channel_id,
                    why, "channel closed: no session opens on it"
                );
                stream.reset_on_close();
                self.report(Report::ChannelLost(slot)).await;
                None
            }
        }
    }

    /// What serves the session; `None` where it goes to whoever accepts. Whoever awaits it holds nothing of the queue meanwhile.
    fn hand_on(self, session: Session) -> Option<Serving> {
        if let Some(serve) = self.shared.serving() {
            return Some(serve(session));
        }
        self.shared.unaccepted.fetch_add(1, Ordering::AcqRel);
        // The queue has room for as many as the keeper lets come; without a listener, nobody is there to serve the client.
        if let Err(refused) = self.sessions.try_send(session) {
            match refused {
                mpsc::error::TrySendError::Full(session) => session.reject("backlog_full"),
                mpsc::error::TrySendError::Closed(session) => session.reject("listener_dropped"),
            }
            self.shared.session_accepted();
        }
        None
    }

    async fn report(&self, report: Report) {
        // Without a driver the listener is gone, and nobody keeps count.
        let _taken = self.reports.send(report).await;
    }

    /// Waits until a session opens on a channel of version 1: by the relay's word, or by the session's first byte. `false` when the
    /// channel was lost or closed instead. Reads nothing.
    async fn idle(&mut self, stream: &mut Stream) -> bool {
        let first = tokio::select! {
            biased;
            verdict = &mut self.verdict => return verdict.is_ok(),
            first = stream.waits() => first,
        };
        match first {
            Heard::End => {
                // The end of an idle channel, or of a client that sent nothing: its announcement may be on its way.
                self.report(Report::ChannelEnded(self.slot)).await;
                (&mut self.verdict).await.is_ok()
            }
            Heard::Bytes => {
                self.report(Report::ChannelOpened(self.slot)).await;
                true
            }
            Heard::Failed(_) => {
                self.report(Report::ChannelLost(self.slot)).await;
                false
            }
        }
    }
}

/// What is to be known of a channel of version 2 to use it.
struct Origin {
    pool: PoolIndex,
    channel_id: i32,
    /// There was contact with its relay since then, or it is of no use.
    since: Since,
    /// How many keys the relay had given when it was dialled.
    keys: u64,
}

impl Origin {
    /// Whether it may carry another session. The relay takes none back of an earlier command channel, and one that it was not heard of
    /// over for a while may have been another host's to answer on.
    fn is_current(&self, shared: &Shared) -> bool {
        self.keys == shared.link.keys() && self.since.is_unbroken()
    }
}

/// What waited carries a session now, whose client may take its time.
fn prepare(stream: &Stream) {
    if let Some(socket) = stream.tcp() {
        prepare_session(socket);
    }
}

/// The channel, as soon as it has carried its session to the end. A handler that goes on after that does so in a task of its own: the
/// relay may have given the channel to another client. `None` where it does not come back.
async fn carried(
    serving: Option<Serving>,
    mut back: oneshot::Receiver<Stream>,
    leaving: &CancellationToken,
) -> Option<Stream> {
    if let Some(mut serving) = serving {
        tokio::select! {
            biased;
            () = &mut serving => {}
            returned = &mut back => {
                tokio::spawn(serving);
                return returned.ok();
            }
        }
    }
    // Whoever has the session, or what is left of it, may have it for long.
    leaving.run_until_cancelled(back).await?.ok()
}

/// Whether the relay, too, has one session after another on the channel that it has answered.
fn is_for_many(answer: &Answer) -> bool {
    matches!(&answer.v2, Some(AnswerV2::Welcome(it)) if it.features.contains(&MANY_SESSIONS))
}

/// Connects, says hello, and reads the answer.
async fn establish(shared: &Shared, pool: PoolIndex) -> Result<(Stream, Answer), Trouble> {
    let hello = shared.link.hello_of_channel(pool);
    let (stream, answer) = shared.link.say(&hello, HELLO_FRAME_MAX).await?;
    let address = shared.link.hosts();
    match (&answer.v2, hello.v2.is_some()) {
        (Some(AnswerV2::Refused(refusal)), _) => Err(Trouble::refused(address, refusal)),
        // It has become another relay since its command channel was answered.
        (None, true) if shared.link.command().is_none() => {
            Err(Trouble::version_1_behind_a_join_line(address))
        }
        _ => Ok((stream, answer)),
    }
}

/// The frame that goes ahead of a session, and no byte beyond it. Its first byte is there.
async fn read_start(stream: &mut Stream, service: &str) -> Result<Start, String> {
    let reading = async {
        let mut header = [0; HEADER_LEN];
        stream.read_exact(&mut header).await?;
        let len = frame::payload_len(header, START_FRAME_MAX).map_err(Fault::not_a_relay)?;
        let mut payload = vec![0; len];
        stream.read_exact(&mut payload).await?;
        Start::decode(&payload).map_err(Fault::not_a_relay)
    };
    match timeout(limits::HELLO_TIMEOUT, reading).await {
        Ok(Ok(start)) if start.service != service => {
            Err(format!("a session of service {}, expected {service}", start.service))
        }
        Ok(Ok(start)) => Ok(start),
        Ok(Err(Fault::Lost(why) | Fault::NotARelay(why))) => Err(why),
        Err(_elapsed) => Err("the start frame did not come whole in time".to_owned()),
    }
}
