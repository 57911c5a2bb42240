//! A RST is a failure, of the right leg, and is noticed by whatever the session is waiting for.

use std::io::ErrorKind;

use relayserver_splice::{Operation, Side};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::*;

/// A session whose legs are TCP connections, and the peers of `side` and of the other one.
async fn session(path: relayserver_splice::Path, side: Side) -> (Session, TcpStream, TcpStream) {
    let (leg, peer) = tcp_pair().await;
    let (other_leg, other_peer) = tcp_pair().await;
    keep_small(&other_leg, &other_peer);
    let (leg, other_leg) = (Stream::Tcp(leg), Stream::Tcp(other_leg));
    let session = match side {
        Side::Client => Session::start(path, leg, other_leg),
        Side::Host => Session::start(path, other_leg, leg),
    };
    (session, peer, other_peer)
}

#[tokio::test]
async fn an_abort_is_a_failure_of_the_leg_that_was_read() {
    for path in PATHS {
        for side in [Side::Client, Side::Host] {
            let (session, mut peer, mut other_peer) = session(path, side).await;
            peer.write_all(b"hello").await.unwrap();
            soon(other_peer.read_exact(&mut [0; 5])).await.unwrap();
            reset(peer);
            let eofs = session.eofs.clone();
            let failure = session.failure().await;
            assert_eq!((failure.side, failure.operation), (side, Operation::Read));
            assert_eq!(failure.error.kind(), ErrorKind::ConnectionReset);
            assert_eq!(*eofs.lock().unwrap(), []);
        }
    }
}

#[tokio::test]
async fn an_abort_is_noticed_while_the_other_leg_does_not_read() {
    for path in PATHS {
        for side in [Side::Client, Side::Host] {
            let (leg, peer) = tcp_pair().await;
            // Not TCP, where an acknowledgement may be late and make room when all seemed full.
            let (other_leg, _other_peer) = pair(Kind::Unix).await;
            let session = match side {
                Side::Client => Session::start(path, Stream::Tcp(leg), other_leg),
                Side::Host => Session::start(path, other_leg, Stream::Tcp(leg)),
            };
            let sent = session.send_until_blocked(&peer).await;
            let (to_host, to_client) = session.moved();
            // More than one buffer or pipe was not even read: the session waits for the other leg alone.
            assert!(sent > to_host + to_client + MIB as u64, "{sent}");
            let counts = session.counts.clone();
            reset(peer);
            let failure = session.failure().await;
            assert_eq!((failure.side, failure.operation), (side, Operation::Read));
            assert_eq!(failure.error.kind(), ErrorKind::ConnectionReset);
            assert_eq!(moved(&counts), (to_host, to_client));
        }
    }
}

#[tokio::test]
async fn an_abort_of_the_leg_that_does_not_read_fails_the_writing() {
    for path in PATHS {
        for side in [Side::Client, Side::Host] {
            let (session, peer, mut other_peer) = session(path, side).await;
            // It has said all it will, so that only the writing to it can fail.
            other_peer.shutdown().await.unwrap();
            session.send_until_blocked(&peer).await;
            reset(other_peer);
            let failure = session.failure().await;
            let other = match side {
                Side::Client => Side::Host,
                Side::Host => Side::Client,
            };
            assert_eq!((failure.side, failure.operation), (other, Operation::Write));
        }
    }
}

#[tokio::test]
async fn an_abort_after_the_end_is_noticed_while_the_other_leg_is_silent() {
    for path in PATHS {
        for side in [Side::Client, Side::Host] {
            let (session, mut peer, mut other_peer) = session(path, side).await;
            peer.shutdown().await.unwrap();
            soon(expect_end(&mut other_peer)).await;
            assert_eq!(session.eofs(), [side]);
            reset(peer);
            let failure = session.failure().await;
            assert_eq!((failure.side, failure.operation), (side, Operation::Write));
        }
    }
}

#[tokio::test]
async fn a_unix_peer_that_leaves_bytes_unread_is_an_abort() {
    for path in PATHS {
        let (client, mut client_peer) = pair(Kind::Unix).await;
        let (host, host_peer) = pair(Kind::Unix).await;
        let session = Session::start(path, client, host);
        client_peer.write_all(&[7; 1000]).await.unwrap();
        session.settle().await;
        assert_eq!(session.moved(), (1000, 0));
        drop(host_peer);
        let failure = session.failure().await;
        assert_eq!((failure.side, failure.operation), (Side::Host, Operation::Read));
        assert_eq!(failure.error.kind(), ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_failure_is_told_in_one_line() {
    let (session, peer, _other_peer) = session(relayserver_splice::Path::Auto, Side::Host).await;
    reset(peer);
    let line = session.failure().await.to_string();
    assert!(line.starts_with("reading from the host leg: "), "{line}");
}
