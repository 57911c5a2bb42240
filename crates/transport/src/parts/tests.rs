use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::Duration;

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
    is_over(&one).await;
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
    is_over(&one).await;
}

#[tokio::test]
async fn who_hears_that_the_peer_goes_on_bare_ends_without_a_word_or_says_it_with_the_next() {
    // Its own end is the connection's then.
    let (mut one, mut other) = watched().await;
    begin(&mut one);
    other.write_all(b"\xff\xff\xff\xffabc").await.unwrap();
    let mut received = [0; 3];
    one.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"abc");
    one.shutdown().await.unwrap();
    let mut said = Vec::new();
    other.read_to_end(&mut said).await.unwrap();
    assert_eq!(said, b"", "a word to who has closed by then would be a reset");

    let (mut one, mut other) = watched().await;
    begin(&mut one);
    other.write_all(b"\xff\xff\xff\xffabc").await.unwrap();
    one.read_exact(&mut received).await.unwrap();
    one.answer_bare();
    one.write_all(b"answer").await.unwrap();
    assert!(matches!(one.barest(), Stream::Tcp(_)));
    assert_eq!(next(&mut other, 10).await, b"\xff\xff\xff\xffanswer");
}

#[tokio::test]
async fn behind_our_own_word_the_end_of_the_connection_is_the_sessions() {
    let (mut one, mut other) = watched().await;
    begin(&mut one);
    one.carry_no_other();
    other.write_all(b"\x00\x00\x00\x03abc").await.unwrap();
    other.shutdown().await.unwrap();
    let mut received = Vec::new();
    one.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"abc");

    let (mut one, mut other) = watched().await;
    begin(&mut one);
    one.carry_no_other();
    other.write_all(b"\x00\x00\x00\x03ab").await.unwrap();
    other.shutdown().await.unwrap();
    let error = one.read_to_end(&mut received).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "a part that is cut off is none");
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
async fn what_is_bare_is_given_to_the_connections_end_whatever_the_readers_buffer() {
    for buffer_len in [1, 3, 1023, 1024, 70_000] {
        let (one, mut peer) = tcp_pair().await;
        let mut stream = Stream::Tcp(one).for_many(Some(Arc::new(AtomicBool::new(true))));
        begin(&mut stream);
        // What looks like lengths is none any more.
        let sent = b"\0\0\0\x03abc\xff\xff\xff\xff\0\0\0\0\xff\xff\xff\xffend";
        peer.write_all(sent).await.unwrap();
        peer.shutdown().await.unwrap();
        let mut buffer = vec![0; buffer_len];
        let mut session = Vec::new();
        loop {
            match stream.read(&mut buffer).await.unwrap() {
                0 => break,
                len => session.extend_from_slice(&buffer[..len]),
            }
        }
        assert_eq!(session, b"abc\0\0\0\0\xff\xff\xff\xffend", "{buffer_len}");
        assert_eq!(next(&mut peer, 4).await, b"\xff\xff\xff\xff", "it was told at once");
        stream.shutdown().await.unwrap();
        assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
        assert!(!stream.can_carry_another());
    }
}

#[tokio::test]
async fn each_session_counts_its_own_parts() {
    let (mut one, mut other) = pair().await;
    for _session in 0..4 {
        begin(&mut one);
        begin(&mut other);
        let mut byte = [0];
        // Together they are more than a direction has before it goes bare, in number and in bytes.
        for at in 0..30_u8 {
            one.write_all(&[at]).await.unwrap();
            other.read_exact(&mut byte).await.unwrap();
            assert_eq!(byte, [at]);
        }
        let much = vec![9; 200_000];
        let (sent, received) = tokio::join!(
            async {
                one.write_all(&much).await.unwrap();
                one.shutdown().await
            },
            async {
                let mut received = Vec::new();
                other.read_to_end(&mut received).await.unwrap();
                other.shutdown().await.unwrap();
                received
            }
        );
        sent.unwrap();
        assert!(received == much, "other bytes than were sent");
        assert_eq!(one.read(&mut byte).await.unwrap(), 0);
        assert!(one.can_carry_another() && other.can_carry_another());
        one.begin_anew();
        other.begin_anew();
    }
}

/// As over TLS.
#[tokio::test]
async fn where_there_is_no_faster_way_nothing_goes_bare() {
    let (mut near, mut far) = tokio::io::duplex(1 << 20);
    let mut outgoing = Outgoing::new(false, None);
    outgoing.begin();
    let mut expected = Vec::new();
    for len in std::iter::repeat_n(1, 300).chain(std::iter::repeat_n(60_000, 10)) {
        let part = vec![b'x'; len];
        let poll = |cx: &mut Context<'_>| outgoing.poll_write(cx, &mut near, &part);
        assert_eq!(std::future::poll_fn(poll).await.unwrap(), len);
        expected.extend(u32::try_from(len).unwrap().to_be_bytes());
        expected.extend(part);
    }
    std::future::poll_fn(|cx| outgoing.poll_shutdown(cx, &mut near)).await.unwrap();
    expected.extend(END.to_be_bytes());
    assert!(outgoing.is_over());
    drop(near);
    let mut sent = Vec::new();
    far.read_to_end(&mut sent).await.unwrap();
    assert!(sent == expected, "other bytes than parts and an end");
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

#[tokio::test]
async fn who_has_ended_does_not_go_bare_any_more() {
    let (mut stream, mut peer) = watched().await;
    begin(&mut stream);
    stream.shutdown().await.unwrap();
    assert!(stream.has_sent_end() && !stream.has_read_end());
    stream.carry_no_other();
    peer.write_all(b"\xff\xff\xff\xffbare").await.unwrap();
    peer.shutdown().await.unwrap();
    let mut session = Vec::new();
    stream.read_to_end(&mut session).await.unwrap();
    assert_eq!(session, b"bare");
    assert!(!stream.can_carry_another());
    stream.finish();
    let mut sent = Vec::new();
    peer.read_to_end(&mut sent).await.unwrap();
    assert_eq!(sent, b"\0\0\0\0", "the end of the session, and of the connection");
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
