//! What the tests do to a connection's end, and what they find there.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::within;

/// `len` bytes that look like nothing else; the same ones for the same `seed`.
pub(crate) fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

pub(crate) async fn connect_from(address: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((address, 0).into()).unwrap();
    let stream = within("connecting a host", socket.connect(to)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A connection to `to` on which nothing is said.
pub(crate) async fn silent(to: SocketAddr) -> TcpStream {
    connect_from(Ipv4Addr::LOCALHOST, to).await
}

pub(crate) async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    within("writing", stream.write_all(bytes)).await.unwrap();
    // TLS keeps what it was given until then.
    within("flushing", stream.flush()).await.unwrap();
}

pub(crate) async fn read_exactly(stream: &mut (impl AsyncRead + Unpin), len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    within("reading", stream.read_exact(&mut bytes)).await.unwrap();
    bytes
}

/// All that comes until the peer's end.
pub(crate) async fn read_rest(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    within("the peer's end", stream.read_to_end(&mut bytes)).await.unwrap();
    bytes
}

/// Nothing comes but the peer's end.
pub(crate) async fn assert_ended(stream: &mut (impl AsyncRead + Unpin)) {
    assert_eq!(read_rest(stream).await, b"");
}

/// Whatever comes, a reset is what it ends with. Gives what came.
pub(crate) async fn assert_reset(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let ended = within("a reset", stream.read_to_end(&mut bytes)).await;
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
    bytes
}

/// Nothing comes, and the connection is closed, one way or the other.
pub(crate) async fn assert_closed(stream: &mut (impl AsyncRead + Unpin)) {
    let mut bytes = Vec::new();
    let ended = within("the connection's end", stream.read_to_end(&mut bytes)).await;
    assert!(ended.is_ok() || ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    assert_eq!(bytes, b"");
}

/// Closes a connection with a reset.
pub(crate) fn reset(stream: TcpStream) {
    relayserver_transport::abort(stream);
}

/// A line there and a line back: both directions are open.
pub(crate) async fn echo(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    host: &mut (impl AsyncRead + AsyncWrite + Unpin),
) {
    write(client, b"there").await;
    assert_eq!(read_exactly(host, 5).await, b"there");
    write(host, b"and back").await;
    assert_eq!(read_exactly(client, 8).await, b"and back");
}

/// Both ends send all they have and their end, at the same time, and read all that comes.
pub(crate) async fn exchange<C, H>(
    (client, sent_by_client): (&mut C, &[u8]),
    (host, sent_by_host): (&mut H, &[u8]),
) where
    C: AsyncRead + AsyncWrite + Unpin,
    H: AsyncRead + AsyncWrite + Unpin,
{
    async fn end(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), sent: &[u8]) -> Vec<u8> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut received = Vec::new();
        let sending = async {
            writer.write_all(sent).await?;
            writer.shutdown().await
        };
        let (sent, read) = tokio::join!(sending, reader.read_to_end(&mut received));
        sent.and(read).unwrap();
        received
    }
    let both = async { tokio::join!(end(client, sent_by_client), end(host, sent_by_host)) };
    let (at_client, at_host) = within("an exchange", both).await;
    assert!(
        at_client == sent_by_host,
        "{} bytes at the client are not the host's",
        at_client.len()
    );
    assert!(at_host == sent_by_client, "{} bytes at the host are not the client's", at_host.len());
}
