//! As many file descriptors as this process may have.

/// Raises the soft limit to the hard one. The soft one is low (1024, mostly) for the sake of programs that use `select`, and
/// would be some five hundred sessions. Gives how many there may be; `None`: as many as one likes.
#[cfg(unix)]
pub(crate) fn raise_limit() -> Option<usize> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let count = |limit: Option<u64>| limit.map(|it| usize::try_from(it).unwrap_or(usize::MAX));
    if current == maximum {
        return count(current);
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => count(maximum),
        Err(error) => {
            tracing::warn!(%error, "limit of descriptors not raised");
            count(current)
        }
    }
}

#[cfg(not(unix))]
pub(crate) fn raise_limit() -> Option<usize> {
    None
}
