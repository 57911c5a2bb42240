//! `host.toml`: what a host is told. The keys, and what must hold between them.
//!
//! Who builds a host reads the plain structs; nothing here knows what a host does with them.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::address::Forward;
use crate::effective::Effective;
use crate::errors::{Errors, Fault};
use crate::leaf::{Found, Leaf};
use crate::name::ServiceName;
use crate::reader::{Place, Reader, Table};
use crate::schema::{Absent, Key, Section, Setting, Shape, section};
use crate::secret::Secret;

/// All that `host.toml` says, with the defaults of what it does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFile {
    /// The join line, or where it is. `None` where it comes from elsewhere, or there is none.
    pub join: Option<Secret>,
    /// Its share of the sessions beside other hosts.
    pub weight: Weight,
    /// How many sessions it takes at once. `None`: any number.
    pub max_sessions: Option<NonZeroUsize>,
    /// `[services.NAME]`, by name. None where the file names none.
    pub services: BTreeMap<ServiceName, HostService>,
    effective: Vec<Effective>,
}

/// `[services.NAME]`: what a host serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostService {
    /// What its sessions are handed to.
    pub target: Target,
    /// How many data channels are kept waiting.
    pub pool: Pool,
    /// How its server is looked after. Only of a service that is forwarded.
    pub check: Option<Check>,
}

/// What the sessions of a service are handed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A server that each session is connected to.
    Forward(Forward),
    /// A program that is run for each session, with its arguments. Never empty.
    Exec(Vec<String>),
    /// Every byte is sent back.
    Echo,
}

/// A bound of a pool: 1 to 1000 data channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolSize(u16);

/// A host's share of the sessions: 1 to 10,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(u16);

section! {
    struct Root {
        /// The join line: `"env:NAME"` (a variable that holds it), `"file:PATH"` (a file that holds it), or the line itself. It may
        /// come from `--join-file` or `RELAYSERVER_JOIN` instead.
        join: Option<Secret> = Absent::Unset(None),
        /// The host's share of the sessions beside other hosts of the same services: one of twice the weight gets twice as many.
        weight: Weight = Absent::Default(Weight(100)),
        /// How many sessions the host takes at once, of all its services together. Without it any number.
        max_sessions: Option<NonZeroUsize> = Absent::Unset(None),
        /// What the host serves.
        services: BTreeMap<ServiceName, HostService> = Absent::OfItsKeys,
    }
}

section! {
    /// One of the first three.
    struct ServiceKeys {
        /// Connect each session to this server: a port of this machine, `"HOST:PORT"` or `"unix:/PATH"`. A service has exactly
        /// one of `forward`, `exec` and `echo`.
        forward: Option<Forward> = Absent::Unset(None),
        /// Run this program for each session; its standard input and output are the session.
        exec: Option<Vec<String>> = Absent::Unset(None),
        /// Send every byte back; only `true` can be said.
        echo: Option<True> = Absent::Unset(None),
        /// Look after the server of `forward`: the host takes no sessions of the service while it does not answer.
        check: Option<Check> = Absent::Unset(None),
        /// How many data channels are kept waiting for clients.
        pool: Pool = Absent::OfItsKeys,
    }
}

section! {
    /// `pool` of a service: how many data channels are kept waiting. `min` does not exceed `max`.
    pub struct Pool {
        /// At least so many, 1 to 1000.
        min: PoolSize = Absent::Default(PoolSize(10)),
        /// At most so many are dialled, 1 to 1000, however many the relay asks for: it goes by how clients arrive. As many again may wait
        /// that have come back from sessions.
        max: PoolSize = Absent::Default(PoolSize(256)),
    }
}

section! {
    /// `check` of a service: how its server is looked after. Its presence switches it on.
    pub struct Check {
        /// By connecting to it; only `true` can be said.
        tcp: True = Absent::Default(True),
        /// How often, `"1s"` to `"1h"`.
        every: Duration = Absent::Default(Duration::from_secs(5)),
    }
}

impl HostFile {
    /// Reads `host.toml`. `file_name` is what errors call it. The join line is not looked for: [`Secret::resolve`].
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn parse(text: &str, file_name: &str) -> Result<HostFile, Errors> {
        let (root, mut reader) = Reader::read(text, file_name);
        let Root { join, weight, max_sessions, services } = root;
        for (name, service) in &services {
            check_pool(name, &service.pool, &mut reader);
            check_check(name, service, &mut reader);
        }
        let effective = reader.finish()?;
        Ok(HostFile { join, weight, max_sessions, services, effective })
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

impl PoolSize {
    const MAX: PoolSize = PoolSize(1000);
    const RANGE: RangeInclusive<i64> = 1..=1000;

    /// The number, 1 to 1000.
    pub fn get(self) -> usize {
        self.0.into()
    }
}

impl Weight {
    const RANGE: RangeInclusive<i64> = 1..=10_000;

    /// The number, 1 to 10,000.
    pub fn get(self) -> u32 {
        self.0.into()
    }
}

impl Section for HostService {
    fn keys() -> Vec<Key> {
        ServiceKeys::keys()
    }

    fn read_section(table: &Table<'_>, reader: &mut Reader<'_>) -> HostService {
        let keys = ServiceKeys::read_section(table, reader);
        check_one_target(table, reader);
        let target = match keys {
            ServiceKeys { forward: Some(forward), .. } => Target::Forward(forward),
            ServiceKeys { exec: Some(program), .. } => Target::Exec(program),
            _ => Target::Echo,
        };
        HostService { target, pool: keys.pool, check: keys.check }
    }
}

/// The word `true`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct True;

impl Leaf for True {
    const EXPECTED: &'static str = "true";

    fn read(found: &Found<'_>) -> Result<True, Vec<Fault>> {
        match found.value.as_bool() {
            Some(true) => Ok(True),
            _ => found.wrong(Self::EXPECTED),
        }
    }

    fn show(&self) -> Option<String> {
        Some("true".to_owned())
    }

    fn placeholder() -> True {
        True
    }
}

impl Leaf for PoolSize {
    const EXPECTED: &'static str = "a number from 1 to 1000";

    fn read(found: &Found<'_>) -> Result<PoolSize, Vec<Fault>> {
        let number = found.integer().filter(|number| PoolSize::RANGE.contains(number));
        let number = number.and_then(|number| u16::try_from(number).ok());
        number.map_or_else(|| found.wrong(Self::EXPECTED), |number| Ok(PoolSize(number)))
    }

    fn show(&self) -> Option<String> {
        Some(self.0.to_string())
    }

    fn placeholder() -> PoolSize {
        PoolSize::MAX
    }
}

impl Leaf for Weight {
    const EXPECTED: &'static str = "a number from 1 to 10000";

    fn read(found: &Found<'_>) -> Result<Weight, Vec<Fault>> {
        let number = found.integer().filter(|number| Weight::RANGE.contains(number));
        let number = number.and_then(|number| u16::try_from(number).ok());
        number.map_or_else(|| found.wrong(Self::EXPECTED), |number| Ok(Weight(number)))
    }

    fn show(&self) -> Option<String> {
        Some(self.0.to_string())
    }

    fn placeholder() -> Weight {
        Weight(1)
    }
}

/// A table whose presence means something.
impl Setting for Option<Check> {
    fn document(_: Absent<Option<Check>>) -> Shape {
        Shape::Table(Check::keys())
    }

    fn read(place: &Place<'_>, _: Absent<Option<Check>>, reader: &mut Reader<'_>) -> Option<Check> {
        if !place.is_there() {
            reader.not_set(place);
            return None;
        }
        Some(Check::read(place, Absent::OfItsKeys, reader))
    }
}

/// A service hands its sessions to one target.
fn check_one_target(table: &Table<'_>, reader: &mut Reader<'_>) {
    let targets = ["forward", "exec", "echo"].map(|name| table.place(name));
    let mut there: Vec<_> = targets.iter().filter(|target| target.is_there()).collect();
    there.sort_by_key(|target| reader.span(&target.key()).map(|span| span.start));
    match there.as_slice() {
        [] => {
            let [forward, ..] = &targets;
            let message =
                format!("missing key {}: expected one of forward, exec, echo", table.shown());
            if targets.iter().all(|target| reader.is_sound(&target.key())) {
                reader.missing(forward, message);
            }
        }
        [first, more @ ..] => {
            for target in more {
                let place = reader.place_shown(&first.key());
                let message = format!(
                    "{}: expected one of forward, exec, echo, found `{}` too ({place})",
                    target.shown(),
                    first.name(),
                );
                reader.fault(reader.span(&target.key()).unwrap_or_default(), message);
            }
        }
    }
}

/// Only a server can be looked after, and neither without end nor once in a blue moon.
fn check_check(name: &ServiceName, service: &HostService, reader: &mut Reader<'_>) {
    let Some(check) = &service.check else {
        return;
    };
    let (key, every) = (format!("services.{name}.check"), format!("services.{name}.check.every"));
    let sound =
        ["forward", "exec", "echo"].map(|it| reader.is_sound(&format!("services.{name}.{it}")));
    if sound.iter().all(|sound| *sound) && !matches!(service.target, Target::Forward(_)) {
        let message = format!("`check` in [services.{name}]: expected `forward` beside it");
        reader.fault(reader.span(&key).unwrap_or_default(), message);
    }
    if reader.is_sound(&every) && !EVERY.contains(&check.every) {
        let message = format!(
            "`every` in [services.{name}.check]: expected \"1s\" to \"1h\", found \"{}\"",
            check.every.show().unwrap_or_default().trim_matches('"')
        );
        reader.fault(reader.span(&every).unwrap_or_default(), message);
    }
}

/// How often a server may be looked after.
const EVERY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

fn check_pool(name: &ServiceName, pool: &Pool, reader: &mut Reader<'_>) {
    let [min, max] = ["min", "max"].map(|bound| format!("services.{name}.pool.{bound}"));
    if !reader.is_sound(&min) || !reader.is_sound(&max) || pool.min <= pool.max {
        return;
    }
    let of = |key: &str, size: PoolSize| match reader.span(key) {
        Some(_) => size.get().to_string(),
        None => format!("{} by default", size.get()),
    };
    let (found, limit) = (of(&min, pool.min), of(&max, pool.max));
    let message = format!(
        "`min` in [services.{name}.pool]: expected at most `max`, found {found} with `max` = {limit}"
    );
    let span = reader.span(&min).or(reader.span(&max));
    reader.fault(span.unwrap_or_default(), message);
}
