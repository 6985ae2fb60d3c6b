//! For `benches/state` alone: keys without blocks around them, as state.md measured them.

use bytes::Bytes;

use crate::chain::ValueRef;
use crate::state::{Kv, Span};
use crate::types::{Digest, LeaseId};

/// A key-value store that a bench drives.
#[derive(Default)]
pub struct Keys(Kv);

impl Keys {
    /// Reads ahead for puts of these keys.
    pub fn warm(&self, keys: &[&[u8]]) {
        self.0.warm(keys);
    }

    /// Puts a key, alone in its revision.
    pub fn put(&mut self, key: &Bytes, value: ValueRef, commitment: Digest) {
        let _event = self.0.put(key, LeaseId(0), value, commitment);
        self.0.end_revision();
    }

    /// Deletes a key, alone in its revision.
    pub fn delete(&mut self, key: &Bytes) {
        let _event = self.0.delete(key);
        self.0.end_revision();
    }

    /// The root over all keys, brought up to date.
    pub fn root(&mut self) -> Digest {
        self.0.root()
    }

    /// Compacts to the newest revision and drops what that hides.
    pub fn compact(&mut self) {
        let _refused = self.0.compact(self.0.revision());
        while self.0.sweep(1 << 16) {}
    }

    /// How many keys start with `prefix`, which ends in `/`.
    #[must_use]
    pub fn count_prefix(&self, prefix: &[u8]) -> i64 {
        let mut end = prefix.to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        i64::try_from(self.0.count_live(Span::Until(prefix, &end))).unwrap_or(i64::MAX)
    }

    /// The store.
    #[must_use]
    pub fn kv(&self) -> &Kv {
        &self.0
    }
}
