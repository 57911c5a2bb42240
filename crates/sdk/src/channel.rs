//! A data channel from its dial to the moment its session opens, in a task of its own. Reads the answer byte-exact, and
//! nothing of what follows it.

use std::sync::Arc;
use std::time::Duration;

use relayserver_core::keeper::DIAL_TIMEOUT;
use relayserver_core::limits;
use relayserver_transport::dial_from;
use relayserver_wire::hello::{Answer, Hello};
use relayserver_wire::{HEADER_LEN, HELLO_FRAME_MAX, VERSION, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::SessionId;
use crate::driver::{Report, Trouble};
use crate::session::Session;
use crate::shared::{Shared, prepare_session, prepare_waiting};

/// How long an open may lag behind the FIN of a session whose client sent nothing. They travel on different connections, so
/// about a round trip; after that, the FIN meant that the relay has closed the idle channel.
const OPEN_LAG_MAX: Duration = Duration::from_millis(500);

/// Dials a data channel, keeps it idle, and hands on the session that opens on it.
pub(crate) async fn run(
    shared: Arc<Shared>,
    reports: mpsc::Sender<Report>,
    sessions: mpsc::Sender<Session>,
) {
    let (stream, answer) = tokio::select! {
        established = establish(&shared) => match established {
            Ok(established) => established,
            Err(trouble) => return report(&reports, Report::ChannelFailed(trouble)).await,
        },
        () = shared.leaving.cancelled() => return,
    };
    let channel_id = answer.channel_id;
    let answered = Instant::now();
    let (opener, opened) = oneshot::channel();
    let clients = format!("{}:{}", answer.relay_host, answer.relay_port);
    report(&reports, Report::ChannelAnswered { channel_id, clients, opener }).await;
    if !idle(&stream, opened, &shared).await {
        let life = answered.elapsed();
        return report(&reports, Report::ChannelLost { channel_id, life }).await;
    }
    prepare_session(&stream);
    report(&reports, Report::ChannelOpened { channel_id }).await;
    let session = Session::open(SessionId(channel_id), stream, Arc::clone(&shared));
    shared.unaccepted.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
    // The queue has room for as many as the keeper lets come; without a listener, nobody is there to serve the client.
    if let Err(refused) = sessions.try_send(session) {
        match refused {
            mpsc::error::TrySendError::Full(session) => session.reject("backlog full"),
            mpsc::error::TrySendError::Closed(session) => session.reject("listener dropped"),
        }
        shared.session_accepted();
    }
}

async fn report(reports: &mpsc::Sender<Report>, report: Report) {
    // Without a driver the listener is gone, and nobody keeps count.
    let _taken = reports.send(report).await;
}

/// Connects, says hello, and reads the answer.
async fn establish(shared: &Shared) -> Result<(TcpStream, Answer), Trouble> {
    let address = &shared.config.hosts;
    let mut stream = dial_from(address, shared.config.bind_addr, DIAL_TIMEOUT).await?;
    prepare_waiting(&stream);
    match timeout(limits::HELLO_TIMEOUT, greet(&mut stream)).await {
        Ok(Ok(answer)) => Ok((stream, answer)),
        Ok(Err(trouble)) => Err(trouble.at(address)),
        Err(_elapsed) => {
            let waited = limits::HELLO_TIMEOUT.as_secs();
            Err(Trouble::other(format!("no answer from {address} within {waited} s")))
        }
    }
}

async fn greet(stream: &mut TcpStream) -> Result<Answer, Trouble> {
    stream.write_all(&Hello { version: VERSION }.encode()).await?;
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header).await?;
    let len = frame::payload_len(header, HELLO_FRAME_MAX).map_err(Trouble::not_a_relay)?;
    let mut payload = vec![0; len];
    stream.read_exact(&mut payload).await?;
    Answer::decode(&payload).map_err(Trouble::not_a_relay)
}

/// Waits until a session opens on the channel: by the relay's word, or by the session's first byte. `false` when the channel
/// was lost or left instead. Reads nothing.
async fn idle(stream: &TcpStream, mut opened: oneshot::Receiver<()>, shared: &Shared) -> bool {
    let mut byte = [0];
    let first = tokio::select! {
        biased;
        opened = &mut opened => return opened.is_ok(),
        first = stream.peek(&mut byte) => first,
        () = shared.leaving.cancelled() => return false,
    };
    match first {
        Ok(0) => timeout(OPEN_LAG_MAX, opened).await.is_ok_and(|opened| opened.is_ok()),
        Ok(_) => true,
        Err(_) => false,
    }
}
