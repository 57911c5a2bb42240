//! Numbers with units: durations (`500ms`, `5s`, `2m`, `12h`, `30d`) and sizes (`16KiB`, `1MiB`). Text to values and back.

use std::fmt;
use std::time::Duration;

use toml::de::DeValue;

use crate::errors::Fault;
use crate::leaf::{Found, Leaf, toml_string};

/// Units and how much each is of the smallest, from the largest down.
type Units = [(&'static str, u64)];

const DURATIONS: &Units =
    &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

const SIZES: &Units = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// The longest duration, 10 years: longer than anything here runs, and no clock overflows on adding it.
const DURATION_MAX: Duration = Duration::from_secs(3650 * 86_400);

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&with_unit(self.0, SIZES))
    }
}

impl Leaf for Duration {
    const EXPECTED: &'static str =
        "a time with its unit like \"500ms\", \"5s\", \"2m\", \"12h\" or \"30d\"";

    fn read(found: &Found<'_>) -> Result<Duration, Vec<Fault>> {
        let duration = Duration::from_millis(read(found, DURATIONS, "s", Self::EXPECTED)?);
        if duration > DURATION_MAX {
            return found.wrong("a time of at most \"3650d\"");
        }
        Ok(duration)
    }

    fn show(&self) -> Option<String> {
        let millis = u64::try_from(self.as_millis()).unwrap_or(u64::MAX);
        Some(toml_string(&with_unit(millis, DURATIONS)))
    }

    fn placeholder() -> Duration {
        Duration::ZERO
    }
}

impl Leaf for Size {
    const EXPECTED: &'static str = "a size with its unit like \"512B\", \"16KiB\" or \"1MiB\"";

    fn read(found: &Found<'_>) -> Result<Size, Vec<Fault>> {
        read(found, SIZES, "KiB", Self::EXPECTED).map(Size)
    }

    fn show(&self) -> Option<String> {
        Some(toml_string(&self.to_string()))
    }

    fn placeholder() -> Size {
        Size(0)
    }
}

/// A number with a unit, as a count of the smallest unit. A number alone is told that it lacks one.
fn read(
    found: &Found<'_>,
    units: &Units,
    unit_likely: &str,
    expected: &str,
) -> Result<u64, Vec<Fault>> {
    let bare = match found.value {
        DeValue::Integer(_) => Some(found.describe()),
        DeValue::String(text) => {
            Some(text.as_ref()).filter(|text| is_number(text)).map(str::to_owned)
        }
        _ => None,
    };
    if let Some(number) = bare {
        return found.fault(format!("expected {expected}, found {number} without a unit; did you mean \"{number}{unit_likely}\"?"));
    }
    let amount = found.value.as_str().and_then(|text| {
        let digits = text.find(|char: char| !char.is_ascii_digit())?;
        let (number, unit) = text.split_at_checked(digits)?;
        let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
        number.parse::<u64>().ok()?.checked_mul(*factor)
    });
    amount.map_or_else(|| found.wrong(expected), Ok)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() < 20 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// In the largest unit that leaves no rest.
fn with_unit(amount: u64, units: &Units) -> String {
    let fits = |(_, factor): &&(&str, u64)| amount.is_multiple_of(*factor) && amount > 0;
    match units.iter().find(fits) {
        Some((unit, factor)) => format!("{}{unit}", amount / factor),
        None if units == DURATIONS => "0s".to_owned(),
        None => "0B".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text<T: Leaf>(text: &str) -> Result<T, String> {
        let value = DeValue::String(text.into());
        let read = T::read(&Found { span: 0..1, value: &value });
        read.map_err(|faults| faults.into_iter().map(|fault| fault.message).collect())
    }

    #[test]
    fn durations_read_back_in_the_largest_unit_that_fits() {
        for (text, millis, shown) in [
            ("500ms", 500, "500ms"),
            ("5s", 5000, "5s"),
            ("90s", 90_000, "90s"),
            ("120s", 120_000, "2m"),
            ("12h", 43_200_000, "12h"),
            ("30d", 2_592_000_000, "30d"),
            ("0ms", 0, "0s"),
            ("3650d", 315_360_000_000, "3650d"),
        ] {
            let duration: Duration = read_text(text).unwrap();
            assert_eq!(duration, Duration::from_millis(millis), "{text}");
            assert_eq!(duration.show(), Some(format!("\"{shown}\"")));
        }
    }

    #[test]
    fn sizes_read_back_in_the_largest_unit_that_fits() {
        for (text, bytes, shown) in
            [("0B", 0, "0B"), ("16KiB", 16_384, "16KiB"), ("1024KiB", 1 << 20, "1MiB")]
        {
            let size: Size = read_text(text).unwrap();
            assert_eq!(size, Size(bytes), "{text}");
            assert_eq!(size.to_string(), shown);
        }
        for text in ["16KB", "1 MiB", "1.5MiB", "-1B", "18446744073709551615KiB"] {
            assert!(read_text::<Size>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_number_without_its_unit_is_told_so() {
        let message = read_text::<Duration>("5").unwrap_err();
        assert_eq!(
            message,
            format!(
                "expected {}, found 5 without a unit; did you mean \"5s\"?",
                Duration::EXPECTED
            )
        );
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in
            ["", "s", "-5s", "5 s", "5S", "5sec", "1.5s", "1m30s", "3651d", "99999999999999999999s"]
        {
            assert!(read_text::<Duration>(text).is_err(), "{text}");
        }
    }
}
