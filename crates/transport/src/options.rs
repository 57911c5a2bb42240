//! What is asked of a connection's socket, by what it is used for. Nothing here decides when.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

#[cfg(not(simulation))]
use socket2::{SockRef, TcpKeepalive};
use tracing::debug;

use crate::net::TcpStream;

/// When the kernel probes a silent connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// After this long without traffic.
    pub idle: Duration,
    /// And this long after a probe without an answer.
    pub interval: Duration,
    /// After so many probes without an answer the connection is dead.
    pub probes_max: u32,
}

/// What keeps NATs awake, which forget a connection after some minutes, and finds out within 90 s that a peer has vanished.
pub const KEEPALIVE: Keepalive =
    Keepalive { idle: Duration::from_secs(60), interval: Duration::from_secs(10), probes_max: 3 };

/// Has the kernel probe the connection when it is silent.
///
/// # Errors
/// What the system says, such as that the peer has gone already.
#[cfg(not(simulation))]
pub fn set_keepalive(stream: &TcpStream, keepalive: Keepalive) -> io::Result<()> {
    set_keepalive_of(SockRef::from(stream), keepalive)
}

#[cfg(not(simulation))]
pub(crate) fn set_keepalive_of(socket: SockRef<'_>, keepalive: Keepalive) -> io::Result<()> {
    let settings = TcpKeepalive::new().with_time(keepalive.idle).with_interval(keepalive.interval);
    // The only system that takes no number of probes.
    #[cfg(not(target_os = "openbsd"))]
    let settings = settings.with_retries(keepalive.probes_max);
    socket.set_tcp_keepalive(&settings)
}

/// How long sent bytes, and keepalive probes, may stay unacknowledged before the kernel calls the connection dead; `None`:
/// its own bound. A peer that does not read for that long looks dead too, so this is for connections on which nobody
/// may stop reading. Does nothing on systems other than Linux.
///
/// # Errors
/// As [`set_keepalive`].
#[cfg(not(simulation))]
pub fn set_user_timeout(stream: &TcpStream, user_timeout: Option<Duration>) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return SockRef::from(stream).set_tcp_user_timeout(user_timeout);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = (stream, user_timeout);
        Ok(())
    }
}

/// Sends what is written at once (TCP_NODELAY).
///
/// # Errors
/// As [`set_keepalive`].
#[cfg(not(simulation))]
pub fn set_nodelay(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)
}

/// What the simulated network does not have.
#[cfg(simulation)]
mod without {
    use super::*;

    pub(super) fn set_keepalive(_: &TcpStream, _: Keepalive) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn set_user_timeout(_: &TcpStream, _: Option<Duration>) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn set_nodelay(_: &TcpStream) -> io::Result<()> {
        Ok(())
    }
}
#[cfg(simulation)]
pub(crate) use without::set_nodelay;
#[cfg(simulation)]
use without::{set_keepalive, set_user_timeout};

/// Sets up a connection that waits for its peer, such as an idle channel: what is dead is to be noticed, and NATs are kept awake.
pub fn prepare_waiting(stream: &TcpStream, user_timeout: Duration) {
    prepare_long_lived(stream);
    log_failure(set_user_timeout(stream, Some(user_timeout)));
}

/// Sets up a connection that waited and is offered a session: where what is sent to it is not even acknowledged within
/// `user_timeout`, it leads nowhere any more, as where a NAT has forgotten it.
pub fn prepare_offer(stream: &TcpStream, user_timeout: Duration) {
    log_failure(set_user_timeout(stream, Some(user_timeout)));
}

/// Sets up a connection that waited and carries a session from now on: a peer that does not read for as long as it likes is
/// not dead.
pub fn prepare_session(stream: &TcpStream) {
    log_failure(set_user_timeout(stream, None));
}

/// Sets up a connection that may be silent for long: one whose peer has vanished is to be noticed.
pub fn prepare_long_lived(stream: &TcpStream) {
    log_failure(set_keepalive(stream, KEEPALIVE));
    log_failure(set_nodelay(stream));
}

/// Sets up a connection that [`listen`](crate::listen) has accepted from `peer` as [`prepare_long_lived`] does.
pub fn prepare_accepted(stream: &TcpStream, peer: IpAddr) {
    if !cfg!(target_os = "linux") {
        prepare_long_lived(stream);
    }
    prepare_nearby(stream, peer);
}

/// Sets up a connection that was accepted from `peer`, and waits for it, as [`prepare_waiting`] does.
pub fn prepare_accepted_waiting(stream: &TcpStream, peer: IpAddr, user_timeout: Duration) {
    prepare_accepted(stream, peer);
    log_failure(set_user_timeout(stream, Some(user_timeout)));
}

/// Sets up a connection that was dialled to `peer`: one that vanishes is to be noticed, which none on this machine does.
pub(crate) fn prepare_dialled(stream: &TcpStream, peer: IpAddr) {
    if !peer.to_canonical().is_loopback() {
        log_failure(set_keepalive(stream, KEEPALIVE));
    }
    prepare_nearby(stream, peer);
}

/// Sets up a connection whose `peer` may be on this machine. BBR paces what it sends, by timers, and on loopback that is most of what
/// sending costs, for a network that is not there: a third of what moves without it was measured. Other algorithms do not pace.
fn prepare_nearby(stream: &TcpStream, peer: IpAddr) {
    #[cfg(all(target_os = "linux", not(simulation)))]
    if peer.to_canonical().is_loopback() && is_paced_by_default(stream) {
        // The one that every program may choose.
        log_failure(SockRef::from(stream).set_tcp_congestion(b"reno"));
    }
    #[cfg(any(not(target_os = "linux"), simulation))]
    let _ = (stream, peer);
}

/// Whether this machine's connections are paced, as `stream` is, which nobody has changed yet.
#[cfg(all(target_os = "linux", not(simulation)))]
fn is_paced_by_default(stream: &TcpStream) -> bool {
    static IS_PACED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *IS_PACED.get_or_init(|| {
        SockRef::from(stream).tcp_congestion().is_ok_and(|name| name.starts_with(b"bbr"))
    })
}

/// A socket that takes no options is one whose peer has gone already, which its reader will find out.
pub(crate) fn log_failure(set: io::Result<()>) {
    if let Err(error) = set {
        debug!(%error, "socket option not set");
    }
}

/// Reads what has come, without asking the runtime whether something has: for a connection that was just accepted, which it does not
/// know yet.
///
/// # Errors
/// `WouldBlock` where nothing has come; and what the system says.
#[cfg(not(simulation))]
pub fn read_now(stream: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
    std::io::Read::read(&mut &*SockRef::from(stream), buf)
}

/// Reads what has come.
///
/// # Errors
/// `WouldBlock` where nothing has come; and what the system says.
#[cfg(simulation)]
pub fn read_now(stream: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
    stream.try_read(buf)
}

/// Makes the close of a connection, whenever it comes, a RST, so that the peer can tell it from an end.
pub fn reset_on_close(stream: &TcpStream) {
    #[cfg(simulation)]
    stream.reset_on_close();
    // Where the option cannot be set the connection is gone already.
    #[cfg(not(simulation))]
    let _set = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn options_are_in_force() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let seconds = Duration::from_secs;
        let keepalive = Keepalive { idle: seconds(60), interval: seconds(10), probes_max: 3 };
        set_keepalive(&stream, keepalive).unwrap();
        set_nodelay(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert!(stream.nodelay().unwrap());
        #[cfg(target_os = "linux")]
        {
            assert_eq!(socket.tcp_keepalive_time().unwrap(), seconds(60));
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), seconds(10));
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
            set_user_timeout(&stream, Some(seconds(30))).unwrap();
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(seconds(30)));
        }
        set_user_timeout(&stream, None).unwrap();
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
    }

    #[tokio::test]
    async fn a_peer_elsewhere_is_probed_when_it_is_silent() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        for (peer, is_probed) in [(Ipv4Addr::LOCALHOST, false), (Ipv4Addr::new(192, 0, 2, 1), true)]
        {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            prepare_dialled(&stream, peer.into());
            assert_eq!(SockRef::from(&stream).keepalive().unwrap(), is_probed, "{peer}");
        }
    }
}
