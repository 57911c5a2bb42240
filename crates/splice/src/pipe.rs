//! `splice(2)`: bytes from socket to socket through a pipe, without passing through this process. Linux only.
//!
//! Driven by `direction`. A pipe is filled only while it is empty: otherwise `EAGAIN` could mean that the socket has
//! nothing as well as that the pipe's slots are taken. `SPLICE_F_MORE` is never set, since it would hold back the tail.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::socket::Socket;

/// Pipes that may be out at a time: an ordinary user gets 64 of 1 MiB before the kernel makes them tiny
/// (`pipe-user-pages-soft`, 16384 pages).
const IN_USE_MAX: usize = 64;
/// Pipes that are kept for the next to come: 32 descriptors. An empty pipe holds no pages.
const IDLE_MAX: usize = 16;
/// The sizes to try, the best first. Below the last, copying through a buffer is as good.
const CAPACITIES: [usize; 5] = [1 << 20, 1 << 19, 1 << 18, 1 << 17, 1 << 16];

/// Where pipes come from and go back to. A pipe is out only while it is being used or holds bytes.
pub(crate) struct Pool {
    book: Mutex<Book>,
    in_use_max: usize,
}

struct Book {
    in_use: usize,
    idle: Vec<Ends>,
}

/// A pipe that is out of the pool. On drop it goes back if it is empty, and is closed if it is not.
pub(crate) struct Pipe {
    /// `None` only while it is being taken apart.
    ends: Option<Ends>,
    /// Bytes that are in it.
    filled: usize,
    pool: &'static Pool,
}

struct Ends {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
}

impl Pool {
    pub(crate) const fn new(in_use_max: usize) -> Pool {
        Pool { book: Mutex::new(Book { in_use: 0, idle: Vec::new() }), in_use_max }
    }

    /// The one of this process.
    pub(crate) fn shared() -> &'static Pool {
        static SHARED: Pool = Pool::new(IN_USE_MAX);
        &SHARED
    }

    /// An empty pipe. `None`: all are in use, or the system gives none that is worth it. Then copy.
    pub(crate) fn take(&'static self) -> Option<Pipe> {
        let idle = {
            let mut book = self.lock();
            if book.in_use >= self.in_use_max {
                return None;
            }
            book.in_use += 1;
            book.idle.pop()
        };
        let Some(ends) = idle.or_else(Ends::open) else {
            self.lock().in_use -= 1;
            return None;
        };
        Some(Pipe { ends: Some(ends), filled: 0, pool: self })
    }

    #[cfg(test)]
    pub(crate) fn in_use(&self) -> usize {
        self.lock().in_use
    }

    #[cfg(test)]
    pub(crate) fn idle(&self) -> usize {
        self.lock().idle.len()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pipe {
    pub(crate) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Moves what `from` has into the pipe, which must be empty. 0 says no more than that nothing was moved: the
    /// socket may be empty, may have ended, or may be in front of urgent data, which this call cannot get past. An
    /// ordinary read tells which.
    pub(crate) fn fill(&mut self, from: Socket<'_>) -> io::Result<usize> {
        debug_assert!(self.is_empty(), "filling a pipe that holds bytes");
        let Some(ends) = &self.ends else {
            return Ok(0);
        };
        let socket = from.sock();
        match splice(&*socket, None, &ends.write, None, ends.capacity, flags()) {
            Ok(moved) => {
                self.filled = moved;
                Ok(moved)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Moves what the pipe holds to `to`, as much as it takes, at most all.
    pub(crate) fn drain(&mut self, to: Socket<'_>) -> io::Result<usize> {
        let Some(ends) = &self.ends else {
            return Ok(0);
        };
        let socket = to.sock();
        let moved = splice(&ends.read, None, &*socket, None, self.filled, flags())?;
        self.filled = self.filled.saturating_sub(moved);
        Ok(moved)
    }

    /// Takes all bytes out. The pipe has had its day.
    ///
    /// # Errors
    /// If the kernel does not give back what it took. No peer can bring that about.
    pub(crate) fn into_bytes(mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.filled);
        if let Some(Ends { read, write, .. }) = self.ends.take() {
            File::from(read).take(self.filled as u64).read_to_end(&mut bytes)?;
            drop(write);
        }
        if bytes.len() == self.filled {
            Ok(bytes)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let mut ends = self.ends.take();
        let mut book = self.pool.lock();
        book.in_use -= 1;
        if self.filled == 0 && book.idle.len() < IDLE_MAX {
            book.idle.extend(ends.take());
        }
        // What was not kept is closed without holding the others up.
        drop(book);
    }
}

impl Ends {
    fn open() -> Option<Ends> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        let capacity = CAPACITIES
            .into_iter()
            .find_map(|capacity| fcntl_setpipe_size(&write, capacity).ok())?;
        Some(Ends { read, write, capacity })
    }
}

/// Whether `error` says that these sockets cannot be spliced at all, rather than that one of them has failed.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP, Errno::PERM]
        .into_iter()
        .any(|refusal| errno == Some(refusal))
}

fn flags() -> SpliceFlags {
    SpliceFlags::MOVE | SpliceFlags::NONBLOCK
}
