//! Learns who a connection on the host port is: reads its hello under a deadline, byte-exact, so that nothing behind the
//! hello is touched.

use std::io;
use std::net::IpAddr;

use relayserver_core::Reason;
use relayserver_transport::Stream;
use relayserver_transport::net::TcpStream;
use relayserver_wire::frame::{self, FrameError};
use relayserver_wire::hello::Hello;
use relayserver_wire::{HEADER_LEN, HELLO_FRAME_MAX, MessageError};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout, timeout_at};

use crate::admission::Place;
use crate::context::Context;

/// The first byte of a TLS record that begins a handshake (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// How many handshakes' time a connection may wait for its own to begin.
const WAITS_MAX: u32 = 3;

/// Why a connection was not taken for a host: the reason, and what exactly was wrong.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) detail: String,
}

/// A connection that has said what it is to be.
pub(crate) struct Arrival {
    pub(crate) stream: Stream,
    pub(crate) hello: Hello,
    /// Kept for as long as it is not known whether it may be that.
    pub(crate) place: Place,
}

/// Waits for a place, performs the TLS handshake where the first byte is that of one, and reads the hello.
pub(crate) async fn greet(
    stream: TcpStream,
    peer: IpAddr,
    context: &Context,
) -> Result<Arrival, Refusal> {
    let hello_timeout = context.hello_timeout;
    let mut place = context.places.enter(peer);
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
    let mut first = [0];
    let there = tokio::select! {
        there = timeout_at(deadline, stream.peek(&mut first)) => there.map_err(too_late)??,
        () = place.lost() => {
            let detail = "silent, while others wait for its place".to_owned();
            return Err(Refusal { reason: Reason::HandshakeLimit, detail });
        }
    };
    if there == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    place.spoke();
    let greeting = async {
        let mut stream = open(stream, first[0], context).await?;
        let hello = read(&mut stream).await?;
        Ok::<_, Refusal>((stream, hello))
    };
    let (stream, hello) = timeout_at(deadline, greeting).await.map_err(too_late)??;
    Ok(Arrival { stream, hello, place })
}

/// The stream of frames that a connection is whose first byte is `first`.
async fn open(stream: TcpStream, first: u8, context: &Context) -> Result<Stream, Refusal> {
    match (first, &context.tls) {
        (TLS_HANDSHAKE, Some(tls)) => tls
            .accept(stream)
            .await
            .map_err(|error| Refusal { reason: Reason::TlsFailed, detail: error.to_string() }),
        (TLS_HANDSHAKE, None) => {
            let detail = "TLS is off on this relay".to_owned();
            Err(Refusal { reason: Reason::TlsOff, detail })
        }
        // Garbage is told by its first byte, without waiting for more.
        (first, _) => {
            frame::payload_len([first, 0, 0, 0], HELLO_FRAME_MAX)?;
            Ok(Stream::Tcp(stream))
        }
    }
}

async fn read(stream: &mut Stream) -> Result<Hello, Refusal> {
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header).await?;
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
