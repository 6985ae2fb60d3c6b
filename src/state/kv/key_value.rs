use bytes::Bytes;

use crate::chain::{ChangeKind, ValueRef};
use crate::types::{LeaseId, Revision};

/// One version of a key; its value by reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key, in its own allocation: it pins no block.
    pub key: Bytes,
    /// Revision of the put that created the key after it was last absent.
    pub create: Revision,
    /// Revision of the put that made this version.
    pub modified: Revision,
    /// Puts since the creation, from 1.
    pub version: i64,
    /// Attached lease, 0 for none.
    pub lease: LeaseId,
    /// Where this replica keeps the value: a local fact.
    pub value: ValueRef,
}

/// One change of one key, as a watcher sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The revision; changes of one transaction share it.
    pub revision: Revision,
    /// Place within the revision, from 0.
    pub sub: u32,
    /// Put or delete.
    pub kind: ChangeKind,
    /// The new version; of a delete only `key` and `modified` mean something.
    pub kv: KeyValue,
    /// The version before, unless the key was absent or that version is compacted.
    pub prev: Option<KeyValue>,
}

/// What a range found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResult {
    /// In the order asked for, cut to the limit; see [`finish_range`](super::finish_range) for the
    /// one order that `state` cannot make.
    pub kvs: Vec<KeyValue>,
    /// Keys in the range at that revision, whatever limit and filters say.
    pub count: i64,
    /// Whether the limit cut something off.
    pub more: bool,
}

/// Why a range has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeError {
    /// The revision is below the compact revision.
    Compacted,
    /// The revision is above the store's.
    Future,
}

impl core::fmt::Display for RangeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Compacted => "the revision has been compacted",
            Self::Future => "the revision is a future revision",
        })
    }
}

impl std::error::Error for RangeError {}
