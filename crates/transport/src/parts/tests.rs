use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::Heard;

mod bare;

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
    let stays = Arc::new(AtomicBool::new(true));
    (Stream::Tcp(one).for_many(None), Stream::Tcp(other).for_many(Some(stays)))
}

fn begin(stream: &mut Stream) {
    stream.begin_incoming();
    stream.begin_outgoing();
}

/// What an idle connection has to tell, which it has in a moment.
async fn heard(stream: &mut Stream) -> Heard {
    let waiting = tokio::time::timeout(Duration::from_secs(10), stream.waits());
    waiting.await.expect("nothing was heard")
}

/// Both sides have ended the connection.
async fn is_over(stream: &Stream) {
    let waiting = tokio::time::timeout(Duration::from_secs(10), crate::acknowledged(stream.tcp()));
    waiting.await.expect("the connection is not over");
}

async fn next(stream: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let reading = tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut bytes));
    reading.await.expect("less comes").unwrap();
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
    assert_eq!(stream.hold(b"late").unwrap(), 0, "it would be ahead of it");
    stream.write_all(b"abc").await.unwrap();
    assert!(!stream.holds_unsent());
    // Loopback hands over what is written before the call returns: both are there at once.
    let mut bytes = [0; 64];
    let len = peer.read(&mut bytes).await.unwrap();
    assert_eq!(bytes[..len], TWO_SESSIONS[..11]);
}

#[tokio::test]
async fn who_has_read_knows_whether_the_system_had_more() {
    for (len, room, is_drained) in
        [(20, 3, true), (2_000, 3, false), (2_000, 2_004, false), (2_000, 4_000, true)]
    {
        let (mut stream, mut peer) = watched().await;
        begin(&mut stream);
        let mut sent = u32::try_from(len).unwrap().to_be_bytes().to_vec();
        sent.resize(4 + len, b'x');
        peer.write_all(&sent).await.unwrap();
        let read = stream.read(&mut vec![0; room]).await.unwrap();
        assert_eq!((read, stream.is_drained()), (len.min(room), is_drained), "{len}, {room}");
    }
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
        assert!(matches!(heard(&mut stream).await, Heard::Bytes));
        stream.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"next");
        let mut peer = sending.await.unwrap();
        assert_eq!(next(&mut peer, 4).await, b"\x00\x00\x00\x00");
        drop(peer);
        assert!(matches!(heard(&mut stream).await, Heard::End));
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

/// A writer that waits is woken though somebody reads meanwhile.
#[tokio::test]
async fn who_reads_takes_no_writers_turn() {
    let (one, mut other) = pair().await;
    let (mut reader, mut writer) = tokio::io::split({
        let mut one = one;
        begin(&mut one);
        one
    });
    begin(&mut other);
    let sent = vec![7; 6_000_000];
    let writing = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    // What is said while the writer waits for room.
    let (mut byte, mut received) = ([0], Vec::new());
    for at in 0..20 {
        other.write_all(&[at]).await.unwrap();
        reader.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, [at]);
    }
    other.read_to_end(&mut received).await.unwrap();
    assert!(received == vec![7; 6_000_000]);
    writing.await.unwrap();
}

#[tokio::test]
async fn what_is_behind_a_sessions_end_waits_whatever_the_readers_buffer() {
    for buffer_len in [1, 3, 7, 1023, 1024, 70_000] {
        let (mut stream, mut peer) = watched().await;
        begin(&mut stream);
        // All at once: a part, the end, and what is said ahead of the next session, which is longer than what is read ahead.
        let next_words = vec![b'n'; 3_000];
        let sent = [&TWO_SESSIONS[4..15], &next_words].concat();
        peer.write_all(&sent).await.unwrap();
        let mut buffer = vec![0; buffer_len];
        let mut session = Vec::new();
        loop {
            match stream.read(&mut buffer).await.unwrap() {
                0 => break,
                len => session.extend_from_slice(&buffer[..len]),
            }
        }
        assert_eq!(session, b"abc", "{buffer_len}");
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 0, "it stays at its end");
        stream.shutdown().await.unwrap();
        stream.begin_anew();
        assert!(matches!(heard(&mut stream).await, Heard::Bytes));
        let mut received = vec![0; next_words.len()];
        stream.read_exact(&mut received).await.unwrap();
        assert!(received == next_words, "{buffer_len}");
    }
}

#[tokio::test]
async fn a_part_of_more_than_a_part_may_have_is_several() {
    let (mut stream, mut peer) = watched().await;
    begin(&mut stream);
    let sent: Vec<u8> = (0..PART_MAX + 3).map(|at| (at % 251) as u8).collect();
    let (written, received) =
        tokio::join!(stream.write_all(&sent), next(&mut peer, 4 + PART_MAX + 4 + 3));
    written.unwrap();
    let (first, rest) = sent.split_at(PART_MAX);
    let expected = [b"\0\x01\0\0", first, b"\0\0\0\x03", rest].concat();
    assert!(received == expected, "other bytes than two parts");
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
            let (near, mut far) = tokio::io::duplex(capacity);
            let sent: Vec<u8> = (0..pieces.iter().sum()).map(|at: usize| (at % 253) as u8).collect();
            let writing = async {
                // Gone with the last byte: whoever waits for one that is lost is told.
                let mut near = near;
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
                    let poll = |cx: &mut Context<'_>| incoming.poll_read(cx, &mut far, false, &mut buf);
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
