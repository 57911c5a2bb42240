//! Many hosts in one process, to see what they cost a relay.
//!
//! ```sh
//! relayserver relay --public 127.0.0.1 --bind 127.0.0.1 --state-dir /tmp/state
//! cargo run --example fleet -- "$(relayserver token create fleet --state-dir /tmp/state --public 127.0.0.1)" 1000
//! ```
//!
//! Each keeps two idle channels and echoes. It says when all are in the pool, and serves until Ctrl-C.

#![allow(clippy::print_stdout, reason = "an example talks to who runs it")]

use std::time::Instant;

use relayserver::handlers::Echo;
use relayserver::{Error, Join, Listener};
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(join), Some(hosts)) = (arguments.next(), arguments.next()) else {
        return Err("expected a join line and how many hosts".into());
    };
    let (join, hosts): (Join, usize) = (join.parse()?, hosts.parse()?);
    let began = Instant::now();
    let mut listening = JoinSet::new();
    for _ in 0..hosts {
        let builder = Listener::join(join.clone()).pool(2..=256);
        listening.spawn(builder.listen());
    }
    let mut serving = JoinSet::new();
    while let Some(listener) = listening.join_next().await {
        let listener: Listener = listener??;
        serving.spawn(async move { listener.serve(Echo).await });
    }
    println!("{hosts} hosts are there after {:?}", began.elapsed());
    while let Some(ended) = serving.join_next().await {
        ended?.map_err(|error: Error| error)?;
    }
    Ok(())
}
