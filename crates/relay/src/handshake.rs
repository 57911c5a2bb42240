//! Learns who a connection on the host port is: reads its hello under a deadline, byte-exact, so that nothing behind the
//! hello is touched.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use relayserver_core::Reason;
use relayserver_transport::Stream;
use relayserver_wire::frame::{self, FrameError};
use relayserver_wire::hello::Hello;
use relayserver_wire::{HELLO_FRAME_MAX, MessageError};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout, timeout_at};

use crate::admission::Places;

/// How many handshakes' time a connection may wait for its own to begin.
const WAITS_MAX: u32 = 3;

/// Why a connection was not taken for a host: the reason, and what exactly was wrong.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) detail: String,
}

/// Reads the hello that a data channel opens with.
pub(crate) async fn read_hello(
    stream: &mut Stream,
    peer: IpAddr,
    places: &Arc<Places>,
    hello_timeout: Duration,
) -> Result<Hello, Refusal> {
    let mut place = places.enter(peer);
    // Those ahead are done within their own deadline, and some others may be ahead of them.
    let admitted = timeout(WAITS_MAX * hello_timeout, place.admitted()).await;
    if !admitted.is_ok_and(|admitted| admitted) {
        let detail = "no place for its handshake".to_owned();
        return Err(Refusal { reason: Reason::HandshakeLimit, detail });
    }
    let deadline = Instant::now() + hello_timeout;
    let too_late = |_elapsed| {
        let detail = format!("no hello within {hello_timeout:?}");
        Refusal { reason: Reason::HelloTimeout, detail }
    };
    let first = tokio::select! {
        first = timeout_at(deadline, stream.read_u8()) => first.map_err(too_late)??,
        () = place.lost() => {
            let detail = "silent, while others wait for its place".to_owned();
            return Err(Refusal { reason: Reason::HandshakeLimit, detail });
        }
    };
    place.spoke();
    timeout_at(deadline, read(stream, first)).await.map_err(too_late)?
}

async fn read(stream: &mut Stream, first: u8) -> Result<Hello, Refusal> {
    let mut header = [first, 0, 0, 0];
    // Garbage is told by its first byte, without waiting for three more.
    frame::payload_len(header, HELLO_FRAME_MAX)?;
    stream.read_exact(&mut header[1..]).await?;
    let mut payload = vec![0; frame::payload_len(header, HELLO_FRAME_MAX)?];
    stream.read_exact(&mut payload).await?;
    Ok(Hello::decode(&payload)?)
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        Refusal { reason: Reason::PeerClosed, detail: error.to_string() }
    }
}

impl From<FrameError> for Refusal {
    fn from(error: FrameError) -> Refusal {
        let reason = match error {
            FrameError::NotOurProtocol { .. } => Reason::NotOurProtocol,
            _ => Reason::Malformed,
        };
        Refusal { reason, detail: error.to_string() }
    }
}

impl From<MessageError> for Refusal {
    fn from(error: MessageError) -> Refusal {
        let reason = match error {
            MessageError::UnsupportedVersion { .. } => Reason::UnsupportedVersion,
            _ => Reason::Malformed,
        };
        Refusal { reason, detail: error.to_string() }
    }
}
