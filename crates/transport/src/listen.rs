//! Listening: a socket set up for many connections at once.

use std::io;
#[cfg(not(simulation))]
use std::net::Ipv6Addr;
use std::net::SocketAddr;

#[cfg(not(simulation))]
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::net::TcpListener;
#[cfg(not(simulation))]
use crate::options;

/// How many connections the system keeps until they are accepted: bursts of thousands of clients and hosts arrive within
/// a round trip. The system may have a lower bound of its own.
#[cfg(not(simulation))]
const BACKLOG: i32 = 4096;

/// Listens on `addr`; port 0 takes a free one. `[::]` takes IPv4 too. Accepted connections have TCP_NODELAY set and the keepalive of
/// [`prepare_long_lived`](crate::options::prepare_long_lived), where the system lets them inherit it, as Linux does: five calls less
/// for each of them.
///
/// # Errors
/// What the system says: the port is taken, or not ours to take.
///
/// # Panics
/// Outside of a Tokio runtime with I/O.
#[cfg(not(simulation))]
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // A relay that starts again must get its ports back while old connections still time out. Elsewhere than on Unix the
    // option means that others may take the port as well.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if addr.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(false)?;
    }
    socket.set_tcp_nodelay(true)?;
    options::set_keepalive_of(SockRef::from(&socket), options::KEEPALIVE)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Listens on `addr` in the simulated network.
///
/// # Errors
/// The port is taken.
#[cfg(simulation)]
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(addr)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use std::net::Ipv4Addr;

    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn accepted_connections_have_nodelay_and_keepalive() {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, peer) = listener.accept().await.unwrap();
        options::prepare_accepted(&accepted, peer.ip());
        let socket = SockRef::from(&accepted);
        assert!(accepted.nodelay().unwrap() && socket.keepalive().unwrap());
        #[cfg(target_os = "linux")]
        {
            let options::Keepalive { idle, interval, probes_max } = options::KEEPALIVE;
            assert_eq!(socket.tcp_keepalive_time().unwrap(), idle);
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), interval);
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), probes_max);
        }
    }

    #[tokio::test]
    async fn the_ipv6_wildcard_takes_ipv4_too() {
        let Ok(listener) = listen((Ipv6Addr::UNSPECIFIED, 0).into()) else {
            return; // a machine without IPv6
        };
        let port = listener.local_addr().unwrap().port();
        let _client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip().to_canonical(), Ipv4Addr::LOCALHOST);
    }

    #[tokio::test]
    async fn a_port_is_free_again_at_once_after_a_session_and_never_shared() {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        // Who closes first keeps the port in TIME_WAIT.
        drop(listener.accept().await.unwrap());
        drop(client);
        assert!(listen(address).is_err(), "taken while it is listened on");
        drop(listener);
        listen(address).unwrap();
    }
}
