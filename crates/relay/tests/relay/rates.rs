//! Services with a rate, and beside them those that have none.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use relayserver_relay::Rates;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::peers::{TestRelay, echo, session, within};

const RATE: u64 = 400_000;

fn limited(rates: Rates) -> TestRelay {
    TestRelay::with(|config| config.default_service().rates = rates)
}

/// How long it takes until so many bytes have come, whatever they are.
async fn takes(from: &mut (impl AsyncReadExt + Unpin), mut len: usize) -> Duration {
    let began = Instant::now();
    let mut chunk = vec![0; 64 * 1024];
    while len > 0 {
        let part = len.min(chunk.len());
        let read = from.read(&mut chunk[..part]).await.unwrap();
        assert!(read > 0 && chunk[..read].iter().all(|byte| *byte == 7));
        len -= read;
    }
    began.elapsed()
}

#[tokio::test]
async fn a_session_goes_no_faster_than_its_rate_in_either_direction_and_smoothly() {
    let rate = NonZeroU64::new(RATE);
    let relay = limited(Rates { session: rate, service: None });
    let mut host = relay.host(1).await;
    let (mut client, mut channel) = session(&relay, &mut host).await;
    let sent = vec![7; 400_000];
    for to_host in [true, false] {
        let (mut reader, writer): (&mut tokio::net::TcpStream, &mut tokio::net::TcpStream) =
            if to_host {
                (&mut channel.stream, &mut client)
            } else {
                (&mut client, &mut channel.stream)
            };
        let receiving = async {
            // The first part comes with the burst.
            let _first = takes(&mut reader, 40_000).await;
            let mut slowest = Duration::ZERO;
            let began = Instant::now();
            for _ in 0..9 {
                slowest = slowest.max(takes(&mut reader, 40_000).await);
            }
            (began.elapsed(), slowest)
        };
        let (written, (all, slowest)) =
            within("a second's worth", async { tokio::join!(writer.write_all(&sent), receiving) })
                .await;
        written.unwrap();
        // 360,000 bytes are 0.9 s by the rate; a burst may be ahead, and a busy machine late.
        assert!(all >= Duration::from_millis(850), "{all:?}");
        // Each part is 100 ms by the rate: none comes in one piece after a long pause.
        assert!(slowest < Duration::from_millis(450), "{slowest:?}");
    }
}

#[tokio::test]
async fn all_sessions_of_a_service_share_its_rate() {
    let relay = limited(Rates { service: NonZeroU64::new(RATE), session: None });
    let mut host = relay.host(1).await;
    let (mut one, mut channel_of_one) = session(&relay, &mut host).await;
    let (mut other, mut channel_of_other) = session(&relay, &mut host).await;
    let sent = vec![7; 200_000];
    let began = Instant::now();
    let all = async {
        let (a, b, _, _) = tokio::join!(
            one.write_all(&sent),
            other.write_all(&sent),
            takes(&mut channel_of_one.stream, 200_000),
            takes(&mut channel_of_other.stream, 200_000),
        );
        (a.unwrap(), b.unwrap())
    };
    within("both", all).await;
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
}

#[tokio::test]
async fn with_a_rate_not_a_byte_is_lost_and_ends_are_passed_on() {
    let relay =
        limited(Rates { session: NonZeroU64::new(3_000_000), service: NonZeroU64::new(5_000_000) });
    let mut host = relay.host(1).await;
    let (mut client, mut channel) = session(&relay, &mut host).await;
    echo(&mut client, &mut channel.stream).await;
    let sent: Vec<u8> = (0..500_000_u32).flat_map(u32::to_be_bytes).collect();
    let mut received = Vec::new();
    let moving = async {
        let (sent, received) = tokio::join!(
            async {
                client.write_all(&sent).await?;
                client.shutdown().await
            },
            channel.stream.read_to_end(&mut received)
        );
        sent.unwrap();
        received.unwrap();
    };
    within("two megabytes", moving).await;
    assert!(received == sent, "every byte, and the end");
}

/// Bulk as fast as it goes, on more sessions than there are cores.
#[tokio::test(flavor = "multi_thread")]
async fn the_bulk_of_some_does_not_starve_the_small_messages_of_another() {
    let relay = TestRelay::start();
    let mut host = relay.host(1).await;
    let mut bulk = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let (mut client, mut channel) = session(&relay, &mut host).await;
        bulk.spawn(async move {
            let chunk = vec![7; 1 << 20];
            loop {
                client.write_all(&chunk).await.unwrap();
            }
        });
        bulk.spawn(async move {
            loop {
                takes(&mut channel.stream, 1 << 20).await;
            }
        });
    }
    let (mut client, mut channel) = session(&relay, &mut host).await;
    let mut slowest = Duration::ZERO;
    for _ in 0..100 {
        let began = Instant::now();
        within("a small message there and back", echo(&mut client, &mut channel.stream)).await;
        slowest = slowest.max(began.elapsed());
    }
    // Where one waits for the others' bulk to end it takes for ever; on a busy machine a moment.
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    bulk.abort_all();
}
