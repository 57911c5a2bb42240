//! `relay.toml`: what a relay is told. The keys, and what must hold between them.
//!
//! Who builds a relay reads the plain structs; nothing here knows what a relay does with them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::address::PublicAddress;
use crate::effective::Effective;
use crate::errors::Errors;
use crate::name::ServiceName;
use crate::network::Cidr;
use crate::reader::{Place, Reader, did_you_mean};
use crate::schema::{Absent, Key, Section, Setting, Shape, section};
use crate::tls::Tls;
use crate::units::Size;

/// All that `relay.toml` says, with the defaults of what it does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayFile {
    /// `[relay]`.
    pub relay: Relay,
    /// `[metrics]`. `None`: nobody is told.
    pub metrics: Option<Metrics>,
    /// `[services.NAME]`, by name. None where the file names none.
    pub services: BTreeMap<ServiceName, RelayService>,
    effective: Vec<Effective>,
}

section! {
    struct Root {
        /// The relay itself.
        relay: Relay = Absent::OfItsKeys,
        /// Where Prometheus may ask how the relay is. Its presence switches that on.
        metrics: Option<Metrics> = Absent::Unset(None),
        /// What clients can ask for.
        services: BTreeMap<ServiceName, RelayService> = Absent::OfItsKeys,
    }
}

section! {
    /// `[relay]`: the relay itself.
    pub struct Relay {
        /// Where hosts dial.
        listen: SocketAddr = Absent::Default(loopback(8000)),
        /// The address that join lines name, with a port where it is another than that of `listen`. Without it no join line
        /// can be made for a relay that listens on all addresses.
        public: Option<PublicAddress> = Absent::Unset(None),
        /// How the host port is encrypted: by a key and a certificate that the relay makes once (`"auto"`), by the operator's
        /// own, or not at all. Beyond loopback, `"off"` takes `--insecure` on the command line too.
        tls: Tls = Absent::Default(Tls::Auto),
        /// The directory of the relay's own files: key, certificate, tokens. `--state-dir` on the command line goes ahead of it.
        /// Without either: `$STATE_DIRECTORY`, else `/var/lib/relayserver` for root, else `$XDG_STATE_HOME/relayserver`, else `~/.local/state/relayserver`.
        state_dir: Option<PathBuf> = Absent::Unset(None),
        /// Its presence switches version 1 of the protocol on, which knows neither encryption nor tokens.
        v1: Option<V1> = Absent::Unset(None),
        /// Caps and deadlines.
        limits: Limits = Absent::OfItsKeys,
    }
}

section! {
    /// `[relay.v1]`: version 1 of the protocol. Its presence switches it on.
    pub struct V1 {
        /// Where hosts of version 1 open their command channel.
        command: SocketAddr = Absent::Default(loopback(8001)),
        /// The networks that hosts of version 1 may come from. They must be named where `command` is beyond loopback.
        allow: Vec<Cidr> = Absent::Default(Cidr::loopback()),
        /// The one service that hosts of version 1 serve; there is a `[services.NAME]` for it.
        service: ServiceName = Absent::Default(ServiceName::default_name()),
        /// Whether hosts with tokens may serve that service too.
        mixed: bool = Absent::Default(false),
    }
}

section! {
    /// `[relay.limits]`: caps and deadlines.
    pub struct Limits {
        /// How many clients may be connected, waiting or in a session.
        clients: NonZeroUsize = Absent::Default(count(32_768)),
        /// How many data channels may be connected, idle or in a session.
        channels: NonZeroUsize = Absent::Default(count(65_536)),
        /// How many command channels may be connected.
        commands: NonZeroUsize = Absent::Default(count(4096)),
        /// How many connections may be under way to their hello, in all.
        handshakes: NonZeroUsize = Absent::Default(count(4096)),
        /// How many of those may come from one address (IPv6: one /64).
        handshakes_per_address: NonZeroUsize = Absent::Default(count(1024)),
        /// How long a connection may take to say hello; more than 0.
        hello_timeout: Duration = Absent::Default(Duration::from_secs(5)),
        /// How long running sessions get when the relay leaves; `"0s"` ends them at once.
        drain_timeout: Duration = Absent::Default(Duration::from_secs(10)),
    }
}

section! {
    /// `[metrics]`: where Prometheus may ask how the relay is. Its presence switches that on.
    pub struct Metrics {
        /// Where `GET /metrics` is answered. Whoever can connect there is told the names of the services, and how much they are used.
        listen: SocketAddr = Absent::Default(loopback(8003)),
    }
}

section! {
    /// `[services.NAME]`: what clients can ask for.
    pub struct RelayService {
        /// Where its clients connect.
        listen: SocketAddr = Absent::Required,
        /// How many sessions it may have at once. Without it as many as there may be clients.
        max_sessions: Option<NonZeroUsize> = Absent::Unset(None),
        /// Where clients wait that find no idle channel.
        queue: Queue = Absent::OfItsKeys,
        /// How fast its sessions may go.
        rate: Rate = Absent::OfItsKeys,
    }
}

section! {
    /// `rate` of a service: how many bytes a second its sessions may carry, in each direction. Without one, bulk moves faster: it
    /// does not pass through the relay's process.
    pub struct Rate {
        /// All of them together, at least `"1KiB"`.
        service: Option<Size> = Absent::Unset(None),
        /// Each of them, at least `"1KiB"`.
        session: Option<Size> = Absent::Unset(None),
    }
}

section! {
    /// `queue` of a service: where clients wait that find no idle channel.
    pub struct Queue {
        /// How many clients may wait. With 0 none does, and who finds no idle channel is refused.
        depth: usize = Absent::Default(1024),
        /// How long a client may wait.
        wait: Duration = Absent::Default(Duration::from_secs(5)),
    }
}

impl RelayFile {
    /// Reads `relay.toml`. `file_name` is what errors call it; `insecure` is whether the operator has said, on the command
    /// line, that hosts may come in without encryption and from anywhere.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn parse(text: &str, file_name: &str, insecure: bool) -> Result<RelayFile, Errors> {
        let (Root { relay, metrics, services }, mut reader) = Reader::read(text, file_name);
        check_addresses(&relay, metrics.as_ref(), &services, &mut reader);
        check_v1(&relay, &services, insecure, &mut reader);
        check_encryption(&relay, insecure, &mut reader);
        check_deadlines(&relay.limits, &mut reader);
        check_rates(&services, &mut reader);
        let effective = reader.finish()?;
        Ok(RelayFile { relay, metrics, services, effective })
    }

    /// Every key with its value and where that came from, in the order of the documentation; services by name.
    pub fn effective(&self) -> &[Effective] {
        &self.effective
    }

    /// The keys that the file may have, documented.
    pub fn keys() -> Vec<Key> {
        Root::keys()
    }
}

/// A table whose presence means something.
impl Setting for Option<V1> {
    fn document(_: Absent<Option<V1>>) -> Shape {
        Shape::Table(V1::keys())
    }

    fn read(place: &Place<'_>, _: Absent<Option<V1>>, reader: &mut Reader<'_>) -> Option<V1> {
        if !place.is_there() {
            reader.not_set(place);
            return None;
        }
        Some(V1::read(place, Absent::OfItsKeys, reader))
    }
}

/// A table whose presence means something.
impl Setting for Option<Metrics> {
    fn document(_: Absent<Option<Metrics>>) -> Shape {
        Shape::Table(Metrics::keys())
    }

    fn read(
        place: &Place<'_>,
        _: Absent<Option<Metrics>>,
        reader: &mut Reader<'_>,
    ) -> Option<Metrics> {
        if !place.is_there() {
            reader.not_set(place);
            return None;
        }
        Some(Metrics::read(place, Absent::OfItsKeys, reader))
    }
}

/// An address can be listened on for one thing only.
fn check_addresses(
    relay: &Relay,
    metrics: Option<&Metrics>,
    services: &BTreeMap<ServiceName, RelayService>,
    reader: &mut Reader<'_>,
) {
    let mut listeners = vec![("relay.listen".to_owned(), relay.listen)];
    listeners.extend(relay.v1.iter().map(|v1| ("relay.v1.command".to_owned(), v1.command)));
    listeners.extend(metrics.map(|metrics| ("metrics.listen".to_owned(), metrics.listen)));
    let of_service = |(name, service): (&ServiceName, &RelayService)| {
        (format!("services.{name}.listen"), service.listen)
    };
    listeners.extend(services.iter().map(of_service));
    listeners.retain(|(key, _)| reader.is_sound(key));
    // What stands first in the file is right and what follows is wrong. Defaults stand ahead of all.
    listeners.sort_by_key(|(key, _)| reader.span(key).map(|span| span.start));
    for (index, (key, address)) in listeners.iter().enumerate() {
        let earlier = listeners.iter().take(index);
        let Some((other, taken)) = earlier.into_iter().find(|(_, taken)| overlap(*taken, *address))
        else {
            continue;
        };
        let place = reader.place_shown(other);
        let by = format!("`{other}` = \"{taken}\" ({place})");
        let (table, name) = key.rsplit_once('.').unwrap_or_default();
        let message = format!(
            "`{name}` in [{table}]: expected an address of its own, found \"{address}\", taken by {by}"
        );
        reader.fault(reader.span(key).unwrap_or_default(), message);
    }
}

/// Whether the system would refuse to listen on both. A listener on `[::]` takes IPv4 connections too.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |wildcard: IpAddr, ip: IpAddr| match wildcard {
        IpAddr::V6(wildcard) => wildcard.is_unspecified(),
        IpAddr::V4(wildcard) => wildcard.is_unspecified() && ip.is_ipv4(),
    };
    let [a, b] = [one, other].map(|address| address.ip().to_canonical());
    one.port() != 0 && one.port() == other.port() && (a == b || covers(a, b) || covers(b, a))
}

/// Version 1 has no authentication: who may connect is named, and what they serve exists.
fn check_v1(
    relay: &Relay,
    services: &BTreeMap<ServiceName, RelayService>,
    insecure: bool,
    reader: &mut Reader<'_>,
) {
    let Some(v1) = &relay.v1 else {
        return;
    };
    let place = |reader: &Reader<'_>, key| reader.span(key).or(reader.span("relay.v1"));
    let sound = |reader: &Reader<'_>, key| reader.is_sound(key);
    let named = v1.allow.iter().any(|network| !network.is_loopback());
    let sound_both = sound(reader, "relay.v1.command") && sound(reader, "relay.v1.allow");
    if sound_both && !is_loopback(v1.command) && !named && !insecure {
        let message = format!(
            "`command` in [relay.v1]: expected an address on loopback, or networks beyond it in `allow`, \
             or --insecure on the command line, found \"{}\"",
            v1.command
        );
        reader.fault(place(reader, "relay.v1.command").unwrap_or_default(), message);
    }
    let names: Vec<_> = services.keys().map(ServiceName::as_str).collect();
    if reader.is_whole()
        && sound(reader, "relay.v1.service")
        && sound(reader, "services")
        && !names.contains(&v1.service.as_str())
    {
        let found = match reader.span("relay.v1.service") {
            Some(_) => format!("found \"{}\"", v1.service),
            None => format!("found the default, \"{}\"", v1.service),
        };
        let meant = did_you_mean(v1.service.as_str(), &names).replace('`', "\"");
        let message = format!(
            "`service` in [relay.v1]: expected the name of a [services.NAME] in this file, {found}{meant}"
        );
        let span = place(reader, "relay.v1.service").unwrap_or_default();
        reader.fault(span, message);
    }
}

/// Tokens do not cross a network in the clear, unless the operator says so.
fn check_encryption(relay: &Relay, insecure: bool, reader: &mut Reader<'_>) {
    let sound = reader.is_sound("relay.tls") && reader.is_sound("relay.listen");
    if sound && relay.tls == Tls::Off && !is_loopback(relay.listen) && !insecure {
        let message = format!(
            "`tls` in [relay]: expected \"auto\", a certificate, `listen` on loopback, or --insecure on the command line, \
             found \"off\" with `listen` = \"{}\"",
            relay.listen
        );
        reader.fault(reader.span("relay.tls").unwrap_or_default(), message);
    }
}

fn check_deadlines(limits: &Limits, reader: &mut Reader<'_>) {
    const HELLO: &str = "relay.limits.hello_timeout";
    if reader.is_sound(HELLO) && limits.hello_timeout.is_zero() {
        let message = "`hello_timeout` in [relay.limits]: expected more than 0, found \"0s\"";
        reader.fault(reader.span(HELLO).unwrap_or_default(), message.to_owned());
    }
}

fn check_rates(services: &BTreeMap<ServiceName, RelayService>, reader: &mut Reader<'_>) {
    for (name, service) in services {
        for (key, rate) in [("service", service.rate.service), ("session", service.rate.session)] {
            let path = format!("services.{name}.rate.{key}");
            if let Some(rate) = rate.filter(|rate| rate.0 < 1024)
                && reader.is_sound(&path)
            {
                let message = format!(
                    "`{key}` in [services.{name}.rate]: expected at least \"1KiB\", found \"{rate}\""
                );
                reader.fault(reader.span(&path).unwrap_or_default(), message);
            }
        }
    }
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn count(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_overlap_as_the_system_sees_it() {
        for (one, other, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("[::]:80", "127.0.0.1:80", true),
            ("[::]:80", "0.0.0.0:80", true),
            ("[::1]:80", "127.0.0.1:80", false),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80", true),
        ] {
            let [one, other] = [one, other].map(|text| text.parse().unwrap());
            assert_eq!(
                (overlap(one, other), overlap(other, one)),
                (expected, expected),
                "{one} {other}"
            );
        }
    }
}
