//! What goes ahead of a session on a data channel of version 2: the relay's start frame and the host's verdict.
//!
//! Both stand in the stream that the session's bytes follow on: whoever reads them takes exactly their bytes and no more.

use std::net::SocketAddr;

use crate::frame;
use crate::id::{SessionId, sixteen};
use crate::text::{address, service_name, word};
use crate::{MessageError, parse, proto};

/// A session begins: the relay's word ahead of the client's first byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The session, under the name that it has in the relay's log. If it is offered to another host, it keeps it.
    pub session_id: SessionId,
    /// The service that the client asked for: the one in the channel's hello.
    pub service: String,
    /// Where the client connected from; `None` if that is not known. A flow label is not carried.
    pub client_addr: Option<SocketAddr>,
    /// How the client came in: `tcp`, or something that we do not know, which changes nothing.
    pub via: String,
}

/// Whether the host serves the session: its word ahead of its own first byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does. From here on the session is this host's alone.
    Accepted,
    /// It does not, and has acted on none of the client's bytes.
    Rejected {
        /// Why: 1 to 64 bytes of `a` to `z`, `0` to `9` and `_`.
        reason: Option<String>,
    },
}

impl Start {
    /// The whole frame, header included.
    pub fn encode(&self) -> Vec<u8> {
        frame::encode(&proto::Start {
            session_id: self.session_id.0.to_vec(),
            service: self.service.clone(),
            client_addr: self.client_addr.map_or_else(String::new, |addr| addr.to_string()),
            via: self.via.clone(),
        })
    }

    /// Reads the payload of a frame. Unknown fields are ignored. An address that is missing is one that is not known.
    ///
    /// # Errors
    /// [`MessageError::MissingField`] if the session's id, the service or how the client came in are missing or empty;
    /// [`MessageError::Malformed`] if the payload is no such message, the id has not 16 bytes, or a text is not what it
    /// must be.
    pub fn decode(payload: &[u8]) -> Result<Start, MessageError> {
        let start: proto::Start = parse(START, payload)?;
        Ok(Start {
            session_id: SessionId(sixteen(START, "session_id", &start.session_id)?),
            service: service_name(START, "service", start.service)?,
            client_addr: address(START, "client_addr", &start.client_addr)?,
            via: word(START, "via", start.via)?,
        })
    }
}

impl Verdict {
    /// The whole frame, header included.
    pub fn encode(&self) -> Vec<u8> {
        let (accepted, reason) = match self {
            Verdict::Accepted => (true, None),
            Verdict::Rejected { reason } => (false, reason.clone()),
        };
        frame::encode(&proto::Verdict { accepted, reason })
    }

    /// Reads the payload of a frame. Unknown fields are ignored, and so is a reason to accept. What does not say
    /// `accepted` is rejected.
    ///
    /// # Errors
    /// [`MessageError::Malformed`] if the payload is no such message or a reason to reject is not what it must be;
    /// [`MessageError::MissingField`] if such a reason is empty.
    pub fn decode(payload: &[u8]) -> Result<Verdict, MessageError> {
        let verdict: proto::Verdict = parse(VERDICT, payload)?;
        if verdict.accepted {
            return Ok(Verdict::Accepted);
        }
        let reason = verdict.reason.map(|reason| word(VERDICT, "reason", reason));
        Ok(Verdict::Rejected { reason: reason.transpose()? })
    }
}

const START: &str = "start";
const VERDICT: &str = "verdict";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_with_parts_that_are_not_what_they_must_be_is_refused() {
        let good = proto::Start {
            session_id: vec![7; 16],
            service: "ssh".to_owned(),
            client_addr: "192.0.2.7:50000".to_owned(),
            via: "tcp".to_owned(),
        };
        assert!(decode(&good).is_ok());
        let with = |change: fn(&mut proto::Start)| {
            let mut start = good.clone();
            change(&mut start);
            decode(&start).unwrap_err().to_string()
        };
        for (error, expected) in [
            (with(|it| it.session_id.clear()), "start without session_id"),
            (
                with(|it| it.session_id.push(7)),
                "malformed start: session_id of 17 bytes, expected 16",
            ),
            (with(|it| it.service.clear()), "start without service"),
            (
                with(|it| it.service.push('-')),
                "malformed start: service \"ssh-\", expected a-z, 0-9, and - in between",
            ),
            (
                with(|it| it.client_addr = "192.0.2.7".to_owned()),
                "malformed start: client_addr of 9 bytes is no address with a port",
            ),
            (with(|it| it.via.clear()), "start without via"),
            (with(|it| it.via.push('!')), "malformed start: via \"tcp!\", expected a-z, 0-9 and _"),
        ] {
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn what_does_not_say_accepted_is_rejected() {
        assert_eq!(Verdict::decode(b""), Ok(Verdict::Rejected { reason: None }));
        assert_eq!(Verdict::decode(b"\x08\x00"), Ok(Verdict::Rejected { reason: None }));
        assert_eq!(Verdict::decode(b"\x08\x01"), Ok(Verdict::Accepted));
    }

    #[test]
    fn a_reason_counts_only_where_a_session_is_rejected() {
        assert_eq!(Verdict::decode(b"\x08\x01\x12\x02No"), Ok(Verdict::Accepted));
        let reason = Some("no".to_owned());
        assert_eq!(Verdict::decode(b"\x08\x00\x12\x02no"), Ok(Verdict::Rejected { reason }));
        let error = Verdict::decode(b"\x08\x00\x12\x02No").unwrap_err();
        let expected = "malformed verdict: reason \"No\", expected a-z, 0-9 and _";
        assert_eq!(error.to_string(), expected);
        let error = Verdict::decode(b"\x08\x00\x12\x00").unwrap_err();
        assert_eq!(error.to_string(), "verdict without reason");
    }

    fn decode(start: &proto::Start) -> Result<Start, MessageError> {
        Start::decode(&frame::encode(start)[4..])
    }
}
