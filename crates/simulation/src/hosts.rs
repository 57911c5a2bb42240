//! Hosts: the SDK as it is, with a server that notes each request that it runs and answers with its bytes turned round.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use relayserver::{Listener, Session};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::ledger::{Ledger, Run, now};
use crate::world::{Machine, RELAY};

/// How many bytes a request has ahead of its content: its number and its length.
pub(crate) const HEAD: usize = 12;

/// Starts a host's program. Notifying what this gives is SIGTERM.
pub(crate) fn start(machine: &mut Machine, ledger: &Ledger) -> Option<Arc<Notify>> {
    let (ip, ledger, leave) = (machine.ip, ledger.clone(), Arc::new(Notify::new()));
    let left = Arc::clone(&leave);
    machine.start(move |runtime| {
        runtime.spawn(async move {
            let builder = Listener::builder(RELAY.to_string()).pool(3..=20);
            let Ok(listener) = builder.listen().await else { return };
            let serving = listener.serve(move |session| serve(session, ip, ledger.clone()));
            tokio::select! {
                _ended = serving => {}
                () = left.notified() => {}
            }
            listener.drain().await;
        });
        leave
    })
}

async fn serve(mut session: Session, host: IpAddr, ledger: Ledger) -> io::Result<()> {
    session.accept().await?;
    let accepted = now();
    let mut head = [0; HEAD];
    session.read_exact(&mut head).await?;
    let (request, len) = head.split_at(8);
    let request = request.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let len = len.iter().fold(0, |number, byte| number << 8 | usize::from(*byte));
    ledger.pages().runs.push(Run { request, host, accepted });
    let mut content = vec![0; len.min(1 << 20)];
    session.read_exact(&mut content).await?;
    session.write_all(&head).await?;
    content.reverse();
    session.write_all(&content).await?;
    session.shutdown().await?;
    // Whoever closes over what is still to be read aborts.
    let mut rest = [0; 64];
    while session.read(&mut rest).await? > 0 {}
    Ok(())
}
