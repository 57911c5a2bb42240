//! What a relay says about itself over HTTP: `GET /metrics`, for Prometheus. It reads the relay's snapshot and never reaches inside; a
//! relay whose admin fails goes on.

mod metrics;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use relayserver_relay::{RelayHandle, Snapshot};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

pub use metrics::{METRICS, Metric, render};

/// How many connections may be open at once. A scraper takes one.
const CONNECTIONS_MAX: usize = 64;

/// How long a connection may last, however slowly its other end reads. Scrapers that keep theirs open dial again.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// How long nothing is accepted after an accept has failed: descriptors have run out, and others need them more.
const PAUSE: Duration = Duration::from_secs(1);

/// A port on which a relay tells about itself.
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
}

impl Admin {
    /// Binds the port. Port 0 takes a free one.
    ///
    /// # Errors
    /// The port cannot be had.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with I/O.
    pub fn bind(address: SocketAddr) -> io::Result<Admin> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        Ok(Admin { listener, address })
    }

    /// Where it is reached.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers for as long as it is polled.
    pub async fn run(self, relay: RelayHandle) -> Infallible {
        let router = router(move || relay.snapshot());
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _peer)) => stream,
                Err(error) => {
                    warn!(%error, "cannot accept on the port for metrics");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            // Beyond the bound a connection is closed: whoever has opened so many does not read them.
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                debug!("too many connections on the port for metrics");
                continue;
            };
            let router = router.clone();
            tokio::spawn(async move {
                let _place = place;
                answer(stream, router).await;
            });
        }
    }
}

/// Answers what is asked on one connection.
async fn answer(stream: TcpStream, router: Router) {
    let service = TowerToHyperService::new(router);
    let serving =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIMEOUT, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "connection for metrics failed"),
        Err(_elapsed) => debug!("connection for metrics was open for long"),
    }
}

/// The format's version, as Prometheus asks for it.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

fn router(snapshot: impl Fn() -> Snapshot + Clone + Send + Sync + 'static) -> Router {
    let metrics = move || {
        let text = render(&snapshot());
        async move { ([(header::CONTENT_TYPE, CONTENT_TYPE)], text) }
    };
    let nothing = || async { (StatusCode::NOT_FOUND, "there is nothing here but /metrics\n") };
    Router::new().route("/metrics", get(metrics)).fallback(nothing)
}
