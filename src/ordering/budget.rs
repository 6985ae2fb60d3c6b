//! What one peer may cost this replica (protocol.md 10.2 and 10.4).

use crate::ordering::{Alarm, Core, Output};
use crate::types::{Bucket, Height, ReplicaId};

/// Signatures checked per second on one peer's account, and at once after a pause: a sixth of a core.
const CHECKS_PER_SECOND: u64 = 2000;
/// What a correct peer sends seldom (a VIEW-CHANGE, a proof) counts for so many times its signatures.
const SELDOM_COSTS: u64 = 10;
/// How long a peer that sent a false signature is not listened to.
const REFUSED_MS: u64 = 60_000;

/// Chunks read from disk for a peer per second: at most 1 MiB each.
const SERVED_PER_SECOND: u64 = 128;
/// What a page of blocks counts for: it is put together from records.
pub(super) const PAGE_COSTS: u64 = 4;

/// A correct peer asks ascending pages, or descending ones where little of what a certificate proves fits
/// into one, and the same one again only after a second without an answer.
const PAGE_AGAIN_MS: u64 = 900;

/// One peer's account.
pub(super) struct Account {
    checks: Bucket,
    served: Bucket,
    /// Where the last page given began and ended at most, and when it was given.
    page: Option<(Height, Height, u64)>,
    /// Messages that were of no use, since the shell last asked.
    wasted: u64,
    votes_refused_until_ms: u64,
    hearsay_refused_until_ms: u64,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            checks: Bucket::full(CHECKS_PER_SECOND),
            served: Bucket::full(SERVED_PER_SECOND),
            page: None,
            wasted: 0,
            votes_refused_until_ms: 0,
            hearsay_refused_until_ms: 0,
        }
    }
}

impl Core {
    /// Whether signatures may be checked on a peer's account; if not, its message is dropped like one
    /// lost on the wire.
    pub(super) fn may_verify(&mut self, peer: ReplicaId, checks: u64) -> bool {
        let checks = checks.min(CHECKS_PER_SECOND);
        let allowed = self.accounts.entry(peer).or_default().checks.try_take(checks, self.now_ms);
        self.note_budget(peer, allowed)
    }

    /// The same for what a correct peer sends seldom: a flood of it must cost less than one of bundles.
    pub(super) fn may_verify_seldom(&mut self, peer: ReplicaId, checks: u64) -> bool {
        self.may_verify(peer, checks.saturating_mul(SELDOM_COSTS))
    }

    fn note_budget(&mut self, peer: ReplicaId, allowed: bool) -> bool {
        if !allowed {
            self.counters.over_budget += 1;
            self.waste(peer);
        }
        allowed
    }

    /// Notes that a message of this peer was of no use, and that hardly any of a correct one's is,
    /// whichever of the two lags behind.
    pub(super) fn waste(&mut self, peer: ReplicaId) {
        self.counters.wasted += 1;
        self.accounts.entry(peer).or_default().wasted += 1;
    }

    /// Useless messages of a peer since the last call. The shell lets it pay for them by waiting.
    pub fn take_wasted(&mut self, peer: ReplicaId) -> u64 {
        self.accounts.get_mut(&peer).map_or(0, |of| core::mem::take(&mut of.wasted))
    }

    /// Whether something may be read from disk for a peer now; if not, it asks again or asks another.
    pub(super) fn may_serve(&mut self, peer: ReplicaId, cost: u64) -> bool {
        let allowed = self.accounts.entry(peer).or_default().served.try_take(cost, self.now_ms);
        self.note_budget(peer, allowed)
    }

    /// Whether a page in this range is given to a peer now: its blocks are read and put together.
    pub(super) fn may_page(&mut self, peer: ReplicaId, from: Height, until: Height) -> bool {
        let now = self.now_ms;
        let page = self.accounts.entry(peer).or_default().page;
        let again = page.is_some_and(|(first, last, given)| {
            from <= first && until >= last && now < given + PAGE_AGAIN_MS
        });
        if again {
            return self.note_budget(peer, false);
        }
        let allowed = self.may_serve(peer, PAGE_COSTS);
        if allowed {
            self.accounts.entry(peer).or_default().page = Some((from, until, now));
        }
        allowed
    }

    /// A vote that came from its voter's own channel and is not signed by it: a correct replica never
    /// sends one. Not for relayed material.
    pub(super) fn refuse_votes(&mut self, peer: ReplicaId) {
        let until = self.now_ms + REFUSED_MS;
        self.counters.bad_signatures += 1;
        self.waste(peer);
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
        self.waste(peer);
        self.accounts.entry(peer).or_default().hearsay_refused_until_ms = until;
    }

    pub(super) fn is_hearsay_refused(&self, peer: ReplicaId) -> bool {
        self.accounts.get(&peer).is_some_and(|of| self.now_ms < of.hearsay_refused_until_ms)
    }
}
