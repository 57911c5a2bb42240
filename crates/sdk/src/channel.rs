//! A data channel from its dial to the moment its session opens, in a task of its own. Reads the answer byte-exact, and
//! nothing of what follows it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use relayserver_core::keeper::Slot;
use relayserver_core::limits::{self, DIAL_TIMEOUT};
use relayserver_transport::options::{prepare_session, prepare_waiting};
use relayserver_transport::{Heard, Stream, dial_from};
use relayserver_wire::hello::{Answer, Hello};
use relayserver_wire::{HEADER_LEN, HELLO_FRAME_MAX, VERSION, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::SessionId;
use crate::report::{Fault, Port, Report, Trouble};
use crate::session::Session;
use crate::shared::Shared;

/// What the driver tells a channel's task. Dropping the sender closes the channel.
pub(crate) struct Open;

/// Dials a data channel, keeps it idle, and hands on the session that opens on it. Ends when the driver drops the other end of
/// `verdict`.
pub(crate) async fn run(
    slot: Slot,
    shared: Arc<Shared>,
    reports: mpsc::Sender<Report>,
    sessions: mpsc::Sender<Session>,
    mut verdict: oneshot::Receiver<Open>,
) {
    let (mut stream, answer) = tokio::select! {
        established = establish(&shared) => match established {
            Ok(established) => established,
            Err(trouble) => return report(&reports, Report::ChannelFailed(slot, trouble)).await,
        },
        _closed = &mut verdict => return,
    };
    let channel_id = answer.channel_id;
    let clients = match answer.relay_host.contains(':') {
        true => format!("[{}]:{}", answer.relay_host, answer.relay_port),
        false => format!("{}:{}", answer.relay_host, answer.relay_port),
    };
    report(&reports, Report::ChannelAnswered { slot, channel_id, clients }).await;
    if !idle(&mut stream, slot, &reports, verdict).await {
        return;
    }
    if let Some(socket) = stream.tcp() {
        prepare_session(socket);
    }
    let session = Session::open(SessionId(channel_id), stream, Arc::clone(&shared));
    shared.unaccepted.fetch_add(1, Ordering::AcqRel);
    // The queue has room for as many as the keeper lets come; without a listener, nobody is there to serve the client.
    if let Err(refused) = sessions.try_send(session) {
        match refused {
            mpsc::error::TrySendError::Full(session) => session.reject("backlog_full"),
            mpsc::error::TrySendError::Closed(session) => session.reject("listener_dropped"),
        }
        shared.session_accepted();
    }
}

async fn report(reports: &mpsc::Sender<Report>, report: Report) {
    // Without a driver the listener is gone, and nobody keeps count.
    let _taken = reports.send(report).await;
}

/// Connects, says hello, and reads the answer.
async fn establish(shared: &Shared) -> Result<(Stream, Answer), Trouble> {
    let address = &shared.config.hosts;
    let dialled = dial_from(address, shared.config.bind_addr, DIAL_TIMEOUT).await;
    let stream = dialled.map_err(|error| Trouble::dial(Port::Hosts, &error))?;
    prepare_waiting(&stream, limits::USER_TIMEOUT);
    let mut stream = Stream::Tcp(stream);
    let fault = match timeout(limits::HELLO_TIMEOUT, greet(&mut stream)).await {
        Ok(Ok(answer)) => return Ok((stream, answer)),
        Ok(Err(fault)) => fault,
        Err(_elapsed) => {
            let waited = limits::HELLO_TIMEOUT;
            Fault::Lost(format!("has not answered a hello within {waited:?}"))
        }
    };
    Err(Trouble::at(Port::Hosts, address, fault))
}

async fn greet(stream: &mut Stream) -> Result<Answer, Fault> {
    stream.write_all(&Hello { version: VERSION, v2: None }.encode()).await?;
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header).await?;
    let len = frame::payload_len(header, HELLO_FRAME_MAX).map_err(Fault::not_a_relay)?;
    let mut payload = vec![0; len];
    stream.read_exact(&mut payload).await?;
    Answer::decode(&payload).map_err(Fault::not_a_relay)
}

/// Waits until a session opens on the channel: by the relay's word, or by the session's first byte. `false` when the channel
/// was lost or closed instead. Reads nothing.
async fn idle(
    stream: &mut Stream,
    slot: Slot,
    reports: &mpsc::Sender<Report>,
    mut verdict: oneshot::Receiver<Open>,
) -> bool {
    let first = tokio::select! {
        biased;
        verdict = &mut verdict => return verdict.is_ok(),
        first = stream.waits() => first,
    };
    match first {
        Heard::End => {
            // The end of an idle channel, or of a client that sent nothing: its announcement may be on its way.
            report(reports, Report::ChannelEnded(slot)).await;
            verdict.await.is_ok()
        }
        Heard::Bytes => {
            report(reports, Report::ChannelOpened(slot)).await;
            true
        }
        Heard::Failed(_) => {
            report(reports, Report::ChannelLost(slot)).await;
            false
        }
    }
}
