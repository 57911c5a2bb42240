//! The stage: pairs of connected streams, content that both sides can tell from its seed, and a session in a task.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use relayserver_splice::{Counts, Failure, Leg, Path, Side, Splice};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::timeout;

pub(crate) const PATHS: [Path; 2] = [Path::Auto, Path::Copy];
pub(crate) const KIB: usize = 1024;
pub(crate) const MIB: usize = 1024 * 1024;

/// What a leg is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Tcp,
    Unix,
    /// In memory, with room for so many bytes.
    Duplex(usize),
}

/// The session's end of a connection.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Duplex(DuplexStream),
}

impl Stream {
    pub(crate) fn leg(&mut self) -> Leg<'_> {
        match self {
            Stream::Tcp(stream) => Leg::Tcp(stream),
            Stream::Unix(stream) => Leg::Unix(stream),
            Stream::Duplex(stream) => Leg::Other(stream),
        }
    }
}

/// The far end of a connection: the client's or the host's own.
pub(crate) trait Peer: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Peer for T {}

pub(crate) async fn pair(kind: Kind) -> (Stream, Box<dyn Peer>) {
    match kind {
        Kind::Tcp => {
            let (leg, peer) = tcp_pair().await;
            (Stream::Tcp(leg), Box::new(peer))
        }
        Kind::Unix => {
            let (leg, peer) = UnixStream::pair().unwrap();
            (Stream::Unix(leg), Box::new(peer))
        }
        Kind::Duplex(room) => {
            let (leg, peer) = tokio::io::duplex(room);
            (Stream::Duplex(leg), Box::new(peer))
        }
    }
}

/// The leg, and its peer.
pub(crate) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap());
    let (peer, accepted) = tokio::join!(peer, listener.accept());
    let (leg, peer) = (accepted.unwrap().0, peer.unwrap());
    leg.set_nodelay(true).unwrap();
    peer.set_nodelay(true).unwrap();
    (leg, peer)
}

/// Bounds what the system itself holds between these two: at most 4 x 64 KiB, as it doubles what it is told.
pub(crate) fn keep_small(leg: &TcpStream, peer: &TcpStream) {
    for socket in [SockRef::from(leg), SockRef::from(peer)] {
        socket.set_send_buffer_size(64 * KIB).unwrap();
        socket.set_recv_buffer_size(64 * KIB).unwrap();
    }
}

/// Drops `peer` with a RST.
pub(crate) fn reset(peer: TcpStream) {
    SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
}

/// A session that runs in a task.
pub(crate) struct Session {
    pub(crate) counts: Arc<Counts>,
    pub(crate) eofs: Arc<Mutex<Vec<Side>>>,
    task: JoinHandle<Ended>,
}

/// All that was lent to a session, and how it ended.
pub(crate) struct Ended {
    pub(crate) result: Result<(), Failure>,
    pub(crate) client: Stream,
    pub(crate) host: Stream,
}

impl Session {
    pub(crate) fn start(path: Path, client: Stream, host: Stream) -> Session {
        Session::start_with(Splice::new(path), client, host)
    }

    pub(crate) fn start_with(mut splice: Splice, mut client: Stream, mut host: Stream) -> Session {
        let counts = Arc::new(Counts::default());
        let eofs = Arc::new(Mutex::new(Vec::new()));
        let (shared_counts, shared_eofs) = (counts.clone(), eofs.clone());
        let task = tokio::spawn(async move {
            let mut on_eof = |side| shared_eofs.lock().unwrap().push(side);
            let run = splice.run(client.leg(), host.leg(), &shared_counts, &mut on_eof);
            let result = run.await;
            Ended { result, client, host }
        });
        Session { counts, eofs, task }
    }

    pub(crate) async fn ended(self) -> Ended {
        soon(self.task).await.unwrap()
    }

    pub(crate) async fn failure(self) -> Failure {
        self.ended().await.result.expect_err("the session failed")
    }

    pub(crate) fn eofs(&self) -> Vec<Side> {
        self.eofs.lock().unwrap().clone()
    }

    pub(crate) fn moved(&self) -> (u64, u64) {
        moved(&self.counts)
    }

    /// Lets everybody have so many turns that whoever can get on has.
    pub(crate) async fn settle(&self) {
        loop {
            let before = self.moved();
            for _ in 0..300 {
                yield_now().await;
            }
            if self.moved() == before {
                return;
            }
        }
    }

    /// Sends on `peer` until neither it nor the session gets on. Returns how much it took.
    pub(crate) async fn send_until_blocked(&self, peer: &TcpStream) -> u64 {
        let mut sent = 0;
        loop {
            let before = sent;
            while let Ok(n) = peer.try_write(&[7; 16 * KIB]) {
                sent += n as u64;
            }
            self.settle().await;
            if sent == before {
                return sent;
            }
        }
    }
}

pub(crate) fn moved(counts: &Counts) -> (u64, u64) {
    (counts.to_host.load(Ordering::Relaxed), counts.to_client.load(Ordering::Relaxed))
}

/// What must happen soon. Generous, since the machine may be busy; nothing waits for it to pass.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), future).await.expect("it happened within 30 s")
}

/// The byte at `offset` of the content that `seed` stands for (splitmix64, so that no two places look alike).
fn fill(seed: u64, offset: u64, buf: &mut [u8]) {
    let mut at = 0;
    while at < buf.len() {
        let position = offset + at as u64;
        let mut word = (seed ^ (position / 8)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bytes = (word ^ (word >> 31)).to_le_bytes();
        let from = &bytes[(position % 8) as usize..];
        let n = from.len().min(buf.len() - at);
        buf[at..at + n].copy_from_slice(&from[..n]);
        at += n;
    }
}

/// Sends `len` bytes of content in pieces of at most `chunk`.
pub(crate) async fn send(
    peer: &mut (impl AsyncWrite + Unpin),
    seed: u64,
    len: usize,
    chunk: usize,
) {
    let mut buf = vec![0; chunk];
    let mut sent = 0;
    while sent < len {
        let piece = &mut buf[..chunk.min(len - sent)];
        fill(seed, sent as u64, piece);
        peer.write_all(piece).await.expect("the peer can send");
        sent += piece.len();
    }
    peer.flush().await.unwrap();
}

/// Receives exactly `len` bytes in pieces of at most `chunk`, and compares every one of them.
pub(crate) async fn receive(
    peer: &mut (impl AsyncRead + Unpin),
    seed: u64,
    len: usize,
    chunk: usize,
) {
    let mut buf = vec![0; chunk];
    let mut expected = vec![0; chunk];
    let mut received = 0;
    while received < len {
        let n = peer.read(&mut buf[..chunk.min(len - received)]).await;
        let n = n.expect("the peer can receive");
        assert_ne!(n, 0, "end after {received} of {len} bytes");
        fill(seed, received as u64, &mut expected[..n]);
        assert!(
            buf[..n] == expected[..n],
            "other bytes than were sent, between {received} and {}",
            received + n
        );
        received += n;
    }
}

/// Nothing but the end comes.
pub(crate) async fn expect_end(peer: &mut (impl AsyncRead + Unpin)) {
    let n = peer.read(&mut [0; 1]).await.expect("an end, not an abort");
    assert_eq!(n, 0, "bytes beyond what was sent");
}

/// Sends on a peer in the background, saying how far it came and whether it is done.
pub(crate) fn send_in_background(
    mut peer: impl AsyncWrite + Unpin + Send + 'static,
    len: usize,
) -> (Arc<AtomicU64>, Arc<AtomicBool>, JoinHandle<()>) {
    let (sent, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (shared_sent, shared_done) = (sent.clone(), done.clone());
    let task = tokio::spawn(async move {
        let mut buf = vec![0; 16 * KIB];
        let mut at = 0;
        while at < len {
            fill(1, at as u64, &mut buf);
            let n = buf.len().min(len - at);
            let n = peer.write(&buf[..n]).await.unwrap();
            at += n;
            shared_sent.store(at as u64, Ordering::Relaxed);
        }
        shared_done.store(true, Ordering::Relaxed);
        peer.shutdown().await.unwrap();
    });
    (sent, done, task)
}
