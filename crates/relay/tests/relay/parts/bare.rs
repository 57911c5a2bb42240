//! Sessions of which a direction goes on bare.

use super::*;

/// The client has ended before: its direction has in parts, and the relay ends the connection once it has read the host's end.
#[tokio::test]
async fn a_host_that_goes_bare_with_much_ends_its_connection_with_the_session() {
    for mut scene in scenes().await {
        let answer = content(4, 3_000_000);
        let Scene { client, channel, .. } = &mut scene;
        client.shutdown().await.unwrap();
        assert_eq!(channel.next_part().await, Part::End);
        let sending = async {
            channel.send(&answer[..1000]).await;
            write(&mut channel.stream, &BARE).await;
            write(&mut channel.stream, &answer[1000..]).await;
            channel.stream.shutdown().await.unwrap();
        };
        let ((), received) = tokio::join!(sending, read_rest(client));
        assert!(received == answer, "{} bytes are not the host's", received.len());
        assert_ended(&mut channel.stream).await;
        scene.assert_not_used_again().await;
    }
}

/// Over TCP it says so while more of the host may come, though it has nothing to send; inside TLS, where no way is faster, with the
/// client's next bytes.
#[tokio::test]
async fn a_relay_whose_host_goes_bare_goes_bare_too() {
    for mut scene in scenes().await {
        let Scene { client, channel, .. } = &mut scene;
        write(client, b"request").await;
        channel.assert_comes(b"request").await;
        write(&mut channel.stream, &BARE).await;
        for at in 0..8 {
            write(&mut channel.stream, &[at]).await;
            assert_eq!(read_exactly(client, 1).await, [at]);
        }
        if !channel.stream.is_encrypted() {
            assert_eq!(channel.next_part().await, Part::Bare, "unasked for");
            write(client, b"y").await;
        } else {
            let bound = Duration::from_millis(50);
            let said = tokio::time::timeout(bound, channel.stream.read_u8()).await;
            assert!(said.is_err(), "{said:?}");
            write(client, b"y").await;
            assert_eq!(channel.next_part().await, Part::Bare);
        }
        assert_eq!(read_exactly(&mut channel.stream, 1).await, b"y");
        exchange((client, &content(5, 2_000_000)), (&mut channel.stream, &content(6, 2_000_000)))
            .await;
        scene.assert_not_used_again().await;
    }
}

#[tokio::test]
async fn a_relay_goes_bare_with_much_and_ends_the_connection_with_the_session() {
    let mut scene = Scene::on(Secure::plain()).await;
    let request = content(7, 5_000_000);
    let Scene { client, channel, .. } = &mut scene;
    let (mut reader, mut writer) = client.split();
    let sending = async {
        writer.write_all(&request).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let hosting = async {
        let mut received = channel.until_bare().await;
        channel.send(b"in a part, ").await;
        write(&mut channel.stream, &BARE).await;
        received.extend(read_rest(&mut channel.stream).await);
        write(&mut channel.stream, b"and bare").await;
        channel.stream.shutdown().await.unwrap();
        received
    };
    let (received, (), answer) = tokio::join!(hosting, sending, read_rest(&mut reader));
    assert!(received == request, "{} bytes are not the client's", received.len());
    assert_eq!(answer, b"in a part, and bare");
    scene.assert_not_used_again().await;
}

/// The relay has said that it goes bare: the end of the connection, between two parts, is then that of the host's direction, which need
/// not say so too. Within a part or a length it is an abort.
#[tokio::test]
async fn a_host_that_is_told_bare_may_end_without_a_word_but_not_within_a_part() {
    for (last, is_end) in
        [(&b""[..], true), (b"\0\0\0\x05whole", true), (b"\0", false), (b"\0\0\0\x05hal", false)]
    {
        let mut scene = Scene::on(Secure::plain()).await;
        let request = content(9, 1_000_000);
        let Scene { client, channel, .. } = &mut scene;
        let sending = async {
            write(client, &request).await;
            client.shutdown().await.unwrap();
        };
        let (received, ()) = tokio::join!(channel.rest_gone_bare(), sending);
        assert!(received == request, "{} bytes are not the client's", received.len());
        write(&mut channel.stream, last).await;
        channel.stream.shutdown().await.unwrap();
        let reason = if is_end {
            assert_eq!(read_rest(client).await, last.get(4..).unwrap_or_default());
            Reason::Finished
        } else {
            assert_reset(client).await;
            Reason::HostAborted
        };
        let to_client = last.len().saturating_sub(4);
        scene.assert_not_used_again().await;
        let Scene { mut host, start, .. } = scene;
        host.assert_ended(&start, reason, (1_000_000, to_client as u64)).await;
    }
}

/// It has ended in parts before the relay goes bare: it ends the connection once it has read the relay's end.
#[tokio::test]
async fn a_host_that_has_ended_gets_the_rest_bare_and_ends_the_connection() {
    let mut scene = Scene::on(Secure::plain()).await;
    let request = content(8, 3_000_000);
    scene.channel.send(b"greeting").await;
    scene.channel.end().await;
    assert_eq!(read_rest(&mut scene.client).await, b"greeting");
    let Scene { client, channel, .. } = &mut scene;
    let sending = async {
        write(client, &request).await;
        client.shutdown().await.unwrap();
    };
    let (received, ()) = tokio::join!(channel.rest_gone_bare(), sending);
    assert!(received == request, "{} bytes are not the client's", received.len());
    channel.stream.shutdown().await.unwrap();
    scene.assert_not_used_again().await;
    let Scene { mut host, start, .. } = scene;
    host.assert_ended(&start, Reason::Finished, (3_000_000, 8)).await;
}

/// As a host does that has no use for the channel any more. Of a client that has nothing more to say it hears the end alone.
#[tokio::test]
async fn a_host_that_ends_bare_does_not_get_the_next_client() {
    for mut scene in scenes().await {
        let mut next = scene.relay.client_of("ssh").await;
        scene.relay.until_waiting(1).await;
        write(&mut scene.client, b"request").await;
        scene.channel.assert_comes(b"request").await;
        // At once, so that the relay never waits for more of it.
        write(&mut scene.channel.stream, &[in_parts(b"answer", 6), BARE.to_vec()].concat()).await;
        scene.channel.stream.shutdown().await.unwrap();
        assert_eq!(read_rest(&mut scene.client).await, b"answer");
        scene.client.shutdown().await.unwrap();
        assert_ended(&mut scene.channel.stream).await;
        scene.relay.until_sessions(0).await;
        let mut other = scene.host.channel_for_waiting(&scene.relay, "ssh").await;
        other.accept().await;
        write(&mut next, b"another").await;
        other.assert_comes(b"another").await;
    }
}

/// The word is ahead of what the client has still to say, and nothing is behind that.
#[tokio::test]
async fn a_client_that_goes_on_after_its_host_has_ended_bare_is_heard_bare() {
    for mut scene in scenes().await {
        scene.channel.send(b"answer").await;
        write(&mut scene.channel.stream, &BARE).await;
        scene.channel.stream.shutdown().await.unwrap();
        assert_eq!(read_rest(&mut scene.client).await, b"answer");
        write(&mut scene.client, b"bye").await;
        scene.client.shutdown().await.unwrap();
        assert_eq!(scene.channel.rest_gone_bare().await, b"bye");
        scene.relay.until_sessions(0).await;
        let Scene { mut host, start, .. } = scene;
        host.assert_ended(&start, Reason::Finished, (3, 6)).await;
    }
}
