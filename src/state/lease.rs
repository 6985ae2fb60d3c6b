//! Leases on the replicated lease clock (consensus.md 10): no replica's own clock decides an expiry.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::chain::StateLeaf;
use crate::state::trie::Trie;
use crate::types::{Digest, LeaseId, Millis, Revision};

/// One lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Positive or negative, never 0.
    pub id: LeaseId,
    /// Granted seconds.
    pub ttl_seconds: i64,
    /// When it expires, on the lease clock.
    pub expiry: Millis,
    /// Attached keys, in order.
    pub keys: BTreeSet<Bytes>,
}

/// Shortest time to live: etcd's minimum with its default timing (lease/lessor.go, minLeaseTTL).
pub const TTL_SECONDS_MIN: i64 = 2;

/// Longest time to live (lease/lessor.go, MaxLeaseTTL).
pub const TTL_SECONDS_MAX: i64 = 9_000_000_000;

/// The lease clock gains at most this in one block, so that a pause without quorum expires nothing.
pub const CLOCK_STEP_MAX_MS: u64 = 2_000;

/// Why a grant is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantError {
    /// The id is in use.
    Exists,
    /// Above [`TTL_SECONDS_MAX`].
    TtlTooLarge,
    /// The id is 0, which means "no lease".
    NoId,
}

/// All leases.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    by_id: BTreeMap<LeaseId, Lease>,
    by_expiry: BTreeSet<(Millis, LeaseId)>,
    /// Proves each lease's terms; the attached keys follow from the keys' own leaves.
    trie: Trie<()>,
    clock: Millis,
}

impl Leases {
    /// The lease.
    #[must_use]
    pub fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.by_id.get(&id)
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// All leases in order of expiry.
    pub fn list(&self) -> impl Iterator<Item = &Lease> {
        self.by_expiry.iter().filter_map(|(_, id)| self.by_id.get(id))
    }

    /// Milliseconds of the lease clock until it expires, 0 if it is due.
    #[must_use]
    pub fn remaining(&self, id: LeaseId) -> Option<Millis> {
        self.get(id).map(|lease| lease.expiry.minus(self.clock.0))
    }

    /// The lease clock.
    #[must_use]
    pub fn clock(&self) -> Millis {
        self.clock
    }

    /// The earliest expiry, on the lease clock.
    #[must_use]
    pub fn earliest(&self) -> Option<Millis> {
        self.by_expiry.first().map(|(expiry, _)| *expiry)
    }

    /// Lets the clock gain what block time gained, up to [`CLOCK_STEP_MAX_MS`].
    pub(in crate::state) fn advance(&mut self, gained_ms: u64) {
        self.clock = self.clock.plus(gained_ms.min(CLOCK_STEP_MAX_MS));
    }

    /// Grants a lease; the time to live in force.
    ///
    /// # Errors
    /// [`GrantError`].
    pub(in crate::state) fn grant(
        &mut self,
        id: LeaseId,
        ttl_seconds: i64,
    ) -> Result<i64, GrantError> {
        if id == LeaseId(0) {
            return Err(GrantError::NoId);
        }
        if ttl_seconds > TTL_SECONDS_MAX {
            return Err(GrantError::TtlTooLarge);
        }
        if self.by_id.contains_key(&id) {
            return Err(GrantError::Exists);
        }
        let ttl_seconds = ttl_seconds.max(TTL_SECONDS_MIN);
        let expiry = self.expiry_from_now(ttl_seconds);
        self.insert(Lease { id, ttl_seconds, expiry, keys: BTreeSet::new() });
        Ok(ttl_seconds)
    }

    /// Renews a lease that is not due; the granted time to live.
    pub(in crate::state) fn renew(&mut self, id: LeaseId) -> Option<i64> {
        let lease = self.by_id.get(&id).filter(|lease| lease.expiry > self.clock)?;
        let (old, ttl_seconds) = (lease.expiry, lease.ttl_seconds);
        let expiry = self.expiry_from_now(ttl_seconds);
        self.by_expiry.remove(&(old, id));
        self.by_expiry.insert((expiry, id));
        if let Some(lease) = self.by_id.get_mut(&id) {
            lease.expiry = expiry;
        }
        self.write_leaf(id, ttl_seconds, expiry);
        Some(ttl_seconds)
    }

    fn expiry_from_now(&self, ttl_seconds: i64) -> Millis {
        let ttl = u64::try_from(ttl_seconds).unwrap_or(0);
        self.clock.plus(ttl.saturating_mul(1000))
    }

    pub(in crate::state) fn insert(&mut self, lease: Lease) {
        self.by_expiry.insert((lease.expiry, lease.id));
        self.write_leaf(lease.id, lease.ttl_seconds, lease.expiry);
        self.by_id.insert(lease.id, lease);
    }

    /// No leases yet, the clock being this far.
    pub(in crate::state) fn at(clock: Millis) -> Self {
        Self { clock, ..Self::default() }
    }

    fn write_leaf(&mut self, id: LeaseId, ttl_seconds: i64, expiry: Millis) {
        let leaf = StateLeaf {
            modified: Revision(i64::try_from(expiry.0).unwrap_or(i64::MAX)),
            create: Revision(ttl_seconds),
            version: 0,
            lease: LeaseId(0),
            commitment: Digest::ZERO,
        };
        self.trie.upsert_with(&id.0.to_be_bytes(), |_| ((), leaf));
    }

    /// Takes a lease away; its keys are the caller's to delete.
    pub(in crate::state) fn remove(&mut self, id: LeaseId) -> Option<Lease> {
        let lease = self.by_id.remove(&id)?;
        self.by_expiry.remove(&(lease.expiry, id));
        self.trie.remove(&id.0.to_be_bytes());
        Some(lease)
    }

    /// The leases that are due, by (expiry, id): whole ones until 256 leases or 10,000 keys are
    /// reached, at least one; the rest waits for the next block (consensus.md 4).
    pub(in crate::state) fn due(&self) -> Vec<LeaseId> {
        const LEASES_MAX: usize = 256;
        const KEYS_MAX: usize = 10_000;
        let mut due = Vec::new();
        let mut keys = 0;
        for (expiry, id) in &self.by_expiry {
            if *expiry > self.clock || due.len() == LEASES_MAX || keys >= KEYS_MAX {
                break;
            }
            due.push(*id);
            keys += self.by_id.get(id).map_or(0, |lease| lease.keys.len());
        }
        due
    }

    pub(in crate::state) fn attach(&mut self, id: LeaseId, key: Bytes) {
        if let Some(lease) = self.by_id.get_mut(&id) {
            lease.keys.insert(key);
        }
    }

    pub(in crate::state) fn detach(&mut self, id: LeaseId, key: &[u8]) {
        if let Some(lease) = self.by_id.get_mut(&id) {
            lease.keys.remove(key);
        }
    }

    pub(in crate::state) fn root(&mut self) -> Digest {
        self.trie.root()
    }
}
