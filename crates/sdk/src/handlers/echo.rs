//! Sends every byte back.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{Handler, Session};

/// Sends every byte back, and ends when the client has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Handler for Echo {
    async fn handle(&self, mut session: Session) -> io::Result<()> {
        // Not zeroed beforehand, which may cost more than all else here.
        let mut buffer = Vec::with_capacity(16 * 1024);
        while session.read_buf(&mut buffer).await? > 0 {
            session.write_all(&buffer).await?;
            buffer.clear();
        }
        session.shutdown().await
    }
}
