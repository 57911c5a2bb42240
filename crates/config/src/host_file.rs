//! `host.toml`: what a host is told. The keys, and what must hold between them.
//!
//! Who builds a host reads the plain structs; nothing here knows what a host does with them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::address::Forward;
use crate::effective::Effective;
use crate::errors::{Errors, Fault};
use crate::leaf::{Found, Leaf};
use crate::name::ServiceName;
use crate::reader::{Reader, Table};
use crate::schema::{Absent, Key, Section, section};
use crate::secret::Secret;

/// All that `host.toml` says, with the defaults of what it does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFile {
    /// The join line, or where it is. `None` where it comes from elsewhere, or there is none.
    pub join: Option<Secret>,
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

/// How many data channels a pool may hold: 1 to 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolSize(u16);

section! {
    struct Root {
        /// The join line: `"env:NAME"` (a variable that holds it), `"file:PATH"` (a file that holds it), or the line itself. It may
        /// come from `--join-file` or `RELAYSERVER_JOIN` instead.
        join: Option<Secret> = Absent::Unset(None),
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
        echo: Option<Echo> = Absent::Unset(None),
        /// How many data channels are kept waiting for clients.
        pool: Pool = Absent::OfItsKeys,
    }
}

section! {
    /// `pool` of a service: how many data channels are kept waiting. `min` does not exceed `max`.
    pub struct Pool {
        /// At least so many, 1 to 1000.
        min: PoolSize = Absent::Default(PoolSize(10)),
        /// At most so many, 1 to 1000, however many the relay asks for.
        max: PoolSize = Absent::Default(PoolSize::MAX),
    }
}

impl HostFile {
    /// Reads `host.toml`. `file_name` is what errors call it. The join line is not looked for: [`Secret::resolve`].
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn parse(text: &str, file_name: &str) -> Result<HostFile, Errors> {
        let (Root { join, services }, mut reader) = Reader::read(text, file_name);
        for (name, service) in &services {
            check_pool(name, &service.pool, &mut reader);
        }
        let effective = reader.finish()?;
        Ok(HostFile { join, services, effective })
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
        HostService { target, pool: keys.pool }
    }
}

/// The word `true`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Echo;

impl Leaf for Echo {
    const EXPECTED: &'static str = "true";

    fn read(found: &Found<'_>) -> Result<Echo, Vec<Fault>> {
        match found.value.as_bool() {
            Some(true) => Ok(Echo),
            _ => found.wrong(Self::EXPECTED),
        }
    }

    fn show(&self) -> Option<String> {
        Some("true".to_owned())
    }

    fn placeholder() -> Echo {
        Echo
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
