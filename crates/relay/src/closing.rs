//! How a session's two connections are closed: an end for an end, an abort for an abort, and never over bytes that somebody
//! still has to get.

use std::io;
use std::time::Duration;

use relayserver_core::limits;
use relayserver_splice::{Counts, Leg, Side, Splice};
#[cfg(not(simulation))]
use relayserver_transport::PartsOverTcp;
use relayserver_transport::net::TcpStream;
use relayserver_transport::{Stream, acknowledged, close_politely, is_acknowledged};
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

/// A connection that is reset when it is dropped before it was settled, which takes it out: by a panic or with its task. Nobody must take
/// half an answer for a whole one.
struct Held(Option<Metered>);

impl Legs {
    /// `rates`: what its service may not exceed.
    pub(crate) fn new(client: TcpStream, host: Stream, rates: Option<&ServiceRates>) -> Legs {
        let held = |stream, meter: Option<Meter>| {
            Held(Some(Metered { stream, meter: meter.map(Box::new) }))
        };
        Legs {
            client: held(Stream::Tcp(client), rates.map(ServiceRates::of_client)),
            host: held(host, rates.map(ServiceRates::of_host)),
        }
    }

    /// The client's and the host's, to be lent to a splice. What it takes for that stands in `lent` meanwhile.
    pub(crate) fn both<'a>(&'a mut self, lent: &'a mut Lent<'a>) -> (Leg<'a>, Leg<'a>) {
        (leg(self.client.metered()), lend(self.host.metered(), lent))
    }

    /// Whether the host's connection is one for many sessions that may turn into a plain one, over which bytes go faster. Where the host has
    /// begun with that, it is answered.
    pub(crate) fn may_go_bare(&mut self) -> bool {
        let stream = &mut self.host.metered().stream;
        if stream.is_encrypted() {
            return false;
        }
        stream.answer_bare();
        matches!(stream.barest(), Stream::Parts(_))
    }

    /// The host's connection, where the session has ended in order and it can carry another. The client's is still to be closed.
    pub(crate) fn take_host_for_another(&mut self) -> Option<Stream> {
        self.host.metered().stream.can_carry_another().then(|| self.host.settle())
    }

    /// Whether the client has taken all that was sent to it, the end included.
    pub(crate) fn is_client_done(&self) -> bool {
        let client = self.client.0.as_ref();
        client.is_none_or(|client| client.stream.tcp().is_none_or(is_acknowledged))
    }

    /// Closes the client's connection, which is [done](Legs::is_client_done).
    pub(crate) fn settle_client(&mut self) {
        drop(self.client.settle());
    }

    /// Has both wait for readiness in the runtime that is entered.
    ///
    /// # Errors
    /// What the system says. Each goes on then, here or there.
    pub(crate) fn move_here(&mut self) -> io::Result<()> {
        self.client.metered().stream.move_here()?;
        self.host.metered().stream.move_here()
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
            let (mut told_already, mut lent) = (|_| {}, None);
            let (client, host) = self.both(&mut lent);
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
            close_politely(&mut client.metered().stream, silence, bound).await;
            drop(client.settle());
        }
    }
}

impl Held {
    fn metered(&mut self) -> &mut Metered {
        self.0.as_mut().unwrap_or_else(|| unreachable!("settled only when the session is over"))
    }

    /// The connection, which ends in order when it is dropped now.
    fn settle(&mut self) -> Stream {
        let settled = self.0.take();
        settled.unwrap_or_else(|| unreachable!("settled once")).stream
    }

    /// Closes the connection once all that was sent is acknowledged. One that was given away is none of ours.
    async fn acknowledged(&mut self) {
        let Some(Metered { stream, .. }) = &mut self.0 else { return };
        stream.finish();
        let waiting = acknowledged(stream.tcp());
        if stream.is_encrypted() {
            // Over TLS a peer can end without ending the connection.
            let _waited = timeout(limits::HALF_CLOSED_TIMEOUT, waiting).await;
        } else {
            waiting.await;
        }
        drop(self.settle());
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(unsettled) = &self.0 {
            unsettled.stream.reset_on_close();
        }
    }
}

/// What a connection in parts is while it is lent.
#[cfg(not(simulation))]
pub(crate) type Lent<'a> = Option<PartsOverTcp<'a>>;
#[cfg(simulation)]
pub(crate) type Lent<'a> = Option<&'a ()>;

/// As [`leg`], but in parts with the socket beneath, so that an abort is noticed.
fn lend<'a>(metered: &'a mut Metered, lent: &'a mut Lent<'a>) -> Leg<'a> {
    #[cfg(not(simulation))]
    if metered.meter.is_none() && metered.stream.is_in_parts_over_tcp() {
        *lent = metered.stream.parts_over_tcp();
        let Some(parts) = lent else { unreachable!("it is in parts") };
        let socket = parts.socket();
        return Leg::Over(parts, socket);
    }
    let _ = lent;
    leg(metered)
}

fn leg(metered: &mut Metered) -> Leg<'_> {
    if metered.meter.is_some() {
        return Leg::Other(metered);
    }
    match metered.stream.barest() {
        // The simulation's sockets are not the system's.
        #[cfg(not(simulation))]
        Stream::Tcp(stream) => Leg::Tcp(stream),
        #[cfg(unix)]
        Stream::Unix(stream) => Leg::Unix(stream),
        layered => Leg::Other(layered),
    }
}
