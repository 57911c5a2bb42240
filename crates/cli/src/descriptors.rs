//! As many file descriptors as this process may have.

/// Raises the soft limit to the hard one. The soft one is low (1024, mostly) for the sake of programs that use `select`, and
/// would be some five hundred sessions.
#[cfg(unix)]
pub(crate) fn raise_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "limit of descriptors not raised");
    }
}

#[cfg(not(unix))]
pub(crate) fn raise_limit() {}
