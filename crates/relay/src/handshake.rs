//! Learns who a connection on the host port is: reads its hello under a deadline, byte-exact, so that nothing behind the
//! hello is touched.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use relayserver_core::Reason;
use relayserver_wire::frame::{self, FrameError};
use relayserver_wire::hello::Hello;
use relayserver_wire::{HEADER_LEN, HELLO_FRAME_MAX, MessageError};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::admission::Places;

/// Why a connection was not taken for a host: the reason, and what exactly was wrong.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) detail: String,
}

/// Reads the hello that a data channel opens with.
pub(crate) async fn read_hello(
    stream: &mut TcpStream,
    peer: IpAddr,
    places: &Arc<Places>,
    hello_timeout: Duration,
) -> Result<Hello, Refusal> {
    let mut place = places.enter(peer);
    tokio::select! {
        read = timeout(hello_timeout, read(stream)) => read.unwrap_or_else(|_elapsed| {
            let detail = format!("no hello within {hello_timeout:?}");
            Err(Refusal { reason: Reason::HelloTimeout, detail })
        }),
        () = place.lost() => {
            let detail = "pushed out by a newer connection".to_owned();
            Err(Refusal { reason: Reason::HandshakeLimit, detail })
        }
    }
}

async fn read(stream: &mut TcpStream) -> Result<Hello, Refusal> {
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header[..1]).await?;
    // Garbage is told by its first byte, without waiting for three more.
    frame::payload_len([header[0], 0, 0, 0], HELLO_FRAME_MAX)?;
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
