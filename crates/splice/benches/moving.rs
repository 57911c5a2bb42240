//! Bytes through a session between two TCP connections on loopback, and the same with what tokio has for it.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on is over")]

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use relayserver_splice::{Counts, Leg, Path, Splice};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

const MIB: usize = 1024 * 1024;

/// How many bytes go at once, to be timed.
const BULK: usize = 64 * MIB;

#[derive(Clone, Copy)]
enum Way {
    Auto,
    Copy,
    Tokio,
}

const WAYS: [(&str, Way); 3] = [("splice", Way::Auto), ("copy", Way::Copy), ("tokio", Way::Tokio)];

/// The two far ends of a session that runs in a task.
struct Session {
    client: TcpStream,
    host: TcpStream,
    task: JoinHandle<()>,
}

impl Session {
    async fn open(way: Way) -> Session {
        let (mut one, client) = pair().await;
        let (mut other, host) = pair().await;
        let task = tokio::spawn(async move {
            let path = match way {
                Way::Auto => Path::Auto,
                Way::Copy => Path::Copy,
                Way::Tokio => {
                    copy_bidirectional(&mut one, &mut other).await.unwrap();
                    return;
                }
            };
            let counts = Counts::default();
            let mut splice = Splice::new(path);
            let legs = (Leg::Tcp(&one), Leg::Tcp(&other));
            splice.run(legs.0, legs.1, &counts, &mut |_| {}).await.unwrap();
        });
        Session { client, host, task }
    }

    /// How long `count` requests take, one after the other.
    async fn round_trips(mut self, size: usize, count: u64) -> Duration {
        let answering = tokio::spawn(async move {
            let mut request = vec![0; size];
            while self.host.read_exact(&mut request).await.is_ok() {
                self.host.write_all(&request).await.unwrap();
            }
        });
        let (request, mut answer) = (vec![b'r'; size], vec![0; size]);
        let began = Instant::now();
        for _ in 0..count {
            self.client.write_all(&request).await.unwrap();
            self.client.read_exact(&mut answer).await.unwrap();
        }
        let took = began.elapsed();
        assert_eq!(answer, request);
        drop(self.client);
        answering.await.unwrap();
        self.task.await.unwrap();
        took
    }

    /// How long `count` times [`BULK`] bytes take.
    async fn bulk(mut self, count: u64) -> Duration {
        let sending = tokio::spawn(async move {
            let block = vec![b'b'; MIB];
            for _ in 0..count * (BULK / MIB) as u64 {
                self.host.write_all(&block).await.unwrap();
            }
        });
        let mut received = vec![0; MIB];
        let began = Instant::now();
        let mut left = count * BULK as u64;
        while left > 0 {
            let len = self.client.read(&mut received).await.unwrap();
            assert!(len > 0, "it ended too early");
            left -= len as u64;
        }
        let took = began.elapsed();
        sending.await.unwrap();
        drop(self.client);
        self.task.await.unwrap();
        took
    }
}

/// The session's end, and the far one.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap());
    let (far, accepted) = tokio::join!(far, listener.accept());
    let (near, far) = (accepted.unwrap().0, far.unwrap());
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    (near, far)
}

fn round_trips(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    for size in [64, 4096] {
        let mut group = criterion.benchmark_group(format!("a round trip of {size} bytes"));
        for (name, way) in WAYS {
            group.bench_function(name, |it| {
                it.iter_custom(|count| {
                    runtime
                        .block_on(async { Session::open(way).await.round_trips(size, count).await })
                });
            });
        }
        group.finish();
    }
}

fn bulk(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = criterion.benchmark_group("bulk");
    group.throughput(Throughput::Bytes(BULK as u64)).sample_size(10);
    for (name, way) in WAYS {
        group.bench_function(name, |it| {
            it.iter_custom(|count| {
                runtime.block_on(async { Session::open(way).await.bulk(count).await })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, round_trips, bulk);
criterion_main!(benches);
