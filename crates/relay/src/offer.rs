//! A session that is offered to a host of version 2: what goes over its channel between the assignment and the host's word.
//!
//! The start frame goes ahead, and after it at most [`HELD_MAX`] bytes of the client's, which are held until the host has accepted
//! the session. If it does not, all of them go to another host, from the first byte on.

use std::io::{self, IoSlice};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use relayserver_core::Reason;
use relayserver_transport::net::TcpStream;
use relayserver_transport::{Stream, options};
use relayserver_wire::start::{Start, Verdict};
use relayserver_wire::{HEADER_LEN, VERDICT_FRAME_MAX, frame};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::assignment::Stop;

/// How much of a client's is sent to a host that has not accepted its session: what the request line and the headers of a web
/// request need, and no more than may be thrown away and sent again.
pub(crate) const HELD_MAX: usize = 16 * 1024;

/// No word that accepts a session is shorter: a header and one field. So much can be read of it without reading what is behind it.
const ACCEPTED_LEN_MIN: usize = HEADER_LEN + 2;

/// What was read of a client whose session no host has accepted yet.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) bytes: Vec<u8>,
    /// Whether that is all that it sends.
    pub(crate) ended: bool,
}

impl Held {
    /// How much more of the client's may be read.
    fn room(&self) -> usize {
        if self.ended { 0 } else { HELD_MAX - self.bytes.len().min(HELD_MAX) }
    }

    /// Takes in what `read` has, as far as there is room. Gives what becomes of the offer where the client was reset.
    fn take_in(&mut self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> Option<Outcome> {
        // On the stack, and never across a wait. What most requests have fits in.
        let mut chunk = [0; 2048];
        let room = self.room().min(chunk.len());
        let chunk = chunk.get_mut(..room)?;
        match read(chunk) {
            Ok(0) => self.ended = true,
            Ok(count) => self.bytes.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Some(Outcome::ClientAborted),
        }
        None
    }
}

/// What came of an offer.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The host serves the session. So many of the held bytes have been sent to it.
    Accepted { sent: usize },
    /// It does not: the client may be offered to another.
    Failed(Reason),
    /// The client was reset.
    ClientAborted,
    /// The session is to end.
    Ended(Reason),
}

/// Offers the session that `start` describes over `host`, which may take `accept_timeout` to say its word. What is read of the
/// client is added to `held`.
pub(crate) async fn make(
    host: &mut Stream,
    client: &mut TcpStream,
    held: &mut Held,
    stop: &mut oneshot::Receiver<Stop>,
    start: &Start,
    accept_timeout: Duration,
) -> Outcome {
    let mut start = start.encode();
    if host.queue(&start) {
        start = Vec::new();
    }
    host.begin_outgoing();
    let written = AtomicUsize::new(0);
    let (mut reader, mut writer) = tokio::io::split(&mut *host);
    let deciding = async {
        tokio::select! {
            biased;
            verdict = read_verdict(&mut reader) => verdict,
            outcome = send(&mut writer, client, held, &start, &written) => outcome,
        }
    };
    let outcome = tokio::select! {
        // The host's word first: what it has accepted is not given to another because both come at once.
        biased;
        decided = timeout(accept_timeout, deciding) => {
            decided.unwrap_or(Outcome::Failed(Reason::NotAccepted))
        }
        stop = stop => match stop {
            Ok(Stop::Withdraw(reason)) => Outcome::Failed(reason),
            Ok(Stop::End(reason)) => Outcome::Ended(reason),
            Err(_book_gone) => Outcome::Ended(Reason::Drained),
        },
    };
    match (outcome, written.into_inner().checked_sub(start.len())) {
        // It cannot accept what it has not been told.
        (Outcome::Accepted { .. }, None) => Outcome::Failed(Reason::Malformed),
        (Outcome::Accepted { .. }, Some(0)) if host.holds_unsent() => {
            Outcome::Failed(Reason::Malformed)
        }
        (Outcome::Accepted { .. }, Some(sent)) => {
            host.begin_incoming();
            Outcome::Accepted { sent }
        }
        (outcome, None | Some(_)) => outcome,
    }
}

/// Reads the host's word, and nothing behind it.
async fn read_verdict(host: &mut (impl AsyncRead + Unpin)) -> Outcome {
    let read = async {
        // As a rule all of it comes with the first reading.
        let (mut first, mut len_read) = ([0; ACCEPTED_LEN_MIN], 0);
        while len_read < HEADER_LEN {
            let rest = first.get_mut(len_read..).unwrap_or_default();
            match host.read(rest).await {
                Ok(0) | Err(_) => return Err(Reason::HostAborted),
                Ok(len) => len_read += len,
            }
        }
        let (header, begun) = first.split_first_chunk().unwrap_or((&[0; HEADER_LEN], &[]));
        let len = frame::payload_len(*header, VERDICT_FRAME_MAX).map_err(|_| Reason::Malformed)?;
        let mut payload = vec![0; len];
        let begun = begun.get(..(len_read - HEADER_LEN).min(len)).unwrap_or_default();
        let (of_begun, rest) = payload.split_at_mut(begun.len());
        of_begun.copy_from_slice(begun);
        host.read_exact(rest).await.map_err(|_| Reason::HostAborted)?;
        Verdict::decode(&payload).map_err(|_| Reason::Malformed)
    };
    match read.await {
        Ok(Verdict::Accepted) => Outcome::Accepted { sent: 0 },
        Ok(Verdict::Rejected { reason }) => {
            // A word that we do not know means no more to us than the plainest.
            let known = reason.and_then(|reason| reason.parse().ok());
            Outcome::Failed(match known {
                Some(Reason::TargetUnreachable) => Reason::TargetUnreachable,
                _ => Reason::Rejected,
            })
        }
        Err(reason) => Outcome::Failed(reason),
    }
}

/// Sends the start frame and what is held, and goes on holding and sending what the client sends, up to the bound. Resolves only
/// when one of the two has failed. `written` counts all that the host was sent.
async fn send(
    host: &mut (impl AsyncWrite + Unpin),
    client: &mut TcpStream,
    held: &mut Held,
    start: &[u8],
    written: &AtomicUsize,
) -> Outcome {
    let mut flushed = !start.is_empty();
    // Where a request is there already, it goes with the start frame: one write, and one reading, less. Whether it is, the runtime
    // has not asked yet.
    if held.bytes.is_empty() && !held.ended {
        let aborted = held.take_in(|chunk| options::read_now(client, chunk));
        if let Some(aborted) = aborted {
            return aborted;
        }
    }
    loop {
        let sent = written.load(Relaxed);
        let unsent_start = start.get(sent..).unwrap_or_default();
        let unsent_held = held.bytes.get(sent.saturating_sub(start.len())..).unwrap_or_default();
        let unsent = [unsent_start, unsent_held];
        let reads = held.room() > 0;
        tokio::select! {
            biased;
            handed = hand_on(host, unsent), if unsent.iter().any(|it| !it.is_empty()) || !flushed => match handed {
                Ok(count) => {
                    written.fetch_add(count, Relaxed);
                    flushed = count == 0;
                }
                Err(_) => return Outcome::Failed(Reason::HostAborted),
            },
            _readable = client.ready(Interest::READABLE), if reads => {
                let aborted = held.take_in(|chunk| client.try_read(chunk));
                if let Some(aborted) = aborted {
                    return aborted;
                }
            }
            _failed = client.ready(Interest::ERROR), if !reads => return Outcome::ClientAborted,
        }
    }
}

/// Writes some of it; nothing left to write, it sees what was written on its way. Gives how many bytes were written.
async fn hand_on(host: &mut (impl AsyncWrite + Unpin), unsent: [&[u8]; 2]) -> io::Result<usize> {
    match unsent {
        [[], []] => host.flush().await.map(|()| 0),
        [[], unsent] | [unsent, []] => host.write(unsent).await,
        both => host.write_vectored(&both.map(IoSlice::new)).await,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (dialled.unwrap(), accepted.unwrap().0)
    }

    fn start() -> Start {
        let session_id = relayserver_wire::SessionId([7; 16]);
        Start { session_id, service: "ssh".to_owned(), client_addr: None, via: "tcp".to_owned() }
    }

    struct Scene {
        client: TcpStream,
        host: TcpStream,
        stop: Option<oneshot::Sender<Stop>>,
    }

    /// Makes an offer while `act` plays the two ends. Gives its outcome, and what is held.
    async fn offered(act: impl AsyncFnOnce(&mut Scene)) -> (Outcome, Held) {
        let ((client, mut of_client), (host, of_host)) = (pair().await, pair().await);
        let (stop, mut stopped) = oneshot::channel();
        let (mut host_leg, mut held) = (Stream::Tcp(of_host), Held::default());
        let mut scene = Scene { client, host, stop: Some(stop) };
        let start = start();
        let outcome = {
            let making =
                make(&mut host_leg, &mut of_client, &mut held, &mut stopped, &start, DEADLINE);
            let playing = async {
                act(&mut scene).await;
                std::future::pending::<()>().await;
            };
            let decided = async {
                tokio::select! {
                    outcome = making => outcome,
                    () = playing => unreachable!("pending for ever"),
                }
            };
            timeout(DEADLINE, decided).await.expect("no outcome")
        };
        (outcome, held)
    }

    async fn read_start(host: &mut TcpStream) {
        let frame = start().encode();
        let mut received = vec![0; frame.len()];
        host.read_exact(&mut received).await.unwrap();
        assert_eq!(received, frame);
    }

    #[tokio::test]
    async fn an_accepted_session_says_how_much_was_sent() {
        let (outcome, held) = offered(async |scene| {
            scene.client.write_all(b"request").await.unwrap();
            scene.client.shutdown().await.unwrap();
            read_start(&mut scene.host).await;
            let mut received = [0; 7];
            scene.host.read_exact(&mut received).await.unwrap();
            assert_eq!(&received, b"request");
            scene.host.write_all(&Verdict::Accepted.encode()).await.unwrap();
        })
        .await;
        assert!(matches!(outcome, Outcome::Accepted { sent: 7 }), "{outcome:?}");
        assert_eq!(held.bytes, b"request");
    }

    /// What a host sends right behind its word is the session's, in whatever pieces the word comes.
    #[tokio::test]
    async fn nothing_behind_the_hosts_word_is_read() {
        let accepted = Verdict::Accepted.encode();
        assert_eq!(accepted.len(), ACCEPTED_LEN_MIN);
        for piece_len in 1..=accepted.len() + 3 {
            let (mut host, mut relay) = tokio::io::duplex(64);
            let sent = [&accepted[..], b"abc"].concat();
            let writing = async {
                for piece in sent.chunks(piece_len) {
                    host.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let (outcome, ()) = tokio::join!(read_verdict(&mut relay), writing);
            assert!(matches!(outcome, Outcome::Accepted { sent: 0 }), "{outcome:?}");
            let mut behind = [0; 3];
            relay.read_exact(&mut behind).await.unwrap();
            assert_eq!(&behind, b"abc");
        }
    }

    #[tokio::test]
    async fn a_rejected_session_keeps_every_byte_and_the_end() {
        let (outcome, held) = offered(async |scene| {
            scene.client.write_all(b"request").await.unwrap();
            scene.client.shutdown().await.unwrap();
            read_start(&mut scene.host).await;
            let mut received = [0; 7];
            scene.host.read_exact(&mut received).await.unwrap();
            let reason = Some("target_unreachable".to_owned());
            scene.host.write_all(&Verdict::Rejected { reason }.encode()).await.unwrap();
        })
        .await;
        assert!(matches!(outcome, Outcome::Failed(Reason::TargetUnreachable)), "{outcome:?}");
        assert_eq!(held.bytes, b"request");
    }

    #[tokio::test]
    async fn no_more_is_sent_than_is_held() {
        let (outcome, held) = offered(async |scene| {
            // More than the bound, and more than the sockets take.
            let mut sent = 0;
            while let Ok(written) =
                timeout(Duration::from_millis(300), scene.client.write(&[9; 65_536])).await
            {
                sent += written.unwrap();
            }
            assert!(sent > HELD_MAX);
            read_start(&mut scene.host).await;
            let mut received = vec![0; HELD_MAX];
            scene.host.read_exact(&mut received).await.unwrap();
            let more = timeout(Duration::from_millis(300), scene.host.read_u8()).await;
            assert!(more.is_err(), "more than is held");
            scene.stop.take().unwrap().send(Stop::Withdraw(Reason::HostSuspect)).unwrap();
        })
        .await;
        assert!(matches!(outcome, Outcome::Failed(Reason::HostSuspect)), "{outcome:?}");
        assert_eq!(held.bytes, vec![9; HELD_MAX]);
    }

    #[tokio::test]
    async fn a_host_that_dies_or_talks_nonsense_has_not_accepted() {
        for (nonsense, expected) in [
            (&b""[..], Reason::HostAborted),
            (b"\x00\x00", Reason::HostAborted),
            (b"HTTP/1.1 200 OK", Reason::Malformed),
            (b"\x00\x00\x08\x00", Reason::Malformed),
        ] {
            let (outcome, held) = offered(async |scene| {
                scene.client.write_all(b"x").await.unwrap();
                read_start(&mut scene.host).await;
                assert_eq!(scene.host.read_u8().await.unwrap(), b'x');
                scene.host.write_all(nonsense).await.unwrap();
                scene.host.shutdown().await.unwrap();
            })
            .await;
            let failed = matches!(outcome, Outcome::Failed(reason) if reason == expected);
            assert!(failed, "{nonsense:?}: {outcome:?}");
            assert_eq!(held.bytes, b"x");
        }
    }

    #[tokio::test]
    async fn what_a_host_has_accepted_stays_with_it_though_it_is_asked_for_at_once() {
        let ((_client, mut of_client), (mut host, of_host)) = (pair().await, pair().await);
        let (stop, mut stopped) = oneshot::channel();
        let (mut host_leg, mut held, start) = (Stream::Tcp(of_host), Held::default(), start());
        let making = make(&mut host_leg, &mut of_client, &mut held, &mut stopped, &start, DEADLINE);
        let mut making = std::pin::pin!(making);
        tokio::select! {
            outcome = &mut making => panic!("{outcome:?} before it has said a word"),
            () = read_start(&mut host) => {}
        }
        host.write_all(&Verdict::Accepted.encode()).await.unwrap();
        // Whoever has seen this has seen the word too.
        let (mut later, mut seen) = pair().await;
        later.write_u8(1).await.unwrap();
        seen.read_u8().await.unwrap();
        stop.send(Stop::Withdraw(Reason::HostSuspect)).unwrap();
        let outcome = making.await;
        assert!(matches!(outcome, Outcome::Accepted { sent: 0 }), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_client_that_is_reset_ends_it() {
        let (outcome, _held) = offered(async |scene| {
            read_start(&mut scene.host).await;
            scene.client.set_zero_linger().unwrap();
            let (other, _unused) = pair().await;
            drop(std::mem::replace(&mut scene.client, other));
        })
        .await;
        assert!(matches!(outcome, Outcome::ClientAborted), "{outcome:?}");
    }
}
