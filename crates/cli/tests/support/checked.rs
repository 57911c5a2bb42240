//! Sessions whose every byte is known beforehand to both ends: a client's question, and a server that answers it and notes that it ran.
//!
//! A question is its id and its length, a check of both, and as many bytes. Its answer is the number of the server's home and as
//! many bytes again, sent as the question's bytes come in. So a short question is a request, and one that is sent slowly is a bulk
//! session with traffic both ways.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until, timeout, timeout_at};

const HEADER_LEN: usize = 24;
const CHUNK: usize = 16 * 1024;

/// What a slow client asks the system to keep of what it has not read: with what the system adds, half a second's worth or less, so that it
/// hears of an end not much later than others.
const SLOW_ROOM: u32 = 32 * 1024;

/// What a client asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) id: u64,
    pub(crate) len: u64,
    /// How long to take for it; zero: as fast as it goes.
    pub(crate) lasts: Duration,
    /// Whether the client ends its side when it has sent everything, or waits for the server's end.
    pub(crate) half_closes: bool,
    /// How long nothing may move.
    pub(crate) patience: Duration,
    pub(crate) manner: Manner,
}

/// How a client takes its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    /// As it comes.
    Prompt,
    /// So many bytes a second, with little room for what it has not read: whoever sends has to wait for it.
    Slow { bytes_per_second: u32 },
    /// Leaves after this time, whatever is still to come: closes its connection, over unread input where there is some.
    Leaves { after: Duration },
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything came, it was right, and the end came in good order.
    Whole { home: u8 },
    /// Nobody took the connection.
    NotTaken,
    /// The end came in good order, and no byte before it: the client was refused.
    Refused,
    /// The end came in good order, and too early.
    Short { home: u8, received: u64 },
    /// It was aborted. Where no byte had come, the home is not known.
    Aborted { home: Option<u8>, received: u64 },
    /// Nothing moved for longer than the client waits.
    Still { home: Option<u8>, received: u64 },
    /// So many bytes were others than they should have been, or too many.
    Wrong { home: u8, bytes: u64 },
    /// The client has left by itself before the end.
    Left,
}

/// How a session went, for its client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) outcome: Outcome,
    /// The client's own address, where it was connected.
    pub(crate) client: Option<SocketAddr>,
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    /// For how long nothing came at most.
    pub(crate) longest_silence: Duration,
}

/// What servers note.
#[derive(Default)]
pub(crate) struct Ledger {
    runs: Mutex<HashMap<u64, Vec<Run>>>,
    ran: Condvar,
    wrong: AtomicU64,
}

/// A question that a server began to answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) home: u8,
    pub(crate) at: Instant,
}

impl Ledger {
    /// Where a question ran.
    pub(crate) fn runs_of(&self, id: u64) -> Vec<Run> {
        self.lock().get(&id).cloned().unwrap_or_default()
    }

    /// When the first question ran at a home from a moment on.
    pub(crate) fn first_run(&self, home: u8, since: Instant) -> Option<Instant> {
        let runs = self.lock();
        let there = runs.values().flatten().filter(|run| run.home == home && run.at >= since);
        there.map(|run| run.at).min()
    }

    /// How many bytes servers received that were others than they should have been.
    pub(crate) fn wrong(&self) -> u64 {
        self.wrong.load(Ordering::Relaxed)
    }

    /// How many questions have run.
    pub(crate) fn runs(&self) -> usize {
        self.lock().len()
    }

    /// Waits until so many questions have run.
    pub(crate) fn wait_for(&self, count: usize, within: Duration) {
        let too_few = |runs: &mut HashMap<_, _>| runs.len() < count;
        let waited = self.ran.wait_timeout_while(self.lock(), within, too_few);
        let (runs, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!waited.timed_out(), "{} of {count} questions ran within {within:?}", runs.len());
    }

    /// The questions that ran more than once.
    pub(crate) fn repeated(&self) -> Vec<(u64, Vec<Run>)> {
        let runs = self.lock();
        let repeated = runs.iter().filter(|(_, runs)| runs.len() > 1);
        repeated.map(|(id, runs)| (*id, runs.clone())).collect()
    }

    fn note(&self, id: u64, home: u8) {
        self.lock().entry(id).or_default().push(Run { home, at: Instant::now() });
        self.ran.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Vec<Run>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers whoever connects. Never resolves.
pub(crate) async fn serve(listener: TcpListener, home: u8, ledger: Arc<Ledger>) {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        if let Ok((stream, _peer)) = listener.accept().await {
            let ledger = Arc::clone(&ledger);
            // A question that breaks off is for its client to judge.
            tokio::spawn(async move { drop(answer(stream, home, &ledger).await) });
        }
    }
}

async fn answer(mut stream: TcpStream, home: u8, ledger: &Ledger) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header).await?;
    let Some((id, len)) = parse(&header) else {
        ledger.wrong.fetch_add(HEADER_LEN as u64, Ordering::Relaxed);
        return Ok(());
    };
    ledger.note(id, home);
    stream.write_all(&[home]).await?;
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0;
    while offset < len {
        let room = usize::try_from(len - offset).unwrap_or(CHUNK).min(CHUNK);
        let count = stream.read(&mut buffer[..room]).await?;
        if count == 0 {
            return Ok(());
        }
        let chunk = &mut buffer[..count];
        ledger.wrong.fetch_add(count_wrong(id, offset, chunk), Ordering::Relaxed);
        fill(!id, offset, chunk);
        stream.write_all(chunk).await?;
        offset += count as u64;
    }
    stream.shutdown().await?;
    // To the client's end, so that nothing is closed over what was not read.
    let more = stream.read(&mut buffer).await?;
    ledger.wrong.fetch_add(more as u64, Ordering::Relaxed);
    Ok(())
}

/// Asks, and checks every byte of the answer.
pub(crate) async fn ask(relay: SocketAddr, question: Question) -> Asked {
    let mut asked = Asked {
        outcome: Outcome::NotTaken,
        client: None,
        began: Instant::now(),
        ended: Instant::now(),
        longest_silence: Duration::ZERO,
    };
    let socket = TcpSocket::new_v4().unwrap();
    if let Manner::Slow { .. } = question.manner {
        socket.set_recv_buffer_size(SLOW_ROOM).unwrap();
    }
    let connecting = socket.connect(relay);
    if let Ok(Ok(stream)) = timeout(question.patience, connecting).await {
        asked.client = stream.local_addr().ok();
        let _set = stream.set_nodelay(true);
        let (reader, writer) = stream.into_split();
        let mut sending = tokio::spawn(send(writer, question));
        let mut answer =
            Answer { question, home: None, received: 0, longest_silence: Duration::ZERO };
        asked.outcome = match question.manner {
            Manner::Leaves { after } => {
                timeout(after, answer.read(reader)).await.unwrap_or(Outcome::Left)
            }
            Manner::Prompt | Manner::Slow { .. } => answer.read(reader).await,
        };
        asked.longest_silence = answer.longest_silence;
        if matches!(asked.outcome, Outcome::Refused | Outcome::Short { .. })
            && was_reset(&mut sending).await
        {
            asked.outcome = Outcome::Aborted { home: answer.home, received: answer.received };
        }
        sending.abort();
    }
    asked.ended = Instant::now();
    asked
}

/// Whether the sending side has met a reset: the kernel tells of one only once, and then the receiving side looks like an end.
async fn was_reset(sending: &mut JoinHandle<io::Error>) -> bool {
    let failed = timeout(Duration::from_millis(200), sending).await;
    matches!(failed, Ok(Ok(error)) if error.kind() == io::ErrorKind::ConnectionReset)
}

/// Sends a question, evenly over the time that it is to last. Resolves only when that fails.
async fn send(mut writer: OwnedWriteHalf, question: Question) -> io::Error {
    match send_all(&mut writer, question).await {
        // Dropped, it would end this side too.
        Ok(()) => std::future::pending().await,
        Err(error) => error,
    }
}

async fn send_all(writer: &mut OwnedWriteHalf, question: Question) -> io::Result<()> {
    let Question { id, len, lasts, .. } = question;
    let began = tokio::time::Instant::now();
    writer.write_all(&header(id, len)).await?;
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0;
    while offset < len {
        sleep_until(began + lasts.mul_f64(offset as f64 / len as f64)).await;
        let chunk = &mut buffer[..usize::try_from(len - offset).unwrap_or(CHUNK).min(CHUNK)];
        fill(id, offset, chunk);
        writer.write_all(chunk).await?;
        offset += chunk.len() as u64;
    }
    if question.half_closes {
        writer.shutdown().await?;
    }
    Ok(())
}

/// An answer as far as it came.
struct Answer {
    question: Question,
    home: Option<u8>,
    received: u64,
    longest_silence: Duration,
}

impl Answer {
    async fn read(&mut self, mut reader: OwnedReadHalf) -> Outcome {
        let mut buffer = vec![0; CHUNK];
        let mut heard = tokio::time::Instant::now();
        loop {
            let until = heard + self.question.patience;
            let read = timeout_at(until, reader.read(&mut buffer)).await;
            self.longest_silence = self.longest_silence.max(heard.elapsed());
            heard = tokio::time::Instant::now();
            let (home, received) = (self.home, self.received);
            let count = match read {
                Err(_elapsed) => return Outcome::Still { home, received },
                Ok(Err(_)) => return Outcome::Aborted { home, received },
                Ok(Ok(0)) => return self.ended(),
                Ok(Ok(count)) => count,
            };
            if let Some(wrong) = self.take(&buffer[..count]) {
                return wrong;
            }
            if let Manner::Slow { bytes_per_second } = self.question.manner {
                sleep(Duration::from_secs_f64(count as f64 / f64::from(bytes_per_second))).await;
                heard = tokio::time::Instant::now();
            }
        }
    }

    fn take(&mut self, mut received: &[u8]) -> Option<Outcome> {
        let home = match self.home {
            Some(home) => home,
            None => {
                let (&home, rest) = received.split_first()?;
                (self.home, received) = (Some(home), rest);
                home
            }
        };
        let Question { id, len, .. } = self.question;
        let too_many = (self.received + received.len() as u64).saturating_sub(len);
        let bytes = count_wrong(!id, self.received, received).max(too_many);
        self.received += received.len() as u64;
        (bytes > 0).then_some(Outcome::Wrong { home, bytes })
    }

    fn ended(&self) -> Outcome {
        match self.home {
            None => Outcome::Refused,
            Some(home) if self.received == self.question.len => Outcome::Whole { home },
            Some(home) => Outcome::Short { home, received: self.received },
        }
    }
}

fn header(id: u64, len: u64) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(&id.to_be_bytes());
    header[8..16].copy_from_slice(&len.to_be_bytes());
    header[16..].copy_from_slice(&mixed(id ^ len.rotate_left(32)).to_be_bytes());
    header
}

fn parse(received: &[u8; HEADER_LEN]) -> Option<(u64, u64)> {
    let number = |at: usize| u64::from_be_bytes(received[at..at + 8].try_into().unwrap());
    let (id, len) = (number(0), number(8));
    (header(id, len) == *received).then_some((id, len))
}

/// The bytes that belong at `offset`, of the content that `seed` names.
fn fill(seed: u64, offset: u64, buffer: &mut [u8]) {
    for (at, byte) in (offset..).zip(buffer) {
        *byte = byte_at(seed, at);
    }
}

fn count_wrong(seed: u64, offset: u64, received: &[u8]) -> u64 {
    (offset..).zip(received).filter(|&(at, &byte)| byte != byte_at(seed, at)).count() as u64
}

fn byte_at(seed: u64, offset: u64) -> u8 {
    mixed(seed ^ (offset / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes()
        [(offset % 8) as usize]
}

/// `SplitMix64`'s mixing.
fn mixed(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
