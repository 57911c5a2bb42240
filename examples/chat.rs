//! Everybody who comes through the relay hears what the others say, a line at a time.
//!
//!     cargo run -p relayserver --example chat [RELAY [DPORT [CPORT]]]
//!
//! Nobody waits for a slow reader: each client has a bounded queue, and one whose queue is full is dropped.

#![allow(clippy::print_stderr, reason = "an example talks to who runs it")]

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use relayserver::{Listener, Session, SessionId};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, oneshot};

/// How many lines a client may be behind: 1 MiB of the longest. A sender in a hurry says about a hundred before anybody else gets
/// a turn.
const QUEUE_MAX: usize = 1024;

/// A longer line is cut in pieces.
const LINE_MAX: u64 = 1024;

/// Who is here. Cheap to clone; all clones are the same room.
#[derive(Clone, Default)]
struct Room(Arc<Mutex<HashMap<SessionId, Client>>>);

/// How the room reaches a client. Dropping it ends the client's session, also while a write to it is stuck.
struct Client {
    queue: mpsc::Sender<Arc<str>>,
    _stays: oneshot::Sender<()>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let mut builder = Listener::builder(args.next().unwrap_or_else(|| "localhost".to_owned()));
    if let Some(port) = args.next() {
        builder = builder.hosts_port(port.parse()?);
    }
    if let Some(port) = args.next() {
        builder = builder.command_port(port.parse()?);
    }

    let listener = builder.listen().await?;
    eprintln!("{}", listener.status().get());
    let room = Room::default();
    listener
        .serve(move |session| {
            let room = room.clone();
            async move { room.host(session).await }
        })
        .await?;
    Ok(())
}

impl Room {
    /// Hosts one client from its arrival to its end.
    async fn host(&self, session: Session) -> io::Result<()> {
        let id = session.id();
        let (reader, mut writer) = session.into_split();
        let (queue, mut lines) = mpsc::channel::<Arc<str>>(QUEUE_MAX);
        let (stays, dropped) = oneshot::channel();
        self.with(|clients| clients.insert(id, Client { queue, _stays: stays }));
        self.say(id, &format!("* {id} came\n"));
        let written = async {
            while let Some(line) = lines.recv().await {
                writer.write_all(line.as_bytes()).await?;
            }
            io::Result::Ok(())
        };
        let outcome = tokio::select! {
            listened = self.listen(id, BufReader::new(reader)) => listened,
            written = written => written,
            _too_slow = dropped => Err(io::Error::other("too slow")),
        };
        self.with(|clients| clients.remove(&id));
        self.say(id, &format!("* {id} left\n"));
        outcome
    }

    async fn listen(
        &self,
        id: SessionId,
        mut reader: impl AsyncBufReadExt + Unpin,
    ) -> io::Result<()> {
        let mut line = Vec::new();
        while (&mut reader).take(LINE_MAX).read_until(b'\n', &mut line).await? > 0 {
            let text = String::from_utf8_lossy(&line);
            self.say(id, &format!("{id}: {}\n", text.trim_end()));
            line.clear();
        }
        Ok(())
    }

    /// Tells everybody else. Who cannot keep up is dropped.
    fn say(&self, from: SessionId, line: &str) {
        let line: Arc<str> = line.into();
        self.with(|clients| {
            clients.retain(|id, client| {
                *id == from || client.queue.try_send(Arc::clone(&line)).is_ok()
            });
        });
    }

    fn with<T>(&self, change: impl FnOnce(&mut HashMap<SessionId, Client>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
