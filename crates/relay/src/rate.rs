//! How fast a session may go, where its service's operator has set a rate. The bytes are counted by a limiter as they are read, and the
//! next read waits until they are paid for: so the sender is slowed, and nothing is kept here.
//!
//! Only a session of a service with a rate has any of this, and its bytes go through this process.

use std::io;
use std::num::{NonZeroU32, NonZeroU64};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use relayserver_transport::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// The rates of a service, in bytes a second, each for either direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Of all its sessions together.
    pub service: Option<NonZeroU64>,
    /// Of each of its sessions.
    pub session: Option<NonZeroU64>,
}

/// What the limiter counts: finer, and a fast one would have to count in fractions of nanoseconds.
const CELL: u64 = 64;

/// How much may go at once: what the rate allows in this time. So in 100 ms no more goes than in 120 by the rate.
const BURST: Duration = Duration::from_millis(20);

type Limiter =
    RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<std::time::Instant>>;

/// One direction's rate, of a session or of a service.
struct Bucket {
    limiter: Limiter,
    /// How many cells may be taken at once.
    cells_max: NonZeroU32,
}

/// The rates of a service, as its sessions share them.
pub(crate) struct ServiceRates {
    to_host: Option<Arc<Bucket>>,
    to_client: Option<Arc<Bucket>>,
    session: Option<NonZeroU64>,
}

impl ServiceRates {
    /// `None` where there is none.
    pub(crate) fn new(rates: Rates) -> Option<ServiceRates> {
        let Rates { service, session } = rates;
        let bucket = || service.map(|rate| Arc::new(Bucket::new(rate)));
        let is_any = service.is_some() || session.is_some();
        is_any.then(|| ServiceRates { to_host: bucket(), to_client: bucket(), session })
    }

    /// For what a session of it reads of its client.
    pub(crate) fn of_client(&self) -> Meter {
        self.meter(self.to_host.as_ref())
    }

    /// For what a session of it reads of its host.
    pub(crate) fn of_host(&self) -> Meter {
        self.meter(self.to_client.as_ref())
    }

    fn meter(&self, shared: Option<&Arc<Bucket>>) -> Meter {
        let own = self.session.map(|rate| Arc::new(Bucket::new(rate)));
        let buckets = shared.cloned().into_iter().chain(own);
        Meter { due: buckets.map(|bucket| Due { bucket, bytes: 0 }).collect(), pause: None }
    }
}

impl Bucket {
    fn new(rate: NonZeroU64) -> Bucket {
        let cells = |bytes: u64| u32::try_from(bytes / CELL).ok().and_then(NonZeroU32::new);
        let per_second = cells(rate.get()).unwrap_or(NonZeroU32::MIN);
        let burst = u128::from(rate.get()) * BURST.as_millis() / 1000;
        let burst = u64::try_from(burst).ok().and_then(cells).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(per_second).allow_burst(burst);
        let limiter = RateLimiter::direct_with_clock(quota, MonotonicClock);
        Bucket { limiter, cells_max: burst }
    }

    /// How long to wait until so many cells can be taken; `None`: they are.
    fn take(&self, cells: NonZeroU32) -> Option<Duration> {
        // No more than the burst is ever asked for.
        let taken = self.limiter.check_n(cells.min(self.cells_max)).ok()?;
        taken.err().map(|not_until| not_until.wait_time_from(MonotonicClock.now()))
    }
}

/// What one direction of a session has to pay.
pub(crate) struct Meter {
    due: Vec<Due>,
    pause: Option<Pin<Box<Sleep>>>,
}

struct Due {
    bucket: Arc<Bucket>,
    bytes: u64,
}

impl Meter {
    /// Resolves when all that was read is paid for.
    fn poll_paid(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            let wait = self.due.iter_mut().find_map(Due::pay);
            match wait {
                Some(wait) => self.pause = Some(Box::pin(sleep(wait))),
                None => return Poll::Ready(()),
            }
        }
    }

    /// How much may be read at once.
    fn len_max(&self) -> usize {
        let of = |due: &Due| u64::from(due.bucket.cells_max.get()) * CELL;
        let most = self.due.iter().map(of).min().unwrap_or(u64::MAX);
        usize::try_from(most).unwrap_or(usize::MAX)
    }

    fn count(&mut self, bytes: usize) {
        self.due.iter_mut().for_each(|due| due.bytes += bytes as u64);
    }
}

impl Due {
    /// Pays what it can; gives how long to wait until it can pay more. What is less than a cell is owed on.
    fn pay(&mut self) -> Option<Duration> {
        let cells = u32::try_from(self.bytes / CELL).unwrap_or(u32::MAX);
        let wait = self.bucket.take(NonZeroU32::new(cells)?);
        if wait.is_none() {
            self.bytes -= u64::from(cells.min(self.bucket.cells_max.get())) * CELL;
        }
        wait
    }
}

/// A connection that is read no faster than its meter allows, where it has one.
pub(crate) struct Metered {
    pub(crate) stream: Stream,
    pub(crate) meter: Option<Box<Meter>>,
}

impl AsyncRead for Metered {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Metered { stream, meter } = self.get_mut();
        let Some(meter) = meter else {
            return Pin::new(stream).poll_read(cx, buf);
        };
        ready!(meter.poll_paid(cx));
        let len = meter.len_max().min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(len));
        ready!(Pin::new(stream).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buf.advance(read);
        meter.count(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(rate: u64) -> NonZeroU64 {
        NonZeroU64::new(rate).unwrap()
    }

    #[test]
    fn what_is_more_than_the_burst_waits_for_as_long_as_the_rate_says() {
        let bucket = Bucket::new(rate(64_000));
        // 20 ms of 1,000 cells a second.
        assert_eq!(bucket.cells_max.get(), 20);
        assert_eq!(bucket.take(bucket.cells_max), None);
        let wait = bucket.take(bucket.cells_max).unwrap();
        assert!(wait > Duration::from_millis(10) && wait <= Duration::from_millis(20), "{wait:?}");
    }

    #[test]
    fn the_slowest_and_the_fastest_rate_are_rates() {
        for bytes in [1, 63, 64, 1 << 20, 10_000_000_000, u64::MAX] {
            assert_eq!(Bucket::new(rate(bytes)).take(NonZeroU32::MIN), None, "{bytes}");
        }
    }

    #[test]
    fn small_reads_are_paid_for_together() {
        let rates = ServiceRates::new(Rates { service: Some(rate(6_400)), session: None }).unwrap();
        let mut meter = rates.of_client();
        meter.count(63);
        assert!(meter.due.iter_mut().all(|due| due.pay().is_none() && due.bytes == 63));
        meter.count(1);
        assert!(meter.due.iter_mut().all(|due| due.pay().is_none() && due.bytes == 0));
    }

    #[test]
    fn a_service_without_rates_has_no_limiter() {
        assert!(ServiceRates::new(Rates::default()).is_none());
    }
}
