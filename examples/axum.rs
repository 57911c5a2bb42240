//! A web application behind the relay.
//!
//!     cargo run -p relayserver --features axum --example axum [RELAY [DPORT [CPORT]]]

#![allow(clippy::print_stderr, reason = "an example talks to who runs it")]

use std::error::Error;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use relayserver::Listener;

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

    let app = Router::new().route("/", get(hello));
    let listener = builder.listen().await?;
    eprintln!("{}", listener.status().get());
    // Ctrl-C leaves the relay's pool, and requests under way are finished.
    axum::serve(listener.into_axum(), app.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) })
        .await?;
    Ok(())
}

async fn hello(ConnectInfo(client): ConnectInfo<SocketAddr>) -> String {
    if client.ip().is_unspecified() {
        "hello, whoever you are\n".to_owned()
    } else {
        format!("hello, {client}\n")
    }
}
