//! The relay's status socket: whoever connects to it gets one [`Snapshot`](crate::Snapshot) as JSON, and the end. It runs beside the
//! relay and reads nothing; whatever goes wrong with it, sessions go on.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::assignment::Assignments;

/// The name of the status socket in a relay's state directory.
pub const STATUS_SOCKET: &str = "status.sock";

/// How many may read at once; others wait in the system's queue.
const READERS_MAX: usize = 16;

/// How long a reader may take. A snapshot of 4096 hosts is a megabyte, and whoever reads is on this machine.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// How long nothing is accepted after an accept has failed, which it does for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// A status socket that is listened on. Its file is removed when this is dropped.
pub(crate) struct StatusSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and number of the file, so that another's is never removed.
    file: (u64, u64),
}

impl StatusSocket {
    /// Listens at `path`, for the user that the relay runs as. What a relay that died has left there is replaced.
    ///
    /// # Errors
    /// A living relay listens there, something stands there that is no socket, or the system does not allow it.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with I/O.
    pub(crate) fn bind(path: &Path) -> io::Result<StatusSocket> {
        remove_stale(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        // Nobody can connect before it listens, and by then it is the owner's alone.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        let file = identity(path)?;
        socket.listen(i32::try_from(READERS_MAX).unwrap_or(i32::MAX))?;
        socket.set_nonblocking(true)?;
        let listener = UnixListener::from_std(socket.into())?;
        Ok(StatusSocket { listener, path: path.to_owned(), file })
    }

    /// Gives whoever connects what `text` says at that moment, for as long as this is polled.
    async fn serve(&self, text: impl Fn() -> String) {
        let mut readers = JoinSet::new();
        loop {
            tokio::select! {
                Some(_ended) = readers.join_next() => {}
                accepted = self.listener.accept(), if readers.len() < READERS_MAX => match accepted {
                    Ok((reader, _unnamed)) => {
                        readers.spawn(tell(reader, text()));
                    }
                    Err(error) => {
                        debug!(%error, "cannot accept on the status socket");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }
}

impl Drop for StatusSocket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.file)
            && let Err(error) = fs::remove_file(&self.path)
        {
            warn!(%error, "cannot remove the status socket");
        }
    }
}

/// Serves `socket`, where there is one, for as long as this is polled.
pub(crate) async fn serve(socket: Option<StatusSocket>, assignments: &Assignments) {
    match socket {
        Some(socket) => socket.serve(|| format!("{}\n", assignments.snapshot().to_json())).await,
        None => std::future::pending().await,
    }
}

/// Tells one reader. One that does not read is cut off.
async fn tell(mut reader: UnixStream, text: String) {
    let telling = async {
        reader.write_all(text.as_bytes()).await?;
        reader.shutdown().await
    };
    match timeout(READ_TIMEOUT, telling).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a reader of the status has gone"),
        Err(_elapsed) => debug!("a reader of the status did not read"),
    }
}

/// Removes a socket that nobody listens on any more.
fn remove_stale(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is there, and no socket"));
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?).map_err(|error| (error.kind(), error)) {
        // Where nobody else can be taken just now, somebody is there all the more.
        Ok(()) | Err((io::ErrorKind::WouldBlock, _)) => {
            Err(io::Error::new(io::ErrorKind::AddrInUse, "another relay listens on it"))
        }
        Err((io::ErrorKind::ConnectionRefused, _)) => fs::remove_file(path),
        Err((_, error)) => Err(error),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::time::Instant;

    use super::*;

    /// More than the system keeps for a reader.
    const LONG: usize = 1 << 24;

    /// A socket that tells a long text, and where it is.
    fn telling() -> (tempfile::TempDir, PathBuf, tokio::task::JoinHandle<()>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(STATUS_SOCKET);
        let socket = StatusSocket::bind(&path).unwrap();
        let serving = tokio::spawn(async move { socket.serve(|| "x".repeat(LONG)).await });
        (directory, path, serving)
    }

    async fn read(mut reader: UnixStream) -> usize {
        let mut text = Vec::new();
        reader.read_to_end(&mut text).await.unwrap();
        text.len()
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_cut_off_and_keeps_its_place_no_longer() {
        let (_directory, path, serving) = telling();
        let mut silent = Vec::new();
        for _ in 0..READERS_MAX {
            silent.push(UnixStream::connect(&path).await.unwrap());
        }
        let began = Instant::now();
        let late = UnixStream::connect(&path).await.unwrap();
        assert_eq!(read(late).await, LONG);
        assert!(began.elapsed() >= READ_TIMEOUT, "it had to wait for a place");
        for reader in silent {
            assert!(read(reader).await < LONG);
        }
        serving.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_is_served_beside_one_that_does_not() {
        let (_directory, path, serving) = telling();
        let _silent = UnixStream::connect(&path).await.unwrap();
        let began = Instant::now();
        assert_eq!(read(UnixStream::connect(&path).await.unwrap()).await, LONG);
        assert_eq!(began.elapsed(), Duration::ZERO);
        serving.abort();
    }

    #[tokio::test]
    async fn a_file_that_took_its_place_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(STATUS_SOCKET);
        let socket = StatusSocket::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another's").unwrap();
        drop(socket);
        assert_eq!(fs::read_to_string(&path).unwrap(), "another's");
        let taken = StatusSocket::bind(&path).map(|_| ()).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
    }

    #[tokio::test]
    async fn one_that_takes_nobody_just_now_lives() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(STATUS_SOCKET);
        let _full = StatusSocket::bind(&path).unwrap();
        let mut waiting = Vec::new();
        let refused = loop {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            match socket.connect(&SockAddr::unix(&path).unwrap()) {
                Ok(()) => waiting.push(socket),
                Err(error) => break error,
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        let taken = StatusSocket::bind(&path).map(|_| ()).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());
    }
}
