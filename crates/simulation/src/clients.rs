//! Clients: each sends one request of its own and checks every byte of the answer.

use std::io::ErrorKind;
use std::time::Duration;

use relayserver_transport::net::simulated::{TcpStream, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::ledger::{How, Ledger, Outcome, now};
use crate::world::clients_address;

/// After so long a client gives up: longer than any fault lasts, and than it takes to be called lost.
const PATIENCE: Duration = Duration::from_secs(100);

/// What a client does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) request: u64,
    pub(crate) len: usize,
    /// Whether it sends its end behind the request.
    pub(crate) half_closes: bool,
    /// How long it takes from one read to the next.
    pub(crate) pause: Duration,
    /// How long it waits in the middle of its request.
    pub(crate) hesitates: Duration,
}

/// Lives a client's life, and writes down what it saw.
pub(crate) async fn live(plan: Plan, ledger: Ledger) {
    let began = now();
    let how = timeout(PATIENCE, ask(plan)).await.unwrap_or(How::GaveUp);
    let (request, ended) = (plan.request, now());
    ledger.pages().outcomes.push(Outcome { request, began, ended, how });
}

async fn ask(plan: Plan) -> How {
    let Ok(mut stream) = connect(clients_address()).await else {
        return How::GaveUp;
    };
    let content = content(plan);
    let mut question = plan.request.to_be_bytes().to_vec();
    question.extend(u32::try_from(plan.len).unwrap_or(u32::MAX).to_be_bytes());
    let mut expected = question.clone();
    question.extend(&content);
    expected.extend(content.iter().rev());
    let middle = question.len() / 2;
    let (first, second) = question.split_at(middle);
    let sent = async {
        stream.write_all(first).await?;
        sleep(plan.hesitates).await;
        stream.write_all(second).await?;
        if plan.half_closes {
            stream.shutdown().await?;
        }
        std::io::Result::Ok(())
    };
    // That it cannot be sent is seen when the answer is read.
    let _sent = sent.await;
    receive(&mut stream, &expected, plan.pause).await
}

async fn receive(stream: &mut TcpStream, expected: &[u8], pause: Duration) -> How {
    let mut received = Vec::new();
    let mut chunk = [0; 3000];
    loop {
        let read = stream.read(&mut chunk).await;
        match read {
            Ok(0) if received == expected => return How::Served,
            Ok(0) if received.is_empty() => return How::Refused,
            Ok(0) => {
                let (len, whole) = (received.len(), expected.len());
                return How::Wrong(format!("an end after {len} of {whole} bytes"));
            }
            Ok(len) => received.extend(chunk.get(..len).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return How::Reset,
            Err(error) => return How::Wrong(error.to_string()),
        }
        if !expected.starts_with(&received) {
            return How::Wrong(format!(
                "other bytes than were answered, within {}",
                received.len()
            ));
        }
        sleep(pause).await;
    }
}

/// Bytes that no other request has.
fn content(plan: Plan) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(plan.request);
    (0..plan.len).map(|_| random.u8(..)).collect()
}
