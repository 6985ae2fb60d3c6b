//! Reads: etcd's Range in all its corners (txn/range.go, mvcc/kvstore_txn.go), and the changes a watcher
//! that lags has missed.

use core::cmp::Ordering;
use core::ops::ControlFlow;
use std::collections::BTreeMap;

use bytes::Bytes;

use crate::chain::{ChangeKind, Range, SortOrder, SortTarget, ValueError, ValueRef, ValueSource};
use crate::state::Span;
use crate::state::kv::{
    Entry, Event, KeyValue, Kv, RangeError, RangeResult, Version, key_value, tombstone,
};
use crate::types::{LeaseId, Revision};

type Visit<'a> = dyn FnMut(&[u8], &Version) -> ControlFlow<()> + 'a;

impl Kv {
    /// Answers a range.
    ///
    /// # Errors
    /// A revision above the store's or below the compact revision.
    pub fn range(&self, range: &Range) -> Result<RangeResult, RangeError> {
        let now = self.current();
        let at = if range.revision <= 0 { now } else { Revision(range.revision) };
        if at > now {
            return Err(RangeError::Future);
        }
        if at < self.compact_revision() {
            return Err(RangeError::Compacted);
        }
        let span = Span::new(&range.key, &range.range_end);
        let count = i64::try_from(self.count_at(span, at)).unwrap_or(i64::MAX);
        if range.count_only {
            return Ok(RangeResult { kvs: Vec::new(), count, more: false });
        }
        let limit = usize::try_from(range.limit).unwrap_or(0);
        let page =
            if limit > 0 && cuts_early(range) { limit.saturating_add(1) } else { usize::MAX };
        let mut found = Keys::default();
        let mut versions = Vec::with_capacity(page.min(usize::try_from(count).unwrap_or(0)));
        self.visit(span, at, &mut |key, version| {
            if passes(range, version) {
                found.push(key);
                versions.push(*version);
            }
            if versions.len() < page { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        let kvs =
            found.cut().zip(&versions).map(|(key, version)| key_value(key, version)).collect();
        let mut result = RangeResult { kvs, count, more: false };
        if range.sort_target != SortTarget::Value {
            sort_by_meta(&mut result.kvs, range);
            cut(&mut result, range);
            if range.keys_only {
                // etcd 3.7 answers from its index, which knows no lease.
                for kv in &mut result.kvs {
                    kv.lease = LeaseId(0);
                    kv.value = ValueRef::default();
                }
            }
        }
        Ok(result)
    }

    /// How many live keys a span holds.
    #[must_use]
    pub fn count_live(&self, span: Span<'_>) -> usize {
        self.index.count(span)
    }

    /// The live keys of a span, in order.
    #[must_use]
    pub fn keys(&self, span: Span<'_>) -> Vec<Bytes> {
        let mut keys = Keys::default();
        self.index.scan(span, &mut |key, _| {
            keys.push(key);
            ControlFlow::Continue(())
        });
        keys.cut().collect()
    }

    /// Calls `visit` with the versions that `span` held at `at`, in key order.
    fn visit(&self, span: Span<'_>, at: Revision, visit: &mut Visit<'_>) {
        if at >= self.current() {
            self.index.scan(span, visit);
            return;
        }
        let mut gone = self
            .deleted
            .range::<[u8], _>((
                core::ops::Bound::Included(span.start()),
                core::ops::Bound::Unbounded,
            ))
            .take_while(|(key, _)| !span.ends_before(key))
            .peekable();
        let mut stopped = false;
        self.index.scan(span, &mut |key, version| {
            while let Some((before, link)) = gone.next_if(|(before, _)| ***before < *key) {
                if self.visit_deleted(before, *link, at, visit).is_break() {
                    stopped = true;
                    return ControlFlow::Break(());
                }
            }
            match self.history.version_at(key, *version, at) {
                Some(version) => {
                    let flow = visit(key, &version);
                    stopped = flow.is_break();
                    flow
                }
                None => ControlFlow::Continue(()),
            }
        });
        for (key, link) in gone {
            if stopped || self.visit_deleted(key, *link, at, visit).is_break() {
                return;
            }
        }
    }

    fn visit_deleted(
        &self,
        key: &[u8],
        link: u32,
        at: Revision,
        visit: &mut Visit<'_>,
    ) -> ControlFlow<()> {
        let absent = Version { link, ..Version::default() };
        match self.history.version_at(key, absent, at) {
            Some(version) => visit(key, &version),
            None => ControlFlow::Continue(()),
        }
    }

    /// How many keys `span` held at `at`: from the trie's counts, corrected by the changes since if
    /// they are few, for a paged LIST asks this for every page.
    fn count_at(&self, span: Span<'_>, at: Revision) -> usize {
        let now = self.index.count(span);
        if at >= self.current() {
            return now;
        }
        if self.history.len_above(at) > now {
            let mut count = 0;
            self.visit(span, at, &mut |_, _| {
                count += 1;
                ControlFlow::Continue(())
            });
            return count;
        }
        // The first change after `at` knows whether the key existed then.
        let mut existed = BTreeMap::new();
        for entry in self.history.since(at.next()).filter(|entry| span.holds(&entry.key)) {
            existed.entry(&entry.key).or_insert(entry.old.exists());
        }
        let mut count = now;
        for (key, existed) in existed {
            match (existed, self.index.get(key).is_some()) {
                (true, false) => count += 1,
                (false, true) => count -= 1,
                _ => {}
            }
        }
        count
    }

    /// The changes to `span` at revisions `from..=until`, whole revisions only, stopping behind the
    /// revision with which they reach `events_max` or 16 times as many were looked at; and the
    /// revision to go on from. The caller has compared `from` with the compact revision.
    #[must_use]
    pub fn changes(
        &self,
        from: Revision,
        until: Revision,
        span: Span<'_>,
        events_max: usize,
    ) -> (Vec<Event>, Revision) {
        let mut events = Vec::new();
        let mut last = None;
        let looked_max = events_max.saturating_mul(16);
        for (looked, entry) in self.history.since(from).enumerate() {
            if entry.revision > until {
                break;
            }
            let full = events.len() >= events_max || looked >= looked_max;
            if full && last.is_some_and(|last| last != entry.revision) {
                return (events, entry.revision);
            }
            last = Some(entry.revision);
            if span.holds(&entry.key) {
                events.extend(self.event_of(entry));
            }
        }
        (events, until.next())
    }

    /// None for a put whose version the compact revision hides: superseded at its own revision.
    fn event_of(&self, entry: &Entry) -> Option<Event> {
        let hidden = |revision: Revision| revision <= self.compact_revision();
        let key = entry.key.clone();
        let prev = (entry.old.exists() && !hidden(entry.revision))
            .then(|| key_value(key.clone(), &entry.old));
        let kv = match entry.kind {
            ChangeKind::Delete => tombstone(key, entry.revision),
            ChangeKind::Put => match self.history.made_by(entry) {
                Some((newer, _)) if hidden(newer.revision) => return None,
                Some((_, version)) => key_value(key, &version),
                None => key_value(key, &self.index.get(&entry.key)?),
            },
        };
        Some(Event { revision: entry.revision, sub: entry.sub, kind: entry.kind, kv, prev })
    }
}

/// Keys in one allocation: a page of a LIST has hundreds.
#[derive(Default)]
struct Keys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Keys {
    fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
    }

    fn cut(self) -> impl Iterator<Item = Bytes> {
        let bytes = Bytes::from(self.bytes);
        let mut start = 0;
        self.ends.into_iter().map(move |end| bytes.slice(core::mem::replace(&mut start, end)..end))
    }
}

/// Whether the limit may be applied while keys are visited: default order and no filter
/// (txn/range.go, rangeLimit). An order of NONE counts as default whatever the target.
fn cuts_early(range: &Range) -> bool {
    let filters = [
        range.min_mod_revision,
        range.max_mod_revision,
        range.min_create_revision,
        range.max_create_revision,
    ];
    let default_order = range.sort_order == SortOrder::None
        || (range.sort_target == SortTarget::Key && range.sort_order == SortOrder::Ascend);
    default_order && filters == [0; 4]
}

fn passes(range: &Range, version: &Version) -> bool {
    let least = |bound: i64, revision: Revision| bound == 0 || revision.0 >= bound;
    let most = |bound: i64, revision: Revision| bound == 0 || revision.0 <= bound;
    least(range.min_mod_revision, version.modified)
        && most(range.max_mod_revision, version.modified)
        && least(range.min_create_revision, version.create)
        && most(range.max_create_revision, version.create)
}

/// Ties are broken by key, which etcd's unstable sort leaves open.
fn sort_by_meta(kvs: &mut [KeyValue], range: &Range) {
    let descending = range.sort_order == SortOrder::Descend;
    match range.sort_target {
        SortTarget::Key if descending => kvs.reverse(),
        SortTarget::Key | SortTarget::Value => {}
        SortTarget::Version => kvs.sort_by_key(|kv| direction(kv.version, descending)),
        SortTarget::Create => kvs.sort_by_key(|kv| direction(kv.create.0, descending)),
        SortTarget::Mod => kvs.sort_by_key(|kv| direction(kv.modified.0, descending)),
    }
}

/// A sort key that keeps equal ones in key order either way.
fn direction(number: i64, descending: bool) -> i64 {
    if descending { -number } else { number }
}

fn cut(result: &mut RangeResult, range: &Range) {
    let Ok(limit) = usize::try_from(range.limit) else { return };
    if limit > 0 && result.kvs.len() > limit {
        result.kvs.truncate(limit);
        result.more = true;
    }
}

/// Completes the one order that needs values, hence a replica that answers: by value. Every other
/// result is complete already.
///
/// # Errors
/// A value cannot be read.
pub fn finish_range(
    mut result: RangeResult,
    range: &Range,
    values: &dyn ValueSource,
) -> Result<RangeResult, ValueError> {
    if range.sort_target != SortTarget::Value || range.count_only {
        return Ok(result);
    }
    let refs: Vec<ValueRef> = result.kvs.iter().map(|kv| kv.value).collect();
    let read = values.read_many(&refs)?;
    let mut pairs: Vec<_> = read.into_iter().zip(result.kvs).collect();
    pairs.sort_by(|(one, one_kv), (two, two_kv)| {
        let order = one.bytes.cmp(&two.bytes);
        let order = if range.sort_order == SortOrder::Descend { order.reverse() } else { order };
        if order == Ordering::Equal { one_kv.key.cmp(&two_kv.key) } else { order }
    });
    result.kvs = pairs.into_iter().map(|(_, kv)| kv).collect();
    cut(&mut result, range);
    if range.keys_only {
        result.kvs.iter_mut().for_each(|kv| kv.value = ValueRef::default());
    }
    Ok(result)
}
