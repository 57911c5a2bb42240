//! The command channel: dialled, then read to its end. Nothing is ever sent on it.

use std::sync::Arc;

use relayserver_core::limits::{self, DIAL_TIMEOUT};
use relayserver_transport::dial_from;
use relayserver_transport::options::prepare_waiting;
use relayserver_wire::FRAME_MAX;
use relayserver_wire::command::Announcement;
use relayserver_wire::frame::Decoder;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::report::{Fault, Port, Report, Trouble};
use crate::shared::Shared;

/// Dials the command channel and reports what it hears, to its end or until the listener is over.
pub(crate) async fn run(shared: Arc<Shared>, reports: mpsc::Sender<Report>) {
    let last = tokio::select! {
        last = follow(&shared, &reports) => last,
        () = shared.over.cancelled() => return,
    };
    // Without a driver the listener is gone.
    let _taken = reports.send(last).await;
}

async fn follow(shared: &Shared, reports: &mpsc::Sender<Report>) -> Report {
    let address = &shared.config.command;
    let mut stream = match dial_from(address, shared.config.bind_addr, DIAL_TIMEOUT).await {
        Ok(stream) => stream,
        Err(error) => return Report::CommandFailed(Trouble::dial(Port::Command, &error)),
    };
    prepare_waiting(&stream, limits::USER_TIMEOUT);
    let _taken = reports.send(Report::CommandUp).await;
    let fault = match listen(&mut stream, reports).await {
        Ok(()) => Fault::Lost("closed the command channel".to_owned()),
        Err(fault) => fault,
    };
    Report::CommandLost(Trouble::at(Port::Command, address, fault))
}

/// Reports every announcement, to the end of the channel.
async fn listen(stream: &mut TcpStream, reports: &mpsc::Sender<Report>) -> Result<(), Fault> {
    let mut decoder = Decoder::new(FRAME_MAX);
    let mut buffer = [0; 1024];
    loop {
        let len = stream.read(&mut buffer).await?;
        let mut input = buffer.get(..len).unwrap_or_default();
        if input.is_empty() {
            return Ok(());
        }
        while let Some(payload) = decoder.next(&mut input).map_err(Fault::not_a_relay)? {
            let announcement = Announcement::decode(&payload).map_err(Fault::not_a_relay)?;
            let _taken = reports.send(Report::Announced(announcement)).await;
        }
    }
}
