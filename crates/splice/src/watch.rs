//! Notices that a socket was aborted while nobody is reading from it.
//!
//! Reading tells of an abort by itself, so a direction that waits for bytes needs no watch, and a session that idles
//! has none. Driven by `Splice::run`; it never consumes an error without reporting it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::Ready;

use crate::socket::Socket;

/// The wait for an error on one socket. Which one is said with each poll: a session's future is to stay small.
#[derive(Default)]
pub(crate) struct Watch<'a> {
    /// Boxed, since it is there only while it is needed.
    report: Option<Report<'a>>,
}

type Report<'a> = Pin<Box<dyn Future<Output = io::Result<Ready>> + Send + 'a>>;

impl<'a> Watch<'a> {
    /// Resolves with the error that the system reports of `socket`, which is always the same one.
    pub(crate) fn poll_error(
        &mut self,
        cx: &mut Context<'_>,
        socket: Socket<'a>,
    ) -> Poll<io::Error> {
        loop {
            let report = self.report.get_or_insert_with(|| Box::pin(socket.error_reported()));
            let reported = ready!(report.as_mut().poll(cx));
            self.report = None;
            if let Err(error) = reported {
                return Poll::Ready(error);
            }
            if let Some(error) = socket.take_reported_error() {
                return Poll::Ready(error);
            }
        }
    }

    /// Stops watching until it is polled again.
    pub(crate) fn rest(&mut self) {
        self.report = None;
    }
}
