//! etcd's side: names and values in its backend as etcd 3.7 writes them (`server/storage/schema`,
//! `server/storage/mvcc/revision.go`, `api/mvccpb`, `server/lease/leasepb`, `api/authpb`).

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::storage::backup::chunk::{Gathered, Head, Item, Lease};

/// Keys by revision.
pub(super) const KEY: &[u8] = b"key";

/// The version of the schema.
pub const STORAGE_VERSION: &str = "3.7.0";

const MARK: u8 = b't';

/// Buckets by name with their entries in order: all but `key`, which is large.
pub(super) type Small = BTreeMap<&'static [u8], BTreeMap<Vec<u8>, Vec<u8>>>;

/// What a version is called: revision, '_', place within it, and a mark for a delete.
pub(super) fn revision_key(revision: i64, sub: u32, is_delete: bool) -> Vec<u8> {
    let mut key = revision.to_be_bytes().to_vec();
    key.push(b'_');
    key.extend(u64::from(sub).to_be_bytes());
    if is_delete {
        key.push(MARK);
    }
    key
}

/// Protobuf, the part that etcd's stored messages need: fields of zero are left out.
#[derive(Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    pub fn number(mut self, field: u8, number: i64) -> Self {
        if number != 0 {
            self.0.push(field << 3);
            // Two's complement: etcd's numbers are int64.
            self.varint(u64::from_le_bytes(number.to_le_bytes()));
        }
        self
    }

    pub fn bytes(self, field: u8, bytes: &[u8]) -> Self {
        if bytes.is_empty() { self } else { self.entry(field, bytes) }
    }

    /// One of a repeated field: it is there even if it is empty.
    pub fn entry(mut self, field: u8, bytes: &[u8]) -> Self {
        self.0.push(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// mvccpb.KeyValue. A delete's has the key alone.
pub(super) fn key_value(key: &[u8], item: &Item) -> Vec<u8> {
    let message = Message::default().bytes(1, key);
    match item {
        Item::Delete { .. } => message.finish(),
        Item::Put { modified, create, version, lease, value, .. } => message
            .number(2, *create)
            .number(3, *modified)
            .number(4, *version)
            .bytes(5, &value.bytes)
            .number(6, *lease)
            .finish(),
    }
}

/// A KeyValue, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyValue {
    pub key: Bytes,
    pub create: i64,
    pub modified: i64,
    pub version: i64,
    pub value: Bytes,
    pub lease: i64,
}

fn varint(bytes: &Bytes, at: &mut usize) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// Reads a KeyValue; none if the bytes are no message of its fields.
pub(super) fn read_key_value(bytes: &Bytes) -> Option<KeyValue> {
    let mut found = KeyValue::default();
    let mut at = 0;
    while at < bytes.len() {
        let tag = varint(bytes, &mut at)?;
        let number = varint(bytes, &mut at)?;
        let signed = i64::from_le_bytes(number.to_le_bytes());
        match tag {
            0x0a | 0x2a => {
                let end = at.checked_add(usize::try_from(number).ok()?)?;
                let part = bytes.get(at..end).map(|_| bytes.slice(at..end))?;
                at = end;
                *(if tag == 0x0a { &mut found.key } else { &mut found.value }) = part;
            }
            0x10 => found.create = signed,
            0x18 => found.modified = signed,
            0x20 => found.version = signed,
            0x30 => found.lease = signed,
            _ => return None,
        }
    }
    Some(found)
}

/// Id and granted seconds of a leasepb.Lease; what is left of them is not taken over.
pub(super) fn read_lease(bytes: &Bytes) -> Option<(i64, i64)> {
    let (mut id, mut ttl_seconds, mut at) = (0, 0, 0);
    while at < bytes.len() {
        let tag = varint(bytes, &mut at)?;
        let number = i64::from_le_bytes(varint(bytes, &mut at)?.to_le_bytes());
        match tag {
            0x08 => id = number,
            0x10 => ttl_seconds = number,
            0x18 => {}
            _ => return None,
        }
    }
    Some((id, ttl_seconds))
}

/// All buckets of etcd's schema but `key`.
///
/// There is no member and no raft in them: `etcdutl snapshot restore` takes what is there of both away
/// and writes the new cluster's.
pub(super) fn small_buckets(head: &Head, gathered: &Gathered) -> Small {
    let Gathered { leases, users, .. } = gathered;
    let mut buckets = Small::new();
    for name in [&b"alarm"[..], b"auth", b"authRoles", b"authUsers", b"cluster", b"lease"] {
        buckets.insert(name, BTreeMap::new());
    }
    for name in [&b"members"[..], b"members_removed", b"meta"] {
        buckets.insert(name, BTreeMap::new());
    }
    let mut put = |bucket: &'static [u8], key: &[u8], value: Vec<u8>| {
        buckets.entry(bucket).or_default().insert(key.to_vec(), value);
    };
    put(b"cluster", b"clusterVersion", STORAGE_VERSION.into());
    put(b"meta", b"storageVersion", STORAGE_VERSION.into());
    if head.compact_revision > 0 {
        for name in [&b"scheduledCompactRev"[..], b"finishedCompactRev"] {
            put(b"meta", name, revision_key(head.compact_revision, 0, false));
        }
    }
    for Lease { id, ttl_seconds, .. } in leases {
        let value = Message::default().number(1, *id).number(2, *ttl_seconds).finish();
        put(b"lease", &id.to_be_bytes(), value);
    }
    put(b"auth", b"authEnabled", vec![u8::from(users.enabled)]);
    put(b"auth", b"authRevision", users.revision.to_be_bytes().to_vec());
    for user in &users.users {
        let password = user.password.clone().unwrap_or_default();
        let mut message = Message::default().bytes(1, &user.name).bytes(2, &password);
        for role in &user.roles {
            message = message.entry(3, role);
        }
        let options = Message::default().number(1, i64::from(user.password.is_none())).finish();
        put(b"authUsers", &user.name, message.entry(4, &options).finish());
    }
    for (name, permissions) in &users.roles {
        let mut message = Message::default().bytes(1, name);
        for permission in permissions {
            let kind = permission.kind as i64;
            let inner = Message::default().number(1, kind).bytes(2, &permission.key);
            message = message.entry(2, &inner.bytes(3, &permission.range_end).finish());
        }
        put(b"authRoles", name, message.finish());
    }
    buckets
}
