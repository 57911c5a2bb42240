//! A session: a client's connection, as a stream of bytes.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};

use relayserver_core::limits;
use relayserver_splice::Leg;
use relayserver_transport::{Stream, acknowledged};
use relayserver_wire::WORD_LEN_MAX;
use relayserver_wire::start::{Start, Verdict};
use tokio::io::{AsyncRead, AsyncWrite, Empty, ReadBuf, empty};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::field::display;
use tracing::{debug, info};

use crate::SessionId;
use crate::contact::Since;
use crate::events::DropReason;
use crate::shared::Shared;

mod closing;
mod halves;

pub use halves::{ReadHalf, WriteHalf};

/// A client, connected through the relay. It reads and writes as a `TcpStream` does.
///
/// A relay of version 2 keeps the client's first bytes until this host has *accepted* the session, so that it can give it to another
/// host if this one does not. It is accepted by the first read or write, or by [`accept`](Session::accept); whoever first wants
/// to see whether it can serve at all says [`reject`](Session::reject) if not, before it reads. One that is dropped unused is rejected.
///
/// Where the other side takes nothing for a while, a part of what was written waits here and leaves with the next write, read or flush: flush
/// where none of these follows, as with any stream that may be encrypted.
///
/// [`shutdown`](tokio::io::AsyncWriteExt::shutdown) is half-close: the client reads the end, and what it still sends can be
/// read. Dropping a session closes it as dropping a `TcpStream` does: what was written still arrives, unless the
/// client's bytes were not all read, in which case the client sees a reset. A session that is dropped by a panic is reset.
#[derive(Debug)]
pub struct Session {
    /// Taken when the session is divided or ended by value, and when its channel was given back: then it has ended in both directions.
    stream: Option<Stream>,
    /// What it is without.
    nothing: Empty,
    /// Until it is accepted.
    offer: Option<Offer>,
    /// Where its channel comes from, and goes when it can carry another session.
    home: Option<Home>,
    /// Whether the word that it is accepted waits for what is written next.
    is_word_held: bool,
    life: Arc<Life>,
}

/// How a session came to be.
pub(crate) enum Opening {
    /// An original assigned a client to the channel.
    Announced { channel_id: i32 },
    /// A relay of version 2 offers it; the relay was heard of since.
    Offered { start: Start, since: Since, home: Home },
}

/// Where a channel goes that has carried its session to the end: to its task. Dropping it says that it does not come.
#[derive(Debug)]
pub(crate) struct Home(pub(crate) oneshot::Sender<Stream>);

impl Home {
    /// Gives the channel back.
    fn take(self, stream: Stream) {
        if let Err(mut unwanted) = self.0.send(stream) {
            // Over TLS, to be dropped alone would be an abort.
            unwanted.end_now();
        }
    }
}

/// A session that is to be accepted still.
#[derive(Debug)]
struct Offer {
    since: Since,
    /// What says so, and how much of it was written.
    frame: Vec<u8>,
    written: usize,
}

/// The part of a session that its halves share: when the last is gone, the session is.
struct Life {
    id: SessionId,
    service: String,
    client_addr: Option<SocketAddr>,
    shared: Arc<Shared>,
    reason: Mutex<DropReason>,
}

impl Session {
    /// A session on a channel to which a client was assigned.
    pub(crate) fn open(opening: Opening, stream: Stream, shared: &Arc<Shared>) -> Session {
        let (id, service, client_addr, offer, home) = match opening {
            Opening::Announced { channel_id } => {
                let service = shared.link.services().first().cloned().unwrap_or_default();
                (SessionId::of_channel(channel_id), service, None, None, None)
            }
            Opening::Offered { start, since, home } => {
                let id = SessionId::of_session(start.session_id);
                let offer = Offer { since, frame: Verdict::Accepted.encode(), written: 0 };
                (id, start.service, start.client_addr, Some(offer), Some(home))
            }
        };
        shared.session_opened(id);
        let client = client_addr.map(display);
        debug!(
            session.id = id.session(),
            channel.id = id.channel(),
            service,
            client.addr = client,
            "session opened"
        );
        let (shared, reason) = (Arc::clone(shared), Mutex::new(DropReason::Closed));
        let life = Life { id, service, client_addr, shared, reason };
        let (stream, life) = (Some(stream), Arc::new(life));
        Session { stream, nothing: empty(), offer, home, is_word_held: false, life }
    }

    /// The session's name.
    pub fn id(&self) -> SessionId {
        self.life.id
    }

    /// The service that the client asked for. With protocol version 1, which names none, the first that this host serves.
    pub fn service(&self) -> &str {
        &self.life.service
    }

    /// Where the client is. `None` where the relay does not say, as with protocol version 1.
    pub fn client_addr(&self) -> Option<SocketAddr> {
        self.life.client_addr
    }

    /// Says that this host serves the session. From then on it is no other's. A session that was accepted stays so.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The relay was not heard of for too long, and may have given the session to another host; or the connection failed.
    pub async fn accept(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    #[cfg(feature = "exec")]
    /// Whether it is this host's to serve, as far as that is known: an offer may have gone to another while this host stood still.
    pub(crate) fn may_be_served(&self) -> bool {
        self.offer.as_ref().is_none_or(|offer| offer.since.is_unbroken())
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (Some(offer), Some(stream)) = (&mut self.offer, &mut self.stream) else {
            self.push();
            return Poll::Ready(Ok(()));
        };
        if !offer.since.is_unbroken() {
            stream.reset_on_close();
            return Poll::Ready(Err(out_of_contact()));
        }
        while let Some(rest) = offer.frame.get(offer.written..).filter(|rest| !rest.is_empty()) {
            offer.written += ready!(Pin::new(&mut *stream).poll_write(cx, rest))?;
        }
        ready!(Pin::new(&mut *stream).poll_flush(cx))?;
        stream.begin_outgoing();
        self.offer = None;
        Poll::Ready(Ok(()))
    }

    /// As [`accept`](Session::accept), but its word leaves together with what is written next, if that comes soon: a packet, and a turn of
    /// the relay, less. [`push`](Session::push) sends it alone.
    pub(crate) async fn accept_held(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_accept_held(cx)).await
    }

    fn poll_accept_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let (Some(offer), Some(stream)) = (&mut self.offer, &mut self.stream)
            && offer.written == 0
            && offer.since.is_unbroken()
        {
            offer.written = stream.hold(&offer.frame)?;
            if offer.written == offer.frame.len() {
                stream.begin_outgoing();
                (self.offer, self.is_word_held) = (None, true);
            }
        }
        if self.offer.is_some() { self.poll_accept(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Sends the word that the session is accepted, where that is held.
    pub(crate) fn push(&mut self) {
        if std::mem::take(&mut self.is_word_held)
            && let Some(stream) = &mut self.stream
        {
            stream.push();
        }
    }

    /// So many bytes have been written behind the word that the session is accepted, and have taken it along.
    pub(crate) fn note_sent(&mut self, bytes: usize) {
        self.is_word_held &= bytes == 0;
    }

    /// Refuses the client. A relay of version 2 gives it to another host, unless this one has accepted it; else the client sees its
    /// connection reset. `why` goes to the log and the events, and, where it is a word of `a` to `z`, `0` to `9` and `_`, to the relay.
    pub fn reject(mut self, why: impl Into<String>) {
        let why = why.into();
        let id = self.id();
        info!(
            session.id = id.session(),
            channel.id = id.channel(),
            reason = why,
            "session rejected"
        );
        if self.offer.is_some() {
            self.life.set_reason(DropReason::Rejected(why.clone()));
            self.turn_down(Some(why));
        } else {
            self.end(DropReason::Rejected(why));
        }
    }

    /// Says that this host does not serve a session that it has not accepted.
    fn turn_down(&mut self, why: Option<String>) {
        let is_word = |why: &str| {
            (1..=WORD_LEN_MAX).contains(&why.len())
                && why.bytes().all(|it| matches!(it, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        };
        let reason = why.filter(|why| is_word(why));
        let Some(mut stream) = self.stream.take() else { return };
        // Nothing was written since the hello: there is room for it. And an end without it says the same.
        let mut cx = Context::from_waker(Waker::noop());
        let frame = Verdict::Rejected { reason }.encode();
        let _written = Pin::new(&mut stream).poll_write(&mut cx, &frame);
        stream.end_now();
    }

    /// Aborts: the client sees its connection reset; one that was not accepted goes to another host.
    pub fn reset(mut self) {
        if self.offer.is_some() {
            // By its word, not by a reset: that would be taken for trouble on the way, and the session offered again.
            self.life.set_reason(DropReason::Reset);
            self.turn_down(None);
        } else {
            self.end(DropReason::Reset);
        }
    }

    /// The connection underneath, for handlers that splice. What it takes for that stands in `lent` meanwhile.
    pub(crate) fn leg<'a>(&'a mut self, lent: &'a mut Lent<'a>) -> Leg<'a> {
        match &mut self.stream {
            Some(stream) => lend(stream, lent),
            None => Leg::Other(&mut self.nothing),
        }
    }

    /// Whether the connection underneath may turn into a plain one while it is spliced, over which bytes go faster.
    pub(crate) fn may_go_bare(&mut self) -> bool {
        let stream = self.stream.as_mut().filter(|stream| !stream.is_encrypted());
        stream.is_some_and(|stream| matches!(stream.barest(), Stream::Parts(_)))
    }

    /// Has the connection wait for readiness in the runtime that is entered.
    pub(crate) fn move_here(&mut self) -> io::Result<()> {
        self.stream.as_mut().map_or(Ok(()), Stream::move_here)
    }

    /// Resolves when the client has taken all that was sent, the end included, as far as the relay's socket tells.
    pub(crate) async fn acknowledged(&mut self) {
        let Some(stream) = self.stream.as_mut().filter(|stream| !stream.can_carry_another()) else {
            return;
        };
        stream.finish();
        let waiting = acknowledged(stream.tcp());
        if stream.is_encrypted() {
            // Over TLS a peer can end without ending the connection.
            let _waited = timeout(limits::HALF_CLOSED_TIMEOUT, waiting).await;
        } else {
            waiting.await;
        }
    }

    /// Gives the channel back as soon as both directions have ended: another client may be on its way to it, and whoever has the session
    /// may go on for long without a look at it.
    fn give_back_if_over(&mut self) {
        if let Some(stream) = self.stream.take_if(|stream| stream.can_carry_another()) {
            self.give_back(stream);
        } else if let Some(stream) = self.stream.as_mut().filter(|stream| stream.is_over_with_it())
        {
            // The relay waits for that.
            stream.finish();
        }
    }

    fn end(mut self, reason: DropReason) {
        // A reset would take it along, and a session that nobody has accepted goes to another host.
        self.push();
        self.life.set_reason(reason);
        if let Some(stream) = self.stream.take() {
            stream.abort();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // As with an abort.
        self.push();
        let Some(stream) = &self.stream else {
            return;
        };
        if self.life.must_reset() {
            stream.reset_on_close();
        } else if self.offer.is_some() {
            self.turn_down(None);
        } else {
            self.close();
        }
    }
}

impl Life {
    /// Whether the other half's end was a reset, which the close of the connection is to be.
    fn is_to_be_reset(&self) -> bool {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) == DropReason::Reset
    }

    fn set_reason(&self, reason: DropReason) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Decides how a connection that is being dropped ends: `true` where that is a reset. So it is where a panic or an abort
    /// drops it, as the client must not take half an answer for a whole one.
    fn must_reset(&self) -> bool {
        let resets = std::thread::panicking() || self.shared.aborted.is_cancelled();
        if resets {
            self.set_reason(DropReason::Reset);
        }
        resets
    }
}

impl Life {
    /// Goes on with what a session leaves to be done; the session is gone when it is done, or aborted.
    fn outlive(self: &Arc<Life>, rest: impl Future<Output = ()> + Send + 'static) {
        let life = Arc::clone(self);
        let owner = self.shared.runtime_owner.get().and_then(Weak::upgrade);
        self.shared.runtime.spawn(async move {
            let _cut_short = life.shared.aborted.run_until_cancelled(rest).await;
            drop(life);
            // The runtime may end with it.
            drop(owner);
        });
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let reason = self.reason.get_mut().unwrap_or_else(PoisonError::into_inner).clone();
        let id = self.id;
        debug!(session.id = id.session(), channel.id = id.channel(), %reason, "session dropped");
        self.shared.session_dropped(self.id, reason);
        self.shared.session_gone();
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Life").field("id", &self.id).finish_non_exhaustive()
    }
}

impl AsyncRead for Session {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_accept_held(cx))?;
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(())) };
        let read = Pin::new(stream).poll_read(cx, buf);
        match read {
            // Its handler waits for the client, and writes nothing meanwhile.
            Poll::Pending => self.push(),
            Poll::Ready(_) => {
                if self.is_word_held && !self.stream.as_ref().is_some_and(Stream::is_drained) {
                    // If this process is killed with bytes unread, what the kernel holds is thrown away.
                    self.push();
                }
                self.give_back_if_over();
            }
        }
        read
    }
}

impl Session {
    /// What is written to, once it is accepted. The word that says so leaves with what is written, or with the end.
    fn poll_writer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&mut Stream>> {
        ready!(self.poll_accept_held(cx))?;
        Poll::Ready(self.stream.as_mut().ok_or_else(|| io::ErrorKind::BrokenPipe.into()))
    }
}

impl AsyncWrite for Session {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let session = self.get_mut();
        let stream = ready!(session.poll_writer(cx))?;
        let written = ready!(Pin::new(stream).poll_write(cx, buf))?;
        session.note_sent(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let session = self.get_mut();
        let stream = ready!(session.poll_writer(cx))?;
        let written = ready!(Pin::new(stream).poll_write_vectored(cx, bufs))?;
        session.note_sent(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let session = self.get_mut();
        ready!(session.poll_accept(cx))?;
        session.stream.as_mut().map_or(Poll::Ready(Ok(())), |it| Pin::new(it).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let session = self.get_mut();
        if session.stream.is_some() {
            let stream = ready!(session.poll_writer(cx))?;
            if !stream.has_read_end() {
                // Whoever has the session may keep it and never read on to that, while the relay would have another client wait here.
                stream.carry_no_other();
            }
            ready!(Pin::new(stream).poll_shutdown(cx))?;
            session.is_word_held = false;
            session.give_back_if_over();
        }
        Poll::Ready(Ok(()))
    }
}

/// What whoever reads or writes such a session is told.
fn out_of_contact() -> io::Error {
    let why = "the relay was not heard of for too long: the session may be another host's";
    io::Error::new(io::ErrorKind::ConnectionAborted, why)
}

/// What a connection in parts is while it is lent.
#[cfg(not(simulation))]
pub(crate) type Lent<'a> = Option<relayserver_transport::PartsOverTcp<'a>>;
#[cfg(simulation)]
pub(crate) type Lent<'a> = Option<&'a ()>;

/// As [`leg`], but in parts with the socket beneath, so that an abort is noticed.
fn lend<'a>(stream: &'a mut Stream, lent: &'a mut Lent<'a>) -> Leg<'a> {
    #[cfg(not(simulation))]
    if stream.is_in_parts_over_tcp() {
        *lent = stream.parts_over_tcp();
        let Some(parts) = lent else { unreachable!("it is in parts") };
        let socket = parts.socket();
        return Leg::Over(parts, socket);
    }
    let _ = lent;
    leg(stream)
}

/// A connection as a leg, by the best way that there is for its kind.
pub(crate) fn leg(stream: &mut Stream) -> Leg<'_> {
    match stream.barest() {
        // The simulation's sockets are not the system's.
        #[cfg(not(simulation))]
        Stream::Tcp(stream) => Leg::Tcp(stream),
        #[cfg(unix)]
        Stream::Unix(stream) => Leg::Unix(stream),
        #[allow(unreachable_patterns, reason = "TLS, where the transport has it")]
        layered => Leg::Other(layered),
    }
}
