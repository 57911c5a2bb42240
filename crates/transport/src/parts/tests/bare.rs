//! When a direction goes on bare, and how it ends then.

use super::*;

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
