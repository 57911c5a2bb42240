use std::io::ErrorKind;
use std::net::Ipv4Addr;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::Heard;

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (one, listener.accept().await.unwrap().0)
}

/// A connection for many sessions, and its peer, which sees the bytes.
async fn watched() -> (Stream, TcpStream) {
    let (one, other) = tcp_pair().await;
    (Stream::Tcp(one).for_many(None), other)
}

/// Two that speak to each other.
async fn pair() -> (Stream, Stream) {
    let (one, other) = tcp_pair().await;
    (Stream::Tcp(one).for_many(None), Stream::Tcp(other).for_many(None))
}

fn begin(stream: &mut Stream) {
    stream.begin_incoming();
    stream.begin_outgoing();
}

async fn next(stream: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).await.unwrap();
    bytes
}

/// Golden: a word ahead, a session of three bytes, its end, and the next word.
const TWO_SESSIONS: &[u8] = b"word\x00\x00\x00\x03abc\x00\x00\x00\x00next";

#[tokio::test]
async fn a_session_is_its_parts_and_an_end_and_the_connection_goes_on() {
    let (mut stream, mut peer) = watched().await;
    stream.write_all(b"word").await.unwrap();
    begin(&mut stream);
    stream.write_all(b"abc").await.unwrap();
    assert!(!stream.can_carry_another());
    stream.shutdown().await.unwrap();
    let error = stream.write_all(b"behind the end").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    assert!(!stream.can_carry_another(), "the peer has not ended");
    peer.write_all(b"\x00\x00\x00\x00").await.unwrap();
    assert_eq!(stream.read(&mut [0; 9]).await.unwrap(), 0);
    assert!(stream.can_carry_another());
    stream.begin_anew();
    stream.write_all(b"next").await.unwrap();
    assert_eq!(next(&mut peer, TWO_SESSIONS.len()).await, TWO_SESSIONS);
}

#[tokio::test]
async fn what_is_queued_goes_out_ahead_of_the_first_part_in_one_write() {
    let (mut stream, mut peer) = watched().await;
    let Stream::Parts(parts) = &mut stream else { panic!("it is for many") };
    parts.queue(b"word");
    stream.begin_outgoing();
    assert!(stream.holds_unsent());
    stream.write_all(b"abc").await.unwrap();
    assert!(!stream.holds_unsent());
    // Loopback hands over what is written before the call returns: both are there at once.
    let mut bytes = [0; 64];
    let len = peer.read(&mut bytes).await.unwrap();
    assert_eq!(bytes[..len], TWO_SESSIONS[..11]);
}

#[tokio::test]
async fn what_is_held_leaves_when_it_is_pushed() {
    let (mut stream, mut peer) = watched().await;
    assert_eq!(stream.hold(b"word").unwrap(), 4);
    stream.begin_incoming();
    peer.write_all(b"\x00\x00\x00\x01x").await.unwrap();
    let mut byte = [0];
    stream.read_exact(&mut byte).await.unwrap();
    assert!(stream.holds_unsent(), "reading does not push it");
    stream.push();
    assert_eq!(next(&mut peer, 4).await, b"word");
}

#[tokio::test]
async fn what_is_behind_a_sessions_end_is_of_the_next_one() {
    for piece_len in 1..TWO_SESSIONS.len() {
        let (mut stream, mut peer) = watched().await;
        peer.set_nodelay(true).unwrap();
        let sending = tokio::spawn(async move {
            for piece in TWO_SESSIONS.chunks(piece_len) {
                peer.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            peer
        });
        let mut word = [0; 4];
        stream.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"word");
        begin(&mut stream);
        let mut session = Vec::new();
        stream.read_to_end(&mut session).await.unwrap();
        assert_eq!(session, b"abc");
        stream.shutdown().await.unwrap();
        assert!(stream.can_carry_another());
        stream.begin_anew();
        assert!(matches!(stream.waits().await, Heard::Bytes));
        stream.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"next");
        let mut peer = sending.await.unwrap();
        assert_eq!(next(&mut peer, 4).await, b"\x00\x00\x00\x00");
        drop(peer);
        assert!(matches!(stream.waits().await, Heard::End));
    }
}

#[tokio::test]
async fn an_end_of_the_connection_is_none_of_the_session() {
    for sent in [&b""[..], b"\x00", b"\x00\x00\x00\x05abc"] {
        let (mut stream, mut peer) = watched().await;
        begin(&mut stream);
        peer.write_all(sent).await.unwrap();
        drop(peer);
        let mut session = Vec::new();
        let error = stream.read_to_end(&mut session).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{sent:?}");
        assert!(!stream.can_carry_another());
    }
}

#[tokio::test]
async fn what_is_no_part_is_an_error() {
    for header in [&b"\x00\x01\x00\x01"[..], b"\xff\xff\xff\xfe", b"HTTP"] {
        let (mut stream, mut peer) = watched().await;
        begin(&mut stream);
        peer.write_all(header).await.unwrap();
        let error = stream.read(&mut [0; 9]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{header:?}");
    }
}

#[tokio::test]
async fn much_goes_on_bare_both_ways_and_ends_with_the_connection() {
    let (mut one, mut other) = pair().await;
    begin(&mut one);
    begin(&mut other);
    let sent: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let of_one = async {
        one.write_all(&sent).await.unwrap();
        let mut answer = [0; 6];
        one.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"answer");
        assert!(matches!(one.barest(), Stream::Tcp(_)));
        one.shutdown().await.unwrap();
        assert_eq!(one.read(&mut answer).await.unwrap(), 0);
        assert!(!one.can_carry_another());
    };
    let of_other = async {
        let mut received = vec![0; sent.len()];
        other.read_exact(&mut received).await.unwrap();
        assert!(received == sent, "other bytes than were sent");
        assert!(matches!(other.barest(), Stream::Tcp(_)), "it was told");
        other.write_all(b"answer").await.unwrap();
        assert_eq!(other.read(&mut [0]).await.unwrap(), 0);
        other.shutdown().await.unwrap();
    };
    tokio::join!(of_one, of_other);
    drop(other);
}

#[tokio::test]
async fn many_small_ones_go_on_bare_too() {
    let (mut one, mut other) = pair().await;
    begin(&mut one);
    begin(&mut other);
    let mut byte = [0];
    for at in 0..200_u8 {
        one.write_all(&[at]).await.unwrap();
        other.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, [at]);
        other.write_all(&[!at]).await.unwrap();
        one.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, [!at]);
    }
    assert!(matches!(one.barest(), Stream::Tcp(_)));
    assert!(matches!(other.barest(), Stream::Tcp(_)));
}

#[tokio::test]
async fn one_that_has_ended_in_parts_ends_the_connection_where_the_other_way_is_bare() {
    let (mut one, mut other) = pair().await;
    begin(&mut one);
    begin(&mut other);
    other.shutdown().await.unwrap();
    assert_eq!(one.read(&mut [0]).await.unwrap(), 0);
    let reading = tokio::spawn(async move {
        let mut received = Vec::new();
        other.read_to_end(&mut received).await.unwrap();
        other.finish();
        received
    });
    one.write_all(&vec![7; 1_000_000]).await.unwrap();
    one.shutdown().await.unwrap();
    assert!(reading.await.unwrap() == vec![7; 1_000_000]);
    one.finish();
    crate::acknowledged(one.tcp()).await;
}

#[tokio::test]
async fn who_wants_the_connection_no_more_says_so_with_the_end() {
    let (one, other) = tcp_pair().await;
    let wanted = Arc::new(AtomicBool::new(true));
    let mut one = Stream::Tcp(one).for_many(Some(Arc::clone(&wanted)));
    let mut other = Stream::Tcp(other).for_many(None);
    begin(&mut one);
    begin(&mut other);
    one.write_all(b"abc").await.unwrap();
    wanted.store(false, std::sync::atomic::Ordering::Relaxed);
    one.shutdown().await.unwrap();
    let mut received = Vec::new();
    other.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"abc");
    other.shutdown().await.unwrap();
    assert_eq!(one.read(&mut [0]).await.unwrap(), 0);
    assert!(!one.can_carry_another());
    assert!(!other.can_carry_another());
    one.finish();
    other.finish();
    crate::acknowledged(one.tcp()).await;
}

#[tokio::test]
async fn halves_go_on_bare_and_read_what_came_in_parts() {
    let (mut one, mut other) = pair().await;
    begin(&mut one);
    begin(&mut other);
    one.write_all(b"question").await.unwrap();
    one.shutdown().await.unwrap();
    other.write_all(b"ans").await.unwrap();
    let (mut reader, mut writer) = other.into_split();
    assert_eq!(writer.write_vectored(&[IoSlice::new(b"wer")]).await.unwrap(), 3);
    writer.shutdown().await.unwrap();
    let mut received = Vec::new();
    reader.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"question");
    received.clear();
    one.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"answer");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the sizes of what is written, of the reader's buffer and of what the connection takes at once.
    #[test]
    fn nothing_is_lost_repeated_or_reordered(
        pieces in prop::collection::vec(1_usize..3000, 1..40),
        buffer_len in 1_usize..5000,
        capacity in 1_usize..600,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut near, mut far) = tokio::io::duplex(capacity);
            let sent: Vec<u8> = (0..pieces.iter().sum()).map(|at: usize| (at % 253) as u8).collect();
            let writing = async {
                let mut outgoing = Outgoing::new(true, None);
                outgoing.queue(b"w");
                outgoing.begin();
                let mut rest = &sent[..];
                for piece in &pieces {
                    let (now, later) = rest.split_at(*piece);
                    let mut now = now;
                    while !now.is_empty() {
                        let poll = |cx: &mut Context<'_>| outgoing.poll_write(cx, &mut near, now);
                        let written = std::future::poll_fn(poll).await.unwrap();
                        now = &now[written..];
                    }
                    rest = later;
                }
                std::future::poll_fn(|cx| outgoing.poll_shutdown(cx, &mut near)).await.unwrap();
                outgoing.is_over()
            };
            let reading = async {
                let mut incoming = Incoming::default();
                let mut received = Vec::new();
                let mut buffer = vec![0; buffer_len];
                let mut has_begun = false;
                loop {
                    let mut buf = match has_begun {
                        true => ReadBuf::new(&mut buffer),
                        false => ReadBuf::new(&mut buffer[..1]),
                    };
                    let poll = |cx: &mut Context<'_>| incoming.poll_read(cx, &mut far, &mut buf);
                    std::future::poll_fn(poll).await.unwrap();
                    match (buf.filled(), has_begun) {
                        (b"w", false) => {
                            incoming.begin();
                            has_begun = true;
                        }
                        ([], _) => return (received, incoming.is_over()),
                        (filled, _) => received.extend_from_slice(filled),
                    }
                }
            };
            let (is_over, (received, has_ended)) = tokio::join!(writing, reading);
            assert!(received == sent, "other bytes than were sent");
            // Many parts, or many bytes, and it has gone on bare: then the end is the connection's.
            assert_eq!(is_over, has_ended);
        });
    }
}
