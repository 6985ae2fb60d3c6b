//! A network's first state from another store's changes, in their order: revisions, versions and leases
//! stay what they were.

use bytes::Bytes;

use crate::chain::{Genesis, ValueRef};
use crate::state::State;
use crate::state::kv::{Item, Kv, KvNumbers, Version};
use crate::state::lease::{Lease, TTL_SECONDS_MAX};
use crate::types::{Digest, LeaseId, Millis, Revision};

/// One version or delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Its revision.
    pub revision: Revision,
    /// Its place within it.
    pub sub: u32,
    /// Of what.
    pub key: Bytes,
    /// None for a delete: first revision, version, lease, where the value is, its commitment.
    pub put: Option<(Revision, i64, LeaseId, ValueRef, Digest)>,
}

/// Why changes make no state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportRefused {
    /// A change stands in the wrong place.
    Order(Revision),
    /// A version that cannot be: numbers from 1, the first revision not above its own.
    Version(Revision),
    /// A lease twice, with no id, or with a time that none is granted.
    Lease(LeaseId),
    /// A key names a lease that is not there.
    NoLease(LeaseId),
}

impl core::fmt::Display for ImportRefused {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Order(revision) => write!(f, "a change at revision {revision} is out of order"),
            Self::Version(revision) => write!(f, "a version at revision {revision} cannot be"),
            Self::Lease(LeaseId(id)) => write!(f, "the lease {id:x} cannot be"),
            Self::NoLease(LeaseId(id)) => {
                write!(f, "a key names the lease {id:x}, which is not there")
            }
        }
    }
}

impl std::error::Error for ImportRefused {}

/// A first state being made.
pub struct Import {
    state: State,
    last: Option<(Revision, u32)>,
}

impl Import {
    /// Begins a state at this revision; `compacted` is the newest compacted one.
    ///
    /// # Errors
    /// [`ImportRefused::Order`] if it is compacted above its revision.
    pub fn begin(
        genesis: &Genesis,
        revision: Revision,
        compacted: Option<Revision>,
    ) -> Result<Self, ImportRefused> {
        let mut state = State::genesis(genesis);
        let fresh = state.kv.numbers();
        let compact_revision = compacted.unwrap_or(fresh.compact_revision);
        if revision < fresh.revision || revision < compact_revision {
            return Err(ImportRefused::Order(revision));
        }
        state.kv = Kv::restoring(KvNumbers { revision, compact_revision, ..fresh });
        Ok(Self { state, last: None })
    }

    /// A lease, with all its time ahead of it.
    ///
    /// # Errors
    /// [`ImportRefused::Lease`].
    pub fn lease(&mut self, id: LeaseId, ttl_seconds: i64) -> Result<(), ImportRefused> {
        let known = self.state.leases.get(id).is_some();
        if id == LeaseId(0) || known || !(1..=TTL_SECONDS_MAX).contains(&ttl_seconds) {
            return Err(ImportRefused::Lease(id));
        }
        let expiry = Millis(ttl_seconds.unsigned_abs() * 1000);
        self.state.leases.insert(Lease { id, ttl_seconds, expiry, keys: Default::default() });
        Ok(())
    }

    /// The next change, in order of revision and place.
    ///
    /// # Errors
    /// [`ImportRefused`].
    pub fn push(&mut self, change: &Imported) -> Result<(), ImportRefused> {
        let Imported { revision, sub, key, put } = change;
        let (revision, sub) = (*revision, *sub);
        let place = (revision, sub);
        let kv = &mut self.state.kv;
        if self.last.is_some_and(|last| last >= place) || revision > kv.revision() {
            return Err(ImportRefused::Order(revision));
        }
        self.last = Some(place);
        let compacted = revision < kv.compact_revision();
        let Some((create, version, lease, value, commitment)) = *put else {
            if compacted {
                kv.restore_gone(key);
            } else {
                kv.restore_change(key, &Item::Delete { revision, sub }, Digest::ZERO);
            }
            return Ok(());
        };
        if version < 1 || create < Revision(1) || create > revision {
            return Err(ImportRefused::Version(revision));
        }
        let version = Version { modified: revision, create, version, lease, value, link: 0 };
        if compacted {
            kv.restore_base(key, version, commitment);
        } else {
            kv.restore_change(key, &Item::Put { version, sub }, commitment);
        }
        Ok(())
    }

    /// The state before the first block.
    ///
    /// # Errors
    /// [`ImportRefused::NoLease`].
    pub fn finish(mut self) -> Result<State, ImportRefused> {
        let state = &mut self.state;
        state.kv.count_hidden();
        for (key, lease) in state.kv.leased_keys() {
            if state.leases.get(lease).is_none() {
                return Err(ImportRefused::NoLease(lease));
            }
            state.leases.attach(lease, key);
        }
        state.refresh_root();
        Ok(self.state)
    }
}
