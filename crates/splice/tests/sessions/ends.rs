//! A FIN is a half-close and is passed on as one.

use std::io::{ErrorKind, Read};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use relayserver_splice::{Counts, Leg, Path, Side, Splice};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};

use crate::rig::*;

#[tokio::test]
async fn one_end_is_passed_on_and_the_other_direction_goes_on() {
    for path in PATHS {
        for kind in [Kind::Tcp, Kind::Unix, Kind::Duplex(8)] {
            let (client, mut client_peer) = pair(kind).await;
            let (host, mut host_peer) = pair(kind).await;
            let session = Session::start(path, client, host);

            client_peer.write_all(b"request").await.unwrap();
            client_peer.shutdown().await.unwrap();
            soon(async {
                let mut request = Vec::new();
                host_peer.read_to_end(&mut request).await.unwrap();
                assert_eq!(request, b"request");
            })
            .await;
            assert_eq!(session.eofs(), [Side::Client]);
            assert_eq!(session.moved(), (7, 0));

            for round in 1..=3 {
                host_peer.write_all(b"answer").await.unwrap();
                soon(client_peer.read_exact(&mut [0; 6])).await.unwrap();
                assert_eq!(session.moved(), (7, 6 * round));
            }
            host_peer.shutdown().await.unwrap();
            soon(expect_end(&mut client_peer)).await;
            assert_eq!(session.eofs(), [Side::Client, Side::Host]);
            session.ended().await.result.unwrap();
        }
    }
}

#[tokio::test]
async fn an_end_is_told_before_it_is_passed_on_and_after_all_bytes() {
    for path in PATHS {
        let (client, mut client_peer) = tcp_pair().await;
        let (host, host_peer) = tcp_pair().await;
        send(&mut client_peer, 1, 1000, 1000).await;
        client_peer.shutdown().await.unwrap();
        drop(client_peer);
        SockRef::from(&host_peer).shutdown(std::net::Shutdown::Write).unwrap();

        let mut seen = Vec::new();
        let counts = Counts::default();
        let mut on_eof = |side| {
            if side == Side::Client {
                let mut buf = [0; 2000];
                let bytes = (&*SockRef::from(&host_peer)).read(&mut buf);
                let then = (&*SockRef::from(&host_peer)).read(&mut buf);
                seen.push((bytes.unwrap(), then.map_err(|error| error.kind())));
            }
        };
        let mut splice = Splice::new(path);
        let run = splice.run(Leg::Tcp(&client), Leg::Tcp(&host), &counts, &mut on_eof);
        soon(run).await.unwrap();
        assert_eq!(seen, [(1000, Err(ErrorKind::WouldBlock))]);
    }
}

#[tokio::test]
async fn a_peer_that_is_gone_when_both_ends_were_read_is_no_failure() {
    for path in PATHS {
        let (client, mut client_peer) = tcp_pair().await;
        let (host, mut host_peer) = tcp_pair().await;
        client_peer.shutdown().await.unwrap();
        host_peer.shutdown().await.unwrap();
        // Both ends are in; then comes a RST as well.
        reset(client_peer);
        let session = Session::start(path, Stream::Tcp(client), Stream::Tcp(host));
        soon(expect_end(&mut host_peer)).await;
        session.ended().await.result.unwrap();
    }
}

#[tokio::test]
async fn an_idle_session_takes_both_legs_back_as_they_were() {
    for path in PATHS {
        let (client, mut client_peer) = pair(Kind::Tcp).await;
        let (host, mut host_peer) = pair(Kind::Tcp).await;
        let session = Session::start(path, client, host);
        client_peer.shutdown().await.unwrap();
        host_peer.shutdown().await.unwrap();
        let ended = session.ended().await;
        assert!(ended.result.is_ok());
        assert!(matches!(ended.client, Stream::Tcp(_)));
        assert!(matches!(ended.host, Stream::Tcp(_)));
    }
}

#[tokio::test]
async fn an_abandoned_side_is_not_read_and_the_other_direction_comes_to_its_end() {
    for path in PATHS {
        let (client, mut client_peer) = tcp_pair().await;
        let (host, mut host_peer) = tcp_pair().await;
        client_peer.write_all(b"never delivered").await.unwrap();
        let mut splice = Splice::new(path);
        splice.abandon(Side::Client);
        let session = Session::start_with(splice, Stream::Tcp(client), Stream::Tcp(host));
        send(&mut host_peer, 2, 100 * KIB, 4096).await;
        host_peer.shutdown().await.unwrap();
        soon(receive(&mut client_peer, 2, 100 * KIB, 4096)).await;
        soon(expect_end(&mut client_peer)).await;
        let counts = session.counts.clone();
        let ended = session.ended().await;
        assert!(ended.result.is_ok());
        assert_eq!(counts.to_host.load(Ordering::Relaxed), 0);
        // The end was not passed on either.
        let nothing = host_peer.try_read(&mut [0; 1]).map_err(|error| error.kind());
        assert_eq!(nothing, Err(ErrorKind::WouldBlock));
    }
}

#[tokio::test]
async fn a_leg_that_buffers_is_flushed_when_its_sender_pauses() {
    for path in PATHS {
        let (leg, mut client_peer) = tokio::io::duplex(64 * KIB);
        let mut client = BufWriter::new(leg);
        let (host, mut host_peer) = tcp_pair().await;
        let counts = Counts::default();
        let mut on_eof = |_| {};
        let mut splice = Splice::new(path);
        let run = splice.run(Leg::Other(&mut client), Leg::Tcp(&host), &counts, &mut on_eof);
        let conversation = async {
            for _ in 0..3 {
                host_peer.write_all(b"prompt").await.unwrap();
                client_peer.read_exact(&mut [0; 6]).await.unwrap();
            }
            host_peer.shutdown().await.unwrap();
            client_peer.shutdown().await.unwrap();
        };
        let (ended, ()) = soon(async { tokio::join!(run, conversation) }).await;
        ended.unwrap();
    }
}

/// Seen with `splice(2)`: in front of urgent data it says that there is nothing, however much comes after it, and once
/// there is a FIN as well, that this was the end.
#[tokio::test]
async fn urgent_data_neither_ends_a_transfer_nor_stops_it() {
    for path in PATHS {
        for end_at_once in [true, false] {
            urgent_data_in_a_transfer(path, end_at_once).await;
        }
    }
}

async fn urgent_data_in_a_transfer(path: Path, end_at_once: bool) {
    let (client, mut client_peer) = tcp_pair().await;
    let (host, mut host_peer) = tcp_pair().await;
    SockRef::from(&client).set_out_of_band_inline(true).unwrap();
    let session = Session::start(path, Stream::Tcp(client), Stream::Tcp(host));
    // Nobody receives yet, so that the mark comes behind a transfer that is under way.
    let before = session.send_until_blocked(&client_peer).await as usize;
    let received = Arc::new(Mutex::new(Vec::<u8>::new()));
    let shared = received.clone();
    let receiver = tokio::spawn(async move {
        let mut buf = vec![0; 64 * KIB];
        while let n @ 1.. = host_peer.read(&mut buf).await.unwrap() {
            shared.lock().unwrap().extend(&buf[..n]);
        }
    });
    soon(async {
        while SockRef::from(&client_peer).send_out_of_band(b"!").is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    soon(client_peer.write_all(&[9; 100_000])).await.unwrap();
    let mut sent = before + 1 + 100_000;
    // Whatever stops a read at the mark, what comes later gets the rest moving.
    let nudge = async {
        while !end_at_once && received.lock().unwrap().len() < before + 1 + 100_000 {
            client_peer.write_all(&[9]).await.unwrap();
            sent += 1;
            tokio::task::yield_now().await;
        }
        client_peer.shutdown().await.unwrap();
    };
    soon(nudge).await;
    soon(receiver).await.unwrap();
    let all = received.lock().unwrap();
    assert_eq!(all.len(), sent);
    assert!(all[..before].iter().all(|&byte| byte == 7));
    assert_eq!(all[before], b'!');
    assert!(all[before + 1..].iter().all(|&byte| byte == 9));
}
