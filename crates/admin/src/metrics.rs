//! The metrics, one table: name, type, labels, meaning, and how each is read off a snapshot. `docs/metrics.md` is made of it.
//!
//! The text is Prometheus's exposition format, version 0.0.4. Labels come from closed lists: the operator's services, the reasons, and
//! a few words; nothing that a peer says becomes one.

use std::fmt::Write;
use std::time::Duration;

use relayserver_relay::{HostSnapshot, ReasonCounts, ServiceCounts, Snapshot, Waits};

/// A metric.
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its type, as the format calls it.
    pub kind: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it means, in a sentence.
    pub meaning: &'static str,
    /// Its samples.
    read: fn(&Snapshot, &mut Samples<'_>),
}

/// Every metric there is, in the order in which they are told.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "relayserver_info",
        kind: "gauge",
        labels: &["version"],
        meaning: "The relay's version. Always 1.",
        read: |_, samples| samples.add("", &[("version", env!("CARGO_PKG_VERSION"))], 1),
    },
    Metric {
        name: "relayserver_uptime_seconds",
        kind: "gauge",
        labels: &[],
        meaning: "How long the relay has been there.",
        read: |snapshot, samples| samples.add("", &[], seconds(snapshot.uptime)),
    },
    Metric {
        name: "relayserver_draining",
        kind: "gauge",
        labels: &[],
        meaning: "1 while the relay is leaving, else 0.",
        read: |snapshot, samples| samples.add("", &[], u8::from(snapshot.book.draining)),
    },
    Metric {
        name: "relayserver_sessions_opened_total",
        kind: "counter",
        labels: &["service"],
        meaning: "Sessions that were opened: a host has accepted them, or they have ended before one did.",
        read: |snapshot, samples| of_counts(snapshot, samples, |counts| counts.opened),
    },
    Metric {
        name: "relayserver_sessions_open",
        kind: "gauge",
        labels: &["service"],
        meaning: "Sessions that run now, those among them that no host has accepted yet.",
        read: |snapshot, samples| {
            for (name, service) in &snapshot.book.services {
                samples.add("", &[("service", name.as_str())], service.sessions);
            }
        },
    },
    Metric {
        name: "relayserver_sessions_ended_total",
        kind: "counter",
        labels: &["service", "reason"],
        meaning: "Sessions that have ended, by reason.",
        read: |snapshot, samples| by_reason(snapshot, samples, |counts| &counts.ended),
    },
    Metric {
        name: "relayserver_clients_refused_total",
        kind: "counter",
        labels: &["service", "reason"],
        meaning: "Clients that were refused, by reason.",
        read: |snapshot, samples| by_reason(snapshot, samples, |counts| &counts.refused_clients),
    },
    Metric {
        name: "relayserver_clients_waiting",
        kind: "gauge",
        labels: &["service"],
        meaning: "Clients that wait for a channel now.",
        read: |snapshot, samples| {
            for (name, service) in &snapshot.book.services {
                samples.add("", &[("service", name.as_str())], service.waiting);
            }
        },
    },
    Metric {
        name: "relayserver_queue_wait_seconds",
        kind: "histogram",
        labels: &["service"],
        meaning: "How long clients have waited until they got a channel, once for each channel that they got: a client that a host turned down waits for another.",
        read: |snapshot, samples| {
            for (name, counts) in &snapshot.counts.services {
                histogram(samples, name.as_str(), &counts.waits);
            }
        },
    },
    Metric {
        name: "relayserver_pool_idle",
        kind: "gauge",
        labels: &["service"],
        meaning: "Data channels that wait for a client now.",
        read: |snapshot, samples| {
            for (name, service) in &snapshot.book.services {
                samples.add("", &[("service", name.as_str())], service.idle);
            }
        },
    },
    Metric {
        name: "relayserver_pool_wanted",
        kind: "gauge",
        labels: &["service"],
        meaning: "Data channels that hosts are asked to keep waiting, all together.",
        read: |snapshot, samples| {
            for name in snapshot.book.services.keys() {
                let hosts = snapshot.book.hosts.values();
                let wanted: usize = hosts.filter_map(|host| host.wanted.get(name)).sum();
                samples.add("", &[("service", name.as_str())], wanted);
            }
        },
    },
    Metric {
        name: "relayserver_hosts",
        kind: "gauge",
        labels: &["state"],
        meaning: "Hosts that are up, suspect (not heard from for a while), leaving, or away (sessions without a command channel).",
        read: |snapshot, samples| {
            for state in ["up", "suspect", "leaving", "away"] {
                let hosts = snapshot.book.hosts.values();
                let count = hosts.filter(|host| state_of(host) == state).count();
                samples.add("", &[("state", state)], count);
            }
        },
    },
    Metric {
        name: "relayserver_host_rtt_seconds",
        kind: "summary",
        labels: &["quantile"],
        meaning: "How long a round trip takes, smoothed, over the hosts of version 2 that there are now.",
        read: round_trips,
    },
    Metric {
        name: "relayserver_bytes_total",
        kind: "counter",
        labels: &["direction"],
        meaning: "Bytes that sessions have handed on, to_host or to_client, those of sessions that still run among them.",
        read: |snapshot, samples| {
            let counts = &snapshot.counts;
            samples.add("", &[("direction", "to_client")], counts.bytes_to_client);
            samples.add("", &[("direction", "to_host")], counts.bytes_to_host);
        },
    },
    Metric {
        name: "relayserver_handshakes_total",
        kind: "counter",
        labels: &["result"],
        meaning: "Connections on the ports of hosts, by what became of them: ok, or the reason why not.",
        read: |snapshot, samples| {
            samples.add("", &[("result", "ok")], snapshot.counts.taken_hosts);
            for (reason, count) in &snapshot.counts.refused_hosts {
                samples.add("", &[("result", reason.code())], *count);
            }
        },
    },
];

/// Everything, as Prometheus reads it.
pub fn render(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    for Metric { name, kind, meaning, read, .. } in METRICS {
        line(&mut text, format_args!("# HELP {name} {meaning}"));
        line(&mut text, format_args!("# TYPE {name} {kind}"));
        read(snapshot, &mut Samples { name, text: &mut text });
    }
    text
}

/// Takes the samples of one metric.
struct Samples<'a> {
    name: &'a str,
    text: &'a mut String,
}

impl Samples<'_> {
    fn add(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let name = self.name;
        if labels.is_empty() {
            return line(self.text, format_args!("{name}{suffix} {value}"));
        }
        // None of them has a character that would have to be escaped: see above where they come from.
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        line(self.text, format_args!("{name}{suffix}{{{}}} {value}", labels.join(",")));
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // A `String` takes whatever is written to it.
    let _written = writeln!(text, "{line}");
}

fn of_counts(snapshot: &Snapshot, samples: &mut Samples<'_>, of: fn(&ServiceCounts) -> u64) {
    for name in snapshot.book.services.keys() {
        let count = snapshot.counts.services.get(name).map_or(0, of);
        samples.add("", &[("service", name.as_str())], count);
    }
}

fn by_reason(
    snapshot: &Snapshot,
    samples: &mut Samples<'_>,
    of: fn(&ServiceCounts) -> &ReasonCounts,
) {
    for (name, counts) in &snapshot.counts.services {
        for (reason, count) in of(counts) {
            samples.add("", &[("service", name.as_str()), ("reason", reason.code())], *count);
        }
    }
}

/// Buckets count what is in those before them too, as the format has it.
fn histogram(samples: &mut Samples<'_>, service: &str, waits: &Waits) {
    let mut so_far = 0;
    for (bound, count) in Waits::BOUNDS.iter().zip(waits.buckets) {
        so_far += count;
        let bound = seconds(*bound).to_string();
        samples.add("_bucket", &[("service", service), ("le", &bound)], so_far);
    }
    samples.add("_bucket", &[("service", service), ("le", "+Inf")], waits.count);
    samples.add("_sum", &[("service", service)], seconds(waits.sum));
    samples.add("_count", &[("service", service)], waits.count);
}

fn round_trips(snapshot: &Snapshot, samples: &mut Samples<'_>) {
    let hosts = snapshot.book.hosts.values().filter(|host| host.has_command);
    let mut all: Vec<Duration> =
        hosts.filter_map(|host| host.member.as_ref().and_then(|member| member.rtt)).collect();
    all.sort_unstable();
    for (quantile, hundredths) in [("0.5", 50), ("0.9", 90), ("0.99", 99), ("1", 100)] {
        // The nearest rank; of none there is none.
        let rank = (all.len() * hundredths).div_ceil(100).max(1);
        if let Some(round_trip) = all.get(rank - 1) {
            samples.add("", &[("quantile", quantile)], seconds(*round_trip));
        }
    }
    samples.add("_sum", &[], seconds(all.iter().sum()));
    samples.add("_count", &[], all.len());
}

fn state_of(host: &HostSnapshot) -> &'static str {
    match &host.member {
        // Of version 1, what has no command channel of its own is told on those of others.
        None => "up",
        Some(_) if !host.has_command => "away",
        Some(member) if member.suspect_since.is_some() => "suspect",
        Some(member) if member.leaving => "leaving",
        Some(_) => "up",
    }
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
