//! What a session may take: memory, bytes in flight, a thread's time.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use relayserver_splice::{Counts, Leg, Path, Splice};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::rig::*;

#[derive(Default)]
struct WakeCount(AtomicUsize);

impl Wake for WakeCount {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl WakeCount {
    fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

#[tokio::test]
async fn a_slow_reader_slows_its_sender_and_bounds_what_is_in_flight() {
    // Two connections (see `keep_small`) and one pipe, or one buffer.
    let bound = (2 * 4 * 64 * KIB + MIB) as u64;
    let len = 8 * MIB;
    for path in PATHS {
        let (client, client_peer) = tcp_pair().await;
        let (host, mut host_peer) = tcp_pair().await;
        keep_small(&client, &client_peer);
        keep_small(&host, &host_peer);
        let session = Session::start(path, Stream::Tcp(client), Stream::Tcp(host));
        let (sent, done, sender) = send_in_background(client_peer, len);
        let mut received = 0;
        let mut buf = vec![0; 64 * KIB];
        while received < len as u64 {
            // The sender gets every chance to run ahead.
            session.settle().await;
            let sent = sent.load(Ordering::Relaxed);
            assert!(sent - received <= bound, "{} in flight", sent - received);
            if received == 0 {
                assert!(!done.load(Ordering::Relaxed), "the sender was not held up");
            }
            let n = soon(host_peer.read(&mut buf)).await.unwrap();
            assert_ne!(n, 0);
            received += n as u64;
        }
        soon(sender).await.unwrap();
        drop(host_peer);
        session.ended().await.result.unwrap();
    }
}

#[tokio::test]
async fn what_is_held_in_memory_is_one_buffer() {
    let (mut client_leg, mut client) = tokio::io::duplex(8);
    let (mut host_leg, mut host) = tokio::io::duplex(8);
    let counts = Counts::default();
    let mut on_eof = |_| {};
    let mut splice = Splice::new(Path::Auto);
    let sent = {
        let (client_leg, host_leg) = (Leg::Other(&mut client_leg), Leg::Other(&mut host_leg));
        let mut run = pin!(splice.run(client_leg, host_leg, &counts, &mut on_eof));
        let mut cx = Context::from_waker(Waker::noop());
        let mut sent = 0;
        loop {
            assert!(run.as_mut().poll(&mut cx).is_pending());
            match Pin::new(&mut client).poll_write(&mut cx, &[7; 3]) {
                Poll::Ready(n) => sent += n.unwrap(),
                Poll::Pending => break,
            }
        }
        sent
    };
    // 8 in either stream, and what was read at once when the host's stream was full.
    assert!(sent <= 8 + 8 + 8, "{sent}");
    let undelivered = splice.into_remainder().unwrap().to_host.bytes;
    assert_eq!(undelivered.len(), sent - 8 - 8);
    let mut received = [0; 8];
    host.read_exact(&mut received).await.unwrap();
    assert_eq!(received, [7; 8]);
}

/// A stream that always has bytes and always takes some.
struct Endless {
    reads: usize,
    writes: usize,
    write_max: usize,
}

impl AsyncRead for Endless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let n = buf.remaining();
        self.reads += 1;
        buf.put_slice(&vec![7; n]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.writes += 1;
        Poll::Ready(Ok(buf.len().min(self.write_max)))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn one_poll_does_a_bounded_amount_of_work_for_each_direction_and_asks_for_more() {
    let endless = |write_max| Endless { reads: 0, writes: 0, write_max };
    // To the client by small steps, to the host as much as there is.
    let (mut client, mut host) = (endless(1000), endless(usize::MAX));
    let counts = Counts::default();
    let mut on_eof = |_| {};
    let mut splice = Splice::new(Path::Auto);
    let wakes = Arc::new(WakeCount::default());
    let waker = Waker::from(wakes.clone());
    for polls in 1..=10 {
        let legs = (Leg::Other(&mut client), Leg::Other(&mut host));
        let mut run = pin!(splice.run(legs.0, legs.1, &counts, &mut on_eof));
        assert!(run.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(wakes.take() > 0, "nobody else would wake it");
        let (to_host, to_client) = moved(&counts);
        assert_eq!(to_host, polls * MIB as u64);
        assert!(to_client <= polls * 32 * 1000 && to_client >= polls * 16 * 1000, "{to_client}");
    }
    assert!(host.reads + client.writes <= 10 * 2 * 32, "one call for each step, or two");
}

#[tokio::test]
async fn a_session_without_traffic_is_not_polled() {
    for path in PATHS {
        for half_closed in [false, true] {
            let (client, mut client_peer) = tcp_pair().await;
            let (host, mut host_peer) = tcp_pair().await;
            let counts = Counts::default();
            let mut on_eof = |_| {};
            let mut splice = Splice::new(path);
            let mut run =
                pin!(splice.run(Leg::Tcp(&client), Leg::Tcp(&host), &counts, &mut on_eof));
            let wakes = Arc::new(WakeCount::default());
            let waker = Waker::from(wakes.clone());
            let mut poll =
                || assert!(run.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());

            // An exchange, to begin with; then nothing.
            poll();
            client_peer.write_all(b"ping").await.unwrap();
            if half_closed {
                client_peer.shutdown().await.unwrap();
            }
            soon(async {
                while moved(&counts).0 < 4 {
                    tokio::task::yield_now().await;
                    poll();
                }
                host_peer.read_exact(&mut [0; 4]).await.unwrap();
                if half_closed {
                    while host_peer.try_read(&mut [0; 1]).is_err() {
                        tokio::task::yield_now().await;
                        poll();
                    }
                }
            })
            .await;
            for _ in 0..300 {
                tokio::task::yield_now().await;
                if wakes.take() > 0 {
                    poll();
                }
            }
            // Polled for no reason, it does not ask to be polled again.
            for _ in 0..100 {
                poll();
                tokio::task::yield_now().await;
            }
            assert_eq!(wakes.take(), 0);
        }
    }
}
