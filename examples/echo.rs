//! Sends every byte back, to everybody who comes through the relay.
//!
//!     cargo run -p relayserver --example echo [RELAY [DPORT [CPORT]]]

#![allow(clippy::print_stderr, reason = "an example talks to who runs it")]

use relayserver::handlers::Echo;
use relayserver::{Error, Listener};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let relay = args.next().unwrap_or_else(|| "localhost".to_owned());
    let data_port = args.next().unwrap_or_else(|| "8000".to_owned());
    let command_port = args.next().and_then(|port| port.parse().ok()).unwrap_or(8001);

    let builder = Listener::builder(format!("{relay}:{data_port}")).command_port(command_port);
    let listener = builder.listen().await?;
    eprintln!("{}", listener.status().get());
    listener.serve(Echo).await
}
