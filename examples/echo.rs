//! Sends every byte back, to everybody who comes through the relay.
//!
//!     cargo run -p relayserver --example echo [RELAY [DPORT [CPORT]]]

#![allow(clippy::print_stderr, reason = "an example talks to who runs it")]

use std::error::Error;

use relayserver::Listener;
use relayserver::handlers::Echo;

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
    listener.serve(Echo).await?;
    Ok(())
}
