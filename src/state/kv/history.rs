//! Every change since the compact revision, in order of (revision, sub-revision), each holding the
//! version it superseded: compaction takes entries from the front, watchers that lag read along it
//! (state.md 4.8).

use std::collections::VecDeque;

use bytes::Bytes;

use crate::chain::{ChangeKind, StateLeaf, ValueRef};
use crate::planted::{self, Bug};
use crate::types::{Digest, LeaseId, Revision};

/// One version of a key without the key. `version` 0 stands for "absent".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version {
    pub modified: Revision,
    pub create: Revision,
    pub version: i64,
    pub lease: LeaseId,
    pub value: ValueRef,
    /// Id of the change that made this version; of an absent version, of the delete before, if any.
    pub link: u32,
}

impl Version {
    pub fn exists(&self) -> bool {
        self.version != 0
    }

    /// What the trie's leaf says of this version.
    pub fn leaf(&self, commitment: Digest) -> StateLeaf {
        let Self { modified, create, version, lease, .. } = *self;
        StateLeaf { modified, create, version, lease, commitment }
    }
}

/// One change.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: Bytes,
    pub revision: Revision,
    pub sub: u32,
    pub kind: ChangeKind,
    /// What the key was before; its link is the key's change before.
    pub old: Version,
    /// The key's next change, if it had one.
    newer: Option<u32>,
    /// Charges of all entries up to and with this one, since genesis.
    pub charged: u64,
}

/// Bytes of quota that a superseded version or a tombstone counts beside key and value.
const ENTRY_CHARGE: u64 = 128;

/// The ring.
#[derive(Clone, Debug, Default)]
pub struct History {
    entries: VecDeque<Entry>,
    /// Id of the front entry; ids count up by one and wrap.
    base: u32,
    /// Charges of all entries ever pushed: replicated.
    charged: u64,
    /// Entries this replica has pushed since it started: from 2^32 on ids come again.
    pushed: u64,
}

impl History {
    /// An empty ring whose charges continue from `charged`.
    pub fn starting_at(charged: u64) -> Self {
        Self { charged, ..Self::default() }
    }

    pub fn charged(&self) -> u64 {
        self.charged
    }

    /// An id that names no entry.
    pub fn no_link(&self) -> u32 {
        self.base.wrapping_sub(1)
    }

    /// The id the next push gets.
    pub fn next_id(&self) -> u32 {
        let length = u32::try_from(self.entries.len()).expect("history holds below 2^32 changes");
        self.base.wrapping_add(length)
    }

    fn place(&self, id: u32) -> Option<usize> {
        let place = id.wrapping_sub(self.base) as usize;
        (place < self.entries.len()).then_some(place)
    }

    /// The entry, if it is still there and of this key: ids wrap, and a stale one must not be taken
    /// for another key's.
    pub fn get(&self, id: u32, key: &[u8]) -> Option<&Entry> {
        self.entries.get(self.place(id)?).filter(|entry| !self.wrapped() || *entry.key == *key)
    }

    /// The change of the same key before this one, if it is still there.
    fn older(&self, id: u32) -> Option<u32> {
        let place = self.place(id)?;
        let entry = self.entries.get(place)?;
        let older = self.place(entry.old.link)?;
        let same = !self.wrapped() || self.entries.get(older)?.key == entry.key;
        (older < place && same).then_some(entry.old.link)
    }

    /// Whether a stale id may name another key's entry.
    fn wrapped(&self) -> bool {
        self.pushed >= u64::from(u32::MAX)
    }

    /// Appends a change.
    pub fn push(
        &mut self,
        place: (Revision, u32),
        kind: ChangeKind,
        key: Bytes,
        old: Version,
    ) -> u32 {
        let id = self.next_id();
        let (revision, sub) = place;
        if let Some(back) = self.entries.back() {
            assert!((back.revision, back.sub) < place, "history is ordered by revision");
        }
        self.charged += charge_of(&key, &old);
        self.pushed += 1;
        let charged = self.charged;
        let entry = Entry { key, revision, sub, kind, old, newer: None, charged };
        self.entries.push_back(entry);
        if let Some(older) = self.older(id)
            && let Some(at) = self.place(older)
        {
            self.entries[at].newer = Some(id);
        }
        id
    }

    /// The version of `key` at `at`, `now` being its latest one (or an absent one with a link).
    pub fn version_at(&self, key: &[u8], now: Version, at: Revision) -> Option<Version> {
        if now.modified <= at && now.exists() {
            return Some(now);
        }
        for entry in self.chain(key, now.link).take_while(|entry| entry.revision > at) {
            if entry.old.exists() && entry.old.modified <= at {
                return Some(entry.old);
            }
        }
        None
    }

    /// The changes of a key, newest first, as far as they are there.
    pub fn chain(&self, key: &[u8], link: u32) -> impl Iterator<Item = &Entry> {
        let first = self.get(link, key).map(|_| link);
        core::iter::successors(first, |id| self.older(*id))
            .filter_map(|id| self.entries.get(self.place(id)?))
    }

    /// All versions of a key, newest first, as far as they are there, with their places; `now` is the
    /// latest, `link` its change or the delete behind it. The oldest may lack its sub-revision.
    pub fn versions(
        &self,
        key: &[u8],
        now: Option<Version>,
        link: u32,
    ) -> Vec<((Revision, u32), Version)> {
        let mut last = now.unwrap_or_default();
        let mut versions = Vec::new();
        for entry in self.chain(key, link) {
            if last.exists() {
                versions.push(((entry.revision, entry.sub), last));
            }
            last = entry.old;
        }
        if last.exists() {
            versions.push(((last.modified, 0), last));
        }
        versions
    }

    /// Changes where the superseded versions of a key keep their values.
    pub fn change_old(&mut self, key: &[u8], link: u32, change: &dyn Fn(&mut ValueRef)) {
        let first = self.get(link, key).map(|_| link);
        let ids = core::iter::successors(first, |id| self.older(*id));
        let places: Vec<usize> = ids.filter_map(|id| self.place(id)).collect();
        for place in places {
            change(&mut self.entries[place].old.value);
        }
    }

    /// What a put made: the version its next change superseded, or None if it is the latest.
    pub fn made_by(&self, entry: &Entry) -> Option<(&Entry, Version)> {
        let newer = self.entries.get(self.place(entry.newer?)?)?;
        Some((newer, newer.old))
    }

    /// All entries from `revision` on.
    pub fn since(&self, revision: Revision) -> impl Iterator<Item = &Entry> {
        let from = self.entries.partition_point(|entry| entry.revision < revision);
        self.entries.range(from..)
    }

    /// How many entries lie above `revision`.
    pub fn len_above(&self, revision: Revision) -> usize {
        self.entries.len() - self.entries.partition_point(|entry| entry.revision <= revision)
    }

    /// Charges of all entries at or below `revision`, or None if none is left of them.
    pub fn charged_until(&self, revision: Revision) -> Option<u64> {
        let behind = self.entries.partition_point(|entry| entry.revision <= revision);
        self.entries.get(behind.checked_sub(1)?).map(|entry| entry.charged)
    }

    /// Takes the front entry if it lies below `limit`; with its id.
    pub fn pop_below(&mut self, limit: Revision) -> Option<(u32, Entry)> {
        let front = self.entries.front()?;
        let early = planted::is(Bug::DeleteLost) && front.kind == ChangeKind::Delete;
        if front.revision >= limit && !(early && front.revision == limit) {
            return None;
        }
        let id = self.base;
        let entry = self.entries.pop_front()?;
        self.base = self.base.wrapping_add(1);
        Some((id, entry))
    }
}

/// What a superseded version counts. A first put supersedes nothing.
fn charge_of(key: &[u8], old: &Version) -> u64 {
    if old.exists() { ENTRY_CHARGE + key.len() as u64 + u64::from(old.value.length) } else { 0 }
}
