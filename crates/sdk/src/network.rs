//! Notices that the machine's network has changed: a link that came or went, another address, another route. What it was is not looked
//! at; who hears of it tries its relay. Only Linux tells; elsewhere nothing is ever said.

use tokio::sync::watch;

/// Says so whenever the network has changed, once a second at most, for as long as it is polled.
#[cfg(all(target_os = "linux", not(simulation)))]
pub(crate) async fn watch(changes: &watch::Sender<u64>) {
    use tracing::debug;

    let error = match linux::follow(changes).await {
        Ok(never) => match never {},
        Err(error) => error,
    };
    // Some containers do not allow it. What is lost is a second or two after a change.
    debug!(%error, "changes of the network are not noticed");
    std::future::pending().await
}

#[cfg(not(all(target_os = "linux", not(simulation))))]
pub(crate) async fn watch(_changes: &watch::Sender<u64>) {
    std::future::pending().await
}

#[cfg(all(target_os = "linux", not(simulation)))]
mod linux {
    use std::convert::Infallible;
    use std::io;
    use std::time::Duration;

    use rustix::io::Errno;
    use rustix::net::netlink::SocketAddrNetlink;
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    use tokio::net::UnixDatagram;
    use tokio::sync::watch;
    use tokio::time::sleep;

    /// The groups of rtnetlink(7) that tell of links, addresses and routes: `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`,
    /// `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR` and `RTMGRP_IPV6_ROUTE` of linux/rtnetlink.h.
    const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

    /// A change comes in pieces: the link, then its address, then the route. What is tried after the first of them fails.
    const SETTLE: Duration = Duration::from_millis(100);

    /// Machines with many containers change all the time.
    const REST: Duration = Duration::from_millis(900);

    pub(super) async fn follow(changes: &watch::Sender<u64>) -> io::Result<Infallible> {
        let socket = subscribe()?;
        loop {
            socket.readable().await?;
            sleep(SETTLE).await;
            drain(&socket)?;
            changes.send_modify(|changes| *changes += 1);
            sleep(REST).await;
        }
    }

    /// As a socket of datagrams within this machine, which it is; nothing is asked of it but to receive.
    fn subscribe() -> io::Result<UnixDatagram> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        // No protocol is rtnetlink's.
        let socket = rustix::net::socket_with(family, kind, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        UnixDatagram::from_std(std::os::unix::net::UnixDatagram::from(socket))
    }

    /// Takes off what there is. Where it was too much for the socket (`ENOBUFS`), something has changed all the same.
    fn drain(socket: &UnixDatagram) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match socket.try_recv(&mut buffer) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::NOBUFS | Errno::INTR) => {}
                    _ => return Err(error),
                },
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[tokio::test]
        async fn the_system_lets_anybody_listen() {
            drain(&subscribe().unwrap()).unwrap();
        }
    }
}
