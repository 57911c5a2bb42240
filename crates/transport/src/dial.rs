//! Dialling: one attempt, under one deadline, over every address that a name has.
//!
//! Driven by whoever needs a connection. It never tries again: that is the caller's decision.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use thiserror::Error;
#[cfg(not(simulation))]
use tokio::net::{TcpSocket, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::HostPort;
use crate::net::TcpStream;
#[cfg(not(simulation))]
use crate::options;

/// How long an address has for itself before the next one is tried beside it (RFC 8305 advises 250 ms).
const HEAD_START: Duration = Duration::from_millis(250);

/// How many addresses of a name are tried. With one head start each, 3 seconds have room for 12.
const ADDRESSES_MAX: usize = 12;

/// Why there is no connection.
#[derive(Debug, Error)]
#[error("cannot connect to {address}: {source}")]
pub struct DialError {
    /// What it comes to.
    pub kind: DialErrorKind,
    /// What was dialled.
    pub address: HostPort,
    /// What the system said, of the address that came nearest.
    pub source: io::Error,
}

/// What a failed attempt comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DialErrorKind {
    /// The machine answered: nobody listens there.
    Refused,
    /// Nobody answered in time.
    TimedOut,
    /// There is no way there now.
    Unreachable,
    /// The name has no address, or nobody could be asked.
    NameNotResolved,
    /// Anything else, such as a lack of descriptors.
    Other,
}

/// Connects to `address` within `dial_timeout`, with TCP_NODELAY set.
///
/// Every address that the name has is tried within that time, in the resolver's order: the next one after 250 ms (less where
/// there are many), or as soon as one has failed. The first that connects wins.
///
/// # Errors
/// [`DialError`], once every address has failed or the time is over.
///
/// # Cancel safety
/// Dropping the future drops what has been begun.
pub async fn dial(address: &HostPort, dial_timeout: Duration) -> Result<TcpStream, DialError> {
    dial_from(address, None, dial_timeout).await
}

/// Like [`dial`], from a local address of the caller's choice. Addresses of the other family are left out.
///
/// # Errors
/// As [`dial`], and when `source` is none of this machine's addresses.
pub async fn dial_from(
    address: &HostPort,
    source: Option<IpAddr>,
    dial_timeout: Duration,
) -> Result<TcpStream, DialError> {
    let failed = |kind, source| DialError { kind, address: address.clone(), source };
    let timed_out =
        |what: &str| io::Error::new(ErrorKind::TimedOut, format!("{what} within {dial_timeout:?}"));
    let deadline = Instant::now() + dial_timeout;
    let lookup = lookup_host((address.host.as_str(), address.port));
    let resolved = match timeout_at(deadline, lookup).await {
        Ok(resolved) => resolved,
        // A network that is away looks like this too: its name servers are as silent as the relay.
        Err(_elapsed) => Err(timed_out("the name was not resolved")),
    };
    let mut addresses: Vec<SocketAddr> =
        resolved.map_err(|error| failed(DialErrorKind::NameNotResolved, error))?.collect();
    addresses.retain(|to| source.is_none_or(|from| from.is_ipv4() == to.is_ipv4()));
    addresses.truncate(ADDRESSES_MAX);
    match timeout_at(deadline, race(addresses, source, dial_timeout)).await {
        Ok(outcome) => outcome.map_err(|error| failed(kind_of(&error), error)),
        Err(_elapsed) => Err(failed(DialErrorKind::TimedOut, timed_out("no answer"))),
    }
}

/// Connects to the first of `addresses` that answers.
async fn race(
    addresses: Vec<SocketAddr>,
    source: Option<IpAddr>,
    dial_timeout: Duration,
) -> io::Result<TcpStream> {
    if let [address] = *addresses {
        return connect(address, source).await;
    }
    // All get their turn in time, however many there are.
    let turns = u32::try_from(addresses.len() + 1).unwrap_or(u32::MAX);
    let head_start = HEAD_START.min(dial_timeout / turns);
    let mut waiting = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut failure = None;
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(connect(address, source));
        }
        let last = waiting.len() == 0;
        tokio::select! {
            ended = attempts.join_next() => match ended {
                Some(Ok(Ok(stream))) => return Ok(stream),
                Some(Ok(Err(error))) => nearest(&mut failure, error),
                Some(Err(error)) => nearest(&mut failure, io::Error::other(error)),
                None => {
                    let nothing = || io::Error::new(ErrorKind::NotFound, "the name has no address");
                    return Err(failure.unwrap_or_else(nothing));
                }
            },
            () = sleep(head_start), if !last => {}
        }
    }
}

/// In the simulated network there are no names.
#[cfg(simulation)]
async fn lookup_host((host, port): (&str, u16)) -> io::Result<std::vec::IntoIter<SocketAddr>> {
    let address = host.parse().map_err(io::Error::other)?;
    Ok(vec![SocketAddr::new(address, port)].into_iter())
}

#[cfg(simulation)]
async fn connect(address: SocketAddr, _source: Option<IpAddr>) -> io::Result<TcpStream> {
    crate::net::simulated::connect(address).await
}

#[cfg(not(simulation))]
async fn connect(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.set_nodelay(true)?;
    let stream = socket.connect(address).await?;
    // On loopback the system may choose the very port that is dialled and connect the socket to itself.
    if stream.local_addr()? == address {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    options::prepare_dialled(&stream, address.ip());
    Ok(stream)
}

/// Keeps the failure that came nearest: a machine that refused was at least there.
fn nearest(kept: &mut Option<io::Error>, error: io::Error) {
    let refused = |error: &io::Error| error.kind() == ErrorKind::ConnectionRefused;
    if !kept.as_ref().is_some_and(refused) {
        *kept = Some(error);
    }
}

fn kind_of(error: &io::Error) -> DialErrorKind {
    match error.kind() {
        ErrorKind::ConnectionRefused => DialErrorKind::Refused,
        ErrorKind::TimedOut => DialErrorKind::TimedOut,
        ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::NetworkDown
        | ErrorKind::AddrNotAvailable => DialErrorKind::Unreachable,
        ErrorKind::NotFound => DialErrorKind::NameNotResolved,
        _ => DialErrorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;

    const GENEROUS: Duration = Duration::from_secs(10);

    fn at(address: SocketAddr) -> HostPort {
        HostPort { host: address.ip().to_string(), port: address.port() }
    }

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// An address where nobody listens.
    async fn nobody() -> SocketAddr {
        listener().await.1
    }

    /// A listener whose queue is full: on Linux it answers no further connection, as a black hole does.
    async fn black_hole() -> (Vec<TcpStream>, TcpListener, SocketAddr) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        let probe = Duration::from_millis(200);
        while let Ok(Ok(stream)) = timeout(probe, TcpStream::connect(address)).await {
            queued.push(stream);
        }
        (queued, listener, address)
    }

    #[tokio::test]
    async fn a_name_connects_without_delay_by_nodelay() {
        let (_listener, address) = listener().await;
        let name = HostPort { host: "localhost".to_owned(), port: address.port() };
        let stream = dial(&name, GENEROUS).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        assert!(stream.nodelay().unwrap());
    }

    #[tokio::test]
    async fn the_source_address_is_the_callers() {
        let (listener, address) = listener().await;
        let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77));
        let _stream = dial_from(&at(address), Some(source), GENEROUS).await.unwrap();
        assert_eq!(listener.accept().await.unwrap().1.ip(), source);
    }

    #[tokio::test]
    async fn nobody_listening_is_refused_in_one_line() {
        let address = nobody().await;
        let error = dial(&at(address), GENEROUS).await.unwrap_err();
        assert_eq!(error.kind, DialErrorKind::Refused);
        let text = error.to_string();
        assert!(text.starts_with(&format!("cannot connect to {address}: ")), "{text}");
        assert!(!text.contains('\n'), "{text}");
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_told_apart() {
        // Longer than a name may be: no resolver is asked for it.
        let name = HostPort { host: "a".repeat(64), port: 1 };
        let error = dial(&name, GENEROUS).await.unwrap_err();
        assert_eq!(error.kind, DialErrorKind::NameNotResolved, "{error}");
    }

    #[tokio::test]
    async fn from_an_address_that_is_not_ours_there_is_no_way() {
        let (_listener, address) = listener().await;
        let documentation = IpAddr::from([192, 0, 2, 1]);
        let error = dial_from(&at(address), Some(documentation), GENEROUS).await.unwrap_err();
        assert_eq!(error.kind, DialErrorKind::Unreachable, "{error:?}");
    }

    #[tokio::test]
    async fn addresses_of_another_family_than_the_sources_are_left_out() {
        let (_listener, address) = listener().await;
        let source = Some("::1".parse().unwrap());
        let error = dial_from(&at(address), source, GENEROUS).await.unwrap_err();
        assert_eq!(error.kind, DialErrorKind::NameNotResolved, "{error:?}");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn silence_ends_at_the_deadline() {
        let (_queued, _listener, address) = black_hole().await;
        let error = dial(&at(address), Duration::from_millis(300)).await.unwrap_err();
        assert_eq!(error.kind, DialErrorKind::TimedOut);
        assert!(error.to_string().ends_with("no answer within 300ms"), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_silent_first_address_leaves_time_for_the_next() {
        let (_queued, _silent, silent) = black_hole().await;
        let (_listener, good) = listener().await;
        let stream = timeout(GENEROUS, race(vec![silent, silent, good], None, GENEROUS)).await;
        assert_eq!(stream.unwrap().unwrap().peer_addr().unwrap(), good);

        // Also where the time is short: each address gets its share.
        let short = Duration::from_millis(400);
        let stream = timeout(short, race(vec![silent, silent, good], None, short)).await;
        assert_eq!(stream.unwrap().unwrap().peer_addr().unwrap(), good);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_first_address_is_followed_at_once() {
        let (refused, (_listener, good)) = (nobody().await, listener().await);
        let before = tokio::time::Instant::now();
        let stream = race(vec![refused, good], None, GENEROUS).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        assert!(before.elapsed() <= HEAD_START, "waited {:?}", before.elapsed());
    }

    #[test]
    fn the_nearest_failure_is_told() {
        let mut kept = None;
        for kind in [ErrorKind::HostUnreachable, ErrorKind::ConnectionRefused, ErrorKind::TimedOut]
        {
            nearest(&mut kept, kind.into());
        }
        assert_eq!(kept.unwrap().kind(), ErrorKind::ConnectionRefused);
    }
}
