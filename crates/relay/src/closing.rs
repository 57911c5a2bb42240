//! How a session's two connections are closed: an end for an end, an abort for an abort, and never over bytes that somebody
//! still has to get.

use std::io;
use std::time::Duration;

use relayserver_core::limits;
use relayserver_splice::{Counts, Leg, Side, Splice};
use relayserver_transport::net::TcpStream;
use relayserver_transport::{Stream, acknowledged, close_politely};
use tokio::time::timeout;

use crate::rate::{Meter, Metered, ServiceRates};

/// The two connections of a session.
pub(crate) struct Legs {
    client: Held,
    host: Held,
}

/// How a session's connections are to be closed.
pub(crate) enum Ending {
    /// Both sides have sent their ends.
    Finished,
    /// The host has, and is lost: its client still gets all of it, and may for so long take none of it.
    LastWord(Duration),
    /// Something broke: both are reset.
    Abort,
}

/// A connection that is reset when it is dropped before it was settled, by a panic or with its task: nobody must take half an
/// answer for a whole one.
struct Held {
    stream: Metered,
    settled: bool,
}

impl Legs {
    /// `rates`: what its service may not exceed.
    pub(crate) fn new(client: TcpStream, host: Stream, rates: Option<&ServiceRates>) -> Legs {
        let held = |stream, meter: Option<Meter>| Held {
            stream: Metered { stream, meter: meter.map(Box::new) },
            settled: false,
        };
        Legs {
            client: held(Stream::Tcp(client), rates.map(ServiceRates::of_client)),
            host: held(host, rates.map(ServiceRates::of_host)),
        }
    }

    /// The client's and the host's, to be lent to a splice.
    pub(crate) fn both(&mut self) -> (Leg<'_>, Leg<'_>) {
        (leg(&mut self.client.stream), leg(&mut self.host.stream))
    }

    /// Has both wait for readiness in the runtime that is entered.
    ///
    /// # Errors
    /// What the system says. Each goes on then, here or there.
    pub(crate) fn move_here(&mut self) -> io::Result<()> {
        self.client.stream.stream.move_here()?;
        self.host.stream.stream.move_here()
    }

    /// Closes both. What was sent is waited for, unless it is an abort. Dropping the future resets what is not settled.
    pub(crate) async fn close(mut self, ending: Ending, splice: Splice, counts: &Counts) {
        match ending {
            Ending::Finished => {
                // No deadline of ours: who does not read may take as long as it likes, and who is gone is given up by the
                // kernel.
                tokio::join!(self.client.acknowledged(), self.host.acknowledged());
            }
            Ending::LastWord(bound) => {
                Box::pin(self.deliver_last_word(splice, counts, bound)).await;
            }
            // Neither is settled: both are reset.
            Ending::Abort => {}
        }
    }

    /// The client still gets all that its lost host had sent, and the end of it.
    async fn deliver_last_word(mut self, mut splice: Splice, counts: &Counts, bound: Duration) {
        splice.abandon(Side::Client);
        let delivered = {
            let mut told_already = |_| {};
            let (client, host) = self.both();
            let rest = splice.run(client, host, counts, &mut told_already);
            tokio::select! {
                rest = rest => rest.is_ok(),
                () = counts.unchanged_for(bound) => false,
            }
        };
        let Legs { mut client, host } = self;
        drop(host);
        if delivered {
            // It may take its time to read, and go on sending meanwhile.
            let (silence, bound) = (limits::LINGER_TIMEOUT, limits::DELIVERY_TIMEOUT);
            close_politely(&mut client.stream.stream, silence, bound).await;
            client.settled = true;
        }
    }
}

impl Held {
    async fn acknowledged(&mut self) {
        let waiting = acknowledged(self.stream.stream.tcp());
        if self.stream.stream.is_encrypted() {
            // Over TLS a peer can end without ending the connection.
            let _waited = timeout(limits::HALF_CLOSED_TIMEOUT, waiting).await;
        } else {
            waiting.await;
        }
        self.settled = true;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.settled {
            self.stream.stream.reset_on_close();
        }
    }
}

fn leg(metered: &mut Metered) -> Leg<'_> {
    if metered.meter.is_some() {
        return Leg::Other(metered);
    }
    match &mut metered.stream {
        // The simulation's sockets are not the system's.
        #[cfg(not(simulation))]
        Stream::Tcp(stream) => Leg::Tcp(stream),
        #[cfg(unix)]
        Stream::Unix(stream) => Leg::Unix(stream),
        layered => Leg::Other(layered),
    }
}
