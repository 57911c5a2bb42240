//! The original's load test: many clients at once send random bytes of random lengths through a relay to a host, get them back,
//! and compare all of them.
//!
//!     cargo run -p relayserver --example high_volume [RELAY [DPORT [CPORT [TPORT [CLIENTS [BYTES_MAX]]]]]]
//!
//! Prints a summary, and exits with 1 when a client got anything else than it had sent.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to who runs it")]

use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use relayserver::Listener;
use relayserver::handlers::Echo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long one client may take. A load test that hangs has failed.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(120);

struct Settings {
    relay: String,
    data_port: u16,
    command_port: u16,
    clients_port: u16,
    clients: u64,
    bytes_max: usize,
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let settings = Settings::from_args()?;
    let Settings { relay, data_port, command_port, .. } = &settings;
    let builder = Listener::builder(relay).hosts_port(*data_port).command_port(*command_port);
    let listener = builder.pool_size(50).connect_timeout(Duration::from_secs(10)).listen().await?;
    let started = Instant::now();
    let (bytes, failures) = tokio::select! {
        outcome = run_clients(&settings) => outcome,
        _ended = listener.serve(Echo) => return Err("the listener ended".into()),
    };
    let seconds = started.elapsed().as_secs_f64();
    for failure in failures.iter().take(10) {
        eprintln!("{failure}");
    }
    println!(
        "{} clients, {bytes} bytes there and as many back, {} failed, {seconds:.2} s",
        settings.clients,
        failures.len(),
    );
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Settings {
    fn from_args() -> Result<Settings, String> {
        let mut args = std::env::args().skip(1);
        Ok(Settings {
            relay: args.next().unwrap_or_else(|| "localhost".to_owned()),
            data_port: number(args.next(), 8000)?,
            command_port: number(args.next(), 8001)?,
            clients_port: number(args.next(), 8002)?,
            clients: number(args.next(), 200)?,
            bytes_max: number(args.next(), 1_000_000)?,
        })
    }
}

fn number<N: FromStr>(arg: Option<String>, default: N) -> Result<N, String> {
    arg.map_or(Ok(default), |text| {
        text.parse().map_err(|_| format!("expected a number, got {text:?}"))
    })
}

/// How many bytes came back as they were sent, and what went wrong.
async fn run_clients(settings: &Settings) -> (usize, Vec<String>) {
    let mut clients = JoinSet::new();
    for number in 0..settings.clients {
        let address = (settings.relay.clone(), settings.clients_port);
        let mut random = fastrand::Rng::new();
        let mut sent = vec![0; random.usize(..=settings.bytes_max)];
        random.fill(&mut sent);
        clients.spawn(async move {
            let outcome = timeout(CLIENT_TIMEOUT, compare(address, &sent)).await;
            let outcome = outcome.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            outcome.map(|()| sent.len()).map_err(|error| format!("client {number}: {error}"))
        });
    }
    let (mut bytes, mut failures) = (0, Vec::new());
    while let Some(client) = clients.join_next().await {
        match client.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(len) => bytes += len,
            Err(failure) => failures.push(failure),
        }
    }
    (bytes, failures)
}

/// Sends and receives at once, and compares every byte.
async fn compare(address: (String, u16), sent: &[u8]) -> io::Result<()> {
    let (mut reader, mut writer) = TcpStream::connect(address).await?.into_split();
    let mut received = Vec::with_capacity(sent.len());
    let sending = async {
        writer.write_all(sent).await?;
        writer.shutdown().await
    };
    tokio::try_join!(sending, reader.read_to_end(&mut received))?;
    if received == sent {
        return Ok(());
    }
    let same = received.iter().zip(sent).take_while(|(one, other)| one == other).count();
    let (sent, received) = (sent.len(), received.len());
    Err(io::Error::other(format!("sent {sent} bytes, got {received}, the same up to {same}")))
}
