//! What is no TOML in a file, and what can be read of it all the same.
//!
//! The parser goes on behind most mistakes. Behind two it does not, a line without `=` and a table's name without its `]`; so such a
//! line is taken out and the rest is read again. Driven by the reader. Nothing in here knows any key.

use std::borrow::Cow;
use std::collections::BTreeSet;

use toml::de::DeTable;

use crate::errors::Fault;
use crate::source::Source;

/// How often lines are taken out. Once is enough, but for what taking one out brings to light.
const ROUNDS_MAX: usize = 4;

/// What is no TOML: the first mistake of each line, for one makes several. And the text without what would end the reading, every
/// other byte in its place.
pub(crate) fn read<'t>(source: &Source<'t>) -> (Cow<'t, str>, Vec<Fault>) {
    let mut text = Cow::Borrowed(source.text);
    let mut faults: Vec<Fault> = Vec::new();
    let mut broken = BTreeSet::new();
    for _ in 0..ROUNDS_MAX {
        let (_, errors) = DeTable::parse_recoverable(&text);
        let mut lines = Vec::new();
        for error in errors {
            let span = error.span().unwrap_or_default();
            let line = source.position(span.start).line;
            lines.push(line);
            if broken.insert(line) {
                faults.push(Fault { span, message: error.message().to_owned() });
            }
        }
        let Some(repaired) = without_what_ends_the_reading(&text, &lines) else {
            break;
        };
        text = Cow::Owned(repaired);
    }
    (text, faults)
}

/// With spaces for those of the lines that have no `=`, and for the whole table where its name is broken. `None` where there is
/// nothing to take out.
fn without_what_ends_the_reading(text: &str, broken: &[usize]) -> Option<String> {
    let mut repaired = String::with_capacity(text.len());
    let mut in_broken_table = false;
    let mut changed = false;
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        let is_broken = broken.contains(&number);
        let is_name = line.trim_start().starts_with('[');
        if is_name {
            in_broken_table = is_broken;
        }
        let taken_out = in_broken_table || is_broken && !line.contains('=');
        if taken_out && !line.trim().is_empty() {
            changed = true;
            let spaces = line.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' });
            repaired.extend(spaces);
        } else {
            repaired.push_str(line);
        }
    }
    changed.then_some(repaired)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> (String, Vec<(usize, usize)>) {
        let source = Source::new(text, "f");
        let (text, faults) = read(&source);
        let positions = faults.iter().map(|fault| source.position(fault.span.start));
        (text.into_owned(), positions.map(|at| (at.line, at.column)).collect())
    }

    #[test]
    fn what_is_right_is_left_as_it_is() {
        let text = "a = 1\n[b]\nc = [\n  1,\n]\n";
        assert_eq!(read_text(text), (text.to_owned(), vec![]));
    }

    #[test]
    fn a_line_without_a_value_hides_nothing_behind_it() {
        let (text, places) = read_text("ä 5\nb = 1\n\n[c]\nd e\n[f\ng = 1\n[h]\ni = 1\n");
        assert_eq!(text, "    \nb = 1\n\n[c]\n   \n  \n     \n[h]\ni = 1\n");
        assert_eq!(places, [(1, 3), (5, 3), (6, 3)]);
    }
}
