//! What a relay is doing, as plain data: what stands in its book now, and how often each reason came up since it started. Whoever
//! wants to look at a relay gets this and nothing else. Nothing in here touches a connection.

use std::collections::BTreeMap;
use std::time::Duration;

use relayserver_core::{BookSnapshot, HostId, HostSnapshot, Reason, ServiceName, ServiceSnapshot};
use serde_json::{Value, json};

/// How often each reason came up; one that never did is missing.
pub type ReasonCounts = BTreeMap<Reason, u64>;

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

/// What has happened since a relay started. Each session and each refusal is counted once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sessions that have ended, for what reason.
    pub ended: ReasonCounts,
    /// Clients that were refused, for what reason.
    pub refused_clients: ReasonCounts,
    /// Connections on the ports of hosts that were refused, for what reason.
    pub refused_hosts: ReasonCounts,
}

impl Snapshot {
    /// The number of the form that [`to_json`](Snapshot::to_json) gives. What is added to it leaves the number as it is; it changes
    /// where something is taken away or means something else.
    pub const FORMAT: u32 = 1;

    /// As JSON, in the form that `docs/status.md` describes.
    pub fn to_json(&self) -> Value {
        let Snapshot { uptime, book, counts } = self;
        let limits = &book.limits;
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
            "hosts": book.hosts.iter().map(host).collect::<Vec<_>>(),
            "ended": by_code(&counts.ended),
            "refused_clients": by_code(&counts.refused_clients),
            "refused_hosts": by_code(&counts.refused_hosts),
        })
    }
}

fn service((name, service): (&ServiceName, &ServiceSnapshot)) -> Value {
    let ServiceSnapshot { idle, waiting, sessions, limits } = service;
    json!({
        "name": name.as_str(),
        "idle": idle,
        "waiting": waiting,
        "sessions": sessions,
        "sessions_max": limits.sessions_max,
        "queue_max": limits.queue_max,
        "assign_timeout_ms": millis(limits.assign_timeout),
    })
}

fn host((id, host): (&HostId, &HostSnapshot)) -> Value {
    let HostSnapshot { has_command, member, idle, sessions } = host;
    let idle: BTreeMap<&str, usize> = idle.iter().map(|(name, it)| (name.as_str(), *it)).collect();
    let grant = member.as_ref().and_then(|member| member.grant.as_ref());
    let services = member
        .as_ref()
        .map(|member| member.services.iter().map(|service| service.as_str()).collect::<Vec<_>>());
    json!({
        "id": id.to_string(),
        "version": if member.is_some() { 2 } else { 1 },
        "token": grant.map(ToString::to_string),
        "services": services,
        "idle": idle,
        "sessions": sessions,
        "has_command": has_command,
        "suspect": member.as_ref().is_some_and(|member| member.suspect),
        "leaving": member.as_ref().is_some_and(|member| member.leaving),
    })
}

fn by_code(counts: &ReasonCounts) -> BTreeMap<&'static str, u64> {
    counts.iter().map(|(reason, count)| (reason.code(), *count)).collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
