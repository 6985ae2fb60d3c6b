//! What one peer may cost this replica (protocol.md 15).

use crate::ordering::{Alarm, Core, Output};
use crate::types::ReplicaId;

/// Signatures checked per second on one peer's account, and at once after a pause: a sixth of a core.
const CHECKS_PER_SECOND: u64 = 2000;
/// How long a peer that sent a false signature is not listened to.
const REFUSED_MS: u64 = 60_000;

/// One peer's account.
pub(super) struct Account {
    /// In thousandths of a check.
    checks: u64,
    filled_ms: u64,
    votes_refused_until_ms: u64,
    hearsay_refused_until_ms: u64,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            checks: CHECKS_PER_SECOND * 1000,
            filled_ms: 0,
            votes_refused_until_ms: 0,
            hearsay_refused_until_ms: 0,
        }
    }
}

impl Account {
    /// Takes `checks` from the account if they are there.
    fn take(&mut self, checks: u64, now_ms: u64) -> bool {
        let earned = now_ms.saturating_sub(self.filled_ms).saturating_mul(CHECKS_PER_SECOND);
        self.filled_ms = self.filled_ms.max(now_ms);
        self.checks = self.checks.saturating_add(earned).min(CHECKS_PER_SECOND * 1000);
        let wanted = checks.saturating_mul(1000);
        let enough = self.checks >= wanted;
        if enough {
            self.checks -= wanted;
        }
        enough
    }
}

impl Core {
    /// Whether signatures may be checked on a peer's account; if not, its message is dropped like one
    /// lost on the wire.
    pub(super) fn may_verify(&mut self, peer: ReplicaId, checks: u64) -> bool {
        let allowed = self.accounts.entry(peer).or_default().take(checks, self.now_ms);
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
        let mut account = Account::default();
        assert!(account.take(CHECKS_PER_SECOND, 5));
        assert!(!account.take(1, 5));
        assert!(account.take(CHECKS_PER_SECOND / 1000, 6));
        assert!(!account.take(1, 6));
        assert!(account.take(CHECKS_PER_SECOND, u64::MAX));
        assert!(!account.take(1, u64::MAX));
        assert!(!account.take(u64::MAX, u64::MAX));
    }
}
