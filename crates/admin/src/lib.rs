//! What a relay says about itself over HTTP: `GET /metrics`, for Prometheus. It reads the relay's snapshot and never reaches inside; a
//! relay whose admin fails goes on. `relayserver relay` drives it, in a task beside the relay.

mod metrics;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use relayserver_relay::{RelayHandle, Snapshot};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

pub use metrics::{METRICS, Metric, render};

/// How many connections may be open at once. A scraper takes one.
const CONNECTIONS_MAX: usize = 64;

/// How long a connection may last, however slowly its other end asks or reads: Prometheus itself waits no longer. Each is for one
/// answer, so that none is cut off that has begun late on a connection that was kept.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

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

    /// Answers for as long as it is polled. What is being answered when this is dropped is cut off.
    pub async fn run(self, relay: RelayHandle) -> Infallible {
        let router = router(move || relay.snapshot());
        let mut answering = JoinSet::new();
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _peer)) => stream,
                Err(error) => {
                    warn!(%error, "cannot accept on the port for metrics");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            while answering.try_join_next().is_some() {}
            // Beyond the bound a connection is closed: whoever has opened so many does not read them.
            if answering.len() < CONNECTIONS_MAX {
                answering.spawn(answer(stream, router.clone()));
            } else {
                debug!("too many connections on the port for metrics");
            }
        }
    }
}

/// Answers what is asked on a connection, once.
async fn answer(stream: TcpStream, router: Router) {
    let service = TowerToHyperService::new(router);
    let serving =
        http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (dialled, listener.accept().await.unwrap().0)
    }

    /// More than two sockets hold.
    fn huge() -> Router {
        Router::new().route("/", get(async || vec![b'x'; 64 << 20]))
    }

    // Time is not waited for: it is moved on where nothing else can happen.
    #[tokio::test(start_paused = true)]
    async fn who_asks_nothing_or_does_not_read_is_closed_at_the_deadline() {
        for asked in [&b""[..], b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"] {
            let (mut asking, answering) = pair().await;
            asking.write_all(asked).await.unwrap();
            let begun = Instant::now();
            answer(answering, huge()).await;
            let lasted = begun.elapsed();
            assert!(lasted >= CONNECTION_TIMEOUT && lasted < 2 * CONNECTION_TIMEOUT, "{lasted:?}");
            let mut rest = Vec::new();
            let _ended = asking.read_to_end(&mut rest).await;
            assert!(rest.len() < 64 << 20, "all of it");
        }
    }

    #[tokio::test]
    async fn a_connection_is_for_one_answer() {
        let (mut asking, answering) = pair().await;
        let request = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n";
        asking.write_all(request).await.unwrap();
        let reading = async {
            let mut answer = String::new();
            asking.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let router = router(|| panic!("nobody asked for metrics"));
        let (text, ()) = tokio::join!(reading, answer(answering, router));
        assert!(text.starts_with("HTTP/1.1 404 Not Found\r\n"), "{text}");
        assert!(text.contains("\r\nconnection: close\r\n"), "{text}");
        assert!(text.ends_with("there is nothing here but /metrics\n"), "{text}");
    }
}
