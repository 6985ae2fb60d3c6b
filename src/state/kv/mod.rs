//! Keys at all revisions since the compact revision: the trie holds the latest versions, the history
//! what they superseded. Values are references and never read here.

mod content;
mod history;
mod items;
mod key_value;
mod range;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;

pub use content::{ContentHash, ContentPage};
pub use key_value::{Event, KeyValue, RangeError, RangeResult};
pub use range::finish_range;

pub(in crate::state) use content::first_word;
pub(in crate::state) use history::Version;
use history::{Entry, History};
pub(in crate::state) use items::Item;

use crate::chain::{ChangeKind, StateFinding, ValueError, ValueRef, ValueSource};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::state::trie::Trie;
use crate::types::{Digest, LeaseId, Revision};

/// Bytes of quota that a live key counts beside key and value: a page of the trie may hold one key
/// alone (state.md 5).
pub const KEY_CHARGE: u64 = 256;

/// Why a compaction is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactError {
    /// At or below the compact revision.
    Compacted,
    /// Above the store's revision.
    Future,
}

/// The key-value store.
#[derive(Clone, Debug)]
pub struct Kv {
    pub(in crate::state) index: Trie<Version>,
    pub(in crate::state) history: History,
    /// Deleted keys with live history, and the id of their delete.
    pub(in crate::state) deleted: BTreeMap<Bytes, u32>,
    revision: Revision,
    compact_revision: Revision,
    /// Changes of the revision that is being written, 0 between ops.
    sub: u32,
    live_bytes: u64,
    /// Charges of history that the compact revision hides.
    hidden_bytes: u64,
    /// Revisions from which on a snapshot in progress still reads.
    pins: Vec<(Revision, Weak<()>)>,
}

impl Default for Kv {
    /// A fresh store is at revision 1 and compacted at -1 (etcd-surface.md 1.5, 2.2).
    fn default() -> Self {
        Self {
            index: Trie::default(),
            history: History::default(),
            deleted: BTreeMap::new(),
            revision: Revision(1),
            compact_revision: Revision(-1),
            sub: 0,
            live_bytes: 0,
            hidden_bytes: 0,
            pins: Vec::new(),
        }
    }
}

/// The replicated numbers of a [`Kv`], beside its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::state) struct KvNumbers {
    pub revision: Revision,
    pub compact_revision: Revision,
    pub live_bytes: u64,
    pub charged_bytes: u64,
    pub hidden_bytes: u64,
}

impl Kv {
    /// The store's revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// What superseded at or below it is hidden; -1 before the first compaction.
    #[must_use]
    pub fn compact_revision(&self) -> Revision {
        self.compact_revision
    }

    /// How many keys are live.
    #[must_use]
    pub fn key_count(&self) -> usize {
        self.index.len()
    }

    /// Logical bytes that count towards the quota: live keys and the history that is not compacted.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.live_bytes + self.history.charged() - self.hidden_bytes
    }

    /// Of [`Kv::used_bytes`] those of live keys.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    pub(in crate::state) fn numbers(&self) -> KvNumbers {
        KvNumbers {
            revision: self.revision,
            compact_revision: self.compact_revision,
            live_bytes: self.live_bytes,
            charged_bytes: self.history.charged(),
            hidden_bytes: self.hidden_bytes,
        }
    }

    /// The latest version of a key, changes of the revision being written included.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<KeyValue> {
        self.index.get(key).map(|version| key_value(Bytes::copy_from_slice(key), &version))
    }

    /// Reads ahead for puts of these keys; changes nothing.
    pub(crate) fn warm(&self, keys: &[&[u8]]) {
        self.index.warm(keys);
    }

    /// The revision reads see: with the changes of the op being executed.
    #[must_use]
    pub fn current(&self) -> Revision {
        if self.sub == 0 { self.revision } else { self.revision.next() }
    }

    /// Writes a version at the revision being written.
    pub(in crate::state) fn put(
        &mut self,
        key: &Bytes,
        lease: LeaseId,
        value: ValueRef,
        commitment: Digest,
    ) -> Event {
        let revision = self.revision.next();
        let id = self.history.next_id();
        let no_link = self.history.no_link();
        let mut new = Version::default();
        let mut old = Version::default();
        let deleted = &mut self.deleted;
        self.index.upsert_with(key, |found| {
            old = found.unwrap_or_else(|| {
                let link = deleted.remove(&**key).unwrap_or(no_link);
                Version { link, ..Version::default() }
            });
            let create = if old.exists() { old.create } else { revision };
            let version = old.version + 1;
            new = Version { modified: revision, create, version, lease, value, link: id };
            (new, new.leaf(commitment))
        });
        let key = Bytes::copy_from_slice(key);
        self.history.push((revision, self.sub), ChangeKind::Put, key.clone(), old);
        if old.exists() {
            self.live_bytes -= live_charge(&key, &old);
        }
        self.live_bytes += live_charge(&key, &new);
        let prev = old.exists().then(|| key_value(key.clone(), &old));
        let event = Event {
            revision,
            sub: self.sub,
            kind: ChangeKind::Put,
            kv: key_value(key, &new),
            prev,
        };
        self.sub += 1;
        event
    }

    /// Deletes a key at the revision being written; None if it is absent.
    pub(in crate::state) fn delete(&mut self, key: &[u8]) -> Option<Event> {
        let old = self.index.remove(key)?;
        let revision = self.revision.next();
        let key = Bytes::copy_from_slice(key);
        let place = (revision, self.sub);
        let id = self.history.push(place, ChangeKind::Delete, key.clone(), old);
        self.deleted.insert(key.clone(), id);
        self.live_bytes -= live_charge(&key, &old);
        let event = Event {
            revision,
            sub: self.sub,
            kind: ChangeKind::Delete,
            kv: tombstone(key.clone(), revision),
            prev: Some(key_value(key, &old)),
        };
        self.sub += 1;
        Some(event)
    }

    /// Ends the revision being written; one that changed nothing is not consumed.
    pub(in crate::state) fn end_revision(&mut self) {
        if self.sub > 0 {
            self.revision = self.revision.next();
            self.sub = 0;
        }
    }

    /// Hides what was superseded at or below `revision`: O(log n), for [`Kv::sweep`] does the work.
    ///
    /// # Errors
    /// [`CompactError`].
    pub(in crate::state) fn compact(&mut self, revision: Revision) -> Result<(), CompactError> {
        if revision <= self.compact_revision {
            return Err(CompactError::Compacted);
        }
        if revision > self.revision {
            return Err(CompactError::Future);
        }
        self.compact_revision = revision;
        if let Some(charged) = self.history.charged_until(revision) {
            self.hidden_bytes = charged;
        }
        Ok(())
    }

    /// Drops up to `changes_max` changes that the compact revision hides, unless a snapshot in
    /// progress reads them; whether more are left. A local matter: no answer and no root differs.
    pub fn sweep(&mut self, changes_max: usize) -> bool {
        self.pins.retain(|(_, pin)| pin.strong_count() > 0);
        let pinned = self.pins.iter().map(|(revision, _)| *revision).min();
        let limit = pinned.map_or(self.compact_revision, |pin| pin.min(self.compact_revision));
        for _ in 0..changes_max {
            let Some((id, entry)) = self.history.pop_below(limit) else { return false };
            if entry.kind == ChangeKind::Delete && self.deleted.get(&entry.key) == Some(&id) {
                self.deleted.remove(&entry.key);
            }
        }
        true
    }

    /// Whether what happened at `revision` is not swept yet here.
    pub(crate) fn holds_change_at(&self, revision: Revision) -> bool {
        self.history.since(revision).next().is_some_and(|entry| entry.revision == revision)
    }

    /// Keeps history from the compact revision on until the pin is dropped.
    pub(in crate::state) fn pin(&mut self) -> Arc<()> {
        let pin = Arc::new(());
        self.pins.push((self.compact_revision, Arc::downgrade(&pin)));
        pin
    }

    /// What the trie shows of a key.
    pub(in crate::state) fn prove(
        &self,
        key: &[u8],
        values: &dyn ValueSource,
    ) -> Result<StateFinding, ValueError> {
        self.index.prove(key, |version| {
            let commitment = values.read(version.value)?.commitment();
            Ok(version.leaf(commitment))
        })
    }

    pub(in crate::state) fn root(&mut self) -> Digest {
        self.index.root()
    }
}

/// What a live version counts towards the quota.
pub(in crate::state) fn live_charge(key: &[u8], version: &Version) -> u64 {
    KEY_CHARGE + key.len() as u64 + u64::from(version.value.length)
}

pub(in crate::state) fn key_value(key: Bytes, version: &Version) -> KeyValue {
    KeyValue {
        key,
        create: version.create,
        modified: version.modified,
        version: version.version,
        lease: version.lease,
        value: version.value,
    }
}

fn tombstone(key: Bytes, revision: Revision) -> KeyValue {
    let version = Version { modified: revision, ..Version::default() };
    key_value(key, &version)
}

impl Decode for KvNumbers {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let numbers = Self {
            revision: Revision(reader.i64("store revision")?),
            compact_revision: Revision(reader.i64("compact revision")?),
            live_bytes: reader.u64("live bytes")?,
            charged_bytes: reader.u64("charged bytes")?,
            hidden_bytes: reader.u64("hidden bytes")?,
        };
        let compact = numbers.compact_revision;
        let ordered = Revision(-1) <= compact && compact <= numbers.revision;
        if !ordered || numbers.hidden_bytes > numbers.charged_bytes {
            return Err(DecodeError::Invalid("store numbers"));
        }
        Ok(numbers)
    }
}

impl Encode for KvNumbers {
    fn encode(&self, writer: &mut Writer) {
        writer.i64(self.revision.0);
        writer.i64(self.compact_revision.0);
        writer.u64(self.live_bytes);
        writer.u64(self.charged_bytes);
        writer.u64(self.hidden_bytes);
    }
}
