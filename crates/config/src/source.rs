//! A file's text: lines, columns, excerpts with a caret, and what of it is never shown.
//!
//! Errors are shown with the line they are in, and a line may hold a join line. So every excerpt is made here, where it is known
//! what to hide. Driven by the reader, which says where secrets are. Nothing in here knows what a key means.

use std::fmt::Write;
use std::ops::Range;

use crate::schema::nearest;
use crate::secret::{SECRET_KEYS, start_of_secret};

/// How much of a long line is shown, in characters: a terminal's width and a bit.
const SHOWN_MAX: usize = 120;

/// How much of a long line is shown ahead of the place.
const SHOWN_AHEAD: usize = 60;

/// A text with its name, and what must not be shown of it.
pub(crate) struct Source<'t> {
    pub(crate) name: &'t str,
    pub(crate) text: &'t str,
    /// Where each line begins, in bytes, ascending; the first is 0.
    line_starts: Vec<usize>,
    /// Of each byte, whether it is never shown.
    hidden: Vec<bool>,
}

/// Where something is: both from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl<'t> Source<'t> {
    pub(crate) fn new(text: &'t str, name: &'t str) -> Source<'t> {
        let starts = text.bytes().zip(1..).filter(|(byte, _)| *byte == b'\n').map(|(_, next)| next);
        let line_starts = std::iter::once(0).chain(starts).collect();
        let mut source = Source { name, text, line_starts, hidden: vec![false; text.len()] };
        source.hide_what_looks_secret();
        source
    }

    /// Never shows these bytes.
    pub(crate) fn hide(&mut self, range: Range<usize>) {
        if let Some(hidden) = self.hidden.get_mut(range) {
            hidden.fill(true);
        }
    }

    /// For a text that is no TOML, where nobody can tell what belongs to a key: hides whatever could be a secret's value. Such a
    /// value stands ahead of the first table or behind something like its key, and may be broken into lines.
    pub(crate) fn hide_what_could_be_secret(&mut self) {
        let mut ahead_of_tables = true;
        let mut behind_secret = false;
        for line in 1..=self.line_starts.len() {
            let range = self.line(line);
            let text = self.slice(range.clone());
            if text.trim_start().starts_with('[') {
                (ahead_of_tables, behind_secret) = (false, false);
            } else if let Some((key, value)) = key_and_value(text) {
                behind_secret = nearest(key, SECRET_KEYS).is_some();
                if ahead_of_tables || behind_secret {
                    self.hide(range.start + value..range.end);
                }
            } else if (ahead_of_tables || behind_secret) && !text.trim_start().starts_with('#') {
                self.hide(range);
            }
        }
    }

    fn hide_what_looks_secret(&mut self) {
        for line in 1..=self.line_starts.len() {
            let range = self.line(line);
            if let Some(start) = start_of_secret(self.slice(range.clone())) {
                self.hide(range.start + start..range.end);
            }
        }
    }

    /// The position of a byte. Beyond the end it is the end's; within a character the character's.
    pub(crate) fn position(&self, offset: usize) -> Position {
        let line = self.line_starts.partition_point(|start| *start <= offset.min(self.text.len()));
        let range = self.line(line);
        let before = self.slice(range.clone()).char_indices();
        let before = before.take_while(|(at, char)| range.start + at + char.len_utf8() <= offset);
        Position { line, column: before.count() + 1 }
    }

    /// The line that a range begins in, and carets under what of the range is in it.
    pub(crate) fn excerpt(&self, place: &Range<usize>) -> String {
        let at = self.position(place.start);
        let line = self.line(at.line);
        let skipped = at.column.saturating_sub(1 + SHOWN_AHEAD);
        let mut shown = String::new();
        let mut carets = String::new();
        let text = self.slice(line.clone()).trim_end();
        let indent = text.len() - text.trim_start().len();
        let indent = if place.start >= line.start + indent { indent } else { 0 };
        let chars = text.char_indices().map(|(offset, char)| (line.start + offset, char));
        let chars = chars.skip_while(|(offset, _)| *offset < line.start + indent);
        let chars = chars.skip(skipped.saturating_sub(indent)).take(SHOWN_MAX);
        for (offset, char) in chars {
            shown.push(self.shown(offset, char));
            match place {
                place if place.contains(&offset) => carets.push('^'),
                place if offset < place.start => carets.push(' '),
                _ => {}
            }
        }
        if !carets.ends_with('^') {
            carets.push('^');
        }
        let mut excerpt = format!("{:>5} | {shown}", at.line);
        // Writing to a string cannot fail.
        let _written = write!(excerpt, "\n      | {carets}");
        excerpt
    }

    /// What stands for a character in an excerpt: itself, but for secrets and for what would upset a terminal.
    fn shown(&self, offset: usize, char: char) -> char {
        if self.hidden.get(offset).is_none_or(|hidden| *hidden) {
            return '*';
        }
        match char {
            '\t' => ' ',
            char if is_printable(char) => char,
            _ => char::REPLACEMENT_CHARACTER,
        }
    }

    /// The bytes of a line, from 1, without its end.
    fn line(&self, line: usize) -> Range<usize> {
        let start = self.line_starts.get(line.saturating_sub(1)).copied().unwrap_or_default();
        let end = self.line_starts.get(line).map_or(self.text.len(), |next| next - 1);
        start..end
    }

    fn slice(&self, range: Range<usize>) -> &'t str {
        self.text.get(range).unwrap_or_default()
    }
}

/// Foreign text as it may stand in a message: in quotes, cut, without what would upset a terminal or give a secret away.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", shown(text).replace('"', "\\\""))
}

/// The same for a key, in the quotes that messages give to keys.
pub(crate) fn key_quoted(key: &str) -> String {
    format!("`{}`", shown(key))
}

fn shown(text: &str) -> String {
    const MAX: usize = 60;
    if start_of_secret(text).is_some() {
        return "***".to_owned();
    }
    let printable = |char| if is_printable(char) { char } else { char::REPLACEMENT_CHARACTER };
    let mut shown: String = text.chars().take(MAX).map(printable).collect();
    if text.chars().nth(MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// The last part of a line's key, and where behind it the value begins. `None` for what is no key and its value.
fn key_and_value(line: &str) -> Option<(&str, usize)> {
    let (key, _) = line.split_once('=')?;
    let in_keys = |char: char| {
        char.is_alphanumeric() || matches!(char, '_' | '-' | '.' | '"' | '\'' | ' ' | '\t')
    };
    let last = key.rsplit('.').next().unwrap_or(key).trim().trim_matches(['"', '\'']).trim();
    (!last.is_empty() && key.chars().all(in_keys)).then_some((last, key.len() + 1))
}

/// Neither a control character nor one that turns the direction of writing or has no shape.
fn is_printable(char: char) -> bool {
    let shapeless = matches!(char, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    !char.is_control() && !shapeless
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let source = Source::new("a\nßx\n", "f");
        for (offset, line, column) in [
            (0, 1, 1),
            (1, 1, 2),
            (2, 2, 1),
            (3, 2, 1),
            (4, 2, 2),
            (5, 2, 3),
            (6, 3, 1),
            (99, 3, 1),
        ] {
            assert_eq!(source.position(offset), Position { line, column }, "{offset}");
        }
    }

    #[test]
    fn carets_stand_under_the_place_and_end_with_the_line() {
        let source = Source::new("one\n  \tkey = 'välue' # more\n", "f");
        assert_eq!(source.excerpt(&(7..10)), "    2 | key = 'välue' # more\n      | ^^^");
        assert_eq!(
            source.excerpt(&(13..21)),
            "    2 | key = 'välue' # more\n      |       ^^^^^^^"
        );
        assert_eq!(source.excerpt(&(0..99)), "    1 | one\n      | ^^^");
        assert_eq!(source.excerpt(&(3..3)), "    1 | one\n      |    ^");
        assert_eq!(source.excerpt(&(99..99)), "    3 | \n      | ^");
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = format!("{}here{}", "a".repeat(1000), "b".repeat(1000));
        let excerpt = Source::new(&text, "f").excerpt(&(1000..1004));
        let expected = format!(
            "    1 | {}here{}\n      | {}^^^^",
            "a".repeat(60),
            "b".repeat(56),
            " ".repeat(60)
        );
        assert_eq!(excerpt, expected);
    }

    #[test]
    fn nothing_that_would_upset_a_terminal_is_shown() {
        let source = Source::new("a\u{1b}[31mb\u{202e}c", "f");
        assert_eq!(source.excerpt(&(0..1)), "    1 | a\u{fffd}[31mb\u{fffd}c\n      | ^");
        assert_eq!(quoted("a\u{1b}\"b"), "\"a\u{fffd}\\\"b\"");
    }

    #[test]
    fn what_looks_like_a_token_is_hidden_to_the_end_of_its_line() {
        let source = Source::new("x = 'RLS_a.b' # c\ny = 1", "f");
        assert_eq!(source.excerpt(&(0..1)), "    1 | x = '************\n      | ^");
        assert_eq!(source.excerpt(&(18..19)), "    2 | y = 1\n      | ^");
        assert_eq!(quoted("relayserver://x"), "\"***\"");
    }
}
