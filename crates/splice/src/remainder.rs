//! What a session that was stopped needs to go on, as plain data. Nothing here does I/O.

use std::fmt;

/// All that is left of a [`Splice`](crate::Splice) between two runs. Whoever has this and the two legs can go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remainder {
    /// From the client to the host.
    pub to_host: Undelivered,
    /// From the host to the client.
    pub to_client: Undelivered,
}

/// What one direction has taken from its sender and not yet given to its receiver.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Undelivered {
    /// Bytes read and not yet written, in order.
    pub bytes: Vec<u8>,
    /// How far the direction has come to its end.
    pub end: End,
}

/// How far a direction has come to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum End {
    /// The sender may send more.
    #[default]
    Open,
    /// The sender's end was read, and is yet to be passed on (after the bytes that are left).
    Read,
    /// The receiver has been told: this direction has ended.
    PassedOn,
    /// Given up by [`Splice::abandon`](crate::Splice::abandon): nothing is read or passed on any more.
    Abandoned,
}

/// The bytes are the session's own business: only their number shows.
impl fmt::Debug for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Undelivered")
            .field("bytes", &self.bytes.len())
            .field("end", &self.end)
            .finish()
    }
}

impl End {
    /// Whether nothing is left to do, apart from bytes.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, End::PassedOn | End::Abandoned)
    }
}
