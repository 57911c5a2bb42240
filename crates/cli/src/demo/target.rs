//! What the demo's host serves: a page to a browser, echo to everybody else.

use std::io;
use std::time::Duration;

use relayserver::Session;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const PAGE: &str = include_str!("page.html");

/// A request's head that is longer is not a browser's.
const HEAD_MAX: usize = 16 * 1024;

/// How long a browser may take to send the rest of a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves one session: decided by its first four bytes.
pub(crate) async fn serve(mut session: Session) -> io::Result<()> {
    let mut received = Vec::with_capacity(1024);
    while received.len() < 4 && !received.contains(&b'\n') {
        if session.read_buf(&mut received).await? == 0 {
            break;
        }
        if !received.starts_with(b"GET ".get(..received.len().min(4)).unwrap_or_default()) {
            break;
        }
    }
    if received.starts_with(b"GET ") {
        serve_page(session, received).await
    } else {
        echo(session, &received).await
    }
}

async fn serve_page(mut session: Session, mut request: Vec<u8>) -> io::Result<()> {
    let head = async {
        while !request.windows(4).any(|window| window == b"\r\n\r\n") && request.len() < HEAD_MAX {
            if session.read_buf(&mut request).await? == 0 {
                break;
            }
        }
        io::Result::Ok(())
    };
    timeout(HEAD_TIMEOUT, head).await??;
    let (status, body) = if request.starts_with(b"GET / ") {
        ("200 OK", PAGE)
    } else {
        ("404 Not Found", "not here\n")
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    session.write_all(head.as_bytes()).await?;
    session.write_all(body.as_bytes()).await?;
    session.shutdown().await
}

async fn echo(mut session: Session, received: &[u8]) -> io::Result<()> {
    session.write_all(received).await?;
    let (mut reader, mut writer) = session.into_split();
    tokio::io::copy(&mut reader, &mut writer).await?;
    writer.shutdown().await
}
