//! How the host port is encrypted: one word, or the operator's own certificate and key. The files are not read here.

use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use crate::errors::Fault;
use crate::leaf::{Found, Leaf};
use crate::reader::did_you_mean;
use crate::source::key_quoted;

/// How the host port is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// By a key and a certificate that the relay makes once and keeps in its state directory.
    Auto,
    /// Not at all.
    Off,
    /// By the operator's own.
    Files {
        /// The file with the certificate and those that it rests on.
        cert: PathBuf,
        /// The file with its private key.
        key: PathBuf,
    },
}

impl Leaf for Tls {
    const EXPECTED: &'static str = "\"auto\", \"off\" or { cert = PATH, key = PATH }";

    fn read(found: &Found<'_>) -> Result<Tls, Vec<Fault>> {
        match found.value {
            DeValue::String(word) => match word.as_ref() {
                "auto" => Ok(Tls::Auto),
                "off" => Ok(Tls::Off),
                word => {
                    let meant = did_you_mean(word, &["auto", "off"]).replace('`', "\"");
                    let found_text = found.describe();
                    found.fault(format!("expected {}, found {found_text}{meant}", Self::EXPECTED))
                }
            },
            DeValue::Table(table) => files(table, found),
            _ => found.wrong(Self::EXPECTED),
        }
    }

    fn show(&self) -> Option<String> {
        Some(match self {
            Tls::Auto => "\"auto\"".to_owned(),
            Tls::Off => "\"off\"".to_owned(),
            Tls::Files { cert, key } => {
                let [cert, key] = [cert, key].map(|path| path.show().unwrap_or_default());
                format!("{{ cert = {cert}, key = {key} }}")
            }
        })
    }

    fn placeholder() -> Tls {
        Tls::Auto
    }
}

/// A certificate and its key: neither is of use without the other.
fn files(table: &DeTable<'_>, found: &Found<'_>) -> Result<Tls, Vec<Fault>> {
    const NAMES: &[&str] = &["cert", "key"];
    let mut faults = Vec::new();
    for (key, _) in table {
        let name = key.get_ref().as_ref();
        if !NAMES.contains(&name) {
            let meant = did_you_mean(name, NAMES);
            let message =
                format!("unknown key {}, expected one of cert, key{meant}", key_quoted(name));
            faults.push(Fault { span: key.span(), message });
        }
    }
    let mut file = |name: &str, other: &str| {
        let Some(value) = table.get(name) else {
            let message = if table.contains_key(other) {
                format!("`{other}` without `{name}`: expected both, a certificate and its key")
            } else {
                format!("missing key `{name}`: expected {}", PathBuf::EXPECTED)
            };
            faults.push(Fault { span: found.span.clone(), message });
            return None;
        };
        let value = Found { span: value.span(), value: value.get_ref() };
        let path = PathBuf::read(&value).map_err(|more| {
            faults.extend(more.into_iter().map(|Fault { span, message }| Fault {
                span,
                message: format!("`{name}`: {message}"),
            }));
        });
        path.ok()
    };
    let (cert, key) = (file("cert", "key"), file("key", "cert"));
    match (cert, key) {
        (Some(cert), Some(key)) if faults.is_empty() => Ok(Tls::Files { cert, key }),
        _ => Err(faults),
    }
}
