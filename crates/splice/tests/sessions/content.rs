//! What goes in on one side comes out on the other: all of it, once, in order.

use relayserver_splice::Path;
use tokio::io::{AsyncWriteExt, split};

use crate::rig::*;

/// How the peers part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parting {
    /// Both say that they are done, and go on receiving.
    HalfClose,
    /// The client leaves once it has all it wants, without a word before.
    Leave,
}

struct Exchange {
    path: Path,
    client: Kind,
    host: Kind,
    to_host: usize,
    to_client: usize,
    send_chunk: usize,
    receive_chunk: usize,
    parting: Parting,
}

impl Exchange {
    fn of(path: Path, client: Kind, host: Kind, len: usize) -> Exchange {
        Exchange {
            path,
            client,
            host,
            to_host: len,
            to_client: len,
            send_chunk: 256 * KIB,
            receive_chunk: 256 * KIB,
            parting: Parting::HalfClose,
        }
    }

    async fn check(self) {
        let (client, client_peer) = pair(self.client).await;
        let (host, host_peer) = pair(self.host).await;
        let session = Session::start(self.path, client, host);
        let (mut client_in, mut client_out) = split(client_peer);
        let (mut host_in, mut host_out) = split(host_peer);
        let half_close = self.parting == Parting::HalfClose;

        let client_sends = async {
            send(&mut client_out, 1, self.to_host, self.send_chunk).await;
            if half_close {
                client_out.shutdown().await.unwrap();
            }
        };
        let host_sends = async {
            send(&mut host_out, 2, self.to_client, self.send_chunk).await;
            if half_close {
                host_out.shutdown().await.unwrap();
            }
        };
        let client_receives = receive(&mut client_in, 2, self.to_client, self.receive_chunk);
        let host_receives = receive(&mut host_in, 1, self.to_host, self.receive_chunk);
        soon(async { tokio::join!(client_sends, host_sends, client_receives, host_receives) })
            .await;

        if half_close {
            soon(expect_end(&mut client_in)).await;
        } else {
            client_out.shutdown().await.unwrap();
            drop((client_in, client_out));
        }
        soon(expect_end(&mut host_in)).await;
        drop((host_in, host_out));
        let counts = session.counts.clone();
        session.ended().await.result.expect("a good end");
        assert_eq!(moved(&counts), (self.to_host as u64, self.to_client as u64));
    }
}

const KINDS: [(Kind, Kind); 5] = [
    (Kind::Tcp, Kind::Tcp),
    (Kind::Unix, Kind::Tcp),
    (Kind::Tcp, Kind::Unix),
    (Kind::Tcp, Kind::Duplex(8)),
    (Kind::Duplex(64 * KIB), Kind::Unix),
];

#[tokio::test]
async fn every_size_arrives_in_full_both_ways_at_once() {
    for path in PATHS {
        for (client, host) in KINDS {
            for len in [0, 1, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 3 * MIB + 17] {
                for parting in [Parting::HalfClose, Parting::Leave] {
                    let exchange = Exchange { parting, ..Exchange::of(path, client, host, len) };
                    exchange.check().await;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_quarter_of_a_gibibyte_arrives_in_full_both_ways_at_once() {
    for path in PATHS {
        Exchange::of(path, Kind::Tcp, Kind::Tcp, 256 * MIB).check().await;
    }
}

#[tokio::test]
async fn a_reader_of_one_byte_at_a_time_gets_every_byte() {
    for path in PATHS {
        for (client, host) in KINDS {
            let exchange = Exchange {
                to_host: 400 * KIB + 3,
                to_client: 10,
                receive_chunk: 1,
                ..Exchange::of(path, client, host, 0)
            };
            exchange.check().await;
        }
    }
}

#[tokio::test]
async fn a_writer_of_odd_pieces_has_every_byte_delivered() {
    for path in PATHS {
        for send_chunk in [1, 7, 65_537] {
            let exchange = Exchange {
                to_host: 300 * send_chunk.min(10_000),
                to_client: 200 * send_chunk.min(10_000),
                send_chunk,
                receive_chunk: 4096,
                ..Exchange::of(path, Kind::Tcp, Kind::Tcp, 0)
            };
            exchange.check().await;
        }
    }
}
