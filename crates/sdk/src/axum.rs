//! Serving axum applications through a relay.

use std::net::{Ipv4Addr, SocketAddr};

use axum::serve::{ListenerExt, TapIo};

use crate::{Listener, Session};

/// Where a client is whose address the relay does not say. Unspecified, and never loopback: an application may trust that.
const UNKNOWN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// A listener that `axum::serve` takes. Made by [`Listener::into_axum`].
#[derive(Debug)]
pub struct AxumListener(Listener);

impl Listener {
    /// For `axum::serve`:
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::net::SocketAddr;
    /// use axum::{Router, extract::ConnectInfo, routing::get};
    ///
    /// let app = Router::new().route(
    ///     "/",
    ///     get(async |ConnectInfo(client): ConnectInfo<SocketAddr>| format!("hello, {client}")),
    /// );
    /// let listener = relayserver::Listener::builder("relay.example.com").listen().await?;
    /// let app = app.into_make_service_with_connect_info::<SocketAddr>();
    /// axum::serve(listener.into_axum(), app).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// `ConnectInfo<SocketAddr>` is the client's address, and `0.0.0.0:0` where the relay does not say it. (The type is
    /// axum's own wrapper around [`AxumListener`] because only for that axum gives applications the address.)
    pub fn into_axum(self) -> TapIo<AxumListener, fn(&mut Session)> {
        AxumListener(self).tap_io(|_session| {})
    }
}

impl axum::serve::Listener for AxumListener {
    type Io = Session;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Session, SocketAddr) {
        match self.0.accept().await {
            Ok(session) => {
                let client = session.client_addr().unwrap_or(UNKNOWN);
                (session, client)
            }
            // Closed: axum leaves on its own signal, and asks no more.
            Err(_closed) => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(UNKNOWN)
    }
}
