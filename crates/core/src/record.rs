//! A relay's life as text: what the book was told and what it answered, a line each. The relay writes it where its operator
//! asked for it; [`replay`] tells a fresh book the same and compares every answer.
//!
//! A line is `NANOSECONDS < INPUT` or `NANOSECONDS > OUTPUT`; the first one holds the limits and where channel ids started.
//! Handles stand in no line: which socket it was does not matter to the decision.

use std::fmt;
use std::io::{self, BufRead};
use std::str::{FromStr, SplitWhitespace};
use std::time::Duration;

use crate::assignment::Book;
use crate::ids::{ChannelId, CommandId, HostId, ServiceName};
use crate::limits::Limits;
use crate::time::Time;
use crate::vocabulary::{Handles, Input, Output};

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
    let mut book = Book::<Plain>::new(header.limits, header.first);
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

/// A text is not of the form that recordings have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotInForm;

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limits { assign_timeout, queue_max, clients_max, channels_max, commands_max, .. } =
            self.limits;
        write!(
            f,
            "book {} {queue_max} {clients_max} {channels_max} {commands_max} {}",
            assign_timeout.as_nanos(),
            self.first
        )
    }
}

impl FromStr for Header {
    type Err = NotInForm;

    fn from_str(line: &str) -> Result<Header, NotInForm> {
        let mut words = Words(line.split_whitespace());
        if words.word()? != "book" {
            return Err(NotInForm);
        }
        let limits = Limits {
            assign_timeout: Duration::from_nanos(words.parse()?),
            queue_max: words.parse()?,
            clients_max: words.parse()?,
            channels_max: words.parse()?,
            commands_max: words.parse()?,
            ..Limits::default()
        };
        Ok(Header { limits, first: words.channel()? })
    }
}

impl<H: Handles> fmt::Display for Input<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::CommandUp { command, host, .. } => write!(f, "command_up {command} {host}"),
            Input::CommandDown { command } => write!(f, "command_down {command}"),
            Input::ReserveChannel { host, service } => {
                write!(f, "reserve_channel {host} {service}")
            }
            Input::ChannelIdle { channel, .. } => write!(f, "channel_idle {channel}"),
            Input::ChannelGone { channel } => write!(f, "channel_gone {channel}"),
            Input::ClientArrived { session, service, .. } => {
                write!(f, "client_arrived {session} {service}")
            }
            Input::ClientGone { session } => write!(f, "client_gone {session}"),
            Input::ClientFinished { session } => write!(f, "client_finished {session}"),
            Input::HostFinished { session } => write!(f, "host_finished {session}"),
            Input::SessionEnded { session } => write!(f, "session_ended {session}"),
            Input::TimePassed => write!(f, "time_passed"),
            Input::Drain => write!(f, "drain"),
            Input::EndAll { reason } => write!(f, "end_all {reason}"),
        }
    }
}

impl FromStr for Input<Plain> {
    type Err = NotInForm;

    fn from_str(text: &str) -> Result<Input<Plain>, NotInForm> {
        let mut words = Words(text.split_whitespace());
        Ok(match words.word()? {
            "command_up" => Input::CommandUp {
                command: CommandId(words.parse()?),
                host: words.host()?,
                handle: (),
            },
            "command_down" => Input::CommandDown { command: CommandId(words.parse()?) },
            "reserve_channel" => {
                Input::ReserveChannel { host: words.host()?, service: words.service()? }
            }
            "channel_idle" => Input::ChannelIdle { channel: words.channel()?, handle: () },
            "channel_gone" => Input::ChannelGone { channel: words.channel()? },
            "client_arrived" => Input::ClientArrived {
                session: words.parse()?,
                service: words.service()?,
                client: (),
                stop: (),
            },
            "client_gone" => Input::ClientGone { session: words.parse()? },
            "client_finished" => Input::ClientFinished { session: words.parse()? },
            "host_finished" => Input::HostFinished { session: words.parse()? },
            "session_ended" => Input::SessionEnded { session: words.parse()? },
            "time_passed" => Input::TimePassed,
            "drain" => Input::Drain,
            "end_all" => Input::EndAll { reason: words.parse()? },
            _ => return Err(NotInForm),
        })
    }
}

impl<H: Handles> fmt::Display for Output<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Output::Reserved { channel } => write!(f, "reserved {channel}"),
            Output::ReserveRefused { reason } => write!(f, "reserve_refused {reason}"),
            Output::HostJoined { host } => write!(f, "host_joined {host}"),
            Output::HostLeft { host } => write!(f, "host_left {host}"),
            Output::CloseCommand { reason, .. } => write!(f, "close_command {reason}"),
            Output::Assigned { assignment: it, .. } => write!(
                f,
                "assigned {} {} {} {} {}",
                it.session,
                it.service,
                it.host,
                it.channel,
                it.waited.as_nanos()
            ),
            Output::Announce { command, announcement, .. } => {
                write!(f, "announce {command} {announcement}")
            }
            Output::Refused { session, reason, .. } => write!(f, "refused {session} {reason}"),
            Output::CloseChannel { channel, reason, .. } => {
                write!(f, "close_channel {channel} {reason}")
            }
            Output::EndSession { session, reason, .. } => {
                write!(f, "end_session {session} {reason}")
            }
        }
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

struct Words<'a>(SplitWhitespace<'a>);

impl<'a> Words<'a> {
    fn word(&mut self) -> Result<&'a str, NotInForm> {
        self.0.next().ok_or(NotInForm)
    }

    fn parse<T: FromStr>(&mut self) -> Result<T, NotInForm> {
        self.word()?.parse().map_err(|_| NotInForm)
    }

    fn host(&mut self) -> Result<HostId, NotInForm> {
        Ok(HostId::from_address(self.parse()?))
    }

    fn service(&mut self) -> Result<ServiceName, NotInForm> {
        Ok(ServiceName::new(self.word()?))
    }

    fn channel(&mut self) -> Result<ChannelId, NotInForm> {
        ChannelId::new(self.parse()?).ok_or(NotInForm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;

    const SESSION: &str = "0000000000000000000000000000002a";

    #[test]
    fn every_input_reads_back_as_it_was_written() {
        let texts = [
            "command_up 7 127.0.0.1".to_owned(),
            "command_down 7".to_owned(),
            "reserve_channel 2001:db8::1 default".to_owned(),
            "channel_idle 2147483647".to_owned(),
            "channel_gone 1".to_owned(),
            format!("client_arrived {SESSION} default"),
            format!("client_gone {SESSION}"),
            format!("client_finished {SESSION}"),
            format!("host_finished {SESSION}"),
            format!("session_ended {SESSION}"),
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
        let limits = Limits::default();
        let mut book = Book::<Plain>::new(limits, ChannelId::new(5).unwrap());
        let mut text = format!("{}\n", Header { limits, first: ChannelId::new(5).unwrap() });
        let inputs = [
            "command_up 0 127.0.0.1".to_owned(),
            format!("client_arrived {SESSION} default"),
            "reserve_channel 127.0.0.1 default".to_owned(),
            "channel_idle 5".to_owned(),
            format!("client_finished {SESSION}"),
            format!("session_ended {SESSION}"),
        ];
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
