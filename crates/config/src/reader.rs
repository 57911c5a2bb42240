//! Walks a file's tables, finds what is asked for, and keeps what is wrong, what every key comes to, and where it stands.
//!
//! Driven by the tables of keys (`schema.rs`), and then by the checks between keys in `relay_file.rs` and `host_file.rs`. It stops
//! at nothing: whatever is wrong is kept, and the rest is read.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::effective::{Effective, Origin};
use crate::errors::{Errors, Fault};
use crate::leaf::{Found, Leaf};
use crate::name::ServiceName;
use crate::schema::{Absent, Key, Section, Setting, Shape, nearest};
use crate::secret::SECRET_KEYS;
use crate::source::{Source, key_quoted};
use crate::syntax;

/// The state of reading one file.
pub(crate) struct Reader<'t> {
    source: Source<'t>,
    faults: Vec<Fault>,
    /// The lines that are no TOML. What else seems wrong there comes of that.
    broken: BTreeSet<usize>,
    top_names: Vec<&'static str>,
    /// The keys that unknown ones were probably meant to be.
    meant: BTreeSet<String>,
    /// The keys whose values, or whose tables, are not to be relied on.
    unsound: BTreeSet<String>,
    /// Where the keys that the file has stand: key and value.
    spans: BTreeMap<String, Range<usize>>,
    values: Vec<(String, Option<String>)>,
}

/// A table of the file, or the lack of one.
#[derive(Clone)]
pub(crate) struct Table<'f> {
    /// Its name with its parents; empty for the top of the file.
    key: String,
    /// Where to point when a key is missing in it.
    span: Range<usize>,
    entries: Option<&'f DeTable<'f>>,
}

/// Where a key is or could be.
pub(crate) struct Place<'f> {
    table: Table<'f>,
    name: String,
    found: Option<Found<'f>>,
}

impl<'t> Reader<'t> {
    /// Reads a whole file as one section.
    pub(crate) fn read<S: Section>(text: &'t str, file_name: &'t str) -> (S, Reader<'t>) {
        let mut source = Source::new(text, file_name);
        let (readable, faults) = syntax::read(&source);
        let (root, _) = DeTable::parse_recoverable(&readable);
        if !faults.is_empty() {
            source.hide_what_could_be_secret();
        }
        let line = |fault: &Fault| source.position(fault.span.start).line;
        let mut reader = Reader {
            broken: faults.iter().map(line).collect(),
            faults,
            top_names: S::keys().iter().map(|key| key.name).collect(),
            meant: BTreeSet::new(),
            unsound: BTreeSet::new(),
            spans: BTreeMap::new(),
            values: Vec::new(),
            source,
        };
        reader.hide_secrets(root.get_ref());
        let table = Table { key: String::new(), span: 0..0, entries: Some(root.get_ref()) };
        let section = S::read_section(&table, &mut reader);
        (section, reader)
    }

    /// What every key comes to, or else what is wrong.
    pub(crate) fn finish(self) -> Result<Vec<Effective>, Errors> {
        let Reader { source, faults, spans, values, .. } = self;
        if let Some(errors) = Errors::new(faults, &source) {
            return Err(errors);
        }
        let origin = |key: &str| match spans.get(key) {
            Some(span) => {
                let line = source.position(span.start).line;
                Origin::Line { file: source.name.to_owned(), line }
            }
            None => Origin::Default,
        };
        let values = values.into_iter();
        Ok(values.map(|(key, value)| Effective { origin: origin(&key), key, value }).collect())
    }

    /// Complains of every key of a table that is none of these.
    pub(crate) fn known(&mut self, table: &Table<'_>, names: &[&str]) {
        for (key, _) in table.entries.into_iter().flatten() {
            let name = key.get_ref().as_ref();
            if names.contains(&name) {
                continue;
            }
            let expected = match names {
                [name] => format!("expected {name}"),
                names => format!("expected one of {}", names.join(", ")),
            };
            let hint = match nearest(name, names) {
                Some(meant) => {
                    self.meant.insert(table.place(meant).key());
                    did_you_mean(name, names)
                }
                None if self.top_names.contains(&name) => {
                    format!("; `{name}` belongs at the top of the file, ahead of every table")
                }
                None => String::new(),
            };
            let message =
                format!("unknown key {} {}, {expected}{hint}", key_quoted(name), table.shown());
            self.fault(key.span(), message);
        }
    }

    /// The table at a place: an absent one, and what is no table, as an empty one.
    pub(crate) fn table<'f>(&mut self, place: &Place<'f>) -> Table<'f> {
        let key = place.key();
        let Some(found) = &place.found else {
            return Table { key, span: place.table.span.clone(), entries: None };
        };
        if !found.value.is_table() {
            let found_text = found.describe();
            let message = format!("{}: expected a table, found {found_text}", place.shown());
            self.fault(found.span.clone(), message);
            self.unsound.insert(key.clone());
        }
        self.spans.insert(key.clone(), found.span.clone());
        Table { key, span: found.span.clone(), entries: found.value.as_table() }
    }

    /// The value at a place, or what holds without one.
    pub(crate) fn leaf<T: Leaf>(&mut self, place: &Place<'_>, absent: Absent<T>) -> T {
        let key = place.key();
        let Some(found) = &place.found else {
            if let Absent::Required = absent {
                let expected = T::EXPECTED;
                let (name, table) = (key_quoted(&place.name), place.table.shown());
                let message = format!("missing key {name} {table}: expected {expected}");
                self.missing(place, message);
                self.unsound.insert(key.clone());
            }
            return self.settled(key, absent);
        };
        self.spans.insert(key.clone(), found.span.clone());
        match T::read(found) {
            Ok(value) => {
                self.values.push((key, value.show()));
                value
            }
            Err(faults) => {
                for Fault { span, message } in faults {
                    self.fault(span, format!("{}: {message}", place.shown()));
                }
                self.unsound.insert(key.clone());
                self.settled(key, absent)
            }
        }
    }

    fn settled<T: Leaf>(&mut self, key: String, absent: Absent<T>) -> T {
        let value = absent.value().unwrap_or_else(T::placeholder);
        self.values.push((key, value.show()));
        value
    }

    /// Keeps that a table whose presence means something is not there.
    pub(crate) fn not_set(&mut self, place: &Place<'_>) {
        self.values.push((place.key(), None));
    }

    /// Keeps what is wrong, unless it comes of a line that is no TOML.
    pub(crate) fn fault(&mut self, span: Range<usize>, message: String) {
        let first = self.source.position(span.start).line;
        let last = self.source.position(span.end.saturating_sub(1).max(span.start)).line;
        if self.broken.range(first..=last).next().is_none() {
            self.faults.push(Fault { span, message });
        }
    }

    /// Keeps that something is missing in a table, unless it may stand in what could not be read or behind a misspelt key.
    pub(crate) fn missing(&mut self, place: &Place<'_>, message: String) {
        if self.broken.is_empty() && !self.meant.contains(&place.key()) {
            self.faults.push(Fault { span: place.table.span.clone(), message });
        }
    }

    /// Whether a key's value was read, or holds by default: neither it nor a table around it is in error or misspelt.
    pub(crate) fn is_sound(&self, key: &str) -> bool {
        let parents = key.match_indices('.').filter_map(|(dot, _)| key.get(..dot));
        let relied_on = |key| !self.unsound.contains(key) && !self.meant.contains(key);
        parents.chain([key]).all(relied_on)
    }

    /// Where the file has a key.
    pub(crate) fn span(&self, key: &str) -> Option<Range<usize>> {
        self.spans.get(key).cloned()
    }

    /// Whether everything in the file could be read, so that what is not there is missing.
    pub(crate) fn is_whole(&self) -> bool {
        self.broken.is_empty()
    }

    /// `FILE:LINE` of a key that the file has, for a message that is about two places.
    pub(crate) fn place_shown(&self, key: &str) -> String {
        match self.spans.get(key) {
            Some(span) => {
                format!("{}:{}", self.source.name, self.source.position(span.start).line)
            }
            None => "the default".to_owned(),
        }
    }

    /// Finds the values of secrets, also behind a key that is misspelt or in the wrong place.
    fn hide_secrets(&mut self, table: &DeTable<'_>) {
        for (key, value) in table {
            if nearest(key.get_ref(), SECRET_KEYS).is_some() {
                self.source.hide(value.span());
            }
            let inner: Vec<&DeTable<'_>> = match value.get_ref() {
                DeValue::Table(table) => vec![table],
                DeValue::Array(array) => {
                    array.iter().filter_map(|element| element.get_ref().as_table()).collect()
                }
                _ => Vec::new(),
            };
            for table in inner {
                self.hide_secrets(table);
            }
        }
    }
}

impl<'f> Table<'f> {
    /// Where a key of it is or could be.
    pub(crate) fn place(&self, name: &str) -> Place<'f> {
        let found = self.entries.and_then(|entries| entries.get_key_value(name));
        let found = found.map(|(_, value)| Found { span: value.span(), value: value.get_ref() });
        Place { table: self.clone(), name: name.to_owned(), found }
    }

    /// `in [services.ssh]`.
    pub(crate) fn shown(&self) -> String {
        match self.key.as_str() {
            "" => "at the top of the file".to_owned(),
            key => format!("in [{}]", key_quoted(key).trim_matches('`')),
        }
    }
}

impl Place<'_> {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the file has it.
    pub(crate) fn is_there(&self) -> bool {
        self.found.is_some()
    }

    /// The key with its tables.
    pub(crate) fn key(&self) -> String {
        match self.table.key.as_str() {
            "" => self.name.clone(),
            table => format!("{table}.{}", self.name),
        }
    }

    /// `` `listen` in [services.ssh] ``.
    pub(crate) fn shown(&self) -> String {
        format!("{} {}", key_quoted(&self.name), self.table.shown())
    }
}

/// A table of tables under names of the operator's own: `[services.NAME]`.
impl<S: Section> Setting for BTreeMap<ServiceName, S> {
    fn document(_: Absent<Self>) -> Shape {
        let meaning =
            "A service, by its name: 1 to 63 of a-z, 0-9 and -, without a - at either end.";
        let shape = Shape::Table(S::keys());
        Shape::Table(vec![Key { name: "NAME", meaning: meaning.to_owned(), shape }])
    }

    fn read(place: &Place<'_>, _: Absent<Self>, reader: &mut Reader<'_>) -> Self {
        let table = reader.table(place);
        let mut services = BTreeMap::new();
        for (key, _) in table.entries.into_iter().flatten() {
            let text = key.get_ref().as_ref();
            let inner = reader.table(&table.place(text));
            let section = S::read_section(&inner, reader);
            match text.parse() {
                Ok(name) => {
                    services.insert(name, section);
                }
                Err(error) => reader.fault(key.span(), format!("service name: {error}")),
            }
        }
        services
    }
}

/// `; did you mean …?`, or nothing.
pub(crate) fn did_you_mean(text: &str, names: &[&str]) -> String {
    nearest(text, names).map_or(String::new(), |name| format!("; did you mean `{name}`?"))
}
