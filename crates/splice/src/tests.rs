//! What only shows from inside: which way bytes went, what is given back, and how large a session is.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::pipe::Pool;
use crate::splice::{Counts, Path, Splice};
use crate::{Leg, Side};

const CHUNK: usize = 64 * 1024;

/// A session over Unix sockets: their buffers are plain, so that what is readable is what was sent.
struct Stage {
    splice: Splice,
    client: UnixStream,
    host: UnixStream,
    client_peer: UnixStream,
    host_peer: UnixStream,
    counts: Counts,
}

impl Stage {
    fn new(splice: Splice) -> Stage {
        let (client, client_peer) = UnixStream::pair().unwrap();
        let (host, host_peer) = UnixStream::pair().unwrap();
        for socket in [&client, &client_peer, &host, &host_peer] {
            let socket = socket2::SockRef::from(socket);
            socket.set_send_buffer_size(4 * CHUNK).unwrap();
        }
        Stage { splice, client, host, client_peer, host_peer, counts: Counts::default() }
    }

    /// Runs the session until `len` bytes in all have reached the host's socket.
    async fn run_until_delivered(&mut self, len: usize) {
        let mut on_eof = |_: Side| {};
        let counts = &self.counts;
        let legs = (Leg::Unix(&self.client), Leg::Unix(&self.host));
        let mut run = pin!(self.splice.run(legs.0, legs.1, counts, &mut on_eof));
        let delivered = std::future::poll_fn(|cx| {
            assert!(run.as_mut().poll(cx).is_pending());
            if counts.to_host.load(Ordering::Relaxed) == len as u64 {
                // Once more, so that it sees that there is no more.
                assert!(run.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        timeout(Duration::from_secs(10), delivered).await.unwrap();
    }

    /// Polls the session once.
    fn poll(&mut self) {
        let mut on_eof = |_: Side| {};
        let legs = (Leg::Unix(&self.client), Leg::Unix(&self.host));
        let mut run = pin!(self.splice.run(legs.0, legs.1, &self.counts, &mut on_eof));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(run.as_mut().poll(&mut cx).is_pending());
    }

    /// Transfers so many times two chunks.
    async fn transfer_bulk(&mut self, times: usize) {
        for _ in 0..times {
            self.transfer(2 * CHUNK).await;
        }
    }

    /// Sends `len` bytes and receives them, all of them equal to what was sent. At most 3 chunks: what a socket holds.
    async fn transfer(&mut self, len: usize) {
        let before = usize::try_from(self.counts.to_host.load(Ordering::Relaxed)).unwrap();
        let content: Vec<u8> = (0..len).map(|at| (at / 251 + at) as u8).collect();
        self.client_peer.write_all(&content).await.unwrap();
        self.run_until_delivered(before + len).await;
        let mut received = vec![0; len];
        self.host_peer.read_exact(&mut received).await.unwrap();
        assert!(received == content, "other bytes than were sent");
    }

    fn is_bulk(&mut self) -> bool {
        self.splice.direction_to_host().pace().is_bulk()
    }
}

fn pool(in_use_max: usize) -> &'static Pool {
    Box::leak(Box::new(Pool::new(in_use_max)))
}

#[tokio::test]
async fn bulk_takes_a_pipe_and_small_messages_after_it_are_copied() {
    let pool = pool(4);
    let mut stage = Stage::new(Splice::with_pool(pool));
    stage.transfer(CHUNK).await;
    assert!(!stage.is_bulk(), "one full read is no bulk");
    assert_eq!(pool.idle(), 0);
    stage.transfer(3 * CHUNK).await;
    assert!(stage.is_bulk());
    assert_eq!(pool.idle(), 1, "the third chunk went through a pipe");
    stage.transfer(100).await;
    assert!(stage.is_bulk(), "one small message is no end of bulk");
    stage.transfer(100).await;
    assert!(!stage.is_bulk());
    stage.transfer(CHUNK).await;
    stage.transfer(100).await;
    stage.transfer(CHUNK).await;
    assert!(!stage.is_bulk(), "two full reads in a row are");
}

#[tokio::test]
async fn the_copying_path_takes_no_pipe() {
    let mut stage = blocked_in_bulk(Splice::new(Path::Copy), &[7; 4 * CHUNK]).await;
    assert!(!stage.splice.direction_to_host().waits_for_sender());
    assert!(!stage.splice.direction_to_host().holds_pipe());
    let mut stage = blocked_in_bulk(Splice::new(Path::Auto), &[7; 4 * CHUNK]).await;
    assert!(stage.splice.direction_to_host().holds_pipe());
}

#[tokio::test]
async fn a_direction_that_waits_has_given_its_pipe_back() {
    let pool = pool(1);
    let mut stage = Stage::new(Splice::with_pool(pool));
    for _ in 0..3 {
        stage.transfer_bulk(4).await;
        assert!(stage.is_bulk());
        assert_eq!((pool.in_use(), pool.idle()), (0, 1));
    }
}

#[tokio::test]
async fn a_pipe_that_holds_bytes_is_closed_and_not_kept() {
    let pool = pool(1);
    let mut pipe = pool.take().unwrap();
    let (socket, mut peer) = UnixStream::pair().unwrap();
    peer.write_all(b"held").await.unwrap();
    assert_eq!(pipe.fill(crate::socket::Socket::Unix(&socket)).unwrap(), 4);
    assert!(pool.take().is_none(), "the cap holds");
    drop(pipe);
    assert_eq!((pool.in_use(), pool.idle()), (0, 0));
    assert!(pool.take().unwrap().is_empty());
}

#[tokio::test]
async fn without_a_pipe_to_be_had_bulk_is_copied() {
    let pool = pool(1);
    let taken = pool.take();
    let mut stage = Stage::new(Splice::with_pool(pool));
    stage.transfer_bulk(10).await;
    assert!(!stage.splice.direction_to_host().holds_pipe());
    drop(taken);
    stage.transfer_bulk(10).await;
    assert!(stage.is_bulk());
    assert_eq!((pool.in_use(), pool.idle()), (0, 1));
}

#[test]
fn at_most_16_idle_pipes_are_kept() {
    // Not many more: an ordinary user may not have all that many, and other tests need some.
    let pool = pool(20);
    let pipes: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    assert_eq!(pipes.len(), 20);
    drop(pipes);
    assert_eq!((pool.in_use(), pool.idle()), (0, 16));
}

/// The kernel refuses to splice into a socket with `O_APPEND`: the way to get its `EINVAL` for bytes already in a pipe.
#[tokio::test]
async fn a_socket_that_cannot_be_spliced_is_copied_to_for_good() {
    let pool = pool(4);
    let mut stage = Stage::new(Splice::with_pool(pool));
    let flags = fcntl_getfl(&stage.host).unwrap();
    fcntl_setfl(&stage.host, flags | OFlags::APPEND).unwrap();
    stage.transfer_bulk(4).await;
    assert!(stage.splice.direction_to_host().is_splice_refused());
    assert_eq!((pool.in_use(), pool.idle()), (0, 0));
    stage.transfer_bulk(10).await;
    assert_eq!((pool.in_use(), pool.idle()), (0, 0));
}

/// A session whose host leg has taken some of the content, and takes no more.
async fn blocked_in_bulk(splice: Splice, content: &[u8]) -> Stage {
    let mut stage = Stage::new(splice);
    stage.splice.direction_to_host().begin_as_bulk();
    let host = socket2::SockRef::from(&stage.host);
    host.set_send_buffer_size(4096).unwrap();
    stage.client_peer.write_all(content).await.unwrap();
    stage.client.readable().await.unwrap();
    stage.host.writable().await.unwrap();
    for _ in 0..100 {
        stage.poll();
        tokio::task::yield_now().await;
    }
    stage
}

#[tokio::test]
async fn the_remainder_has_what_is_in_a_pipe() {
    let content: Vec<u8> = (0..4 * CHUNK).map(|at| (at / 251 + at) as u8).collect();
    let mut stage = blocked_in_bulk(Splice::with_pool(pool(4)), &content).await;
    assert!(stage.splice.direction_to_host().holds_pipe());
    let written = usize::try_from(stage.counts.to_host.load(Ordering::Relaxed)).unwrap();
    let remainder = stage.splice.into_remainder().unwrap();
    let mut all = vec![0; written];
    stage.host_peer.read_exact(&mut all).await.unwrap();
    assert!(stage.host_peer.try_read(&mut [0; 1]).is_err(), "counted exactly");
    all.extend(&remainder.to_host.bytes);
    assert!(!remainder.to_host.bytes.is_empty());
    assert!(all == content[..all.len()], "other bytes than were sent");
}

#[tokio::test]
async fn what_is_in_a_pipe_can_go_on_to_a_leg_that_is_no_socket() {
    let content: Vec<u8> = (0..4 * CHUNK).map(|at| (at / 251 + at) as u8).collect();
    let mut stage = blocked_in_bulk(Splice::with_pool(pool(4)), &content).await;
    assert!(stage.splice.direction_to_host().holds_pipe());
    let written = usize::try_from(stage.counts.to_host.load(Ordering::Relaxed)).unwrap();
    let (mut host, mut host_peer) = tokio::io::duplex(100);
    let mut on_eof = |_: Side| {};
    let legs = (Leg::Unix(&stage.client), Leg::Other(&mut host));
    let run = stage.splice.run(legs.0, legs.1, &stage.counts, &mut on_eof);
    let mut rest = vec![0; content.len() - written];
    let received = timeout(Duration::from_secs(10), async {
        tokio::select! {
            _ = run => false,
            received = host_peer.read_exact(&mut rest) => received.is_ok(),
        }
    });
    assert!(received.await.unwrap());
    assert!(rest == content[written..], "other bytes than were sent");
}

/// A relay holds one of these for every session: 10,000 idle sessions are to cost no more than 3 MB here.
#[tokio::test]
async fn a_session_is_small() {
    let stage = Stage::new(Splice::new(Path::Auto));
    let (mut splice, mut on_eof) = (stage.splice, |_: Side| {});
    assert!(size_of::<Splice>() <= 104, "{}", size_of::<Splice>());
    let legs = (Leg::Unix(&stage.client), Leg::Unix(&stage.host));
    let run = splice.run(legs.0, legs.1, &stage.counts, &mut on_eof);
    assert!(size_of_val(&run) <= 192, "{}", size_of_val(&run));
}

/// What a host has sent long ago says nothing of whether it is still there.
#[tokio::test]
async fn only_what_comes_after_there_was_nothing_is_an_arrival() {
    for path in [Path::Auto, Path::Copy] {
        let Stage { mut splice, client, host, mut client_peer, mut host_peer, counts } =
            Stage::new(Splice::new(path));
        let mut on_eof = |_: Side| {};
        let arrivals = || counts.arrivals.load(Ordering::Relaxed);
        let playing = async {
            for number in 1..=3 {
                host_peer.write_all(b"answer").await.unwrap();
                client_peer.read_exact(&mut [0; 6]).await.unwrap();
                assert_eq!(arrivals(), number, "each came when there was nothing");
            }
            // The client reads nothing until nobody can send it any more.
            let (mut sent, content) = (0, vec![7; CHUNK]);
            let quiet = Duration::from_millis(200);
            while let Ok(written) = timeout(quiet, host_peer.write(&content)).await {
                sent += written.unwrap();
            }
            assert!(sent > CHUNK);
            let before = arrivals();
            let mut received = vec![0; sent];
            client_peer.read_exact(&mut received).await.unwrap();
            assert!(received.iter().all(|byte| *byte == 7));
            assert_eq!(arrivals(), before, "it was there all the time");
            host_peer.write_all(b"answer").await.unwrap();
            client_peer.read_exact(&mut [0; 6]).await.unwrap();
            assert_eq!(arrivals(), before + 1);
        };
        let run = splice.run(Leg::Unix(&client), Leg::Unix(&host), &counts, &mut on_eof);
        let played = async {
            tokio::select! {
                _ended = run => panic!("it ended"),
                () = playing => {}
            }
        };
        timeout(Duration::from_secs(20), played).await.unwrap();
    }
}
