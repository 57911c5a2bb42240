//! The relay's key and certificate, and those that are to follow them.

use relayserver_transport::{Pin, ServerTls, TlsError, generate_identity};
use zeroize::Zeroizing;

use super::{StateDir, StateError};

const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";
const NEXT_CERTIFICATE: &str = "certificate.next.pem";
const NEXT_KEY: &str = "key.next.pem";
const OLD_CERTIFICATE: &str = "certificate.old.pem";
const OLD_KEY: &str = "key.old.pem";

impl StateDir {
    /// The relay's identity, made out to `names` where there is none yet. What is there is never written over.
    ///
    /// # Errors
    /// It cannot be read, made or used.
    pub fn identity(&self, names: &[String]) -> Result<ServerTls, StateError> {
        let _locked = self.lock()?;
        self.current(names)
    }

    fn current(&self, names: &[String]) -> Result<ServerTls, StateError> {
        self.finish_switch()?;
        match self.load(CERTIFICATE, KEY)? {
            Some(identity) => Ok(identity),
            None => self.make(names, CERTIFICATE, KEY),
        }
    }

    /// The pins that join lines are to name: that of the key, and that of the next one, where there is one.
    ///
    /// # Errors
    /// As [`identity`](StateDir::identity).
    pub fn pins(&self, names: &[String]) -> Result<Vec<Pin>, StateError> {
        let _locked = self.lock()?;
        let current = self.current(names)?.pin();
        let next = self.load(NEXT_CERTIFICATE, NEXT_KEY)?.map(|next| next.pin());
        Ok([current].into_iter().chain(next).collect())
    }

    /// The pin of the key that is to follow, which is made where there is none yet.
    ///
    /// # Errors
    /// As [`identity`](StateDir::identity).
    pub fn next_pin(&self, names: &[String]) -> Result<Pin, StateError> {
        let _locked = self.lock()?;
        self.finish_switch()?;
        let next = match self.load(NEXT_CERTIFICATE, NEXT_KEY)? {
            Some(next) => next,
            None => self.make(names, NEXT_CERTIFICATE, NEXT_KEY)?,
        };
        Ok(next.pin())
    }

    /// Puts the next key in the place of the present one, which is kept beside it. A relay uses it from its next start on.
    ///
    /// # Errors
    /// There is none, or a file cannot be renamed.
    pub fn switch_key(&self) -> Result<Pin, StateError> {
        let _locked = self.lock()?;
        self.finish_switch()?;
        let next = self.load(NEXT_CERTIFICATE, NEXT_KEY)?.ok_or(StateError::NoNextKey)?;
        for (name, old) in [(KEY, OLD_KEY), (CERTIFICATE, OLD_CERTIFICATE)] {
            if let Some(bytes) = self.read(name)? {
                let bytes = Zeroizing::new(bytes);
                self.write(old, &bytes)?;
            }
        }
        self.rename(NEXT_CERTIFICATE, CERTIFICATE)?;
        self.rename(NEXT_KEY, KEY)?;
        Ok(next.pin())
    }

    /// Goes on where one that was cut short between its two renames has stopped.
    fn finish_switch(&self) -> Result<(), StateError> {
        let is_next_key_alone =
            self.read(NEXT_CERTIFICATE)?.is_none() && self.read(NEXT_KEY)?.is_some();
        let mismatches = || {
            let loaded = self.load(CERTIFICATE, KEY);
            matches!(loaded, Err(StateError::Tls(TlsError::KeyMismatch)))
        };
        if is_next_key_alone && mismatches() { self.rename(NEXT_KEY, KEY) } else { Ok(()) }
    }

    /// `None` where there is no key: it is written last.
    fn load(&self, certificate: &str, key: &str) -> Result<Option<ServerTls>, StateError> {
        let Some(key) = self.read(key)?.map(Zeroizing::new) else {
            return Ok(None);
        };
        let Some(chain) = self.read(certificate)? else {
            return Err(self.damaged(certificate, "there is a key, and no certificate for it"));
        };
        Ok(Some(ServerTls::from_pem(&chain, &key)?))
    }

    fn make(
        &self,
        names: &[String],
        certificate: &str,
        key: &str,
    ) -> Result<ServerTls, StateError> {
        let made = generate_identity(names)?;
        self.write(certificate, made.certificate_pem.as_bytes())?;
        self.write(key, made.key_pem.as_bytes())?;
        Ok(ServerTls::from_pem(made.certificate_pem.as_bytes(), made.key_pem.as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (tempfile::TempDir, StateDir) {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().join("state")).unwrap();
        (folder, state)
    }

    #[test]
    fn it_is_made_once() {
        let (_folder, state) = state();
        let pin = state.identity(&[]).unwrap().pin();
        assert_eq!(state.identity(&["other".to_owned()]).unwrap().pin(), pin);
        assert_eq!(state.pins(&[]).unwrap(), [pin]);
    }

    #[test]
    fn many_that_start_at_once_end_with_one() {
        let (_folder, state) = state();
        let pins: Vec<Pin> = std::thread::scope(|scope| {
            let all: Vec<_> =
                (0..8).map(|_| scope.spawn(|| state.identity(&[]).unwrap().pin())).collect();
            all.into_iter().map(|it| it.join().unwrap()).collect()
        });
        assert!(pins.iter().all(|pin| *pin == pins[0]), "{pins:?}");
    }

    #[test]
    fn the_next_key_is_announced_before_it_is_used() {
        let (_folder, state) = state();
        let first = state.identity(&[]).unwrap().pin();
        assert!(matches!(state.switch_key(), Err(StateError::NoNextKey)));
        let next = state.next_pin(&[]).unwrap();
        assert_eq!(state.next_pin(&[]).unwrap(), next, "it is made once");
        assert_ne!(next, first);
        assert_eq!(state.pins(&[]).unwrap(), [first, next]);
        assert_eq!(state.identity(&[]).unwrap().pin(), first);
        assert_eq!(state.switch_key().unwrap(), next);
        assert_eq!(state.pins(&[]).unwrap(), [next]);
        assert!(matches!(state.switch_key(), Err(StateError::NoNextKey)));
    }

    #[test]
    fn a_switch_that_was_cut_short_is_finished() {
        let (_folder, state) = state();
        state.identity(&[]).unwrap();
        let next = state.next_pin(&[]).unwrap();
        state.rename(NEXT_CERTIFICATE, CERTIFICATE).unwrap();
        assert_eq!(state.identity(&[]).unwrap().pin(), next);
        assert_eq!(state.pins(&[]).unwrap(), [next]);
    }

    #[test]
    fn a_start_that_was_cut_short_is_begun_anew() {
        let (_folder, state) = state();
        state.write(CERTIFICATE, b"of a key that never was").unwrap();
        assert!(state.identity(&[]).is_ok());
    }
}
