//! Sessions in parts, as a host writes and reads them on a data channel that carries one after another.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::{Data, Member, Secure, read_exactly, read_rest, within, write};

/// The end of a direction.
pub(crate) const END: [u8; 4] = [0; 4];

/// All that follows is the session's, to the connection's end.
pub(crate) const BARE: [u8; 4] = [0xff; 4];

/// What comes of a session at once.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Bytes(Vec<u8>),
    End,
    Bare,
}

/// `bytes` in parts, of which none is longer than `len_max`.
pub(crate) fn in_parts(bytes: &[u8], len_max: usize) -> Vec<u8> {
    let parts = bytes.chunks(len_max).map(|part| {
        let len = u32::try_from(part.len()).unwrap();
        [&len.to_be_bytes()[..], part].concat()
    });
    parts.collect::<Vec<_>>().concat()
}

impl Data {
    pub(crate) async fn next_part(&mut self) -> Part {
        let header: [u8; 4] = read_exactly(&mut self.stream, 4).await.try_into().unwrap();
        match header {
            END => Part::End,
            BARE => Part::Bare,
            len => {
                let len = usize::try_from(u32::from_be_bytes(len)).unwrap();
                assert!(len <= 65_536, "a part of {len} bytes");
                Part::Bytes(read_exactly(&mut self.stream, len).await)
            }
        }
    }

    /// As many bytes of the session as `expected` has are these, and come in parts that have no more.
    pub(crate) async fn assert_comes(&mut self, expected: &[u8]) {
        let mut received = Vec::new();
        while received.len() < expected.len() {
            match self.next_part().await {
                Part::Bytes(bytes) => received.extend(bytes),
                other => panic!("{other:?} behind {} bytes", received.len()),
            }
        }
        assert!(received == expected, "{} bytes are not what was sent", received.len());
    }

    /// What is left of the session, all of it in parts.
    pub(crate) async fn rest_in_parts(&mut self) -> Vec<u8> {
        let mut received = Vec::new();
        loop {
            match self.next_part().await {
                Part::Bytes(bytes) => received.extend(bytes),
                Part::End => return received,
                Part::Bare => panic!("bare behind {} bytes", received.len()),
            }
        }
    }

    /// What comes in parts until the relay goes bare.
    pub(crate) async fn until_bare(&mut self) -> Vec<u8> {
        let mut received = Vec::new();
        loop {
            match self.next_part().await {
                Part::Bytes(bytes) => received.extend(bytes),
                Part::Bare => return received,
                Part::End => panic!("the end behind {} bytes", received.len()),
            }
        }
    }

    /// What is left of the session, which goes on bare to the connection's end.
    pub(crate) async fn rest_gone_bare(&mut self) -> Vec<u8> {
        let mut received = self.until_bare().await;
        received.extend(read_rest(&mut self.stream).await);
        received
    }

    /// Sends `bytes` of the session, in one part or a few.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        write(&mut self.stream, &in_parts(bytes, 65_536)).await;
    }

    /// Ends the session's direction.
    pub(crate) async fn end(&mut self) {
        write(&mut self.stream, &END).await;
    }

    /// Nothing more comes, and the connection is over, one way or the other.
    pub(crate) async fn assert_over(&mut self) {
        let mut rest = Vec::new();
        let _ended = within("the channel's end", self.stream.read_to_end(&mut rest)).await;
        assert_eq!(rest, b"");
    }
}

/// A host that serves `ssh`, with an idle channel that carries one session after another.
pub(crate) async fn idle_for_many(relay: &Secure, id: &str) -> (Member, Data) {
    let host = relay.member(id, &["ssh"]).await;
    let channel = host.idle_channel_for_many(relay, "ssh").await;
    (host, channel)
}

/// The next client of `relay`, served on `channel` with `request` and `answer`, at the same time, and nothing else.
pub(crate) async fn serve(relay: &Secure, channel: &mut Data, request: &[u8], answer: &[u8]) {
    let mut client = relay.client_of("ssh").await;
    channel.accept().await;
    let (mut reader, mut writer) = client.split();
    let asking = async {
        writer.write_all(request).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let hosting = async {
        let (reader, writer) = tokio::io::split(&mut channel.stream);
        let (mut reader, mut writer) = (reader, writer);
        let sent = [in_parts(answer, 65_536), END.to_vec()].concat();
        let ((), received) = tokio::join!(write(&mut writer, &sent), in_parts_alone(&mut reader));
        received
    };
    let ((), at_host, at_client) = tokio::join!(asking, hosting, read_rest(&mut reader));
    assert!(at_host == request, "{} bytes are not the client's", at_host.len());
    assert!(at_client == answer, "{} bytes are not the host's", at_client.len());
}

async fn in_parts_alone(reader: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut received = Vec::new();
    loop {
        let header: [u8; 4] = read_exactly(reader, 4).await.try_into().unwrap();
        match header {
            END => return received,
            BARE => panic!("bare behind {} bytes", received.len()),
            len => {
                let len = usize::try_from(u32::from_be_bytes(len)).unwrap();
                received.extend(read_exactly(reader, len).await);
            }
        }
    }
}
