//! Sends every byte back.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{Handler, Session};

/// Sends every byte back, and ends when the client has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Handler for Echo {
    async fn handle(&self, mut session: Session) -> io::Result<()> {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let len = session.read(&mut buffer).await?;
            match buffer.get(..len) {
                Some(received) if !received.is_empty() => session.write_all(received).await?,
                _ => return session.shutdown().await,
            }
        }
    }
}
