//! What clients of one replica ask for: puts, deletes, transactions and leases on a few keys, so that they
//! meet.

use althing::chain::{
    AuthOp, Author, Bundle, BundleParts, Compare, CompareResult, CompareTarget, DeleteRange, Op,
    Permission, PermissionKind, Put, Range, Skeleton, Txn, Value, ValueSlot,
};
use althing::crypto::Scheme;
use althing::types::{ClusterId, Digest, LeaseId, Millis, ReplicaId, Revision};
use bytes::Bytes;

use crate::sim::random::Random;

/// Keys that all clients share.
pub const KEYS: u64 = 12;
/// Behind all of them.
pub const KEYS_END: &[u8] = b"/key/99";
const LEASES: u64 = 4;

/// The key of a number.
#[must_use]
pub fn key(number: u64) -> Bytes {
    Bytes::from(format!("/key/{number:02}"))
}

/// One replica's clients.
pub struct Workload {
    random: Random,
    origin: ReplicaId,
    large_values: u64,
}

/// Names of users; the first may become root.
const USERS: [&[u8]; 3] = [b"root", b"ann", b"bob"];
/// Names of roles.
const ROLES: [&[u8]; 3] = [b"root", b"reads", b"writes"];

/// What a client knows of the store.
pub struct Known {
    /// Its revision.
    pub revision: i64,
    /// That of its users, if there are to be any.
    pub users: Option<u64>,
}

/// Ops with their values, slots numbered.
#[derive(Default)]
struct Draft {
    skeletons: Vec<Skeleton>,
    values: Vec<Value>,
}

/// Where a bundle goes.
pub struct Numbers {
    /// The origin's session.
    pub session: u64,
    /// The first op's number.
    pub first_seq: u64,
    /// When its ops are given up.
    pub not_after_ms: Millis,
}

impl Workload {
    /// With chance of its own; `large_values` in parts of 1,000.
    #[must_use]
    pub fn new(origin: ReplicaId, large_values: u64, random: Random) -> Self {
        Self { random, origin, large_values }
    }

    /// A key that some op may have written.
    pub fn key(&mut self) -> Bytes {
        key(self.random.below(KEYS))
    }

    /// A signed bundle of one to four ops.
    pub fn bundle(
        &mut self,
        numbers: &Numbers,
        known: &Known,
        cluster_id: &ClusterId,
        scheme: &dyn Scheme,
    ) -> Bundle {
        let mut draft = Draft::default();
        for _ in 0..self.random.between(1, 4) {
            let op = match known.users {
                Some(_) if self.random.chance(80) => self.auth_op(&mut draft.values),
                _ => self.op(&mut draft.values, known.revision),
            };
            let author = self.author(known);
            draft.skeletons.push(Skeleton { author, op });
        }
        let parts = BundleParts {
            origin: self.origin,
            session: numbers.session,
            first_seq: numbers.first_seq,
            not_after_ms: numbers.not_after_ms,
            skeletons: draft.skeletons,
            values: draft.values,
        };
        Bundle::sign(parts, cluster_id, scheme)
    }

    /// A signed bundle of one op without values.
    #[must_use]
    pub fn alone(
        &self,
        numbers: &Numbers,
        op: Op,
        cluster_id: &ClusterId,
        scheme: &dyn Scheme,
    ) -> Bundle {
        let parts = BundleParts {
            origin: self.origin,
            session: numbers.session,
            first_seq: numbers.first_seq,
            not_after_ms: numbers.not_after_ms,
            skeletons: vec![Skeleton { author: Author::default(), op }],
            values: Vec::new(),
        };
        Bundle::sign(parts, cluster_id, scheme)
    }

    fn slot(&mut self, values: &mut Vec<Value>) -> ValueSlot {
        let length = self.random.index(40);
        let text = format!("{:016x}", self.random.draw()).repeat(3);
        let mut bytes = Bytes::from(text).slice(..length);
        if self.large_values > 0 && self.random.chance(self.large_values) {
            bytes = Bytes::from(vec![b'x'; self.random.index(200 << 10)]);
        }
        self.hidden(bytes, values)
    }

    /// Puts a value beside the ops, and says where.
    fn hidden(&mut self, bytes: Bytes, values: &mut Vec<Value>) -> ValueSlot {
        let value = Value { salt: self.random.bytes(), bytes };
        let index = u32::try_from(values.len()).expect("few");
        let commitment = value.commitment();
        values.push(value);
        ValueSlot { index, commitment }
    }

    /// Whoever asks: root most of the time, others with and without rights, nobody, and some who were
    /// looked up before users last changed.
    fn author(&mut self, known: &Known) -> Author {
        let client_name = Bytes::from_static(b"sim");
        let Some(now) = known.users else { return Author { client_name, ..Author::default() } };
        let user = match self.random.below(10) {
            0..6 => USERS[0],
            6 | 7 => USERS[1],
            8 => USERS[2],
            _ => b"",
        };
        let auth_revision = match self.random.below(20) {
            _ if user.is_empty() => 0,
            0 => now - 1,
            _ => now,
        };
        Author { client_name, user: Bytes::from_static(user), auth_revision }
    }

    fn auth_op(&mut self, values: &mut Vec<Value>) -> Op {
        let name = |names: &[&'static [u8]], random: &mut Random| {
            Bytes::from_static(names[random.index(names.len())])
        };
        let (user, role) = (name(&USERS, &mut self.random), name(&ROLES, &mut self.random));
        let name = user.clone();
        Op::Auth(Box::new(match self.random.below(100) {
            0..15 => AuthOp::Enable,
            15..18 => AuthOp::Disable,
            18..33 => AuthOp::UserAdd { name, password: self.password(values) },
            33..35 => AuthOp::UserDelete { name },
            35..53 => AuthOp::UserGrantRole { user, role },
            53..57 => AuthOp::UserRevokeRole { user, role },
            57..70 => AuthOp::RoleAdd { name: role },
            70..72 => AuthOp::RoleDelete { name: role },
            72..90 => {
                let permission = self.random.chance(950).then(|| self.permission());
                AuthOp::RoleGrantPermission { role, permission }
            }
            90..94 => {
                let Permission { key, range_end, .. } = self.permission();
                AuthOp::RoleRevokePermission { role, key, range_end }
            }
            94..97 => AuthOp::UserChangePassword { name, password: self.password(values) },
            _ => AuthOp::Authenticate { user, token: Digest(self.random.bytes()) },
        }))
    }

    /// As the hash that is ordered for one; half of the users have none.
    fn password(&mut self, values: &mut Vec<Value>) -> Option<ValueSlot> {
        let bytes = Bytes::copy_from_slice(&self.random.bytes::<60>());
        self.random.chance(500).then(|| self.hidden(bytes, values))
    }

    fn permission(&mut self) -> Permission {
        let kinds = [PermissionKind::Read, PermissionKind::Write, PermissionKind::ReadWrite];
        let kind = *self.random.pick(&kinds);
        let key = key(self.random.below(4) * (KEYS / 4));
        let range_end = match self.random.below(4) {
            0 => Bytes::new(),
            1 => Bytes::from_static(&[0]),
            2 => Bytes::from_static(KEYS_END),
            // Some of them end in front of their key.
            _ => self.key(),
        };
        Permission { kind, key, range_end }
    }

    fn lease(&mut self) -> LeaseId {
        let own = u64::from(self.origin.0) * 100;
        LeaseId(i64::try_from(own + 1 + self.random.below(LEASES)).expect("small"))
    }

    fn put(&mut self, key: Bytes, values: &mut Vec<Value>) -> Op {
        let lease = if self.random.chance(100) { self.lease() } else { LeaseId(0) };
        let value = Some(self.slot(values));
        let prev_kv = self.random.chance(200);
        Op::Put(Put { key, value, lease, prev_kv, ignore_lease: false })
    }

    fn delete(&mut self, key: Bytes) -> Op {
        let range = self.random.chance(200);
        let range_end = if range { Bytes::from_static(KEYS_END) } else { Bytes::new() };
        Op::DeleteRange(DeleteRange { key, range_end, prev_kv: self.random.chance(200) })
    }

    fn txn(&mut self, values: &mut Vec<Value>, store_revision: i64) -> Op {
        let (key, other) = (self.key(), self.key());
        let target = match self.random.below(4) {
            0 => CompareTarget::Version(0),
            1 => CompareTarget::Mod(store_revision - 3),
            2 => CompareTarget::Value(self.slot(values)),
            _ => CompareTarget::Create(0),
        };
        let results = [
            CompareResult::Equal,
            CompareResult::Greater,
            CompareResult::Less,
            CompareResult::NotEqual,
        ];
        let result = *self.random.pick(&results);
        let compare = Compare { result, target, key: key.clone(), range_end: Bytes::new() };
        let mut success = vec![self.put(key.clone(), values)];
        if other != key {
            success.push(self.put(other.clone(), values));
        }
        if self.random.chance(300) {
            // A read in the past, often just around what was compacted.
            let back = i64::try_from(self.random.below(60)).expect("small");
            let revision = (store_revision - back).max(1);
            success.push(Op::Range(Range { key: self.key(), revision, ..Range::default() }));
        }
        let failure = vec![if self.random.chance(500) {
            self.put(other, values)
        } else {
            let range_end = Bytes::new();
            Op::DeleteRange(DeleteRange { key: other, range_end, prev_kv: false })
        }];
        Op::Txn(Txn { compares: vec![compare], success, failure })
    }

    fn op(&mut self, values: &mut Vec<Value>, store_revision: i64) -> Op {
        match self.random.below(100) {
            0..60 => {
                let key = self.key();
                self.put(key, values)
            }
            60..70 => {
                let key = self.key();
                self.delete(key)
            }
            70..85 => self.txn(values, store_revision),
            85..91 => {
                let ttl_seconds = i64::try_from(self.random.between(1, 4)).expect("small");
                Op::LeaseGrant { id: self.lease(), ttl_seconds }
            }
            91..95 => Op::LeaseKeepAlive { id: self.lease() },
            95..98 => Op::LeaseRevoke { id: self.lease() },
            98 if self.random.chance(100) => Op::CheckpointNow,
            _ => {
                let back = i64::try_from(self.random.below(50)).expect("small");
                Op::Compact { revision: Revision(store_revision - back) }
            }
        }
    }
}
