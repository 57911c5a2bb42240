//! Hosts of version 2: their command channels, and their data channels up to the session.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use relayserver_core::liveness::{Event, Liveness};
use relayserver_core::{
    Announcement, ChannelKey, GrantId, HostId, Membership, Reason, ServiceName, limits,
};
use relayserver_transport::{Stream, Token, close_politely};
use relayserver_wire::command::Announcement as Message;
use relayserver_wire::frame::Decoder;
use relayserver_wire::hello::{
    Answer, AnswerV2, HelloV2, Refusal as Refused, Role, ServedService, Welcome,
};
use relayserver_wire::{self as wire, FRAME_MAX};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use crate::admission::Place;
use crate::assignment::{CommandGuard, CommandHandle};
use crate::context::Context;
use crate::handshake::Refusal;

/// How long whoever shows a wrong token waits for the answer, so that nobody tries many.
const WRONG_TOKEN_DELAY: Duration = Duration::from_secs(1);
