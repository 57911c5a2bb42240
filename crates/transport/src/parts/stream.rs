//! A [`Stream`] that carries one session after another, as relay and SDK handle it. Over one for a single session each of these does
//! nothing, or says so.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::Parts;
#[cfg(not(simulation))]
use super::PartsOverTcp;
use crate::Stream;

impl Stream {
    /// The connection, to carry one session after another. What is said ahead of a session passes as it is, as before; the session's
    /// bytes go in parts between [`begin_incoming`](Stream::begin_incoming) or [`begin_outgoing`](Stream::begin_outgoing) and the
    /// end of that direction, which is no end of the connection: that ends earlier only with an abort. A direction that carries much goes
    /// on as it is, and then the connection ends with the session; as it does where `stays` is there and not set when our direction ends.
    #[must_use]
    pub fn for_many(self, stays: Option<Arc<AtomicBool>>) -> Stream {
        Stream::Parts(Box::new(Parts::new(self, stays)))
    }

    /// Takes what is to go out ahead of what is written or flushed next. Gives whether it did: a connection for one session does not.
    pub fn queue(&mut self, bytes: &[u8]) -> bool {
        let Stream::Parts(parts) = self else { return false };
        parts.queue(bytes);
        true
    }

    /// Whether the last read took all that the system had. `false` where that is not known, as of a connection for one session.
    pub fn is_drained(&self) -> bool {
        matches!(self, Stream::Parts(parts) if parts.is_drained())
    }

    /// What comes from now on is a session's. Of a connection for one session everything is.
    pub fn begin_incoming(&mut self) {
        if let Stream::Parts(parts) = self {
            parts.begin_incoming();
        }
    }

    /// What is written from now on is a session's. Of a connection for one session everything is.
    pub fn begin_outgoing(&mut self) {
        if let Stream::Parts(parts) = self {
            parts.begin_outgoing();
        }
    }

    /// Whether a session that it carried has ended in both directions, each with its last byte, and it can carry another.
    pub fn can_carry_another(&self) -> bool {
        matches!(self, Stream::Parts(parts) if parts.is_over())
    }

    /// It is to carry another session, of which nothing has begun.
    pub fn begin_anew(&mut self) {
        if let Stream::Parts(parts) = self {
            parts.begin_anew();
        }
    }

    /// Whether something waits here for room in the connection, or for what is written next.
    pub fn holds_unsent(&self) -> bool {
        matches!(self, Stream::Parts(parts) if parts.holds_unsent())
    }

    /// What bytes are best moved over: what is beneath, where both directions of a session go on as they are there.
    pub fn barest(&mut self) -> &mut Stream {
        if !matches!(self, Stream::Parts(parts) if parts.is_bare()) {
            return self;
        }
        match self {
            Stream::Parts(parts) => parts.stream_mut(),
            stream => stream,
        }
    }

    /// Has the session's end be the connection's, unless our direction has ended already: for where nobody is left who would have it carry
    /// another.
    pub fn carry_no_other(&mut self) {
        if let Stream::Parts(parts) = self {
            parts.go_bare();
        }
    }

    /// Whether a session of many has ended in both directions, and the connection is to end with it.
    pub fn is_over_with_it(&self) -> bool {
        matches!(self, Stream::Parts(parts) if parts.is_over_with_it())
    }

    /// Goes on as it is in our direction where the peer does in its own, so that bytes may go a faster way: [`Stream::barest`] says when.
    pub fn answer_bare(&mut self) {
        if let Stream::Parts(parts) = self {
            parts.answer_bare();
        }
    }

    /// Whether the peer may say still that it goes on as it is: to a connection that is closed by then that is a word that it resets.
    pub fn may_hear_bare(&self) -> bool {
        matches!(self, Stream::Parts(parts) if !parts.has_heard_bare() && !parts.has_read_end())
    }

    /// Whether our direction of the session has ended in parts, so that the connection has not.
    pub fn has_sent_end(&self) -> bool {
        matches!(self, Stream::Parts(parts) if parts.has_sent_end())
    }

    /// Whether the peer's direction of the session has ended in parts: it has nothing left to say on it.
    pub fn has_read_end(&self) -> bool {
        matches!(self, Stream::Parts(parts) if parts.has_read_end())
    }

    /// The same over the socket beneath, which can be looked at beside it; `None` where it is not one for many over TCP alone, or is
    /// better served by [`barest`](Stream::barest).
    #[cfg(not(simulation))]
    pub fn parts_over_tcp(&mut self) -> Option<PartsOverTcp<'_>> {
        match self {
            Stream::Parts(parts) if !parts.is_bare() => parts.over_tcp(),
            _ => None,
        }
    }

    /// Whether [`parts_over_tcp`](Stream::parts_over_tcp) is to be had.
    #[cfg(not(simulation))]
    pub fn is_in_parts_over_tcp(&self) -> bool {
        matches!(self, Stream::Parts(parts) if !parts.is_bare() && matches!(parts.stream(), Stream::Tcp(_)))
    }

    /// Ends the connection where both directions of a session on it have ended, and it can carry no other: over one for a single session
    /// that is so already.
    pub fn finish(&mut self) {
        if !self.can_carry_another()
            && let Stream::Parts(parts) = self
        {
            parts.stream_mut().end_now();
        }
    }
}
