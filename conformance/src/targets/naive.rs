//! etcd's store as one would write it on a page: the whole content at every revision. No trie, no history,
//! no references.

use core::cmp::Ordering;
use std::collections::BTreeMap;

use althing::apply::{OpError, Reply};
use althing::chain::{
    Compare, CompareResult, CompareTarget, DeleteRange, Op, Put, Range, SortOrder, SortTarget, Txn,
    Value, ValueRef, ValueSource,
};
use althing::state::{CLOCK_STEP_MAX_MS, KeyValue, TTL_SECONDS_MAX, TTL_SECONDS_MIN, finish_range};
use althing::types::LeaseId;
use bytes::Bytes;

use crate::sim::checkers::model::names;

#[derive(Clone, Debug, Default)]
struct Version {
    create: i64,
    modified: i64,
    version: i64,
    lease: i64,
    value: Bytes,
}

type Content = BTreeMap<Bytes, Version>;

struct Lease {
    ttl_seconds: i64,
    expiry_ms: u64,
}

/// A transaction with its branches chosen: the rest is done in order.
enum Chosen<'a> {
    Op(&'a Op),
    Txn(bool, Vec<Chosen<'a>>),
}

/// The store, and what every op answers, as text.
pub(super) struct Naive {
    /// At every revision, from 0 on.
    past: Vec<Content>,
    now: Content,
    /// The op has changed something.
    changed: bool,
    compacted: i64,
    leases: BTreeMap<i64, Lease>,
    clock_ms: u64,
}

impl Naive {
    pub(super) fn new() -> Self {
        Self {
            past: vec![Content::new(), Content::new()],
            now: Content::new(),
            changed: false,
            compacted: -1,
            leases: BTreeMap::new(),
            clock_ms: 0,
        }
    }

    pub(super) fn revision(&self) -> i64 {
        i64::try_from(self.past.len()).expect("few revisions") - 1
    }

    pub(super) fn compacted(&self) -> i64 {
        self.compacted
    }

    fn current(&self) -> i64 {
        self.revision() + i64::from(self.changed)
    }

    fn end(&mut self) {
        if core::mem::take(&mut self.changed) {
            self.past.push(self.now.clone());
        }
    }

    /// What happens before the ops of a block: leases end, each at a revision of its own.
    pub(super) fn begin(&mut self, gained_ms: u64) {
        self.clock_ms += gained_ms.min(CLOCK_STEP_MAX_MS);
        let due = |(id, lease): (&i64, &Lease)| {
            (lease.expiry_ms <= self.clock_ms).then_some((lease.expiry_ms, *id))
        };
        let mut due: Vec<(u64, i64)> = self.leases.iter().filter_map(due).collect();
        due.sort_unstable();
        for (_, id) in due {
            self.revoke(id);
            self.end();
        }
    }

    fn revoke(&mut self, id: i64) {
        self.leases.remove(&id);
        let before = self.now.len();
        self.now.retain(|_, version| version.lease != id);
        self.changed |= self.now.len() < before;
    }

    /// Does an op; what it answers.
    pub(super) fn apply(&mut self, op: &Op, values: &[Value]) -> String {
        let answer = self.op(op, values);
        self.end();
        answer.unwrap_or_else(|error| format!("error {error:?}"))
    }

    fn op(&mut self, op: &Op, values: &[Value]) -> Result<String, OpError> {
        match op {
            Op::Put(_) | Op::DeleteRange(_) => {
                self.check(op)?;
                self.perform(op, values)
            }
            Op::Range(range) => self.range(range),
            Op::Txn(txn) => {
                let (succeeded, steps) = self.choose(txn, values);
                self.check_all(&steps)?;
                let answers = self.perform_all(&steps, values)?;
                Ok(format!("txn {} {succeeded} {answers:?}", self.current()))
            }
            Op::Compact { revision } if revision.0 <= self.compacted => Err(OpError::Compacted),
            Op::Compact { revision } if revision.0 > self.revision() => {
                Err(OpError::FutureRevision)
            }
            Op::Compact { revision } => {
                self.compacted = revision.0;
                Ok(format!("compact {}", self.current()))
            }
            Op::LeaseGrant { id: LeaseId(0), .. } => Err(OpError::LeaseNotFound),
            Op::LeaseGrant { ttl_seconds, .. } if *ttl_seconds > TTL_SECONDS_MAX => {
                Err(OpError::LeaseTtlTooLarge)
            }
            Op::LeaseGrant { id, .. } if self.leases.contains_key(&id.0) => {
                Err(OpError::LeaseExists)
            }
            Op::LeaseGrant { id, ttl_seconds } => {
                let ttl_seconds = (*ttl_seconds).max(TTL_SECONDS_MIN);
                let expiry_ms = self.clock_ms + 1000 * ttl_seconds.unsigned_abs();
                self.leases.insert(id.0, Lease { ttl_seconds, expiry_ms });
                Ok(format!("grant {} {id} {ttl_seconds}", self.current()))
            }
            Op::LeaseRevoke { id } if !self.leases.contains_key(&id.0) => {
                Err(OpError::LeaseNotFound)
            }
            Op::LeaseRevoke { id } => {
                self.revoke(id.0);
                Ok(format!("revoke {}", self.current()))
            }
            Op::LeaseKeepAlive { id } => {
                let clock_ms = self.clock_ms;
                let renewed = self.leases.get_mut(&id.0).map_or(0, |lease| {
                    lease.expiry_ms = clock_ms + 1000 * lease.ttl_seconds.unsigned_abs();
                    lease.ttl_seconds
                });
                Ok(format!("keep {} {id} {renewed}", self.current()))
            }
            other => unreachable!("{other:?} is not drawn"),
        }
    }

    fn choose<'t>(&self, txn: &'t Txn, values: &[Value]) -> (bool, Vec<Chosen<'t>>) {
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare, values));
        let branch = if succeeded { &txn.success } else { &txn.failure };
        let choose = |op: &'t Op| match op {
            Op::Txn(nested) => {
                let (succeeded, steps) = self.choose(nested, values);
                Chosen::Txn(succeeded, steps)
            }
            op => Chosen::Op(op),
        };
        (succeeded, branch.iter().map(choose).collect())
    }

    fn holds(&self, compare: &Compare, values: &[Value]) -> bool {
        let absent = Version::default();
        let mut found: Vec<&Version> = self
            .now
            .iter()
            .filter(|(key, _)| names((&compare.key, &compare.range_end), key))
            .map(|(_, version)| version)
            .collect();
        if found.is_empty() {
            if matches!(compare.target, CompareTarget::Value(_)) {
                return false;
            }
            found.push(&absent);
        }
        found.into_iter().all(|version| {
            let order = match &compare.target {
                CompareTarget::Version(operand) => version.version.cmp(operand),
                CompareTarget::Create(operand) => version.create.cmp(operand),
                CompareTarget::Mod(operand) => version.modified.cmp(operand),
                CompareTarget::Lease(operand) => version.lease.cmp(operand),
                CompareTarget::Value(slot) => version.value.cmp(&values[slot.index as usize].bytes),
            };
            match compare.result {
                CompareResult::Equal => order == Ordering::Equal,
                CompareResult::Greater => order == Ordering::Greater,
                CompareResult::Less => order == Ordering::Less,
                CompareResult::NotEqual => order != Ordering::Equal,
            }
        })
    }

    fn check_all(&self, steps: &[Chosen<'_>]) -> Result<(), OpError> {
        steps.iter().try_for_each(|step| match step {
            Chosen::Op(op) => self.check(op),
            Chosen::Txn(_, steps) => self.check_all(steps),
        })
    }

    /// What is refused before anything is written.
    fn check(&self, op: &Op) -> Result<(), OpError> {
        match op {
            Op::Put(put) if put.key.is_empty() => Err(OpError::Malformed),
            Op::Put(put) if put.lease.0 != 0 && !self.leases.contains_key(&put.lease.0) => {
                Err(OpError::LeaseNotFound)
            }
            Op::Put(put) if keeps(put) && !self.now.contains_key(&put.key) => {
                Err(OpError::KeyNotFound)
            }
            Op::Range(range) if range.revision > self.revision() => Err(OpError::FutureRevision),
            Op::Range(range) if range.revision != 0 && range.revision < self.compacted => {
                Err(OpError::Compacted)
            }
            Op::Put(_) | Op::DeleteRange(_) | Op::Range(_) => Ok(()),
            _ => Err(OpError::Malformed),
        }
    }

    fn perform_all(
        &mut self,
        steps: &[Chosen<'_>],
        values: &[Value],
    ) -> Result<Vec<String>, OpError> {
        let mut answers = Vec::new();
        for step in steps {
            answers.push(match step {
                Chosen::Op(op) => self.perform(op, values)?,
                Chosen::Txn(succeeded, steps) => {
                    let answers = self.perform_all(steps, values)?;
                    format!("txn 0 {succeeded} {answers:?}")
                }
            });
        }
        Ok(answers)
    }

    fn perform(&mut self, op: &Op, values: &[Value]) -> Result<String, OpError> {
        match op {
            Op::Put(put) => Ok(self.put(put, values)),
            Op::DeleteRange(delete) => Ok(self.delete(delete)),
            Op::Range(range) => self.range(range),
            other => unreachable!("{other:?} is refused before"),
        }
    }

    fn put(&mut self, put: &Put, values: &[Value]) -> String {
        let old = self.now.get(&put.key).cloned();
        if keeps(put) && old.is_none() {
            // The transaction's own delete took it away.
            return format!("put {} -", self.current());
        }
        let revision = self.revision() + 1;
        let before = old.clone().unwrap_or_default();
        let value = put.value.map(|slot| values[slot.index as usize].bytes.clone());
        let new = Version {
            create: if old.is_some() { before.create } else { revision },
            modified: revision,
            version: before.version + 1,
            lease: if put.ignore_lease { before.lease } else { put.lease.0 },
            value: value.unwrap_or(before.value),
        };
        self.now.insert(put.key.clone(), new);
        self.changed = true;
        let prev = old.filter(|_| put.prev_kv);
        let prev = prev.map_or("-".to_owned(), |prev| pair(&put.key, &prev));
        format!("put {revision} {prev}")
    }

    fn delete(&mut self, delete: &DeleteRange) -> String {
        let mut gone = Vec::new();
        self.now.retain(|key, version| {
            let inside = names((&delete.key, &delete.range_end), key);
            if inside {
                gone.push(pair(key, version));
            }
            !inside
        });
        self.changed |= !gone.is_empty();
        let (revision, deleted) = (self.current(), gone.len());
        if !delete.prev_kv {
            gone.clear();
        }
        format!("delete {revision} {deleted} {gone:?}")
    }

    /// txn/range.go, in its order: count, filter, sort, cut.
    fn range(&self, range: &Range) -> Result<String, OpError> {
        let at = if range.revision <= 0 { self.current() } else { range.revision };
        if at > self.current() {
            return Err(OpError::FutureRevision);
        }
        if at < self.compacted {
            return Err(OpError::Compacted);
        }
        let past = usize::try_from(at).ok().and_then(|at| self.past.get(at));
        let content = past.unwrap_or(&self.now);
        let mut found: Vec<(&Bytes, &Version)> =
            content.iter().filter(|(key, _)| names((&range.key, &range.range_end), key)).collect();
        let count = found.len();
        if range.count_only {
            return Ok(format!("range {} {count} false []", self.current()));
        }
        let limit = usize::try_from(range.limit).unwrap_or(0);
        found.retain(|(_, version)| passes(range, version));
        let key_order = range.sort_order == SortOrder::None
            || (range.sort_order == SortOrder::Ascend && range.sort_target == SortTarget::Key);
        if limit > 0 && key_order && !filters(range) {
            // What lies behind the page and one more key is not looked at, whatever the page is sorted by.
            found.truncate(limit + 1);
        }
        found.sort_by(|one, two| {
            let order = by_target(range.sort_target, one, two);
            if range.sort_order == SortOrder::Descend { order.reverse() } else { order }
        });
        let more = limit > 0 && found.len() > limit;
        if more {
            found.truncate(limit);
        }
        let show = |(key, version): (&Bytes, &Version)| {
            let mut version = version.clone();
            if range.keys_only {
                version.value = Bytes::new();
                // Answered from the index, which knows no lease, unless values were needed to sort.
                if range.sort_target != SortTarget::Value {
                    version.lease = 0;
                }
            }
            pair(key, &version)
        };
        let found: Vec<String> = found.into_iter().map(show).collect();
        Ok(format!("range {} {count} {more} {found:?}", self.current()))
    }
}

fn keeps(put: &Put) -> bool {
    put.value.is_none() || put.ignore_lease
}

fn bounds(range: &Range) -> [(i64, i64); 2] {
    [
        (range.min_mod_revision, range.max_mod_revision),
        (range.min_create_revision, range.max_create_revision),
    ]
}

fn filters(range: &Range) -> bool {
    bounds(range) != [(0, 0), (0, 0)]
}

fn passes(range: &Range, version: &Version) -> bool {
    bounds(range)
        .into_iter()
        .zip([version.modified, version.create])
        .all(|((min, max), at)| (min == 0 || at >= min) && (max == 0 || at <= max))
}

fn by_target(target: SortTarget, one: &(&Bytes, &Version), two: &(&Bytes, &Version)) -> Ordering {
    match target {
        SortTarget::Key => one.0.cmp(two.0),
        SortTarget::Version => one.1.version.cmp(&two.1.version),
        SortTarget::Create => one.1.create.cmp(&two.1.create),
        SortTarget::Mod => one.1.modified.cmp(&two.1.modified),
        SortTarget::Value => one.1.value.cmp(&two.1.value),
    }
}

fn pair(key: &Bytes, version: &Version) -> String {
    let Version { create, modified, version, lease, value } = version;
    format!("{key:?} {create} {modified} {version} {lease} {value:?}")
}

/// A replica's answer in the same words.
pub(super) fn words(reply: &Reply, kept: &dyn ValueSource) -> String {
    let pair = |kv: &KeyValue| {
        let keyless = kv.value == ValueRef::default();
        let bytes = if keyless { Bytes::new() } else { kept.read(kv.value).expect("kept").bytes };
        let version = Version {
            create: kv.create.0,
            modified: kv.modified.0,
            version: kv.version,
            lease: kv.lease.0,
            value: bytes,
        };
        self::pair(&kv.key, &version)
    };
    match reply {
        Reply::Put { revision, prev } => {
            format!("put {revision} {}", prev.as_ref().map_or("-".to_owned(), pair))
        }
        Reply::DeleteRange { revision, deleted, prev } => {
            let prev: Vec<String> = prev.iter().map(pair).collect();
            format!("delete {revision} {deleted} {prev:?}")
        }
        Reply::Range { revision, request, result } => {
            let result = finish_range(result.clone(), request, kept).expect("all values");
            let found: Vec<String> = result.kvs.iter().map(pair).collect();
            format!("range {revision} {} {} {found:?}", result.count, result.more)
        }
        Reply::Txn { revision, succeeded, responses } => {
            let answers: Vec<String> = responses.iter().map(|one| words(one, kept)).collect();
            format!("txn {revision} {succeeded} {answers:?}")
        }
        Reply::Compact { revision } => format!("compact {revision}"),
        Reply::LeaseGrant { revision, id, ttl_seconds } => {
            format!("grant {revision} {id} {ttl_seconds}")
        }
        Reply::LeaseRevoke { revision } => format!("revoke {revision}"),
        Reply::LeaseKeepAlive { revision, id, ttl_seconds } => {
            format!("keep {revision} {id} {ttl_seconds}")
        }
        Reply::Error { error, .. } => format!("error {error:?}"),
        other => unreachable!("{other:?} answers nothing that is drawn"),
    }
}
