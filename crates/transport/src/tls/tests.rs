//! Both sides against each other, and against what is none of ours, over real connections.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::{Pin, Stream};

mod accepting;
mod connecting;
mod ending;
mod hearing;
mod tickets;

/// For what must happen.
const DEADLINE: Duration = Duration::from_secs(20);

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (dialled.unwrap(), accepted.unwrap().0)
}

fn server() -> ServerTls {
    let identity = generate_identity(&["relay.test".to_owned()]).unwrap();
    ServerTls::from_pem(identity.certificate_pem.as_bytes(), identity.key_pem.as_bytes()).unwrap()
}

fn pinning(server: &ServerTls) -> ClientTls {
    ClientTls::pinned(&[server.pin()]).unwrap()
}

/// Both sides' outcomes of one handshake.
async fn handshake(
    client: &ClientTls,
    server: &ServerTls,
) -> (Result<Stream, TlsConnectError>, Result<Stream, TlsAcceptError>) {
    let (dialled, accepted) = tcp_pair().await;
    let both =
        async { tokio::join!(client.connect(dialled, "relay.test"), server.accept(accepted)) };
    tokio::time::timeout(DEADLINE, both).await.unwrap()
}

/// The client's and the server's end of a connection.
async fn pair() -> (Stream, Stream) {
    let server = server();
    let (client, server) = handshake(&pinning(&server), &server).await;
    (client.unwrap(), server.unwrap())
}

fn tls(stream: &Stream) -> &TlsStream {
    match stream {
        Stream::Tls(stream) => stream,
        _ => panic!("not TLS: {stream:?}"),
    }
}

fn tls_mut(stream: &mut Stream) -> &mut TlsStream {
    match stream {
        Stream::Tls(stream) => stream,
        _ => panic!("not TLS: {stream:?}"),
    }
}

/// Bytes that are the same nowhere else.
fn content(len: usize, seed: u32) -> Vec<u8> {
    let words = (seed..).map(|word| word.wrapping_mul(0x9e37_79b1));
    words.flat_map(u32::to_le_bytes).take(len).collect()
}
