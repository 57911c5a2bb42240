//! What a relay is doing, as plain data: what stands in its book now, and how often each reason came up since it started. Whoever
//! wants to look at a relay gets this and nothing else. Nothing in here touches a connection.

use std::collections::BTreeMap;
use std::time::Duration;

use relayserver_core::{BookSnapshot, HostId, HostSnapshot, ServiceName, ServiceSnapshot, Time};
use serde_json::{Value, json};

use crate::counts::{Counts, ReasonCounts};

/// What a relay is doing at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// How long it has been there.
    pub uptime: Duration,
    /// What stands in its book.
    pub book: BookSnapshot,
    /// What has happened since it started.
    pub counts: Counts,
}

impl Snapshot {
    /// The number of the form that [`to_json`](Snapshot::to_json) gives. What is added to it leaves the number as it is; it changes
    /// where something is taken away or means something else.
    pub const FORMAT: u32 = 1;

    /// As JSON, in the form that `docs/status.md` describes.
    pub fn to_json(&self) -> Value {
        let Snapshot { uptime, book, counts } = self;
        let limits = &book.limits;
        let now = Time::from_start(*uptime);
        json!({
            "format": Snapshot::FORMAT,
            "relay": {
                "version": env!("CARGO_PKG_VERSION"),
                "uptime_ms": millis(*uptime),
                "draining": book.draining,
                "clients_max": limits.clients_max,
                "channels_max": limits.channels_max,
                "commands_max": limits.commands_max,
            },
            "services": book.services.iter().map(service).collect::<Vec<_>>(),
            "hosts": book.hosts.iter().map(|(id, it)| host(now, id, it)).collect::<Vec<_>>(),
            "ended": by_code(&counts.ended()),
            "refused_clients": by_code(&counts.refused_clients()),
            "refused_hosts": by_code(&counts.refused_hosts),
        })
    }
}

fn service((name, service): (&ServiceName, &ServiceSnapshot)) -> Value {
    let ServiceSnapshot { idle, waiting, sessions, wanted, limits } = service;
    json!({
        "name": name.as_str(),
        "idle": idle,
        "wanted": wanted,
        "waiting": waiting,
        "sessions": sessions,
        "sessions_max": limits.sessions_max,
        "queue_max": limits.queue_max,
        "assign_timeout_ms": millis(limits.assign_timeout),
    })
}

/// `now` is the time that the host's moments are told apart from.
fn host(now: Time, id: &HostId, host: &HostSnapshot) -> Value {
    let HostSnapshot { has_command, member, idle, wanted, sessions } = host;
    let member = member.as_ref();
    let ago = |then: Time| millis(now - then);
    let refusal = member.and_then(|member| member.last_refusal);
    json!({
        "id": id.to_string(),
        "version": if member.is_some() { 2 } else { 1 },
        "token": member.and_then(|member| member.grant.as_ref()).map(ToString::to_string),
        "services": member.map(|member| member.services.iter().map(ServiceName::as_str).collect::<Vec<_>>()),
        "idle": by_name(idle),
        "wanted": by_name(wanted),
        "sessions": sessions,
        "sessions_max": member.and_then(|member| member.capacity.sessions_max),
        "weight": member.map(|member| member.capacity.weight),
        "has_command": has_command,
        "suspect": member.is_some_and(|member| member.suspect_since.is_some()),
        "suspect_for_ms": member.and_then(|member| member.suspect_since).map(ago),
        "leaving": member.is_some_and(|member| member.leaving),
        "rtt_us": member.and_then(|member| member.rtt).map(|rtt| u64::try_from(rtt.as_micros()).ok()),
        "last_refusal": refusal.map(|(at, reason)| json!({ "reason": reason.code(), "ago_ms": ago(at) })),
    })
}

fn by_name(counts: &BTreeMap<ServiceName, usize>) -> BTreeMap<&str, usize> {
    counts.iter().map(|(name, count)| (name.as_str(), *count)).collect()
}

fn by_code(counts: &ReasonCounts) -> BTreeMap<&'static str, u64> {
    counts.iter().map(|(reason, count)| (reason.code(), *count)).collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
