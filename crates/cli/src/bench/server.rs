//! The server that the load talks to. The first byte of a connection says what it is for.

use std::io;
use std::net::SocketAddr;

use relayserver_transport::listen;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::exit::{self, Exit};

/// What comes behind it is sent back.
pub(super) const ECHO: u8 = b'e';

/// Bytes are sent: so many as the eight bytes behind it say, the most significant first, and an end.
pub(super) const SEND: u8 = b's';

/// How much is written at once.
const BLOCK: &[u8] = &[b'b'; 128 * 1024];

/// Listens until it is ended.
pub(super) async fn run(address: SocketAddr) -> io::Result<Exit> {
    let listener = listen(address)
        .map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?;
    let address = listener.local_addr()?;
    if let failed @ (Exit::Failure | Exit::Usage) = exit::print(&format!("listening {address}\n")) {
        return Ok(failed);
    }
    loop {
        let (stream, _) = listener.accept().await?;
        // How one ends is the load's to notice.
        tokio::spawn(async move { serve(stream).await.is_ok() });
    }
}

/// Serves one connection.
pub(crate) async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    // Not zeroed beforehand: for that the kernel clears pages anew, for each connection, which costs more than all else here.
    let mut buffer = Vec::with_capacity(16 * 1024);
    match stream.read_u8().await {
        Ok(ECHO) => {
            while stream.read_buf(&mut buffer).await? > 0 {
                stream.write_all(&buffer).await?;
                buffer.clear();
            }
            stream.shutdown().await
        }
        Ok(SEND) => {
            let mut left = stream.read_u64().await?;
            while left > 0 {
                let len = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK.len());
                let written = stream.write(BLOCK.get(..len).unwrap_or_default()).await?;
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                left -= written as u64;
            }
            stream.shutdown().await?;
            // Whoever closes first keeps the port for a minute: let that be the load.
            while stream.read_buf(&mut buffer).await? > 0 {
                buffer.clear();
            }
            Ok(())
        }
        Ok(_) | Err(_) => Ok(()),
    }
}
