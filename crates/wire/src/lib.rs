//! The messages of the RelayServer protocol and their frames: bytes to messages and back.
//!
//! Relay and host drive this with what they read and send; `docs/wire.md` is the description that it follows. Nothing in
//! here does I/O, waits, logs, or panics on bytes from outside, and no type of the protobuf library shows.
//!
//! A connection is read in two steps: [`frame`] cuts the bytes into payloads, and [`hello`], [`command`] and [`start`] decode
//! them. What a text may be is in `text`, what is 16 bytes long in `id` and [`secret`].

pub mod command;
pub mod frame;
pub mod hello;
mod id;
pub mod secret;
pub mod start;
mod text;

use thiserror::Error;

pub use frame::{
    FRAME_MAX, FrameError, HEADER_LEN, HELLO_FRAME_MAX, START_FRAME_MAX, VERDICT_FRAME_MAX,
};
pub use id::{HostId, SessionId};
pub use text::{
    CLIENTS_LEN_MAX, DETAIL_LEN_MAX, SERVICE_NAME_LEN_MAX, WORD_LEN_MAX, is_service_name,
};

/// The version that stands in every [`hello::Hello`] and [`command::Announcement`], in version 2 of the protocol too: it
/// is told by a field that version 1 does not have.
pub const VERSION: i32 = 1;

/// A payload is not the message that was expected.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MessageError {
    /// The payload is not protobuf, or a field has another type, or a value that it must not have.
    #[error("malformed {message}: {detail}")]
    Malformed {
        /// What was expected.
        message: &'static str,
        /// What the protobuf library says, or which field, and what was expected of it. Secrets never stand in it.
        detail: String,
    },
    /// The message is of a version that we do not speak. A version that is missing reads as 0.
    #[error("version {version} is not supported, expected {VERSION}")]
    UnsupportedVersion {
        /// What the peer says that it speaks.
        version: i32,
    },
    /// A field is missing, or empty, without which the message means nothing.
    #[error("{message} without {field}")]
    MissingField {
        /// What was expected.
        message: &'static str,
        /// The field's name in `relay.proto`.
        field: &'static str,
    },
}

/// Reads a protobuf. Unknown fields are ignored; of a repeated one the last counts; a missing number is 0.
fn parse<M: prost::Message + Default>(
    message: &'static str,
    payload: &[u8],
) -> Result<M, MessageError> {
    M::decode(payload).map_err(|error| malformed(message, error.to_string()))
}

fn check_version(version: i32) -> Result<(), MessageError> {
    if version == VERSION { Ok(()) } else { Err(MessageError::UnsupportedVersion { version }) }
}

fn malformed(message: &'static str, detail: String) -> MessageError {
    MessageError::Malformed { message, detail }
}

fn missing(message: &'static str, field: &'static str) -> MessageError {
    MessageError::MissingField { message, field }
}

/// What the build makes of `proto/relay.proto`.
mod proto {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::pedantic,
        reason = "generated code"
    )]

    include!(concat!(env!("OUT_DIR"), "/relay.rs"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_give_expectation_and_value() {
        let error = MessageError::UnsupportedVersion { version: 2 };
        assert_eq!(error.to_string(), "version 2 is not supported, expected 1");
        let error = MessageError::MissingField { message: "answer", field: "relay_host" };
        assert_eq!(error.to_string(), "answer without relay_host");
    }
}
