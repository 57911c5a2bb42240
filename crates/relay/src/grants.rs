//! The tokens that a relay knows, and what each allows. Where they are kept is a [`GrantSource`]'s matter: the relay takes what it
//! gives, now and as it changes. If a source fails it says nothing, and the last good tokens stay in force.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use relayserver_core::{Grant, GrantId, Reason, Role, ServicePattern, Time};
use relayserver_transport::Token;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::info;

use crate::assignment::Assignments;

/// Where tokens come from.
pub trait GrantSource: fmt::Debug + Send + Sync + 'static {
    /// The tokens now, and as they change.
    fn watch(&self) -> watch::Receiver<Arc<Tokens>>;

    /// A host has shown the token with this id, and serves. May block for a moment.
    fn used(&self, id: &str) {
        let _nobody_wants_to_know = id;
    }
}

/// The tokens that a relay knows, by their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens(BTreeMap<String, TokenRecord>);

/// What is kept of a token.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// The SHA-256 of its secret.
    pub secret_hash: [u8; 32],
    /// What it is for.
    pub role: Role,
    /// The services that it covers.
    pub services: Vec<ServicePattern>,
    /// From when on it is void.
    pub expires: Option<SystemTime>,
    /// Whether it was taken back. It is kept so that its bearer can be told.
    pub revoked: bool,
}

impl Tokens {
    /// No token.
    pub fn new() -> Tokens {
        Tokens::default()
    }

    /// Adds a token, or changes one.
    pub fn insert(&mut self, id: &str, record: TokenRecord) {
        self.0.insert(id.to_owned(), record);
    }

    /// The token with this id.
    pub fn get(&self, id: &str) -> Option<&TokenRecord> {
        self.0.get(id)
    }

    /// The token with this id, to be changed.
    pub fn get_mut(&mut self, id: &str) -> Option<&mut TokenRecord> {
        self.0.get_mut(id)
    }

    /// Every token, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &TokenRecord)> {
        self.0.iter().map(|(id, record)| (id.as_str(), record))
    }

    /// The grant that `token` shows.
    pub(crate) fn check(&self, token: &Token, now: SystemTime) -> Result<GrantId, Reason> {
        // Compared also where there is no such token, so that the time does not tell which ids there are.
        let (nobodys, record) = ([0; 32], self.0.get(token.id()));
        let is_it = token.is_of_hash(record.map_or(&nobodys, |record| &record.secret_hash));
        match record.filter(|_| is_it) {
            None => Err(Reason::TokenUnknown),
            Some(TokenRecord { revoked: true, .. }) => Err(Reason::TokenRevoked),
            Some(record) if record.expires.is_some_and(|expires| expires <= now) => {
                Err(Reason::TokenExpired)
            }
            Some(TokenRecord { role: Role::Client, .. }) => Err(Reason::RoleNotGranted),
            Some(_) => Ok(GrantId::new(token.id())),
        }
    }

    /// Those that have another secret than `before`.
    fn with_other_secrets(&self, before: &Tokens) -> Vec<GrantId> {
        let is_other = |id: &String, record: &TokenRecord| {
            before.0.get(id).is_some_and(|before| before.secret_hash != record.secret_hash)
        };
        let others = self.0.iter().filter(|(id, record)| is_other(id, record));
        others.map(|(id, _)| GrantId::new(id)).collect()
    }

    /// Those that expire, as they stand.
    fn expiring(&self, now: Time, wall: SystemTime) -> Vec<(GrantId, Option<Grant>)> {
        let expiring = self.0.iter().filter(|(_, record)| record.expires.is_some());
        expiring.map(|(id, record)| (GrantId::new(id), record.grant(now, wall))).collect()
    }

    /// What is to be told to a book that was told `before`: each grant that is another, and those that are no more.
    pub(crate) fn changes_since(
        &self,
        before: &Tokens,
        (now, wall): (Time, SystemTime),
    ) -> Vec<(GrantId, Option<Grant>)> {
        let gone = before.0.keys().filter(|id| !self.0.contains_key(*id));
        let gone = gone.map(|id| (GrantId::new(id), None));
        let changed = self.0.iter().filter(|(id, record)| before.0.get(*id) != Some(*record));
        let changed = changed.map(|(id, record)| (GrantId::new(id), record.grant(now, wall)));
        gone.chain(changed).collect()
    }
}

impl TokenRecord {
    /// What it allows, if anything.
    fn grant(&self, now: Time, wall: SystemTime) -> Option<Grant> {
        // What has expired by the clock on the wall has expired now.
        let left = |expires: SystemTime| expires.duration_since(wall).unwrap_or_default();
        let expires = self.expires.map(|expires| now + left(expires));
        let services = self.services.clone();
        (!self.revoked).then_some(Grant { role: self.role, services, expires })
    }
}

impl fmt::Debug for TokenRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRecord")
            .field("role", &self.role)
            .field("services", &self.services)
            .field("expires", &self.expires)
            .field("revoked", &self.revoked)
            .finish_non_exhaustive()
    }
}

/// The tokens as the book was told of them: nobody comes in with one that it does not know yet.
#[derive(Default)]
pub(crate) struct KnownTokens(RwLock<Arc<Tokens>>);

impl KnownTokens {
    /// The grant that `token` shows.
    pub(crate) fn check(&self, token: &Token, now: SystemTime) -> Result<GrantId, Reason> {
        self.get().check(token, now)
    }

    /// Tells `assignments` what `tokens` changes.
    pub(crate) fn change(&self, tokens: Arc<Tokens>, assignments: &Assignments) {
        let now = (assignments.now(), SystemTime::now());
        let before = self.get();
        // Whoever came in with another secret under the same name has not shown this one.
        for id in tokens.with_other_secrets(&before) {
            assignments.grant_changed(id, None);
        }
        for (grant, terms) in tokens.changes_since(&before, now) {
            info!(token = %grant, is_valid = terms.is_some(), "token changed");
            assignments.grant_changed(grant, terms);
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = tokens;
    }

    /// Tells `assignments` of every change, for as long as there are any. A source that fails says nothing: what it last said
    /// holds.
    pub(crate) async fn follow(
        &self,
        mut source: watch::Receiver<Arc<Tokens>>,
        assignments: &Assignments,
    ) {
        let mut offset = Offset::now(assignments);
        loop {
            tokio::select! {
                changed = source.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                    let tokens = Arc::clone(&source.borrow_and_update());
                    self.change(tokens, assignments);
                }
                () = sleep(LOOK_AT_CLOCKS_EVERY) => {
                    let now = Offset::now(assignments);
                    if offset.is_another(&now) {
                        offset = now;
                        self.retell_expiries(assignments);
                    }
                }
            }
        }
    }

    /// The clock on the wall was set, or the machine slept: what expires by it does so at another moment of the book's time.
    fn retell_expiries(&self, assignments: &Assignments) {
        let (now, wall) = (assignments.now(), SystemTime::now());
        for (grant, terms) in self.get().expiring(now, wall) {
            assignments.grant_changed(grant, terms);
        }
    }

    fn get(&self) -> Arc<Tokens> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How often the clock on the wall is held against the book's.
const LOOK_AT_CLOCKS_EVERY: Duration = Duration::from_secs(5);

/// When the book's time began, by the clock on the wall.
struct Offset(SystemTime);

impl Offset {
    fn now(assignments: &Assignments) -> Offset {
        let since = assignments.now().since_start();
        Offset(SystemTime::now().checked_sub(since).unwrap_or(SystemTime::UNIX_EPOCH))
    }

    /// Whether it has moved by more than clocks that run evenly.
    fn is_another(&self, now: &Offset) -> bool {
        let forward = now.0.duration_since(self.0).unwrap_or_default();
        let back = self.0.duration_since(now.0).unwrap_or_default();
        forward.max(back) > Duration::from_secs(1)
    }
}

/// Tokens that stand in memory alone: for tests, and for programs that keep them elsewhere.
#[derive(Debug)]
pub struct FixedGrants(watch::Sender<Arc<Tokens>>);

impl FixedGrants {
    /// These tokens.
    pub fn new(tokens: Tokens) -> FixedGrants {
        FixedGrants(watch::Sender::new(Arc::new(tokens)))
    }

    /// Changes them; the relay hears of it at once.
    pub fn change(&self, change: impl FnOnce(&mut Tokens)) {
        self.0.send_modify(|tokens| change(Arc::make_mut(tokens)));
    }
}

impl GrantSource for FixedGrants {
    fn watch(&self) -> watch::Receiver<Arc<Tokens>> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(token: &Token) -> TokenRecord {
        TokenRecord {
            secret_hash: token.secret_hash(),
            role: Role::Host,
            services: vec!["*".parse().unwrap()],
            expires: None,
            revoked: false,
        }
    }

    #[test]
    fn each_wrong_token_has_its_own_reason() {
        let now = SystemTime::now();
        let token = Token::generate("laptop").unwrap();
        let check = |change: fn(&mut TokenRecord, SystemTime)| {
            let mut tokens = Tokens::new();
            let mut record = record(&token);
            change(&mut record, now);
            tokens.insert("laptop", record);
            tokens.check(&token, now)
        };
        assert_eq!(check(|_, _| {}), Ok(GrantId::new("laptop")));
        assert_eq!(check(|it, _| it.secret_hash[0] ^= 1), Err(Reason::TokenUnknown));
        assert_eq!(check(|it, _| it.revoked = true), Err(Reason::TokenRevoked));
        assert_eq!(check(|it, now| it.expires = Some(now)), Err(Reason::TokenExpired));
        assert_eq!(check(|it, _| it.role = Role::Client), Err(Reason::RoleNotGranted));
        assert_eq!(Tokens::new().check(&token, now), Err(Reason::TokenUnknown));
        let forged = Token::generate("laptop").unwrap();
        let mut tokens = Tokens::new();
        tokens.insert("laptop", record(&token));
        tokens.get_mut("laptop").unwrap().revoked = true;
        assert_eq!(tokens.check(&forged, now), Err(Reason::TokenUnknown), "it is told nothing");
    }

    #[test]
    fn what_changed_is_told_and_nothing_else() {
        let (now, wall) = (Time::from_millis(5_000), SystemTime::now());
        let (one, other) = (Token::generate("one").unwrap(), Token::generate("other").unwrap());
        let mut before = Tokens::new();
        before.insert("one", record(&one));
        before.insert("other", record(&other));
        let mut after = before.clone();
        assert_eq!(after.changes_since(&before, (now, wall)), []);
        after.get_mut("one").unwrap().expires = Some(wall + Duration::from_secs(60));
        after.get_mut("other").unwrap().revoked = true;
        let changes = after.changes_since(&before, (now, wall));
        let [(first, Some(grant)), (second, None)] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!((first, second), (&GrantId::new("one"), &GrantId::new("other")));
        assert_eq!(grant.expires, Some(Time::from_millis(65_000)));
        assert_eq!(Tokens::new().changes_since(&after, (now, wall)).len(), 2, "both are gone");
        let shown = format!("{after:?}");
        assert!(!shown.contains("secret"), "{shown}");
    }
}
