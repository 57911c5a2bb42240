//! A relay's life as text: what the book was told and what it answered, a line each. The relay writes it where its operator
//! asked for it; [`replay`] tells a fresh book the same and compares every answer.
//!
//! A line is `NANOSECONDS < INPUT` or `NANOSECONDS > OUTPUT`; the first one holds the limits and where channel ids started.
//! Handles stand in no line: which socket it was does not matter to the decision.

mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead};
use std::str::FromStr;
use std::time::Duration;

use crate::assignment::Book;
use crate::ids::{ChannelId, ServiceName};
use crate::limits::{Limits, ServiceLimits};
use crate::policy::Policy;
use crate::time::Time;
use crate::vocabulary::{Handles, Input};
pub use text::NotInForm;
use text::{Optional, Words};

/// The handles of a book that reaches nothing: for replays and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain;

impl Handles for Plain {
    type Command = ();
    type Channel = ();
    type Client = ();
    type Stop = ();
}

/// The first line of a recording.
pub struct Header {
    /// The limits that the book was made with.
    pub limits: Limits,
    /// Which services there were.
    pub policy: Policy,
    /// Where channel ids started.
    pub first: ChannelId,
}

/// Why a recording was not replayed to its end.
#[derive(Debug)]
pub enum ReplayError {
    /// The recording could not be read.
    Read(io::Error),
    /// A line is not of the form that recordings have.
    Malformed {
        /// Which line, from 1.
        line: usize,
        /// What stands there.
        text: String,
    },
    /// The book answered otherwise than it did then.
    Differs {
        /// Which line, from 1.
        line: usize,
        /// What the recording holds.
        recorded: String,
        /// What the book answered now.
        replayed: String,
    },
}

/// Tells a fresh book everything that `recording` holds and compares what it answers.
///
/// Gives the number of inputs.
///
/// # Errors
/// The recording cannot be read or understood, or the book answers otherwise than it did.
pub fn replay(recording: impl BufRead) -> Result<usize, ReplayError> {
    let mut lines = recording.lines().enumerate().map(|(index, line)| (index + 1, line));
    let (number, first) = lines.next().unwrap_or_else(|| (1, Ok(String::new())));
    let first = first.map_err(ReplayError::Read)?;
    let malformed = |line, text: &str| ReplayError::Malformed { line, text: text.to_owned() };
    let header: Header = first.parse().map_err(|NotInForm| malformed(number, &first))?;
    let mut book = Book::<Plain>::new(header.limits, header.policy, header.first);
    let mut inputs = 0;
    for (number, line) in lines {
        let line = line.map_err(ReplayError::Read)?;
        let (now, direction, text) = parts(&line).ok_or_else(|| malformed(number, &line))?;
        if direction == "<" {
            if let Some(unexpected) = book.poll_output() {
                return Err(differs(number, "", &unexpected.to_string()));
            }
            let input: Input<Plain> = text.parse().map_err(|NotInForm| malformed(number, &line))?;
            book.handle(now, input);
            inputs += 1;
        } else {
            let output = book.poll_output().map_or_else(String::new, |output| output.to_string());
            if output != text {
                return Err(differs(number, text, &output));
            }
        }
    }
    match book.poll_output() {
        Some(unexpected) => Err(differs(0, "", &unexpected.to_string())),
        None => Ok(inputs),
    }
}

fn differs(line: usize, recorded: &str, replayed: &str) -> ReplayError {
    ReplayError::Differs { line, recorded: recorded.to_owned(), replayed: replayed.to_owned() }
}

fn parts(line: &str) -> Option<(Time, &str, &str)> {
    let (time, rest) = line.split_once(' ')?;
    let (direction, text) = rest.split_once(' ')?;
    let nanos = time.parse().ok()?;
    let known = direction == "<" || direction == ">";
    known.then_some((Time::from_start(Duration::from_nanos(nanos)), direction, text))
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limits { clients_max, channels_max, commands_max, .. } = self.limits;
        let Policy { services, open_service, mixed } = &self.policy;
        write!(f, "book {clients_max} {channels_max} {commands_max} {}", self.first)?;
        write!(f, " {} {mixed}", Optional(open_service.as_ref()))?;
        for (name, limits) in services {
            let ServiceLimits { sessions_max, queue_max, assign_timeout } = limits;
            let (sessions_max, nanos) = (Optional(*sessions_max), assign_timeout.as_nanos());
            write!(f, " {name} {sessions_max} {queue_max} {nanos}")?;
        }
        Ok(())
    }
}

impl FromStr for Header {
    type Err = NotInForm;

    fn from_str(line: &str) -> Result<Header, NotInForm> {
        let mut words = Words::of(line);
        if words.word()? != "book" {
            return Err(NotInForm);
        }
        let limits = Limits {
            clients_max: words.parse()?,
            channels_max: words.parse()?,
            commands_max: words.parse()?,
            ..Limits::default()
        };
        let first = words.channel()?;
        let open_service = words.optional(|word| Ok(ServiceName::new(word)))?;
        let mixed = words.parse()?;
        let mut services = BTreeMap::new();
        while let Ok(name) = words.service() {
            let limits = ServiceLimits {
                sessions_max: words.optional(|word| word.parse().map_err(|_| NotInForm))?,
                queue_max: words.parse()?,
                assign_timeout: Duration::from_nanos(words.parse()?),
            };
            services.insert(name, limits);
        }
        let policy = Policy { services, open_service, mixed };
        Ok(Header { limits, policy, first })
    }
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplayError::Read(error) => write!(f, "recording cannot be read: {error}"),
            ReplayError::Malformed { line, text } => {
                write!(f, "line {line} of the recording is not in its form: {text:?}")
            }
            ReplayError::Differs { line, recorded, replayed } => {
                write!(f, "line {line}: recorded {recorded:?}, replayed {replayed:?}")
            }
        }
    }
}

impl std::error::Error for ReplayError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;

    const SESSION: &str = "0000000000000000000000000000002a";
    const HOST: &str = "000000000000000000000000000000aa";

    #[test]
    fn every_input_reads_back_as_it_was_written() {
        let texts = [
            "command_up 7 127.0.0.1 - - - - - -".to_owned(),
            format!("command_up 7 {HOST} 3f - - default 100 -"),
            format!("command_up 7 {HOST} 3f laptop 2a default,ssh 250 50"),
            "pool_bounds 7 ssh 2 300".to_owned(),
            "pool_surplus 7 ssh 32".to_owned(),
            "round_trip 7 1500".to_owned(),
            "command_gone 7".to_owned(),
            "command_leaving 7".to_owned(),
            "command_suspect 7".to_owned(),
            "command_well 7".to_owned(),
            "grant_changed laptop -".to_owned(),
            "grant_changed laptop host - -".to_owned(),
            "grant_changed laptop client 1500 web-*,ssh".to_owned(),
            "command_down 7".to_owned(),
            "reserve_channel 2001:db8::1 default -".to_owned(),
            format!("reserve_channel {HOST} ssh 3f"),
            "channel_idle 2147483647".to_owned(),
            format!("channel_returned {SESSION}"),
            "channel_gone 1".to_owned(),
            format!("client_arrived {SESSION} default"),
            format!("client_gone {SESSION}"),
            format!("client_finished {SESSION}"),
            format!("host_finished {SESSION}"),
            format!("accepted {SESSION}"),
            format!("offer_failed {SESSION} rejected"),
            format!("session_ended {SESSION} finished 1 2"),
            "time_passed".to_owned(),
            "drain".to_owned(),
            format!("end_all {}", Reason::Drained),
        ];
        for text in texts {
            let input: Input<Plain> = text.parse().unwrap();
            assert_eq!(input.to_string(), text);
        }
    }

    /// One client waits, is served when a channel comes, and ends.
    fn recording() -> String {
        recording_of(&[
            "command_up 0 127.0.0.1 - - - - - -".to_owned(),
            format!("client_arrived {SESSION} default"),
            "reserve_channel 127.0.0.1 default -".to_owned(),
            "channel_idle 5".to_owned(),
            format!("client_finished {SESSION}"),
            format!("session_ended {SESSION} finished 1 2"),
        ])
    }

    /// What a fresh book answers to that, an input a second.
    fn recording_of(inputs: &[String]) -> String {
        let (limits, policy, first) =
            (Limits::default(), Policy::default(), ChannelId::new(5).unwrap());
        let mut book = Book::<Plain>::new(limits, policy.clone(), first);
        let mut text = format!("{}\n", Header { limits, policy, first });
        for (second, input) in inputs.iter().enumerate() {
            let now = Time::from_start(Duration::from_secs(second as u64));
            let nanos = now.since_start().as_nanos();
            text += &format!("{nanos} < {input}\n");
            book.handle(now, input.parse().unwrap());
            while let Some(output) = book.poll_output() {
                text += &format!("{nanos} > {output}\n");
            }
        }
        text
    }

    #[test]
    fn a_recording_replays_to_the_same_answers() {
        let recording = recording();
        assert!(recording.contains("> assigned"), "{recording}");
        assert_eq!(replay(recording.as_bytes()).unwrap(), 6);
    }

    #[test]
    fn channels_that_are_returned_replay_to_the_same_answers() {
        let next = "0000000000000000000000000000002b";
        let recording = recording_of(&[
            format!("command_up 0 {HOST} 3f - - default 100 -"),
            format!("reserve_channel {HOST} default 3f"),
            "channel_idle 5".to_owned(),
            format!("client_arrived {SESSION} default"),
            format!("accepted {SESSION}"),
            format!("client_arrived {next} default"),
            format!("channel_returned {SESSION}"),
            format!("session_ended {SESSION} finished 1 2"),
            format!("accepted {next}"),
            "command_suspect 0".to_owned(),
            format!("channel_returned {next}"),
        ]);
        let lines: Vec<&str> = recording.lines().collect();
        let answer_to = |input: String| {
            let told = lines.iter().position(|line| line.ends_with(&input));
            lines.get(told.unwrap() + 1).copied().unwrap_or_default()
        };
        let assigned = answer_to(format!("< channel_returned {SESSION}"));
        assert!(assigned.contains(&format!("> assigned {next}")), "{recording}");
        let closed = answer_to(format!("< channel_returned {next}"));
        assert!(closed.ends_with("> close_channel 5 host_suspect"), "{recording}");
        assert_eq!(replay(recording.as_bytes()).unwrap(), 11);
    }

    #[test]
    fn another_answer_is_noticed() {
        let other = recording().replace("> announce 0 open 5", "> announce 0 open 6");
        let Err(ReplayError::Differs { recorded, replayed, .. }) = replay(other.as_bytes()) else {
            panic!("the change went unnoticed");
        };
        assert_eq!(
            (recorded.as_str(), replayed.as_str()),
            ("announce 0 open 6", "announce 0 open 5")
        );

        let line = "3000000000 > announce 0 open 5\n";
        assert!(recording().contains(line));
        assert!(replay(recording().replace(line, "").as_bytes()).is_err(), "an answer too many");
    }

    #[test]
    fn what_is_no_recording_is_refused() {
        for text in ["", "book", "book 1 2 3 4 5 0", "book 1 2 3 4 5 6\n7 < nonsense", "\0\n"] {
            assert!(replay(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
