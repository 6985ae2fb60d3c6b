//! One digest over the keys and values of a revision: what HashKV answers with. It is made a page of keys
//! at a time, so that no block waits for it, and is the same on every replica, whatever was compacted,
//! swept or restored there.

use core::ops::ControlFlow;

use bytes::Bytes;

use crate::chain::{ValueError, ValueRef, ValueSource};
use crate::codec::Writer;
use crate::crypto::{Context, hash};
use crate::state::kv::{Item, Kv, RangeError, Version};
use crate::types::{Digest, Revision};

/// Keys of a page: few in tests, so that there are several.
const PAGE_KEYS: usize = if cfg!(test) { 7 } else { 256 };
/// Bytes of values behind which a page ends, with the key that reached them.
const PAGE_BYTES: u64 = 1 << 20;

/// What a version says of itself with its key, and its value.
type Part = (Vec<u8>, ValueRef);

/// Keys with their versions at the revision, values by reference.
#[derive(Debug)]
pub struct ContentPage {
    parts: Vec<Part>,
    /// The last key of the page; None behind the last one of the store.
    last: Option<Bytes>,
}

/// A digest in the making, over all keys as they were at one revision.
#[derive(Debug)]
pub struct ContentHash {
    compact: Revision,
    at: Revision,
    digest: Digest,
    /// The first key that is still to come; None when all are in.
    next: Option<Bytes>,
}

impl ContentHash {
    /// Begins at `revision`, 0 for the store's.
    ///
    /// # Errors
    /// As for a range at that revision (etcd's hashByRev).
    pub fn begin(kv: &Kv, revision: Revision) -> Result<Self, RangeError> {
        let compact = kv.compact_revision();
        if revision.0 > 0 && revision < compact {
            return Err(RangeError::Compacted);
        }
        if revision > kv.revision() {
            return Err(RangeError::Future);
        }
        let at = if revision.0 == 0 { kv.revision() } else { revision };
        // etcd takes a negative revision, at which there is nothing.
        let next = (at.0 > 0).then(Bytes::new);
        Ok(Self { compact, at, digest: Digest::ZERO, next })
    }

    /// The revision it is over.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.at
    }

    /// The compact revision when it began: the digest does not depend on it.
    #[must_use]
    pub fn compact_revision(&self) -> Revision {
        self.compact
    }

    /// The next keys of the same store; None when all are in.
    ///
    /// # Errors
    /// The revision was compacted meanwhile.
    pub fn page(&self, kv: &Kv) -> Result<Option<ContentPage>, RangeError> {
        let Some(next) = &self.next else { return Ok(None) };
        if self.at < kv.compact_revision() {
            return Err(RangeError::Compacted);
        }
        let mut page = ContentPage { parts: Vec::new(), last: None };
        let (mut keys, mut bytes) = (0, 0);
        // Keys count that have nothing to show: no block waits for a search among them.
        kv.visit_keys(next, self.at, self.at, &mut |key, items| {
            keys += 1;
            if let Some(Item::Put { version, .. }) = items.last() {
                bytes += u64::from(version.value.length);
                page.parts.push(part(key, version));
            }
            if keys < PAGE_KEYS && bytes < PAGE_BYTES {
                return ControlFlow::Continue(());
            }
            page.last = Some(Bytes::copy_from_slice(key));
            ControlFlow::Break(())
        });
        Ok(Some(page))
    }

    /// Takes in a page with its values. After an error the same page may be asked for again: a value
    /// that moved is found at its new place.
    ///
    /// # Errors
    /// A value cannot be read.
    pub fn add(&mut self, page: ContentPage, values: &dyn ValueSource) -> Result<(), ValueError> {
        let mut digest = self.digest;
        for (head, value) in &page.parts {
            let value = values.read(*value)?;
            digest = hash(&Context::CONTENT, &[&digest.0, head, &value.bytes]);
        }
        self.digest = digest;
        // The key behind the last one: itself with a zero byte.
        self.next = page.last.map(|last| [&last[..], &[0]].concat().into());
        Ok(())
    }

    /// The first 32 bits, when all pages are in.
    #[must_use]
    pub fn finish(&self) -> u32 {
        first_word(&self.digest)
    }
}

/// The first 32 bits of a digest.
pub(in crate::state) fn first_word(digest: &Digest) -> u32 {
    let [a, b, c, d, ..] = digest.0;
    u32::from_be_bytes([a, b, c, d])
}

/// Its own length stands in front of everything of variable length, the value's included.
fn part(key: &[u8], version: &Version) -> Part {
    let mut writer = Writer::new();
    writer.bytes(key);
    writer.i64(version.modified.0);
    writer.i64(version.create.0);
    writer.i64(version.version);
    writer.i64(version.lease.0);
    writer.u32(version.value.length);
    (writer.as_slice().to_vec(), version.value)
}
