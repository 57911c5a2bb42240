//! What a load has measured.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// How long things took.
#[derive(Clone, Debug)]
pub(super) struct Latencies(Histogram<u32>);

impl Latencies {
    pub(super) fn new() -> Latencies {
        // From a microsecond to two minutes, to a thousandth.
        let histogram = Histogram::new_with_bounds(1, 120_000_000, 3);
        Latencies(histogram.unwrap_or_else(|_| unreachable!("these bounds are in order")))
    }

    pub(super) fn record(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    pub(super) fn add(&mut self, more: &Latencies) {
        // The bounds are the same.
        let _added = self.0.add(&more.0);
    }

    fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(quantile))
    }
}

/// The figures of one load.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    /// For how long was counted.
    pub(super) time: Duration,
    /// Bytes received.
    pub(super) bytes: u64,
    /// Round trips, sessions, or first bytes; none of a load that has only bytes.
    pub(super) done: u64,
    /// Those that did not come back whole.
    pub(super) failed: u64,
    /// How long each of `done` took.
    pub(super) latencies: Latencies,
    /// The processor time of the processes that were asked about.
    pub(super) cpu: Option<Duration>,
}

impl Figures {
    pub(super) fn is_nothing(&self) -> bool {
        self.bytes == 0 && self.done == 0
    }

    fn per_second(&self, count: u64) -> f64 {
        // More than 2^52 of anything is beyond what a benchmark counts.
        count as f64 / self.time.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn quantiles(&self) -> [(&'static str, Duration); 4] {
        [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)]
            .map(|(name, quantile)| (name, self.latencies.quantile(quantile)))
    }

    /// As an object, with times in microseconds.
    pub(super) fn json(&self) -> Value {
        let quantiles =
            self.quantiles().map(|(name, took)| (name.to_owned(), json!(took.as_micros())));
        json!({
            "seconds": self.time.as_secs_f64(),
            "bytes": self.bytes,
            "bytes_per_second": self.per_second(self.bytes),
            "done": self.done,
            "done_per_second": self.per_second(self.done),
            "failed": self.failed,
            "cpu_seconds": self.cpu.map(|cpu| cpu.as_secs_f64()),
            "micros": serde_json::Map::from_iter(quantiles),
        })
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bytes > 0 {
            writeln!(f, "received     {:.3} GB/s", self.per_second(self.bytes) / 1e9)?;
        }
        if self.done > 0 {
            writeln!(f, "done         {:.0} a second", self.per_second(self.done))?;
            for (name, took) in self.quantiles() {
                writeln!(f, "{name:<12} {:.3} ms", took.as_secs_f64() * 1e3)?;
            }
        }
        if let Some(cpu) = self.cpu {
            writeln!(
                f,
                "processor    {:.2} s in {:.2} s",
                cpu.as_secs_f64(),
                self.time.as_secs_f64()
            )?;
        }
        if self.failed > 0 {
            writeln!(f, "failed       {}", self.failed)?;
        }
        Ok(())
    }
}
