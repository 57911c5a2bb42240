//! The loads. Each says for how long it counted, and counts nothing of what it needs to get going.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use super::figures::{Figures, Latencies};
use super::server::{ECHO, SEND};
use crate::args::LoadArgs;
use crate::exit::{self, Exit};

/// What goes before the counting: pools fill, connections find their windows.
const WARM_UP: Duration = Duration::from_millis(500);

/// After so long without an answer a connection has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many connections are opened at a time that are then left alone.
const OPENING_MAX: usize = 64;

/// The first part, in which nothing is counted, and the second.
#[derive(Clone, Copy)]
struct Span {
    from: Instant,
    to: Instant,
}

impl Span {
    fn of(load: &LoadArgs) -> Span {
        let from = Instant::now() + WARM_UP;
        Span { from, to: from + load.time }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.to
    }

    fn counts(&self, began: Instant) -> bool {
        began >= self.from && began < self.to
    }
}

/// What a task has measured.
struct Tally {
    latencies: Latencies,
    done: u64,
    failed: u64,
}

impl Tally {
    fn new() -> Tally {
        Tally { latencies: Latencies::new(), done: 0, failed: 0 }
    }

    fn add(&mut self, came: io::Result<Duration>) {
        match came {
            Ok(took) => {
                self.latencies.record(took);
                self.done += 1;
            }
            Err(_) => self.failed += 1,
        }
    }
}

/// Receives on `connections`, throwing away what comes.
pub(super) async fn bulk(load: &LoadArgs, connections: usize) -> io::Result<Figures> {
    let received = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let mut stream = connect(load.to).await?;
        ask_for(&mut stream, u64::MAX).await?;
        let received = Arc::clone(&received);
        tasks.spawn(async move {
            let mut sink = Sink::new();
            loop {
                match sink.take(&mut stream).await {
                    Ok(0) => return io::Error::from(io::ErrorKind::UnexpectedEof),
                    Ok(len) => received.fetch_add(len as u64, Relaxed),
                    Err(error) => return error,
                };
            }
        });
    }
    let measured = async {
        sleep(WARM_UP).await;
        let (before, began, cpu) = (received.load(Relaxed), Instant::now(), cpu_of(&load.cpu_of));
        sleep(load.time).await;
        (received.load(Relaxed) - before, began.elapsed(), spent(cpu, &load.cpu_of))
    };
    let (bytes, time, cpu) = tokio::select! {
        measured = measured => measured,
        Some(ended) = tasks.join_next() => return Err(ended.unwrap_or_else(io::Error::other)),
    };
    Ok(Figures { time, bytes, cpu, ..figures_of([], time) })
}

/// Sends `size` bytes and receives them, on `connections`.
pub(super) async fn requests(
    load: &LoadArgs,
    connections: usize,
    size: usize,
) -> io::Result<Figures> {
    let mut streams = Vec::new();
    for _ in 0..connections {
        let mut stream = connect(load.to).await?;
        // What the first of them costs is a session's to measure.
        round_trip(&mut stream, &[ECHO, b'0'], &mut [0]).await?;
        streams.push(stream);
    }
    let span = Span::of(load);
    let mut tasks = JoinSet::new();
    for mut stream in streams {
        tasks.spawn(async move {
            let (request, mut answer) = (content(size), vec![0; size]);
            let mut tally = Tally::new();
            while !span.is_over() {
                let began = Instant::now();
                let came = round_trip(&mut stream, &request, &mut answer).await;
                let has_failed = came.is_err();
                if span.counts(began) || has_failed {
                    tally.add(came.map(|()| began.elapsed()));
                }
                if has_failed {
                    break;
                }
            }
            tally
        });
    }
    let mut figures = sum(tasks, load, span).await?;
    figures.bytes = figures.done * size as u64;
    Ok(figures)
}

/// Opens session after session, `at_a_time`, each with `size` bytes there and back.
pub(super) async fn sessions(
    load: &LoadArgs,
    at_a_time: usize,
    size: usize,
) -> io::Result<Figures> {
    let (span, to) = (Span::of(load), load.to);
    let mut tasks = JoinSet::new();
    for _ in 0..at_a_time {
        tasks.spawn(async move {
            let mut tally = Tally::new();
            while !span.is_over() {
                let began = Instant::now();
                let came = session(to, size).await;
                if span.counts(began) {
                    tally.add(came.map(|()| began.elapsed()));
                }
            }
            tally
        });
    }
    sum(tasks, load, span).await
}

async fn session(to: SocketAddr, size: usize) -> io::Result<()> {
    let mut stream = connect(to).await?;
    let mut request = vec![ECHO];
    request.extend(content(size));
    let mut answer = vec![0; size];
    round_trip(&mut stream, &request, &mut answer).await
}

/// From connect to the first byte back, again and again with a pause.
pub(super) async fn first_byte(load: &LoadArgs) -> io::Result<Figures> {
    let span = Span::of(load);
    let to = load.to;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut tally = Tally::new();
        while !span.is_over() {
            let began = Instant::now();
            let came = opened(to).await;
            if span.counts(began) {
                tally.add(came.map(|_stream| began.elapsed()));
            }
            sleep(Duration::from_millis(20)).await;
        }
        tally
    });
    sum(tasks, load, span).await
}

/// From connect to the first byte back, of `count` at once, which all stay open until the last has it.
pub(super) async fn first_bytes_at_once(load: &LoadArgs, count: usize) -> io::Result<Figures> {
    let to = load.to;
    let mut tasks = JoinSet::new();
    let (began, cpu) = (Instant::now(), cpu_of(&load.cpu_of));
    for _ in 0..count {
        tasks.spawn(async move {
            let began = Instant::now();
            opened(to).await.map(|stream| (began.elapsed(), stream))
        });
    }
    let (mut tally, mut held) = (Tally::new(), Vec::new());
    while let Some(came) = tasks.join_next().await {
        let came = came.map_err(io::Error::other)?;
        tally.add(came.map(|(took, stream)| {
            held.push(stream);
            took
        }));
    }
    let cpu = spent(cpu, &load.cpu_of);
    Ok(Figures { cpu, ..figures_of([tally], began.elapsed()) })
}

/// Receives `size` bytes on a fresh connection, and again.
pub(super) async fn fetch(load: &LoadArgs, size: usize) -> io::Result<Figures> {
    let (span, to) = (Span::of(load), load.to);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut tally = Tally::new();
        while !span.is_over() {
            let began = Instant::now();
            let came = timeout(PATIENCE, fetched(to, size)).await;
            if span.counts(began) {
                let came = came.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                tally.add(came.map(|()| began.elapsed()));
            }
        }
        tally
    });
    let mut figures = sum(tasks, load, span).await?;
    figures.bytes = figures.done * size as u64;
    Ok(figures)
}

async fn fetched(to: SocketAddr, size: usize) -> io::Result<()> {
    let mut stream = connect(to).await?;
    ask_for(&mut stream, size as u64).await?;
    let (mut sink, mut received) = (Sink::new(), 0);
    while received < size {
        match sink.take(&mut stream).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            len => received += len,
        }
    }
    if received == size { Ok(()) } else { Err(io::Error::other("more than was asked for")) }
}

/// Holds `connections` open until standard input ends.
pub(super) async fn idle(to: SocketAddr, connections: usize) -> io::Result<Exit> {
    let (mut tasks, mut held) = (JoinSet::new(), Vec::new());
    for opening in 0..connections {
        if opening >= OPENING_MAX
            && let Some(opened) = tasks.join_next().await
        {
            held.push(opened.map_err(io::Error::other)??);
        }
        tasks.spawn(opened(to));
    }
    while let Some(opened) = tasks.join_next().await {
        held.push(opened.map_err(io::Error::other)??);
    }
    if let failed @ (Exit::Failure | Exit::Usage) = exit::print(&format!("open {}\n", held.len())) {
        return Ok(failed);
    }
    tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await?;
    Ok(Exit::Success)
}

/// A connection that has got a byte back.
async fn opened(to: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = connect(to).await?;
    round_trip(&mut stream, &[ECHO, b'1'], &mut [0]).await?;
    Ok(stream)
}

/// Has the server send so many bytes.
async fn ask_for(stream: &mut TcpStream, len: u64) -> io::Result<()> {
    let mut request = vec![SEND];
    request.extend(len.to_be_bytes());
    stream.write_all(&request).await
}

/// Sends `request` and receives its last bytes, as many as `answer` has.
async fn round_trip(stream: &mut TcpStream, request: &[u8], answer: &mut [u8]) -> io::Result<()> {
    let there_and_back = async {
        stream.write_all(request).await?;
        stream.read_exact(answer).await?;
        io::Result::Ok(())
    };
    match timeout(PATIENCE, there_and_back).await {
        Ok(came) => came?,
        Err(_elapsed) => return Err(io::ErrorKind::TimedOut.into()),
    }
    if request.ends_with(answer) { Ok(()) } else { Err(io::Error::other("other bytes came back")) }
}

/// Connects. On loopback from an address of its own, so that closed connections do not keep the ports of the next.
async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let connecting = async {
        let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let IpAddr::V4(ip) = to.ip()
            && ip.is_loopback()
        {
            let [_, own] =
                u16::try_from(NEXT.fetch_add(1, Relaxed) % 200).unwrap_or(0).to_be_bytes();
            socket.bind((Ipv4Addr::new(127, 0, 0, 2 + own), 0).into())?;
        }
        socket.set_nodelay(true)?;
        socket.connect(to).await
    };
    let connected = timeout(PATIENCE, connecting).await;
    connected.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
}

/// Bytes to be recognised.
fn content(len: usize) -> Vec<u8> {
    (0..=u8::MAX).cycle().skip(7).step_by(5).take(len).collect()
}

async fn sum(mut tasks: JoinSet<Tally>, load: &LoadArgs, span: Span) -> io::Result<Figures> {
    sleep_until(span.from.into()).await;
    let cpu = cpu_of(&load.cpu_of);
    sleep_until(span.to.into()).await;
    let cpu = spent(cpu, &load.cpu_of);
    let mut tallies = Vec::new();
    while let Some(tally) = tasks.join_next().await {
        tallies.push(tally.map_err(io::Error::other)?);
    }
    Ok(Figures { cpu, ..figures_of(tallies, load.time) })
}

fn figures_of(tallies: impl IntoIterator<Item = Tally>, time: Duration) -> Figures {
    let latencies = Latencies::new();
    let mut figures = Figures { time, bytes: 0, done: 0, failed: 0, latencies, cpu: None };
    for tally in tallies {
        figures.done += tally.done;
        figures.failed += tally.failed;
        figures.latencies.add(&tally.latencies);
    }
    figures
}

/// The processor time of these processes up to now; `None` where nobody was asked about, or one of them is not there.
fn cpu_of(pids: &[u32]) -> Option<Duration> {
    let of = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Behind the name, which may hold anything: user and system time are fields 14 and 15, in hundredths of a second.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let ticks = |field: usize| fields.get(field)?.parse::<u64>().ok();
        Some(Duration::from_millis(10 * (ticks(11)? + ticks(12)?)))
    };
    (!pids.is_empty()).then(|| pids.iter().map(of).sum())?
}

fn spent(before: Option<Duration>, pids: &[u32]) -> Option<Duration> {
    Some(cpu_of(pids)?.saturating_sub(before?))
}

/// Takes bytes off a connection without looking at them; on Linux without copying them, so that what is measured is their way here.
struct Sink(Vec<u8>);

impl Sink {
    fn new() -> Sink {
        Sink(vec![0; 1024 * 1024])
    }

    #[cfg(target_os = "linux")]
    async fn take(&mut self, stream: &mut TcpStream) -> io::Result<usize> {
        use rustix::net::{RecvFlags, recv};
        let stream = &*stream;
        let received = || {
            let (_kept, len) = recv(stream, self.0.as_mut_slice(), RecvFlags::TRUNC)?;
            Ok(len)
        };
        stream.async_io(tokio::io::Interest::READABLE, received).await
    }

    #[cfg(not(target_os = "linux"))]
    async fn take(&mut self, stream: &mut TcpStream) -> io::Result<usize> {
        stream.read(&mut self.0).await
    }
}
