//! A session's bytes, both directions: what a holder of two connections calls.
//!
//! Driven by the session's own task. It moves bytes and passes ends on; why a session ends, and what then becomes of
//! its legs, is decided elsewhere.

use std::future::{Future, poll_fn};
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::sleep;

use crate::direction::{Crossing, Direction};
use crate::failure::{Failure, Side};
use crate::leg::Leg;
use crate::pipe::Pool;
use crate::remainder::Remainder;
use crate::socket::Socket;
use crate::watch::Watch;

/// The moving of one session's bytes. It has no leg: those are lent to each [`run`](Splice::run).
pub struct Splice {
    to_host: Direction,
    to_client: Direction,
    /// Where pipes for bulk come from; none: everything is copied.
    pool: Option<&'static Pool>,
}

/// How bytes may travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Path {
    /// The best there is: bulk between two sockets by `splice(2)` on Linux, all else copied.
    #[default]
    Auto,
    /// Everything is copied: the portable path.
    Copy,
}

/// Until when [`Splice::run_until`] is to go on, and until when it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Both directions have ended.
    End,
    /// The session is busy, and one of those that are meant. It goes on with the next run.
    Busy(Busy),
    /// The session was woken some times more: whether its legs are still the best there are may be looked at. It goes on with the next
    /// run.
    Woken,
}

impl Until {
    /// After how many polls a run comes back that is over these legs; `None` for one that does not.
    fn polls(self, client: &Leg<'_>, host: &Leg<'_>) -> Option<u32> {
        let are_sockets = client.socket().is_some() && host.socket().is_some();
        match self {
            Until::Busy(_) if are_sockets => Some(BUSY_POLLS),
            Until::Woken => Some(WOKEN_POLLS),
            Until::Busy(_) | Until::End => None,
        }
    }
}

/// Which busy sessions are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// Those of small messages, with both directions open.
    Chatty,
    /// All with both directions open, whatever they carry. One that has begun to end is no longer worth a move, and whoever looks after its
    /// end need not take along what he knows of it.
    Any,
}

/// A session that was woken so often since its run began, however long that took, is taken for busy: some dozens of requests and
/// answers, or some 64 MiB each way. Moving it costs as much as a few of them.
const BUSY_POLLS: u32 = 64;

/// Each poll moves up to 1 MiB each way, and what is beneath a leg may move the next one in half the time.
const WOKEN_POLLS: u32 = 4;

/// The bytes that were written to each leg's socket or stream. Exact at any time, also while `run` is running.
#[derive(Debug, Default)]
pub struct Counts {
    /// Bytes written to the host leg.
    pub to_host: AtomicU64,
    /// Bytes written to the client leg.
    pub to_client: AtomicU64,
    /// How often the host leg had bytes after it had none: each time the host had sent something since. What a slow client leaves in
    /// buffers for long says nothing of the kind.
    pub arrivals: AtomicU64,
}

impl Counts {
    /// Resolves when nothing was written to either leg for `bound`: between once and twice that after the last byte. Holds
    /// one timer meanwhile.
    ///
    /// Cancel safe.
    pub async fn unchanged_for(&self, bound: Duration) {
        let moved = || (self.to_host.load(Relaxed), self.to_client.load(Relaxed));
        loop {
            let before = moved();
            sleep(bound).await;
            if moved() == before {
                return;
            }
        }
    }
}

impl Splice {
    /// A session from its beginning.
    pub fn new(path: Path) -> Splice {
        Splice {
            to_host: Direction::new(),
            to_client: Direction::new(),
            pool: match path {
                Path::Auto => Some(Pool::shared()),
                Path::Copy => None,
            },
        }
    }

    /// A session that goes on where another splice left it, over the same legs or others.
    pub fn from_remainder(remainder: Remainder, path: Path) -> Splice {
        Splice {
            to_host: Direction::from_undelivered(remainder.to_host),
            to_client: Direction::from_undelivered(remainder.to_client),
            ..Splice::new(path)
        }
    }

    /// Moves bytes both ways until both directions have ended.
    ///
    /// The end of what one leg sends (its FIN) is passed on as a half-close, after all that came before it, and the
    /// other direction goes on. `on_eof` is called with the leg whose end was read, once, before it is passed on; it
    /// must not block. `counts` is added to as bytes are written.
    ///
    /// Bytes wait nowhere but in one buffer or pipe for each direction, and no more are read before those are
    /// written: who does not read slows its sender. There is no deadline: a session may be still for as long as it
    /// likes, so bound this from outside where there must be a bound.
    ///
    /// The legs must belong to the runtime that this is polled in, and nobody else may wait for their readiness
    /// meanwhile.
    ///
    /// # Errors
    /// The first [`Failure`] of a leg. An abort of a socket is noticed even while the other leg blocks (on Unix).
    /// Bytes that were read and not written are kept, but the leg that failed must not be used again.
    ///
    /// # Cancel safety
    /// Dropping the future at any point loses, repeats and reorders nothing: another `run` goes on.
    pub fn run(
        &mut self,
        mut client: Leg<'_>,
        mut host: Leg<'_>,
        counts: &Counts,
        on_eof: &mut (dyn FnMut(Side) + Send),
    ) -> impl Future<Output = Result<(), Failure>> + Send {
        let mut watches = Watches::default();
        poll_fn(move |cx| self.poll_legs(cx, &mut client, &mut host, &mut watches, counts, on_eof))
    }

    /// As [`run`](Splice::run), but, where `until` says so, it comes back too when the session turns out to be busy: then it is better served
    /// on a [lane](crate::lanes). A session over anything but two sockets never is. With [`Until::Woken`] it comes back after a few polls,
    /// over any legs.
    ///
    /// # Errors
    /// As [`run`](Splice::run).
    ///
    /// # Cancel safety
    /// As [`run`](Splice::run).
    pub fn run_until(
        &mut self,
        until: Until,
        mut client: Leg<'_>,
        mut host: Leg<'_>,
        counts: &Counts,
        on_eof: &mut (dyn FnMut(Side) + Send),
    ) -> impl Future<Output = Result<Until, Failure>> + Send {
        let mut watches = Watches::default();
        let mut polls_left = until.polls(&client, &host);
        poll_fn(move |cx| {
            let polled =
                self.poll_legs(cx, &mut client, &mut host, &mut watches, counts, on_eof)?;
            if polled.is_ready() {
                return Poll::Ready(Ok(Until::End));
            }
            polls_left = polls_left.map(|left| left.saturating_sub(1));
            match polls_left {
                Some(0) if self.is_reached(until) => Poll::Ready(Ok(until)),
                _ => Poll::Pending,
            }
        })
    }

    /// Gives up what `side` sends: bytes of it that are held are dropped, nothing more is read from that leg, and its
    /// end is not passed on. The other direction goes on, and `run` returns when that has ended.
    pub fn abandon(&mut self, side: Side) {
        match side {
            Side::Client => self.to_host.abandon(),
            Side::Host => self.to_client.abandon(),
        }
    }

    /// All that this session needs to go on, as plain data.
    ///
    /// # Errors
    /// If the kernel does not give back bytes that it holds in a pipe, so that the session cannot go on. No peer can
    /// bring that about.
    pub fn into_remainder(self) -> io::Result<Remainder> {
        Ok(Remainder {
            to_host: self.to_host.into_undelivered()?,
            to_client: self.to_client.into_undelivered()?,
        })
    }

    /// Whether a session that was woken often enough, and is not over, is one to come back for.
    fn is_reached(&self, until: Until) -> bool {
        match until {
            Until::End => false,
            Until::Woken => true,
            Until::Busy(Busy::Any) => self.both(|it| !it.has_read_end()),
            Until::Busy(Busy::Chatty) => self.both(Direction::is_chatty),
        }
    }

    fn both(&self, are: impl Fn(&Direction) -> bool) -> bool {
        are(&self.to_host) && are(&self.to_client)
    }

    fn poll_legs<'c, 'h>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Leg<'c>,
        host: &mut Leg<'h>,
        watches: &mut Watches<'c, 'h>,
        counts: &Counts,
        on_eof: &mut (dyn FnMut(Side) + Send),
    ) -> Poll<Result<(), Failure>> {
        if self.poll_directions(cx, client, host, counts, on_eof)?.is_ready() {
            return Poll::Ready(Ok(()));
        }
        let Splice { to_host, to_client, .. } = &*self;
        let (of_client, of_host) = (client.watched(), host.watched());
        notice_abort(cx, &mut watches.client, of_client, Side::Client, to_host, to_client)?;
        notice_abort(cx, &mut watches.host, of_host, Side::Host, to_client, to_host)?;
        Poll::Pending
    }

    fn poll_directions(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Leg<'_>,
        host: &mut Leg<'_>,
        counts: &Counts,
        on_eof: &mut (dyn FnMut(Side) + Send),
    ) -> Poll<Result<(), Failure>> {
        // The answer first: what a host sent ahead of its reset is handed over before a write to it fails.
        let mut crossing = Crossing {
            from: host.reborrow(),
            to: client.reborrow(),
            side: Side::Host,
            pool: self.pool,
            count: &counts.to_client,
            arrivals: Some(&counts.arrivals),
            on_eof,
        };
        let to_client = self.to_client.poll(cx, &mut crossing)?;
        let mut crossing = Crossing {
            from: client.reborrow(),
            to: host.reborrow(),
            side: Side::Client,
            pool: self.pool,
            count: &counts.to_host,
            arrivals: None,
            on_eof,
        };
        let to_host = self.to_host.poll(cx, &mut crossing)?;
        if to_host.is_ready() && to_client.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    #[cfg(all(test, target_os = "linux"))]
    pub(crate) fn with_pool(pool: &'static Pool) -> Splice {
        Splice { pool: Some(pool), ..Splice::new(Path::Auto) }
    }

    #[cfg(all(test, target_os = "linux"))]
    pub(crate) fn direction_to_host(&mut self) -> &mut Direction {
        &mut self.to_host
    }
}

/// Notices aborts of either leg.
#[derive(Default)]
struct Watches<'c, 'h> {
    client: Watch<'c>,
    host: Watch<'h>,
}

/// Fails if the leg `side` was aborted and nothing else would notice: its bytes wait for the other leg, or it has sent
/// its end and still receives. A leg that has done both is of no more concern.
fn notice_abort<'a>(
    cx: &mut Context<'_>,
    watch: &mut Watch<'a>,
    socket: Option<Socket<'a>>,
    side: Side,
    from: &Direction,
    to: &Direction,
) -> Result<(), Failure> {
    if from.waits_for_sender() || (from.has_read_end() && to.is_over()) {
        watch.rest();
        return Ok(());
    }
    // What is no socket tells of an abort only when it is read.
    let Some(socket) = socket else {
        return Ok(());
    };
    match watch.poll_error(cx, socket) {
        Poll::Pending => Ok(()),
        Poll::Ready(error) if from.has_read_end() => Err(Failure::write(side, error)),
        Poll::Ready(error) => Err(Failure::read(side, error)),
    }
}
