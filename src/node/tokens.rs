use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;

use crate::apply::Login;
use crate::node::clock::Clock;
use crate::types::{Digest, Millis};

/// Most tokens kept; the one unused longest gives way.
const TOKENS_MAX: usize = 1 << 16;

/// The simple tokens of this organisation's users, as executed logins gave them out. Local and lost with
/// the process, as etcd's are: a client whose token is gone shows its password again.
///
/// Only digests are kept and ordered: who reads log or memory dump gets no token.
pub struct Tokens {
    clock: Clock,
    known: BTreeMap<Digest, Token>,
}

struct Token {
    user: Bytes,
    auth_revision: u64,
    /// By this process's monotonic clock; negative for one that was given before the process started.
    used_ms: AtomicI64,
}

impl Tokens {
    pub(super) fn new() -> Self {
        Self { clock: Clock::start(), known: BTreeMap::new() }
    }

    fn now(&self) -> i64 {
        i64::try_from(self.clock.mono_ms()).unwrap_or(i64::MAX)
    }

    /// A login was executed in a block of this time.
    pub(super) fn add(&mut self, login: Login, block_time: Millis) {
        if self.known.len() >= TOKENS_MAX {
            let used = |token: &Token| token.used_ms.load(Ordering::Relaxed);
            let oldest = self.known.iter().min_by_key(|(_, token)| used(token));
            if let Some(digest) = oldest.map(|(digest, _)| *digest) {
                self.known.remove(&digest);
            }
        }
        let age = self.clock.unix_ms().minus(block_time.0);
        let used_ms = self.now().saturating_sub(i64::try_from(age.0).unwrap_or(i64::MAX));
        let Login { user, token, auth_revision, .. } = login;
        let user = Bytes::copy_from_slice(&user);
        self.known.insert(token, Token { user, auth_revision, used_ms: AtomicI64::new(used_ms) });
    }

    /// Whom a token stands for, and the auth revision at which it was given. One that was not used for
    /// the time to live is none; use prolongs it.
    #[must_use]
    pub fn find(&self, token: &Digest, ttl_ms: u64) -> Option<(Bytes, u64)> {
        let found = self.known.get(token)?;
        let ttl_ms = i64::try_from(ttl_ms).unwrap_or(i64::MAX);
        if self.now().saturating_sub(found.used_ms.load(Ordering::Relaxed)) > ttl_ms {
            return None;
        }
        found.used_ms.store(self.now(), Ordering::Relaxed);
        Some((found.user.clone(), found.auth_revision))
    }
}
