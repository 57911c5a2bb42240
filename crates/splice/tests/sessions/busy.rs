//! Sessions that come back because they are busy, and those that do not.

use relayserver_splice::{Busy, Counts, Failure, Path, Side, Splice, Until};
use tokio::io::AsyncWriteExt;

use crate::rig::{KIB, Kind, MIB, PATHS, Peer, Stream, expect_end, pair, receive, send, soon};

const CHATTY: Until = Until::Busy(Busy::Chatty);
const ANY: Until = Until::Busy(Busy::Any);

/// The client and the host.
type Peers = (Box<dyn Peer>, Box<dyn Peer>);

/// A session and its far ends.
struct Stage {
    splice: Splice,
    legs: (Stream, Stream),
    peers: Peers,
    counts: Counts,
}

impl Stage {
    async fn new(path: Path, kind: Kind) -> Stage {
        let (client, client_peer) = pair(kind).await;
        let (host, host_peer) = pair(kind).await;
        Stage {
            splice: Splice::new(path),
            legs: (client, host),
            peers: (client_peer, host_peer),
            counts: Counts::default(),
        }
    }
}

async fn run(
    splice: &mut Splice,
    until: Until,
    legs: &mut (Stream, Stream),
    counts: &Counts,
) -> Result<Until, Failure> {
    splice.run_until(until, legs.0.leg(), legs.1.leg(), counts, &mut |_: Side| {}).await
}

/// Questions and answers of `len` bytes, then both ends.
async fn converse(peers: &mut Peers, messages: u64, len: usize) {
    let (client, host) = &mut *peers;
    for number in 0..messages {
        send(client, number, len, len).await;
        receive(host, number, len, len).await;
        send(host, !number, len, len).await;
        receive(client, !number, len, len).await;
    }
    end(peers).await;
}

/// The client ends, then the host.
async fn end((client, host): &mut Peers) {
    client.shutdown().await.unwrap();
    expect_end(host).await;
    host.shutdown().await.unwrap();
    expect_end(client).await;
}

#[tokio::test]
async fn many_messages_bring_it_back_and_none_is_lost() {
    for path in PATHS {
        for kind in [Kind::Tcp, Kind::Unix] {
            let Stage { mut splice, mut legs, mut peers, counts } = Stage::new(path, kind).await;
            let running = async {
                let first = run(&mut splice, CHATTY, &mut legs, &counts).await.unwrap();
                assert_eq!(first, CHATTY);
                let then = run(&mut splice, Until::End, &mut legs, &counts).await.unwrap();
                assert_eq!(then, Until::End, "it was not asked again");
            };
            soon(async { tokio::join!(running, converse(&mut peers, 500, 100)) }).await;
        }
    }
}

#[tokio::test]
async fn a_few_messages_do_not() {
    for (path, wanted) in PATHS.into_iter().flat_map(|path| [(path, CHATTY), (path, ANY)]) {
        let Stage { mut splice, mut legs, mut peers, counts } = Stage::new(path, Kind::Tcp).await;
        let running = async {
            let until = run(&mut splice, wanted, &mut legs, &counts).await.unwrap();
            assert_eq!(until, Until::End);
        };
        soon(async { tokio::join!(running, converse(&mut peers, 10, 100)) }).await;
    }
}

#[tokio::test]
async fn whoever_waits_for_the_end_alone_gets_no_other() {
    let Stage { mut splice, mut legs, mut peers, counts } = Stage::new(Path::Auto, Kind::Tcp).await;
    let running = async {
        let until = run(&mut splice, Until::End, &mut legs, &counts).await.unwrap();
        assert_eq!(until, Until::End);
    };
    soon(async { tokio::join!(running, converse(&mut peers, 500, 100)) }).await;
}

#[tokio::test]
async fn what_is_no_socket_stays_where_it_is() {
    let kind = Kind::Duplex(64 * KIB);
    for wanted in [CHATTY, ANY] {
        let Stage { mut splice, mut legs, mut peers, counts } = Stage::new(Path::Auto, kind).await;
        let running = async {
            let until = run(&mut splice, wanted, &mut legs, &counts).await.unwrap();
            assert_eq!(until, Until::End);
        };
        soon(async { tokio::join!(running, converse(&mut peers, 500, 100)) }).await;
    }
}

/// Whoever looks after its end would have to know on the lane which side it was that has ended.
#[tokio::test]
async fn a_session_that_has_begun_to_end_stays_where_it_is() {
    for path in PATHS {
        let Stage { mut splice, mut legs, mut peers, counts } = Stage::new(path, Kind::Tcp).await;
        let running = async {
            let until = run(&mut splice, ANY, &mut legs, &counts).await.unwrap();
            assert_eq!(until, Until::End);
        };
        let playing = async {
            let (client, host) = &mut peers;
            client.shutdown().await.unwrap();
            expect_end(host).await;
            let len = 256 * MIB;
            tokio::join!(send(host, 1, len, MIB), receive(client, 1, len, MIB));
            host.shutdown().await.unwrap();
            expect_end(client).await;
        };
        soon(async { tokio::join!(running, playing) }).await;
    }
}

/// Bulk to the client, twice as much as may pass before a session counts as busy, then both ends.
async fn transfer(peers: &mut Peers) {
    let (client, host) = &mut *peers;
    let len = 128 * MIB;
    tokio::join!(send(host, 1, len, MIB), receive(client, 1, len, MIB));
    end(peers).await;
}

/// What comes before the second full read may pass for small messages.
#[tokio::test]
async fn bulk_stays_where_only_small_messages_are_to_go() {
    for path in PATHS {
        let Stage { mut splice, mut legs, mut peers, counts } = Stage::new(path, Kind::Tcp).await;
        let running = async {
            let until = run(&mut splice, CHATTY, &mut legs, &counts).await.unwrap();
            assert_eq!(until, Until::End);
        };
        soon(async { tokio::join!(running, transfer(&mut peers)) }).await;
    }
}

#[tokio::test]
async fn bulk_goes_where_it_may_and_none_is_lost() {
    for path in PATHS {
        let Stage { mut splice, mut legs, mut peers, counts } = Stage::new(path, Kind::Tcp).await;
        let running = async {
            let first = run(&mut splice, ANY, &mut legs, &counts).await.unwrap();
            assert_eq!(first, ANY);
            let then = run(&mut splice, Until::End, &mut legs, &counts).await.unwrap();
            assert_eq!(then, Until::End);
        };
        soon(async { tokio::join!(running, transfer(&mut peers)) }).await;
    }
}
