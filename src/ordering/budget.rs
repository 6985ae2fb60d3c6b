//! What one peer may cost this replica (protocol.md 15).

use crate::ordering::{Alarm, Core, Output};
use crate::types::ReplicaId;

/// Signatures checked per second on one peer's account, and at once after a pause: a sixth of a core.
const CHECKS_PER_SECOND: u64 = 2000;
/// How long a peer that sent a false signature is not listened to.
const REFUSED_MS: u64 = 60_000;

/// Chunks read from disk for a peer per second: at most 1 MiB each.
const SERVED_PER_SECOND: u64 = 128;
/// What a page of blocks counts for: it is put together from records.
pub(super) const PAGE_COSTS: u64 = 4;

/// Tokens for one second at most, earned as time passes.
struct Bucket {
    per_second: u64,
    /// In thousandths.
    tokens: u64,
    filled_ms: u64,
}

impl Bucket {
    fn full(per_second: u64) -> Self {
        Self { per_second, tokens: per_second * 1000, filled_ms: 0 }
    }

    /// Takes `count` if they are there.
    fn take(&mut self, count: u64, now_ms: u64) -> bool {
        let earned = now_ms.saturating_sub(self.filled_ms).saturating_mul(self.per_second);
        self.filled_ms = self.filled_ms.max(now_ms);
        self.tokens = self.tokens.saturating_add(earned).min(self.per_second * 1000);
        let wanted = count.saturating_mul(1000);
        let enough = self.tokens >= wanted;
        if enough {
            self.tokens -= wanted;
        }
        enough
    }
}

/// One peer's account.
pub(super) struct Account {
    checks: Bucket,
    served: Bucket,
    votes_refused_until_ms: u64,
    hearsay_refused_until_ms: u64,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            checks: Bucket::full(CHECKS_PER_SECOND),
            served: Bucket::full(SERVED_PER_SECOND),
            votes_refused_until_ms: 0,
            hearsay_refused_until_ms: 0,
        }
    }
}

impl Core {
    /// Whether signatures may be checked on a peer's account; if not, its message is dropped like one
    /// lost on the wire.
    pub(super) fn may_verify(&mut self, peer: ReplicaId, checks: u64) -> bool {
        let allowed = self.accounts.entry(peer).or_default().checks.take(checks, self.now_ms);
        if !allowed {
            self.counters.over_budget += 1;
        }
        allowed
    }

    /// Whether something may be read from disk for a peer now; if not, it asks again or asks another.
    pub(super) fn may_serve(&mut self, peer: ReplicaId, cost: u64) -> bool {
        let allowed = self.accounts.entry(peer).or_default().served.take(cost, self.now_ms);
        if !allowed {
            self.counters.over_budget += 1;
        }
        allowed
    }

    /// A vote that came from its voter's own channel and is not signed by it: a correct replica never
    /// sends one. Not for relayed material.
    pub(super) fn refuse_votes(&mut self, peer: ReplicaId) {
        let until = self.now_ms + REFUSED_MS;
        self.counters.bad_signatures += 1;
        let account = self.accounts.entry(peer).or_default();
        if self.now_ms >= account.votes_refused_until_ms {
            account.votes_refused_until_ms = until;
            let what = "a vote it did not sign";
            self.out.push(Output::Alarm(Alarm::BadPeer { peer, what }));
        }
    }

    pub(super) fn are_votes_refused(&self, peer: ReplicaId) -> bool {
        self.accounts.get(&peer).is_some_and(|of| self.now_ms < of.votes_refused_until_ms)
    }

    /// A peer passed on something that proves nothing, though it must have checked it.
    pub(super) fn refuse_hearsay(&mut self, peer: ReplicaId) {
        let until = self.now_ms + REFUSED_MS;
        self.accounts.entry(peer).or_default().hearsay_refused_until_ms = until;
    }

    pub(super) fn is_hearsay_refused(&self, peer: ReplicaId) -> bool {
        self.accounts.get(&peer).is_some_and(|of| self.now_ms < of.hearsay_refused_until_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_refills_with_time_and_never_above_a_second_of_checks() {
        let mut account = Bucket::full(CHECKS_PER_SECOND);
        assert!(account.take(CHECKS_PER_SECOND, 5));
        assert!(!account.take(1, 5));
        assert!(account.take(CHECKS_PER_SECOND / 1000, 6));
        assert!(!account.take(1, 6));
        assert!(account.take(CHECKS_PER_SECOND, u64::MAX));
        assert!(!account.take(1, u64::MAX));
        assert!(!account.take(u64::MAX, u64::MAX));
    }
}
