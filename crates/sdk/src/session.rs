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
use relayserver_transport::{Stream, acknowledged, close_politely};
use relayserver_wire::WORD_LEN_MAX;
use relayserver_wire::start::{Start, Verdict};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::timeout;
use tracing::field::display;
use tracing::{debug, info};

use crate::SessionId;
use crate::contact::Since;
use crate::events::DropReason;
use crate::report::{Origin, Report, Returned};
use crate::shared::Shared;

/// A client, connected through the relay. It reads and writes as a `TcpStream` does.
///
/// A relay of version 2 keeps the client's first bytes until this host has *accepted* the session, so that it can give it to another
/// host if this one does not. It is accepted by the first read or write, or by [`accept`](Session::accept); whoever first wants
/// to see whether it can serve at all says [`reject`](Session::reject) if not, before it reads. One that is dropped unused is rejected.
///
/// [`shutdown`](tokio::io::AsyncWriteExt::shutdown) is half-close: the client reads the end, and what it still sends can be
/// read. Dropping a session closes it as dropping a `TcpStream` does: what was written still arrives, unless the
/// client's bytes were not all read, in which case the client sees a reset. A session that is dropped by a panic is reset.
#[derive(Debug)]
pub struct Session {
    /// Taken when the session is divided or ended by value.
    stream: Option<Stream>,
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
    /// A relay of version 2 offers it.
    Offered { start: Start, home: Home },
}

/// Where a channel goes that has carried its session to the end.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) origin: Origin,
    pub(crate) reports: mpsc::Sender<Report>,
}

impl Home {
    /// Gives the channel back, which the relay may have given another session already: so a driver that is behind is waited for. Without
    /// one the listener is gone, and the channel is closed.
    fn take(self, stream: Stream, life: &Arc<Life>) {
        let Home { origin, reports } = self;
        let report = Report::ChannelReturned(Box::new(Returned { stream, origin }));
        if let Err(TrySendError::Full(report)) = reports.try_send(report) {
            life.outlive(async move {
                let _taken = reports.send(report).await;
            });
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
            Opening::Offered { start, home } => {
                let id = SessionId::of_session(start.session_id);
                let since = home.origin.since.clone();
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
        Session { stream: Some(stream), offer, home, is_word_held: false, life: Arc::new(life) }
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
        let mut stream = self.take_stream();
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

    /// Divides it into a half to read and a half to write, for tasks of their own. The session is over when both are
    /// dropped; dropping the half to write is half-close.
    ///
    /// That accepts it; where [`accept`](Session::accept) would fail, every read and write of the halves does.
    pub fn into_split(mut self) -> (ReadHalf, WriteHalf) {
        // Nothing was written since the hello: there is room for the word that it is accepted, or it has failed.
        let mut cx = Context::from_waker(Waker::noop());
        let is_accepted = matches!(self.poll_accept(&mut cx), Poll::Ready(Ok(())));
        if !is_accepted {
            self.stream_mut().reset_on_close();
            self.offer = None;
        }
        let (reader, writer) = self.take_stream().into_split();
        let life = Arc::clone(&self.life);
        (
            ReadHalf { inner: reader, is_accepted, life: Arc::clone(&life) },
            WriteHalf { inner: Some(writer), is_accepted, life },
        )
    }

    /// The connection underneath, for handlers that splice.
    pub(crate) fn leg(&mut self) -> Leg<'_> {
        leg(self.stream_mut())
    }

    /// Whether the connection underneath may turn into a plain one while it is spliced, over which bytes go faster.
    pub(crate) fn may_go_bare(&mut self) -> bool {
        let stream = self.stream_mut();
        !stream.is_encrypted() && matches!(stream.barest(), Stream::Parts(_))
    }

    /// Has the connection wait for readiness in the runtime that is entered.
    pub(crate) fn move_here(&mut self) -> io::Result<()> {
        self.stream_mut().move_here()
    }

    /// Resolves when the client has taken all that was sent, the end included, as far as the relay's socket tells.
    pub(crate) async fn acknowledged(&mut self) {
        let stream = self.stream_mut();
        if stream.can_carry_another() {
            return;
        }
        stream.finish();
        let waiting = acknowledged(self.socket());
        if self.stream.as_ref().is_some_and(Stream::is_encrypted) {
            // Over TLS a peer can end without ending the connection.
            let _waited = timeout(limits::HALF_CLOSED_TIMEOUT, waiting).await;
        } else {
            waiting.await;
        }
    }

    /// The socket underneath.
    pub(crate) fn socket(&self) -> Option<&relayserver_transport::net::TcpStream> {
        self.stream.as_ref().and_then(Stream::tcp)
    }

    fn stream_mut(&mut self) -> &mut Stream {
        self.stream.as_mut().unwrap_or_else(|| unreachable!("taken only by value"))
    }

    fn take_stream(&mut self) -> Stream {
        self.stream.take().unwrap_or_else(|| unreachable!("taken only by value"))
    }

    fn end(mut self, reason: DropReason) {
        // A reset would take it along, and a session that nobody has accepted goes to another host.
        self.push();
        self.life.set_reason(reason);
        self.take_stream().abort();
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

impl Session {
    /// Ends it in order, and gives its channel back where that can carry another session.
    fn close(&mut self) {
        let mut stream = self.take_stream();
        // Of one that is for many the socket knows neither the end nor all that nobody has read.
        let has_ended = match &stream {
            Stream::Parts(_) => {
                if has_unread(&mut stream) && !stream.is_encrypted() {
                    // As with any connection.
                    return stream.abort();
                }
                let mut cx = Context::from_waker(Waker::noop());
                Pin::new(&mut stream).poll_shutdown(&mut cx).is_ready()
            }
            _ => true,
        };
        if stream.can_carry_another() {
            if let Some(home) = self.home.take() {
                home.take(stream, &self.life);
            }
        } else if stream.is_encrypted() {
            // What TLS has not handed to the socket yet would be lost with it, and the end too.
            self.life.outlive(async move {
                let (silence, bound) = (limits::LINGER_TIMEOUT, limits::DELIVERY_TIMEOUT);
                close_politely(&mut stream, silence, bound).await;
            });
        } else if !has_ended {
            self.life.outlive(async move {
                let _ended = timeout(limits::DELIVERY_TIMEOUT, stream.shutdown()).await;
            });
        }
    }
}

impl WriteHalf {
    /// # Errors
    /// The session is not this host's.
    fn inner(&mut self) -> io::Result<&mut relayserver_transport::WriteHalf> {
        if !self.is_accepted {
            return Err(out_of_contact());
        }
        Ok(self.inner.as_mut().unwrap_or_else(|| unreachable!("taken only when dropped")))
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        let Some(mut inner) = self.inner.take() else {
            return;
        };
        if self.life.must_reset() || !self.is_accepted {
            inner.reset_on_close();
            // Else its own drop sends an end ahead of the reset.
            inner.forget();
        } else if inner.is_encrypted() {
            // As with a whole session.
            self.life.outlive(async move {
                let _ended = timeout(limits::DELIVERY_TIMEOUT, inner.shutdown()).await;
            });
        }
    }
}

impl Drop for ReadHalf {
    fn drop(&mut self) {
        if self.life.must_reset() || !self.is_accepted {
            self.inner.reset_on_close();
        }
    }
}

impl Life {
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

/// Reads a session. Made by [`Session::into_split`].
#[derive(Debug)]
pub struct ReadHalf {
    inner: relayserver_transport::ReadHalf,
    is_accepted: bool,
    life: Arc<Life>,
}

/// Writes a session; dropping it is half-close. Made by [`Session::into_split`].
#[derive(Debug)]
pub struct WriteHalf {
    /// Taken when it is dropped.
    inner: Option<relayserver_transport::WriteHalf>,
    is_accepted: bool,
    life: Arc<Life>,
}

impl AsyncRead for Session {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_accept_held(cx))?;
        let read = Pin::new(self.stream_mut()).poll_read(cx, buf);
        if read.is_pending() {
            // Its handler waits for the client, and writes nothing meanwhile.
            self.push();
        }
        read
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.is_accepted {
            return Poll::Ready(Err(out_of_contact()));
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

macro_rules! write_through {
    ($type:ty, |$session:ident, $cx:ident| $inner:expr, to flush $flushed:expr) => {
        impl AsyncWrite for $type {
            fn poll_write(
                self: Pin<&mut Self>,
                $cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                let $session = self.get_mut();
                Pin::new($inner).poll_write($cx, buf)
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                $cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                let $session = self.get_mut();
                Pin::new($inner).poll_write_vectored($cx, bufs)
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(self: Pin<&mut Self>, $cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                let $session = self.get_mut();
                Pin::new($flushed).poll_flush($cx)
            }

            fn poll_shutdown(self: Pin<&mut Self>, $cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                let $session = self.get_mut();
                Pin::new($inner).poll_shutdown($cx)
            }
        }
    };
}

write_through!(
    Session,
    |session, cx| {
        ready!(session.poll_accept_held(cx))?;
        // It leaves with what is written now, or with the end.
        session.is_word_held = false;
        session.stream_mut()
    },
    to flush {
        ready!(session.poll_accept(cx))?;
        session.stream_mut()
    }
);
write_through!(WriteHalf, |half, cx| half.inner()?, to flush half.inner()?);

/// Whether something has come that nobody has read. Where the end has come, it is taken in; a failure is for whoever comes next.
fn has_unread(stream: &mut Stream) -> bool {
    let mut byte = [0];
    let mut byte = ReadBuf::new(&mut byte);
    let _read = Pin::new(stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut byte);
    !byte.filled().is_empty()
}

/// What whoever reads or writes such a session is told.
fn out_of_contact() -> io::Error {
    let why = "the relay was not heard of for too long: the session may be another host's";
    io::Error::new(io::ErrorKind::ConnectionAborted, why)
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
