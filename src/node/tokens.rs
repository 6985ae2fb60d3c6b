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

    /// The time that a signed token's end counts from.
    #[must_use]
    pub fn unix_seconds(&self) -> u64 {
        self.clock.unix_ms().0 / 1000
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::OrgId;

    fn login(token: u8, user: &'static str) -> Login {
        let (organisation, token) = (OrgId(0), Digest([token; 32]));
        Login { organisation, user: user.into(), token, auth_revision: 7 }
    }

    #[test]
    fn a_token_stands_for_its_user_and_one_of_long_ago_for_nobody() {
        let mut tokens = Tokens::new();
        let hour = 3_600_000;
        let now = tokens.clock.unix_ms();
        tokens.add(login(1, "alice"), now);
        tokens.add(login(2, "bob"), now.minus(2 * hour));
        assert_eq!(tokens.find(&Digest([1; 32]), hour), Some(("alice".into(), 7)));
        // Executed again, or late, it does not begin anew.
        assert_eq!(tokens.find(&Digest([2; 32]), hour), None);
        assert_eq!(tokens.find(&Digest([3; 32]), hour), None);
    }

    #[test]
    fn tokens_are_bounded_and_the_one_unused_longest_goes() {
        let mut tokens = Tokens::new();
        let now = tokens.clock.unix_ms();
        tokens.add(login(1, "old"), now.minus(60_000));
        for number in 0..u32::try_from(TOKENS_MAX).expect("few") {
            let mut digest = [9; 32];
            digest[..4].copy_from_slice(&number.to_le_bytes());
            tokens.add(Login { token: Digest(digest), ..login(0, "new") }, now);
        }
        assert_eq!(tokens.known.len(), TOKENS_MAX);
        assert_eq!(tokens.find(&Digest([1; 32]), 3_600_000), None);
    }
}
