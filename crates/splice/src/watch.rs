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

pub(crate) struct Watch<'a> {
    socket: Option<Socket<'a>>,
    /// Boxed, since it is there only while it is needed, and a session's future is to stay small.
    report: Option<Report<'a>>,
}

type Report<'a> = Pin<Box<dyn Future<Output = io::Result<Ready>> + Send + 'a>>;

impl<'a> Watch<'a> {
    /// Watches `socket`; without one there is never anything to report.
    pub(crate) fn new(socket: Option<Socket<'a>>) -> Watch<'a> {
        Watch { socket, report: None }
    }

    /// Resolves with the error that the system reports.
    pub(crate) fn poll_error(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(socket) = self.socket else {
            return Poll::Pending;
        };
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
