//! A run may be dropped anywhere, and a session go on from plain data: nothing is lost, repeated or reordered.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use proptest::prelude::*;
use relayserver_splice::{
    Counts, End, Failure, Leg, Operation, Path, Remainder, Side, Splice, Undelivered,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::task::yield_now;

use crate::rig::*;

/// Runs until the end, or until it was polled `polls` times: then the run is dropped, wherever it is.
async fn run_for(
    splice: &mut Splice,
    client: &mut Stream,
    host: &mut Stream,
    counts: &Counts,
    on_eof: &mut (dyn FnMut(Side) + Send),
    polls: usize,
) -> Option<Result<(), Failure>> {
    let mut run = pin!(splice.run(client.leg(), host.leg(), counts, on_eof));
    let mut left = polls;
    poll_fn(|cx| match run.as_mut().poll(cx) {
        Poll::Ready(ended) => Poll::Ready(Some(ended)),
        Poll::Pending => {
            left -= 1;
            if left == 0 { Poll::Ready(None) } else { Poll::Pending }
        }
    })
    .await
}

#[derive(Clone, Copy, Debug)]
enum Between {
    RunAgain,
    ThroughRemainder,
}

async fn check(path: Path, kinds: (Kind, Kind), len: usize, between: Between, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut client, client_peer) = pair(kinds.0).await;
    let (mut host, host_peer) = pair(kinds.1).await;
    let (mut client_in, mut client_out) = split(client_peer);
    let (mut host_in, mut host_out) = split(host_peer);
    let counts = Counts::default();
    let mut eofs = Vec::new();
    let session = async {
        let mut splice = Splice::new(path);
        let mut on_eof = |side| eofs.push(side);
        loop {
            let polls = random.usize(1..5);
            let run = run_for(&mut splice, &mut client, &mut host, &counts, &mut on_eof, polls);
            if let Some(ended) = run.await {
                return ended;
            }
            if matches!(between, Between::ThroughRemainder) {
                splice = Splice::from_remainder(splice.into_remainder().unwrap(), path);
            }
            yield_now().await;
        }
    };
    let peers = async {
        tokio::join!(
            async {
                send(&mut client_out, 1, len, 100_000).await;
                client_out.shutdown().await.unwrap();
            },
            async {
                send(&mut host_out, 2, len / 2, 100_000).await;
                host_out.shutdown().await.unwrap();
            },
            async {
                receive(&mut client_in, 2, len / 2, 50_000).await;
                expect_end(&mut client_in).await;
            },
            async {
                receive(&mut host_in, 1, len, 50_000).await;
                expect_end(&mut host_in).await;
            },
        )
    };
    let (ended, _) = soon(async { tokio::join!(session, peers) }).await;
    ended.unwrap();
    assert_eq!(moved(&counts), (len as u64, len as u64 / 2));
    eofs.sort_by_key(|side| *side as u8);
    assert_eq!(eofs, [Side::Client, Side::Host], "each end is told once");
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        3 => Just(Kind::Tcp),
        2 => Just(Kind::Unix),
        1 => (1_usize..5000).prop_map(Kind::Duplex),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_run_dropped_anywhere_loses_nothing(
        copy in any::<bool>(), client in kind(), host in kind(), len in 0_usize..1_500_000, seed: u64,
    ) {
        let path = if copy { Path::Copy } else { Path::Auto };
        block_on(check(path, (client, host), len, Between::RunAgain, seed));
    }

    #[test]
    fn a_session_goes_on_from_its_remainder(
        copy in any::<bool>(), client in kind(), host in kind(), len in 0_usize..1_500_000, seed: u64,
    ) {
        let path = if copy { Path::Copy } else { Path::Auto };
        block_on(check(path, (client, host), len, Between::ThroughRemainder, seed));
    }
}

#[test]
fn bulk_over_sockets_survives_both() {
    for path in PATHS {
        for kinds in [(Kind::Tcp, Kind::Tcp), (Kind::Unix, Kind::Tcp)] {
            for between in [Between::RunAgain, Between::ThroughRemainder] {
                for seed in 0..3 {
                    block_on(check(path, kinds, 12 * MIB + 5, between, seed));
                }
            }
        }
    }
}

#[tokio::test]
async fn a_remainder_is_delivered_first_and_its_end_is_passed_on_untold() {
    for path in PATHS {
        let (client, mut client_peer) = pair(Kind::Tcp).await;
        let (host, mut host_peer) = pair(Kind::Tcp).await;
        let remainder = Remainder {
            to_host: Undelivered { bytes: b"left over".to_vec(), end: End::Read },
            to_client: Undelivered { bytes: Vec::new(), end: End::PassedOn },
        };
        let splice = Splice::from_remainder(remainder.clone(), path);
        assert_eq!(splice.into_remainder().unwrap(), remainder);
        assert!(!format!("{remainder:?}").contains("111"), "contents show");
        let splice = Splice::from_remainder(remainder, path);
        let session = Session::start_with(splice, client, host);
        soon(async {
            let mut all = Vec::new();
            host_peer.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, b"left over");
        })
        .await;
        let eofs = session.eofs.clone();
        session.ended().await.result.unwrap();
        assert_eq!(*eofs.lock().unwrap(), [], "they were told before");
        client_peer.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_leg_that_failed_can_be_replaced_and_gets_all_that_was_not_written() {
    for path in PATHS {
        for written in [0, 8] {
            replaces_a_leg_that_failed_after(written, path).await;
        }
    }
}

async fn replaces_a_leg_that_failed_after(written: usize, path: Path) {
    const MESSAGE: &[u8] = b"eight---and more";
    let (mut client, mut client_peer) = pair(Kind::Tcp).await;
    let (mut host, host_peer) = tokio::io::duplex(8);
    let mut host_peer = Some(host_peer);
    if written == 0 {
        host_peer = None;
    }
    let counts = Counts::default();
    let mut on_eof = |_| {};
    let mut splice = Splice::new(path);
    client_peer.write_all(MESSAGE).await.unwrap();
    let run = splice.run(client.leg(), Leg::Other(&mut host), &counts, &mut on_eof);
    let vanish = async {
        while moved(&counts).0 < written as u64 {
            yield_now().await;
        }
        drop(host_peer);
    };
    // Its end is read, and what it was to get cannot be written.
    let (ended, ()) = soon(async { tokio::join!(run, vanish) }).await;
    let failure = ended.unwrap_err();
    assert_eq!((failure.side, failure.operation), (Side::Host, Operation::Write));
    assert_eq!(moved(&counts).0, written as u64);
    let mut remainder = splice.into_remainder().unwrap();
    assert_eq!(remainder.to_host.bytes, MESSAGE[written..]);
    remainder.to_client.end = End::Open;

    let (host, mut host_peer) = pair(Kind::Tcp).await;
    let session = Session::start_with(Splice::from_remainder(remainder, path), client, host);
    let mut rest = vec![0; MESSAGE.len() - written];
    soon(host_peer.read_exact(&mut rest)).await.unwrap();
    assert_eq!(rest, MESSAGE[written..]);
    host_peer.shutdown().await.unwrap();
    client_peer.shutdown().await.unwrap();
    session.ended().await.result.unwrap();
}
