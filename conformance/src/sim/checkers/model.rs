//! etcd as one would write it on a page: maps, no trie, no references, no limits. It executes the chain
//! once and says what every op answers and every key becomes; the replicas must say the same.

use std::collections::{BTreeMap, BTreeSet};

use althing::apply::{OpError, Reply};
use althing::chain::{
    Block, Bundle, ChangeKind, Compare, CompareResult, CompareTarget, Effects, Op, SYSTEM_ORDINAL,
    Skeleton,
};
use bytes::Bytes;

use crate::sim::checkers::users::Users;

const WINDOW: u64 = 2048;
const CLOCK_STEP_MS: u64 = 2000;
const TTL_LEAST: i64 = 2;

/// Whether etcd's `key` and `range_end` name `key`: one key, all from one on, or those in front of an end.
#[must_use]
pub fn names((start, end): (&[u8], &[u8]), key: &[u8]) -> bool {
    match end {
        [] => key == start,
        [0] => key >= start,
        end => (start..end).contains(&key),
    }
}

#[derive(Default)]
struct Session {
    number: u64,
    /// All below are used.
    floor: u64,
    used: BTreeSet<u64>,
}

struct Lease {
    ttl: i64,
    expiry: u64,
}

/// One change as the effects list it, in words.
type ChangeLine = (u32, i64, ChangeKind, Bytes, [u8; 32], i64);

/// A version of a key, as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Revision of the put that created the key.
    pub create: i64,
    /// Revision of the put that made this version.
    pub modified: i64,
    /// Puts since the creation.
    pub version: i64,
    /// Attached lease.
    pub lease: i64,
    /// The value.
    pub value: Bytes,
}

/// One change of one key, in the order of revisions and within them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// When.
    pub revision: i64,
    /// The key.
    pub key: Bytes,
    /// The version it made; none of a delete.
    pub now: Option<Version>,
    /// The version before.
    pub before: Option<Version>,
}

/// Names an op: origin, session, sequence number.
pub type OpName = (u16, u64, u64);

/// The whole store and its past.
#[derive(Default)]
pub struct Model {
    revision: i64,
    compacted: i64,
    keys: BTreeMap<Bytes, Version>,
    past: BTreeMap<Bytes, Vec<(i64, Option<Bytes>)>>,
    leases: BTreeMap<i64, Lease>,
    clock: u64,
    time: u64,
    sessions: BTreeMap<u16, Session>,
    /// Each organisation's, by its replica.
    pub users: BTreeMap<u16, Users>,
    /// Ops that a user had no right to.
    pub denied: u64,
    /// Every change there was.
    pub history: Vec<Past>,
    changes: Vec<ChangeLine>,
    sub: i64,
    /// What every op that was not a duplicate answered.
    pub answers: BTreeMap<OpName, String>,
    /// The changes of every height.
    lines: BTreeMap<u64, Vec<ChangeLine>>,
    /// The revision behind every height.
    pub revisions: BTreeMap<u64, i64>,
}

impl Model {
    /// A fresh store.
    #[must_use]
    pub fn new() -> Self {
        Self { revision: 1, compacted: -1, ..Self::default() }
    }

    /// Executes the next block of the chain.
    pub fn execute(&mut self, block: &Block) {
        let time = block.header.time_ms.0;
        self.clock += time.saturating_sub(self.time).min(CLOCK_STEP_MS);
        self.time = time;
        self.expire();
        let mut ordinal = 0;
        for bundle in block.bundles() {
            for (at, skeleton) in (0..).zip(&bundle.skeletons) {
                let seq = bundle.first_seq + u64::from(at);
                if self.use_number((bundle.origin.0, bundle.session, seq)) {
                    let late = time > bundle.not_after_ms.0;
                    let answer = if late {
                        "error TimedOut".to_owned()
                    } else {
                        self.op_of(skeleton, bundle, ordinal + at)
                    };
                    self.answers.insert((bundle.origin.0, bundle.session, seq), answer);
                }
            }
            ordinal += u32::try_from(bundle.skeletons.len()).expect("few");
        }
        let height = block.header.height.0;
        self.lines.insert(height, core::mem::take(&mut self.changes));
        self.revisions.insert(height, self.revision);
    }

    /// What differs between a replica's effects and the model's.
    ///
    /// # Errors
    /// The first difference.
    pub fn compare(&self, effects: &Effects, revision: i64) -> Result<(), String> {
        let height = effects.height.0;
        let theirs: Vec<ChangeLine> = effects
            .changes
            .iter()
            .map(|change| {
                let (key, commitment) = (change.key.clone(), change.commitment.0);
                (change.ordinal, change.revision.0, change.kind, key, commitment, change.lease.0)
            })
            .collect();
        let ours = self.lines.get(&height);
        if ours != Some(&theirs) {
            return Err(format!("changes at {height}: {theirs:?}, by the model {ours:?}"));
        }
        if self.revisions.get(&height) != Some(&revision) {
            let ours = self.revisions.get(&height);
            return Err(format!("revision {revision} after {height}, by the model {ours:?}"));
        }
        Ok(())
    }

    /// A key's value as of a revision.
    #[must_use]
    pub fn read(&self, key: &[u8], revision: i64) -> Option<(i64, Bytes)> {
        let versions = self.past.get(key)?;
        let (modified, value) = versions.iter().rev().find(|(at, _)| *at <= revision)?;
        value.clone().map(|value| (*modified, value))
    }

    /// Every key that there is.
    #[must_use]
    pub fn keys(&self) -> &BTreeMap<Bytes, Version> {
        &self.keys
    }

    /// The store's revision.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    fn use_number(&mut self, name: OpName) -> bool {
        let (origin, number, seq) = name;
        let session = self.sessions.entry(origin).or_default();
        if number < session.number {
            return false;
        }
        if number > session.number {
            *session = Session { number, ..Session::default() };
        }
        let fresh = seq < session.floor + WINDOW && session.used.insert(seq);
        while session.used.contains(&session.floor) {
            session.floor += 1;
        }
        fresh
    }

    fn expire(&mut self) {
        let mut due: Vec<(u64, i64)> = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.expiry <= self.clock)
            .map(|(id, lease)| (lease.expiry, *id))
            .collect();
        due.sort_unstable();
        for (_, id) in due {
            self.revoke(id, SYSTEM_ORDINAL);
            self.end();
        }
    }

    fn revoke(&mut self, id: i64, ordinal: u32) {
        self.leases.remove(&id);
        let attached: Vec<Bytes> = self
            .keys
            .iter()
            .filter(|(_, entry)| entry.lease == id)
            .map(|(key, _)| key.clone())
            .collect();
        for key in attached {
            self.delete(&key, ordinal, if ordinal == SYSTEM_ORDINAL { id } else { 0 });
        }
    }

    /// Ends an op: all it changed has one revision.
    fn end(&mut self) {
        if self.sub > 0 {
            self.revision += 1;
            self.sub = 0;
        }
    }

    /// The revision with what the op has changed so far.
    fn now(&self) -> i64 {
        self.revision + i64::from(self.sub > 0)
    }

    fn delete(&mut self, key: &Bytes, ordinal: u32, lease: i64) {
        let revision = self.revision + 1;
        self.sub += 1;
        let before = self.keys.remove(key);
        self.history.push(Past { revision, key: key.clone(), now: None, before });
        self.past.entry(key.clone()).or_default().push((revision, None));
        let kind = ChangeKind::Delete;
        self.changes.push((ordinal, revision, kind, key.clone(), [0; 32], lease));
    }

    /// Somebody's op, if he has a right to it.
    fn op_of(&mut self, skeleton: &Skeleton, bundle: &Bundle, ordinal: u32) -> String {
        let Skeleton { author, op } = skeleton;
        let attached = |id: i64| {
            let with = self.keys.iter().filter(|(_, entry)| id != 0 && entry.lease == id);
            with.map(|(key, _)| key.clone()).collect::<Vec<Bytes>>()
        };
        let users = self.users.entry(bundle.origin.0).or_default();
        if let Err(why) = users.allow(author, op, &attached) {
            self.denied += 1;
            return format!("error Auth({why})");
        }
        if let Op::Auth(op) = op {
            return match users.execute(op) {
                Ok(()) => format!("users {} {}", self.revision, users.revision),
                Err(why) => format!("error Auth({why})"),
            };
        }
        self.op(op, bundle, ordinal)
    }

    fn op(&mut self, op: &Op, bundle: &Bundle, ordinal: u32) -> String {
        let before = self.changes.len();
        let answer = match op {
            Op::Txn(txn) => {
                let holds = txn.compares.iter().all(|compare| self.holds(compare, bundle));
                let branch = if holds { &txn.success } else { &txn.failure };
                match branch.iter().find_map(|op| self.refuse(op)) {
                    Some(error) => error,
                    None => {
                        branch.iter().for_each(|op| drop(self.simple(op, bundle, ordinal)));
                        format!("txn {} {holds}", self.now())
                    }
                }
            }
            op => match self.refuse(op) {
                Some(error) => error,
                None => self.simple(op, bundle, ordinal),
            },
        };
        assert!(self.changes.len() > before || self.sub == 0, "a revision follows from changes");
        self.end();
        answer
    }

    fn refuse(&self, op: &Op) -> Option<String> {
        match op {
            Op::Put(put) => {
                let unknown = put.lease.0 != 0 && !self.leases.contains_key(&put.lease.0);
                unknown.then(|| "error LeaseNotFound".to_owned())
            }
            Op::LeaseGrant { id, .. } if self.leases.contains_key(&id.0) => {
                Some("error LeaseExists".to_owned())
            }
            Op::LeaseRevoke { id } if !self.leases.contains_key(&id.0) => {
                Some("error LeaseNotFound".to_owned())
            }
            Op::Range(range) if range.revision > self.revision => {
                Some("error FutureRevision".to_owned())
            }
            Op::Range(range) if range.revision != 0 && range.revision < self.compacted => {
                Some("error Compacted".to_owned())
            }
            Op::Compact { revision } if revision.0 <= self.compacted => {
                Some("error Compacted".to_owned())
            }
            Op::Compact { revision } if revision.0 > self.revision => {
                Some("error FutureRevision".to_owned())
            }
            _ => None,
        }
    }

    fn simple(&mut self, op: &Op, bundle: &Bundle, ordinal: u32) -> String {
        match op {
            Op::Put(put) => {
                let slot = put.value.expect("the workload writes values");
                let value = &bundle.values[slot.index as usize];
                self.put(put.key.clone(), value.bytes.clone(), put.lease.0);
                let (revision, kind) = (self.revision + 1, ChangeKind::Put);
                let commitment = slot.commitment.0;
                self.changes.push((ordinal, revision, kind, put.key.clone(), commitment, 0));
                format!("put {revision}")
            }
            Op::DeleteRange(delete) => {
                let inside = |key: &&Bytes| names((&delete.key, &delete.range_end), key);
                let keys: Vec<Bytes> = self.keys.keys().filter(inside).cloned().collect();
                keys.iter().for_each(|key| self.delete(key, ordinal, 0));
                format!("delete {} {}", self.now(), keys.len())
            }
            Op::LeaseGrant { id, ttl_seconds } => {
                let ttl = (*ttl_seconds).max(TTL_LEAST);
                let expiry = self.clock + 1000 * ttl.unsigned_abs();
                self.leases.insert(id.0, Lease { ttl, expiry });
                format!("grant {} {} {ttl}", self.revision, id.0)
            }
            Op::LeaseRevoke { id } => {
                self.revoke(id.0, ordinal);
                self.end();
                format!("revoke {}", self.revision)
            }
            Op::LeaseKeepAlive { id } => {
                let clock = self.clock;
                let ttl = self.leases.get_mut(&id.0).map_or(0, |lease| {
                    lease.expiry = clock + 1000 * lease.ttl.unsigned_abs();
                    lease.ttl
                });
                format!("keep {} {} {ttl}", self.revision, id.0)
            }
            Op::Compact { revision } => {
                self.compacted = revision.0;
                format!("compact {}", self.revision)
            }
            // Whether it is made is for another checker.
            Op::Config(_) => "change".to_owned(),
            _ => "nothing".to_owned(),
        }
    }

    fn put(&mut self, key: Bytes, value: Bytes, lease: i64) {
        let revision = self.revision + 1;
        self.sub += 1;
        let old = self.keys.get(&key);
        let entry = Version {
            create: old.map_or(revision, |old| old.create),
            modified: revision,
            version: old.map_or(1, |old| old.version + 1),
            lease,
            value: value.clone(),
        };
        let (before, now) = (self.keys.insert(key.clone(), entry.clone()), Some(entry));
        self.history.push(Past { revision, key: key.clone(), now, before });
        self.past.entry(key).or_default().push((revision, Some(value)));
    }

    fn holds(&self, compare: &Compare, bundle: &Bundle) -> bool {
        let entry = self.keys.get(&compare.key);
        let number = |field: fn(&Version) -> i64| entry.map_or(0, field);
        let order = match &compare.target {
            CompareTarget::Version(operand) => number(|entry| entry.version).cmp(operand),
            CompareTarget::Create(operand) => number(|entry| entry.create).cmp(operand),
            CompareTarget::Mod(operand) => number(|entry| entry.modified).cmp(operand),
            CompareTarget::Lease(operand) => number(|entry| entry.lease).cmp(operand),
            CompareTarget::Value(slot) => match entry {
                Some(entry) => entry.value.cmp(&bundle.values[slot.index as usize].bytes),
                None => return false,
            },
        };
        match compare.result {
            CompareResult::Equal => order.is_eq(),
            CompareResult::Greater => order.is_gt(),
            CompareResult::Less => order.is_lt(),
            CompareResult::NotEqual => order.is_ne(),
        }
    }
}

/// A replica's answer in the model's words.
#[must_use]
pub fn describe(reply: &Reply) -> String {
    match reply {
        Reply::Put { revision, .. } => format!("put {revision}"),
        Reply::DeleteRange { revision, deleted, .. } => format!("delete {revision} {deleted}"),
        Reply::Txn { revision, succeeded, .. } => format!("txn {revision} {succeeded}"),
        Reply::LeaseGrant { revision, id, ttl_seconds } => {
            format!("grant {revision} {id} {ttl_seconds}")
        }
        Reply::LeaseRevoke { revision } => format!("revoke {revision}"),
        Reply::LeaseKeepAlive { revision, id, ttl_seconds } => {
            format!("keep {revision} {id} {ttl_seconds}")
        }
        Reply::Compact { revision } => format!("compact {revision}"),
        Reply::Auth { revision, auth_revision, .. } => format!("users {revision} {auth_revision}"),
        Reply::Config { .. } | Reply::Error { error: OpError::Config(_), .. } => {
            "change".to_owned()
        }
        Reply::Error { error, .. } => format!("error {error:?}"),
        _ => "nothing".to_owned(),
    }
}
