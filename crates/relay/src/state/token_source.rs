//! Follows `tokens.json` for a relay that runs: whoever changes the file, however, is heard within a fraction of a second.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use super::token_file::for_relay;
use super::{FIRST_TOKEN, StateDir, StateError};
use crate::grants::{GrantSource, Tokens};

/// How often the file is looked at: a system call each. Half a second is promised.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The tokens of a state directory. If the file cannot be read any more, the last good ones stay.
#[derive(Debug)]
pub struct TokenSource {
    state: StateDir,
    tokens: Arc<watch::Sender<Arc<Tokens>>>,
    first_was_used: AtomicBool,
}

/// What tells one writing of the file from another.
#[derive(PartialEq, Eq)]
struct Stamp {
    inode: u64,
    len: u64,
    changed: Option<SystemTime>,
}

impl TokenSource {
    /// Reads the tokens, and follows them from now on.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn follow(state: &StateDir) -> Result<TokenSource, StateError> {
        // Before it is read: what changes meanwhile is read again.
        let stamp = Stamp::of(state);
        let tokens = Arc::new(watch::Sender::new(Arc::new(for_relay(state.tokens()?))));
        tokio::spawn(look_again(state.clone(), Arc::downgrade(&tokens), stamp));
        let first_was_used = AtomicBool::new(false);
        Ok(TokenSource { state: state.clone(), tokens, first_was_used })
    }
}

impl GrantSource for TokenSource {
    fn watch(&self) -> watch::Receiver<Arc<Tokens>> {
        self.tokens.subscribe()
    }

    fn used(&self, id: &str) {
        if id != FIRST_TOKEN || self.first_was_used.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.state.remove_first_join() {
            warn!(%error, "the first join line was used and cannot be removed");
        }
    }
}

/// Reads the file whenever it is another, for as long as anybody wants to know.
async fn look_again(
    state: StateDir,
    tokens: std::sync::Weak<watch::Sender<Arc<Tokens>>>,
    mut stamp: Stamp,
) {
    let mut complained = false;
    loop {
        sleep(LOOK_EVERY).await;
        let Some(tokens) = tokens.upgrade() else { return };
        let now = Stamp::of(&state);
        if now == stamp {
            continue;
        }
        match read(&state) {
            Ok(read) => {
                stamp = now;
                if std::mem::take(&mut complained) {
                    info!("tokens can be read again");
                }
                tokens.send_replace(Arc::new(read));
            }
            // The stamp stays: it is tried again until it can be read.
            Err(error) if !complained => {
                complained = true;
                warn!(%error, "tokens cannot be read: those that were there hold");
            }
            Err(_) => {}
        }
    }
}

/// A file that is gone has lost no token: nobody takes them all back by a slip.
fn read(state: &StateDir) -> Result<Tokens, StateError> {
    if !state.has_tokens()? {
        return Err(state.damaged("tokens.json", "it is gone"));
    }
    state.tokens().map(for_relay)
}

impl Stamp {
    fn of(state: &StateDir) -> Stamp {
        let metadata = fs::metadata(state.path().join("tokens.json")).ok();
        Stamp {
            inode: metadata.as_ref().map_or(0, MetadataExt::ino),
            len: metadata.as_ref().map_or(0, MetadataExt::size),
            changed: metadata.and_then(|metadata| metadata.modified().ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::state::TokenTerms;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn terms() -> TokenTerms {
        let services = vec!["*".parse().unwrap()];
        TokenTerms { role: relayserver_core::Role::Host, services, expires: None }
    }

    #[tokio::test]
    async fn changes_are_heard_and_what_cannot_be_read_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().join("state")).unwrap();
        let source = TokenSource::follow(&state).unwrap();
        let mut tokens = source.watch();
        state.create_token("laptop", terms(), Ok).unwrap();
        timeout(DEADLINE, tokens.changed()).await.unwrap().unwrap();
        assert!(!tokens.borrow_and_update().get("laptop").unwrap().revoked);

        state.write("tokens.json", b"{").unwrap();
        assert!(timeout(LOOK_EVERY * 3, tokens.changed()).await.is_err());
        fs::remove_file(state.path().join("tokens.json")).unwrap();
        assert!(timeout(LOOK_EVERY * 3, tokens.changed()).await.is_err());
        assert!(tokens.borrow().get("laptop").is_some(), "the last good ones hold");

        state.create_token("other", terms(), Ok).unwrap();
        state.revoke_token("other").unwrap();
        let heard = async {
            while !tokens.borrow_and_update().get("other").is_some_and(|it| it.revoked) {
                tokens.changed().await.unwrap();
            }
        };
        timeout(DEADLINE, heard).await.unwrap();
    }

    #[tokio::test]
    async fn the_first_join_line_goes_once_it_was_used() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().join("state")).unwrap();
        state.write_first_join("line").unwrap();
        let source = TokenSource::follow(&state).unwrap();
        source.used("another");
        assert!(state.first_join_path().exists());
        source.used(FIRST_TOKEN);
        assert!(!state.first_join_path().exists());
    }
}
