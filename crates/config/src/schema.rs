//! What a file may say: tables of keys, each key one field with its documentation. The one place that adding a key changes.
//!
//! [`section!`] makes three things of such a table: the public struct, how it is read ([`Section`]), and its documentation
//! ([`Key`]). So none of them can fall behind. Values are `leaf.rs`'s matter; nothing here looks at a file's text.

use crate::leaf::Leaf;
use crate::reader::{Place, Reader, Table};

/// A key of a file, documented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name; `NAME` where a name of the operator's own stands.
    pub name: &'static str,
    /// What it means.
    pub meaning: String,
    /// A value, or a table of more keys.
    pub shape: Shape,
}

/// What a key takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A value.
    Value {
        /// What is expected, in words.
        expected: &'static str,
        /// What it is where the file does not say, as the file would say it.
        default: Option<String>,
        /// Whether the file must say it.
        required: bool,
    },
    /// A table with these keys.
    Table(Vec<Key>),
}

/// What holds where a file does not have a key.
pub(crate) enum Absent<T> {
    /// An error.
    Required,
    /// This value.
    Default(T),
    /// Nothing: the type can say so.
    Unset(T),
    /// Of a table: the defaults of its keys.
    OfItsKeys,
}

impl<T> Absent<T> {
    pub(crate) fn value(self) -> Option<T> {
        match self {
            Absent::Default(value) | Absent::Unset(value) => Some(value),
            Absent::Required | Absent::OfItsKeys => None,
        }
    }
}

/// What may stand behind a key: a [`Leaf`], or a table.
pub(crate) trait Setting: Sized {
    fn document(absent: Absent<Self>) -> Shape;

    /// Reads what is at a place, which may be nothing. What is wrong is told to the reader; the answer is then what `absent`
    /// says and goes nowhere but into further checks.
    fn read(place: &Place<'_>, absent: Absent<Self>, reader: &mut Reader<'_>) -> Self;
}

/// A table with a fixed set of keys.
pub(crate) trait Section: Sized {
    fn keys() -> Vec<Key>;

    /// Reads every key, and complains of all others. An absent table is read as an empty one.
    fn read_section(table: &Table<'_>, reader: &mut Reader<'_>) -> Self;
}

impl<T: Leaf> Setting for T {
    fn document(absent: Absent<T>) -> Shape {
        let required = matches!(absent, Absent::Required);
        let default = absent.value().and_then(|value| value.show());
        Shape::Value { expected: T::EXPECTED, default, required }
    }

    fn read(place: &Place<'_>, absent: Absent<T>, reader: &mut Reader<'_>) -> T {
        reader.leaf(place, absent)
    }
}

/// Makes a table of keys: `/// meaning`, `name: Type = what holds where it is absent`.
macro_rules! section {
    ($(#[$about:meta])* $vis:vis struct $Section:ident {
        $($(#[doc = $meaning:literal])+ $name:ident: $Type:ty = $absent:expr,)+
    }) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        $vis struct $Section {
            $($(#[doc = $meaning])+ pub $name: $Type,)+
        }

        impl $crate::schema::Section for $Section {
            fn keys() -> Vec<$crate::schema::Key> {
                vec![$($crate::schema::Key {
                    name: stringify!($name),
                    meaning: concat!($($meaning),+).trim().to_owned(),
                    shape: <$Type as $crate::schema::Setting>::document($absent),
                }),+]
            }

            fn read_section(
                table: &$crate::reader::Table<'_>,
                reader: &mut $crate::reader::Reader<'_>,
            ) -> $Section {
                reader.known(table, &[$(stringify!($name)),+]);
                $(let $name = <$Type as $crate::schema::Setting>::read(
                    &table.place(stringify!($name)), $absent, reader,
                );)+
                $Section { $($name),+ }
            }
        }

        impl $crate::schema::Setting for $Section {
            fn document(_: $crate::schema::Absent<$Section>) -> $crate::schema::Shape {
                $crate::schema::Shape::Table(<$Section as $crate::schema::Section>::keys())
            }

            fn read(
                place: &$crate::reader::Place<'_>,
                _: $crate::schema::Absent<$Section>,
                reader: &mut $crate::reader::Reader<'_>,
            ) -> $Section {
                let table = reader.table(place);
                <$Section as $crate::schema::Section>::read_section(&table, reader)
            }
        }
    };
}
pub(crate) use section;

/// The name that was probably meant, where one is near enough: one slip in a short name, more in a long one. Case and the choice
/// between `-` and `_` count for nothing.
pub(crate) fn nearest<'n>(text: &str, names: &[&'n str]) -> Option<&'n str> {
    const LONG: usize = 64;
    if text.len() > LONG {
        return None;
    }
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let distance = |name: &&str| strsim::osa_distance(&plain(text), &plain(name));
    let near = names.iter().map(|name| (distance(name), *name)).min_by_key(|(far, _)| *far)?;
    let (far, name) = near;
    (far <= (name.len() / 3).max(1)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_the_nearest_name() {
        let names = ["listen", "max_sessions", "queue", "tls"];
        for (typo, meant) in [
            ("lisen", "listen"),
            ("Listen", "listen"),
            ("max-sessions", "max_sessions"),
            ("maxsession", "max_sessions"),
            ("queeu", "queue"),
            ("tsl", "tls"),
        ] {
            assert_eq!(nearest(typo, &names), Some(meant), "{typo}");
        }
        for far in ["", "port", "session", "quux_queue", "ssl2"] {
            assert_eq!(nearest(far, &names), None, "{far}");
        }
    }
}
