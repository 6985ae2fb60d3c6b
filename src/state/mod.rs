//! The replicated state: a function of genesis and the executed blocks, byte for byte the same on every
//! replica. It never asks a clock, a file or another replica; where this replica keeps a value
//! ([`ValueRef`]) is the one local fact it holds, and no root covers it.
//!
//! `apply` changes it, `watch` and the shell read it.

mod alarm;
pub mod auth;
mod counters;
mod effects;
mod evidence;
mod import;
pub mod kv;
mod lease;
#[doc(hidden)]
pub mod measure;
mod relocate;
mod restore;
mod sessions;
mod snapshot;
mod span;
#[cfg(test)]
mod proof_tests;
#[cfg(test)]
mod snapshot_tests;
#[cfg(test)]
pub(crate) mod testing;
mod trie;

use bytes::Bytes;

pub use alarm::Alarms;
pub use auth::{Access, Auth, AuthError, AuthStore};
pub use counters::Counters;
pub use effects::{Cause, Record};
pub use evidence::{Proof, Proofs, report_after_ms};
pub use import::{Import, ImportRefused, Imported};
pub use kv::{
    CompactError, ContentHash, ContentPage, Event, KeyValue, Kv, RangeError, RangeResult,
    finish_range,
};
pub use lease::{CLOCK_STEP_MAX_MS, GrantError, Lease, Leases, TTL_SECONDS_MAX, TTL_SECONDS_MIN};
pub use relocate::{MovedKey, moved_keys};
pub use restore::{KeptChunk, Restore};
pub use sessions::Sessions;
pub use snapshot::{CHUNK_BYTES_MAX, ChunkPlan, RestoreError, Snapshotter};
pub use span::Span;

use crate::chain::{
    Administrators, AuthOp, BlockHeader, Genesis, Membership, Network, Ownership, StateProof,
    SubState, Value, ValueError, ValueRef, ValueSource, exec_root,
};
use crate::codec::{Encode, Writer};
use crate::crypto::{Context, hash};
use crate::planted;
use crate::types::{ClusterId, Digest, LeaseId, Millis, OrgId, ReplicaId, Revision};

/// Bytes of quota that a lease counts.
pub const LEASE_CHARGE: u64 = 64;

/// Changes that one block's execution sweeps at most, beside as many as it made.
const SWEEP_CHANGES: usize = 1024;

/// What a put writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewVersion {
    /// 0 for none.
    pub lease: LeaseId,
    pub value: ValueRef,
    pub commitment: Digest,
}

/// Everything that affects future execution.
#[derive(Clone, Debug)]
pub struct State {
    /// Keys.
    pub kv: Kv,
    /// Leases and their clock.
    pub leases: Leases,
    /// Which requests are done.
    pub sessions: Sessions,
    /// Alarms in force.
    pub alarms: Alarms,
    /// Users, roles and permissions.
    pub auth: Auth,
    /// Who is proven to have broken the protocol.
    pub proofs: Proofs,
    /// The last block, and when a checkpoint is due.
    pub counters: Counters,
    cluster_id: ClusterId,
    network: Network,
    /// The running digest over all effects: the history follows from it.
    effects: Digest,
    /// Of all sub-states, behind the last executed block.
    roots: Vec<(SubState, Digest)>,
    root: Digest,
}

impl State {
    /// The state before the first block.
    #[must_use]
    pub fn genesis(genesis: &Genesis) -> Self {
        let mut state = Self {
            kv: Kv::default(),
            leases: Leases::default(),
            sessions: Sessions::default(),
            alarms: Alarms::default(),
            auth: Auth::default(),
            proofs: Proofs::default(),
            counters: Counters::default(),
            cluster_id: genesis.cluster_id(),
            network: Network::of(genesis),
            effects: Digest::ZERO,
            roots: Vec::new(),
            root: Digest::ZERO,
        };
        state.refresh_root();
        state
    }

    /// The root over all sub-states after the last executed block.
    #[must_use]
    pub fn exec_root(&self) -> Digest {
        self.root
    }

    /// 32 bits over what clients can see, from roots that are there: no clock, session or counter, so
    /// that a block without a change leaves it as it was.
    #[must_use]
    pub fn content(&self) -> u32 {
        let seen = [
            SubState::Keys,
            SubState::Store,
            SubState::Leases,
            SubState::Alarms,
            SubState::Config,
            SubState::Auth,
        ];
        let roots = self.roots.iter().filter(|(sub, _)| seen.contains(sub));
        let parts: Vec<&[u8]> = roots.map(|(_, root)| &root.0[..]).collect();
        kv::first_word(&hash(&Context::CONTENT, &parts))
    }

    /// Members and parameters in force.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.network.membership
    }

    /// Members with where they are found, organisations with their governance keys.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Who may change members; anybody where that is decided by organisations' signatures.
    #[must_use]
    pub fn administrators(&self) -> Administrators {
        let owner = self.network.organisations.keys().next();
        match (self.network.ownership, owner) {
            (Ownership::One, Some(owner)) => self.auth.store(*owner).administrators().clone(),
            _ => Administrators::default(),
        }
    }

    /// The organisation a member belongs to.
    #[must_use]
    pub fn organisation_of(&self, replica: ReplicaId) -> Option<OrgId> {
        self.membership().member(replica).map(|member| member.organisation)
    }

    /// The network's identity.
    #[must_use]
    pub fn cluster_id(&self) -> &ClusterId {
        &self.cluster_id
    }

    /// The next epoch begins behind this block.
    pub(crate) fn start_epoch(&mut self, network: Network) {
        assert_eq!(network.membership.epoch, self.network.membership.epoch.next(), "epochs follow");
        self.counters.changed = true;
        self.network = network;
    }

    /// Logical bytes that count towards the quota.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.kv.used_bytes() + self.leases.len() as u64 * LEASE_CHARGE
    }

    /// When the next lease expires, in block time; in the past while expired ones wait.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Millis> {
        let wait = self.leases.earliest()?.minus(self.leases.clock().0);
        Some(self.counters.time_ms.plus(wait.0))
    }

    /// Shows, against [`State::exec_root`], what the last block left of a key.
    ///
    /// # Errors
    /// A value, of the key or its neighbours, cannot be read: its commitment lies with it.
    pub fn prove(&self, key: &[u8], values: &dyn ValueSource) -> Result<StateProof, ValueError> {
        let finding = self.kv.prove(key, values)?;
        let count = self.kv.key_count() as u64;
        let key = Bytes::copy_from_slice(key);
        Ok(StateProof { key, count, finding, roots: self.roots.clone() })
    }

    fn refresh_root(&mut self) {
        self.roots = self.roots();
        self.root = exec_root(&self.roots);
    }

    /// The sub-states' roots, in order; brings the tries' hashes up to date.
    fn roots(&mut self) -> Vec<(SubState, Digest)> {
        let numbers = self.kv.numbers();
        let mut store = Writer::new();
        numbers.encode(&mut store);
        let clock = self.leases.clock().0.to_le_bytes();
        let whole = |bytes: &[u8]| hash(&Context::STATE_ROOT, &[bytes]);
        vec![
            (SubState::Keys, self.kv.root()),
            (SubState::Store, whole(store.as_slice())),
            (SubState::Leases, self.leases.root()),
            (SubState::Clock, whole(&clock)),
            (SubState::Sessions, whole(&self.sessions.to_bytes())),
            (SubState::Alarms, whole(&self.alarms.to_bytes())),
            (SubState::Counters, whole(&self.counters.to_bytes())),
            (SubState::Config, self.network.root()),
            (SubState::Effects, self.effects),
            (SubState::Auth, self.auth.root()),
            (SubState::Evidence, whole(&self.proofs.to_bytes())),
        ]
    }

    /// Enters a block: counters, block time, the lease clock.
    pub(crate) fn begin_block(&mut self, header: &BlockHeader) {
        let time_ms = Millis(planted::local_ms(header.time_ms.0));
        let gained = time_ms.minus(self.counters.time_ms.0);
        self.leases.advance(gained.0);
        self.counters.enter(header);
    }

    /// Leaves a block: the effects digest, whether a checkpoint is due, the root, and a slice of the
    /// sweep. Answers whether a checkpoint is to be made of this very state.
    pub(crate) fn end_block(&mut self, record: &Record, checkpoint_asked: bool) -> bool {
        self.effects = record.chain(self.effects);
        self.counters.changed |= !record.changes.is_empty();
        let used = self.used_bytes();
        let wanted = checkpoint_asked || self.counters.due(&self.membership().parameters, used);
        if wanted {
            self.counters.checkpointed();
        }
        self.refresh_root();
        self.kv.sweep(SWEEP_CHANGES.max(2 * record.changes.len()));
        wanted
    }

    /// Writes a key, moving it to the version's lease.
    pub(crate) fn put(
        &mut self,
        key: &Bytes,
        new: NewVersion,
        cause: &Cause<'_>,
        record: &mut Record,
    ) -> Option<KeyValue> {
        let NewVersion { lease, value, commitment } = new;
        let event = self.kv.put(key, lease, value, commitment);
        let old = event.prev.as_ref().map_or(LeaseId(0), |prev| prev.lease);
        if old != lease {
            self.leases.detach(old, key);
            self.leases.attach(lease, event.kv.key.clone());
        }
        let prev = event.prev.clone();
        record.add(event, key.clone(), commitment, cause);
        prev
    }

    /// Deletes a key; what it was.
    pub(crate) fn delete(
        &mut self,
        key: &Bytes,
        cause: &Cause<'_>,
        record: &mut Record,
    ) -> Option<KeyValue> {
        let event = self.kv.delete(key)?;
        let prev = event.prev.clone();
        if let Some(prev) = &prev {
            self.leases.detach(prev.lease, key);
        }
        record.add(event, key.clone(), Digest::ZERO, cause);
        prev
    }

    /// Ends an op's revision.
    pub(crate) fn end_revision(&mut self) {
        self.kv.end_revision();
    }

    /// Moves the compact revision.
    pub(crate) fn compact(&mut self, revision: Revision) -> Result<(), CompactError> {
        self.kv.compact(revision)
    }

    /// Changes the users and roles of an organisation; `password` is the value that the op's slot names.
    pub(crate) fn change_auth(
        &mut self,
        organisation: OrgId,
        op: &AuthOp,
        password: Option<Value>,
    ) -> Result<(), AuthError> {
        self.auth.change(organisation, op, password)?;
        self.counters.changed = true;
        Ok(())
    }

    /// Writes down a proof that a replica lied; false if nothing is to be added.
    pub(crate) fn record_proof(&mut self, digest: Digest, proof: Proof) -> bool {
        let news = self.proofs.record(digest, proof);
        self.counters.changed |= news;
        news
    }

    /// Grants a lease; the time to live in force.
    pub(crate) fn grant(&mut self, id: LeaseId, ttl_seconds: i64) -> Result<i64, GrantError> {
        let granted = self.leases.grant(id, ttl_seconds)?;
        self.counters.changed = true;
        Ok(granted)
    }

    /// Renews a lease that is not due; its granted time to live.
    pub(crate) fn renew(&mut self, id: LeaseId) -> Option<i64> {
        self.leases.renew(id)
    }

    /// Revokes a lease and deletes its keys in order, in one revision; false if it is unknown.
    pub(crate) fn revoke(&mut self, id: LeaseId, cause: &Cause<'_>, record: &mut Record) -> bool {
        let Some(lease) = self.leases.remove(id) else { return false };
        self.counters.changed = true;
        for key in &lease.keys {
            self.delete(key, cause, record);
        }
        self.end_revision();
        true
    }

    /// Revokes what the lease clock says is due, bounded per block.
    pub(crate) fn expire(&mut self, record: &mut Record) {
        for id in planted::hash_order(self.leases.due()) {
            self.revoke(id, &Cause::expiry(id), record);
        }
    }
}
