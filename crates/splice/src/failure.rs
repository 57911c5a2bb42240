//! The words for where a session failed. Plain data: nothing here does I/O.

use std::fmt;
use std::io;

/// One of the two legs of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The leg towards the client.
    Client,
    /// The leg towards the host.
    Host,
}

/// What was being done to a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Taking bytes from the leg.
    Read,
    /// Giving bytes, or the end of them, to the leg.
    Write,
}

/// A leg failed: which one, at what, and how. An abort (a reset connection) is a failure; an end (a FIN) is none.
#[derive(Debug)]
pub struct Failure {
    /// The leg that failed.
    pub side: Side,
    /// What was being done. An abort that is noticed while nothing was: reading from the leg, or, when its end has
    /// been read already, writing to it.
    pub operation: Operation,
    /// What the system said.
    pub error: io::Error,
}

impl Failure {
    pub(crate) fn read(side: Side, error: io::Error) -> Failure {
        Failure { side, operation: Operation::Read, error }
    }

    pub(crate) fn write(side: Side, error: io::Error) -> Failure {
        Failure { side, operation: Operation::Write, error }
    }
}

/// One line with everything in it, so that there is no `source` to print as well.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.operation {
            Operation::Read => "reading from",
            Operation::Write => "writing to",
        };
        write!(f, "{verb} the {} leg: {}", self.side, self.error)
    }
}

impl std::error::Error for Failure {}

impl Side {
    pub(crate) fn other(self) -> Side {
        match self {
            Side::Client => Side::Host,
            Side::Host => Side::Client,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Client => "client",
            Side::Host => "host",
        })
    }
}
