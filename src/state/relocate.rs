//! Values move from the log to a checkpoint's files: references follow, while the replica runs. What
//! the log then holds of them may be erased. No root and no answer differs.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::chain::{Parameters, ValueRef};
use crate::codec::Reader;
use crate::state::kv::Item;
use crate::state::restore::{ITEMS_MAX, KeptChunk, read_item};
use crate::state::snapshot::{KEYS, RestoreError};
use crate::state::{Kv, State};
use crate::types::Revision;

/// Where a checkpoint keeps the values of one key's versions.
#[derive(Clone, Debug)]
pub struct MovedKey {
    key: Bytes,
    /// By revision and sub-revision.
    places: BTreeMap<(Revision, u32), ValueRef>,
}

/// The keys of a chunk with the places of their values in it.
///
/// # Errors
/// The chunk is not what a snapshot writes.
pub fn moved_keys(chunk: &KeptChunk) -> Result<Vec<MovedKey>, RestoreError> {
    let mut reader = Reader::new(chunk.bytes.clone());
    let mut keys = Vec::new();
    if reader.u8("chunk kind")? != KEYS {
        return Ok(keys);
    }
    for _ in 0..reader.length(ITEMS_MAX, "keys")? {
        let key = reader.bytes(Parameters::KEY_BYTES_MAX, "key")?;
        let mut places = BTreeMap::new();
        for _ in 0..reader.length(ITEMS_MAX, "versions")? {
            if let (Item::Put { version, sub }, _) = read_item(&mut reader, chunk)? {
                places.insert((version.modified, sub), version.value);
            }
        }
        if !places.is_empty() {
            // A copy: a slice would keep the whole chunk in memory.
            keys.push(MovedKey { key: Bytes::copy_from_slice(&key), places });
        }
    }
    reader.finish()?;
    Ok(keys)
}

impl State {
    /// Lets every version whose value the checkpoint holds refer to it there, whatever was written
    /// since. A version that repeats an older one's value (`ignore_value`) follows that one.
    pub fn relocate(&mut self, keys: &[MovedKey]) {
        keys.iter().for_each(|moved| self.kv.relocate(moved));
    }
}

impl Kv {
    fn relocate(&mut self, moved: &MovedKey) {
        let key = &moved.key[..];
        let now = self.index.get(key);
        let Some(link) = now.map(|now| now.link).or_else(|| self.deleted.get(key).copied()) else {
            return;
        };
        let mut renamed = BTreeMap::new();
        for (place, version) in self.history.versions(key, now, link) {
            let exact = moved.places.get(&place);
            // Of a version below the compact revision a checkpoint has forgotten the sub-revision.
            let near = || {
                let (revision, _) = place;
                moved.places.range((revision, 0)..=(revision, u32::MAX)).next_back()
            };
            if let Some(new) = exact.or_else(|| near().map(|(_, new)| new)) {
                renamed.insert((version.value.segment, version.value.offset), *new);
            }
        }
        let rename = |at: &mut ValueRef| {
            if let Some(new) = renamed.get(&(at.segment, at.offset)) {
                *at = *new;
            }
        };
        self.index.change_meta(key, |version| rename(&mut version.value));
        self.history.change_old(key, link, &rename);
    }
}
