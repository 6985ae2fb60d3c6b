//! A key's visible past as a list, for snapshots, and back.

use core::ops::{Bound, ControlFlow};

use bytes::Bytes;

use crate::chain::{ChangeKind, ValueRef};
use crate::state::Span;
use crate::state::kv::{Kv, KvNumbers, Version, live_charge};
use crate::types::{Digest, LeaseId, Revision};

/// Takes a key and what is visible of it.
pub(in crate::state) type VisitItems<'a> = dyn FnMut(&[u8], Vec<Item>) -> ControlFlow<()> + 'a;

/// One thing that is still visible of a key.
#[derive(Clone, Debug)]
pub(in crate::state) enum Item {
    /// A version, and its place within its revision (0 if that is below the compact revision).
    Put { version: Version, sub: u32 },
    /// A delete; without a version before it, a tombstone exactly at the compact revision.
    Delete { revision: Revision, sub: u32 },
}

impl Item {
    /// Revision and sub-revision.
    pub fn place(&self) -> (Revision, u32) {
        match self {
            Self::Put { version, sub } => (version.modified, *sub),
            Self::Delete { revision, sub } => (*revision, *sub),
        }
    }

    /// A version's value.
    pub fn value(&self) -> Option<ValueRef> {
        match self {
            Self::Put { version, .. } => Some(version.value),
            Self::Delete { .. } => None,
        }
    }
}

impl Kv {
    /// Calls `visit` with every key from `from` on that has something visible between `compact` and
    /// `cut`, in key order, until it breaks.
    pub(in crate::state) fn visit_items(
        &self,
        from: &[u8],
        compact: Revision,
        cut: Revision,
        visit: &mut VisitItems<'_>,
    ) {
        self.visit_keys(from, compact, cut, &mut |key, items| {
            if items.is_empty() { ControlFlow::Continue(()) } else { visit(key, items) }
        });
    }

    /// Likewise with every key, also one of which nothing is visible.
    pub(in crate::state) fn visit_keys(
        &self,
        from: &[u8],
        compact: Revision,
        cut: Revision,
        visit: &mut VisitItems<'_>,
    ) {
        let bounds = (Bound::Included(from), Bound::Unbounded);
        let mut gone = self.deleted.range::<[u8], _>(bounds).peekable();
        let mut one = |key: &[u8], now: Version| visit(key, self.items(key, now, compact, cut));
        let absent = |link: u32| Version { link, ..Version::default() };
        let mut stopped = false;
        self.index.scan(Span::From(from), &mut |key, version| {
            while let Some((before, link)) = gone.next_if(|(before, _)| ***before < *key) {
                if one(before, absent(*link)).is_break() {
                    stopped = true;
                    return ControlFlow::Break(());
                }
            }
            let flow = one(key, *version);
            stopped = flow.is_break();
            flow
        });
        for (key, link) in gone {
            if stopped || one(key, absent(*link)).is_break() {
                return;
            }
        }
    }

    /// What is visible of a key, `now` being its latest version or an absent one, oldest first.
    fn items(&self, key: &[u8], now: Version, compact: Revision, cut: Revision) -> Vec<Item> {
        let mut last = now;
        let mut changes = Vec::new();
        for entry in self.history.chain(key, now.link) {
            if entry.revision > cut {
                last = entry.old;
            } else if entry.revision >= compact {
                changes.push(entry);
            } else {
                break;
            }
        }
        let mut items = Vec::new();
        let base = changes.last().map_or(last, |oldest| oldest.old);
        let base_hidden = changes.last().is_some_and(|oldest| oldest.revision <= compact);
        if base.exists() && !base_hidden {
            items.push(Item::Put { version: base, sub: 0 });
        }
        for (at, entry) in changes.iter().enumerate().rev() {
            let (revision, sub) = (entry.revision, entry.sub);
            if entry.kind == ChangeKind::Delete {
                items.push(Item::Delete { revision, sub });
                continue;
            }
            let newer = at.checked_sub(1).map(|newer| changes[newer]);
            let hidden = newer.is_some_and(|newer| newer.revision <= compact);
            if !hidden {
                let version = newer.map_or(last, |newer| newer.old);
                items.push(Item::Put { version, sub });
            }
        }
        items
    }

    /// A store with these numbers, its keys still to come.
    pub(in crate::state) fn restoring(numbers: KvNumbers) -> Self {
        Self {
            history: super::History::starting_at(numbers.hidden_bytes),
            revision: numbers.revision,
            compact_revision: numbers.compact_revision,
            hidden_bytes: numbers.hidden_bytes,
            ..Self::default()
        }
    }

    /// A version from before the compact revision.
    pub(in crate::state) fn restore_base(
        &mut self,
        key: &Bytes,
        version: Version,
        commitment: Digest,
    ) {
        let link = self.history.no_link();
        self.restore_live(key, Version { link, ..version }, commitment);
    }

    fn restore_live(&mut self, key: &Bytes, version: Version, commitment: Digest) {
        let mut old = None;
        self.index.upsert_with(key, |found| {
            old = found;
            (version, version.leaf(commitment))
        });
        self.live_bytes -= old.map_or(0, |old| live_charge(key, &old));
        self.live_bytes += live_charge(key, &version);
    }

    /// A change from the compact revision on; these come in order.
    pub(in crate::state) fn restore_change(
        &mut self,
        key: &Bytes,
        item: &Item,
        commitment: Digest,
    ) {
        let own = Bytes::copy_from_slice(key);
        let id = self.history.next_id();
        let no_link = self.history.no_link();
        let absent = |kv: &mut Self| {
            let link = kv.deleted.remove(&**key).unwrap_or(no_link);
            Version { link, ..Version::default() }
        };
        match item {
            Item::Put { version, .. } => {
                let old = self.index.get(key).unwrap_or_else(|| absent(self));
                self.history.push(item.place(), ChangeKind::Put, own.clone(), old);
                self.restore_live(key, Version { link: id, ..*version }, commitment);
            }
            Item::Delete { .. } => {
                let old = match self.index.remove(key) {
                    Some(old) => {
                        self.live_bytes -= live_charge(key, &old);
                        old
                    }
                    None => absent(self),
                };
                self.history.push(item.place(), ChangeKind::Delete, own.clone(), old);
                self.deleted.insert(own, id);
            }
        }
    }

    /// A delete from before the compact revision leaves nothing of the key.
    pub(in crate::state) fn restore_gone(&mut self, key: &Bytes) {
        if let Some(old) = self.index.remove(key) {
            self.live_bytes -= live_charge(key, &old);
        }
    }

    /// Everything is in that was not restored from this store's own numbers: counts what is hidden.
    pub(in crate::state) fn count_hidden(&mut self) {
        self.hidden_bytes = self.history.charged_until(self.compact_revision).unwrap_or(0);
    }

    /// All live keys with a lease.
    pub(in crate::state) fn leased_keys(&self) -> Vec<(Bytes, LeaseId)> {
        let mut keys = Vec::new();
        self.index.scan(Span::From(b""), &mut |key, version| {
            if version.lease != LeaseId(0) {
                keys.push((Bytes::copy_from_slice(key), version.lease));
            }
            ControlFlow::Continue(())
        });
        keys
    }
}
