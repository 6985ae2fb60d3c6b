//! Who wrote what: for every change its height, op and author, by key.
//!
//! Built from the log alone, once per sealed segment, behind the commit path; it may be deleted from a
//! stopped replica and is built again. It holds no value, no file offset, nothing a vote depends on
//! (layout.md 1). What the unsealed segment holds is answered from memory. One owner, the index
//! thread, calls everything here.

mod entry;
mod page;
mod pages;
mod tail;

pub use entry::{Provenance, WrittenBy};

use core::fmt;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::chain::{Block, Effects};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::crypto::{Context, hash};
use crate::storage::log::{BlockReader, LogError};
use crate::types::{ClusterId, Height, Revision};
use page::{Page, page_key, page_range};
use tail::Tail;

/// The index's directory below the data directory.
pub const INDEX_DIRECTORY: &str = "index";

const INDEX_VERSION: u16 = 1;
const META_KEY: &[u8] = b"m";

/// A hint that sled does not keep to; small, because pages are read once in a while.
const CACHE_BYTES: u64 = 8 << 20;

/// Why the index cannot answer. It never concerns the log, and [`Index::rebuild`] mends it.
#[derive(Debug)]
pub enum IndexError {
    /// sled failed.
    Store(sled::Error),
    /// sled panicked.
    Panicked,
    /// An entry is not what was written.
    Damaged,
    /// The directory could not be removed.
    Remove(std::io::Error),
    /// The log could not be read.
    Log(LogError),
    /// The log has a block's effects and not the block.
    BlockMissing(Height),
}

impl IndexError {
    /// Whether [`Index::rebuild`] is the answer.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Store(_) | Self::Panicked | Self::Damaged)
    }
}

impl fmt::Display for IndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => write!(f, "the index cannot be used: {error}; it is rebuilt"),
            Self::Panicked => write!(f, "the index's store panicked; it is rebuilt"),
            Self::Damaged => write!(f, "an index entry is damaged; the index is rebuilt"),
            Self::Remove(error) => write!(
                f,
                "the damaged index cannot be removed: {error}; stop the replica and remove the \
                 directory `{INDEX_DIRECTORY}`"
            ),
            Self::Log(error) => write!(f, "the index cannot be filled: {error}"),
            Self::BlockMissing(height) => write!(
                f,
                "the index cannot be filled: the log holds the effects of block {height} but not the \
                 block; run `althing replica repair`"
            ),
        }
    }
}

impl std::error::Error for IndexError {}

impl From<LogError> for IndexError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<sled::Error> for IndexError {
    fn from(error: sled::Error) -> Self {
        Self::Store(error)
    }
}

/// How far the index goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Indexed {
    /// First segment indexed; 0 if none.
    pub first_segment: u32,
    /// Last segment indexed; 0 if none.
    pub last_segment: u32,
    /// The highest block in it. Changes of later blocks are known if [`Index::note`] was told.
    pub height: Height,
}

/// Provenance by key.
#[derive(Debug)]
pub struct Index {
    directory: PathBuf,
    cluster_id: ClusterId,
    db: sled::Db,
    indexed: Indexed,
    tail: Tail,
}

impl Index {
    /// Opens the index below `data_directory`. One that is damaged, of another network or version, or
    /// goes beyond `last_sealed` (the log was replaced) is deleted and begun anew.
    ///
    /// # Errors
    /// [`IndexError`] if it can be neither opened nor deleted.
    pub fn open(
        data_directory: &Path,
        cluster_id: ClusterId,
        last_sealed: u32,
    ) -> Result<Self, IndexError> {
        let directory = data_directory.join(INDEX_DIRECTORY);
        match Self::open_there(&directory, cluster_id) {
            Ok(index) if index.indexed.last_segment <= last_sealed => Ok(index),
            Ok(index) => {
                drop(index);
                remove(&directory)?;
                Self::open_there(&directory, cluster_id)
            }
            Err(_) => {
                remove(&directory)?;
                Self::open_there(&directory, cluster_id)
            }
        }
    }

    fn open_there(directory: &Path, cluster_id: ClusterId) -> Result<Self, IndexError> {
        guarded(|| {
            let db = sled::Config::new()
                .path(directory)
                .cache_capacity(CACHE_BYTES)
                .flush_every_ms(None)
                .open()?;
            let indexed = match db.get(META_KEY)? {
                Some(bytes) => decode_meta(&bytes, &cluster_id).ok_or(IndexError::Damaged)?,
                None if db.iter().next().is_none() => Indexed::default(),
                None => return Err(IndexError::Damaged),
            };
            let (directory, tail) = (directory.to_owned(), Tail::default());
            Ok(Self { directory, cluster_id, db, indexed, tail })
        })
    }

    /// Deletes everything but the tail; the sealed segments are indexed again from the first.
    ///
    /// # Errors
    /// As [`Index::open`].
    pub fn rebuild(self) -> Result<Self, IndexError> {
        let Self { directory, cluster_id, db, indexed: _, tail } = self;
        drop(db);
        remove(&directory)?;
        Ok(Self { tail, ..Self::open_there(&directory, cluster_id)? })
    }

    /// How far it goes.
    #[must_use]
    pub fn indexed(&self) -> Indexed {
        self.indexed
    }

    /// Takes note of an executed block whose effects are in `segment`, until that one is indexed.
    pub fn note(&mut self, segment: u32, block: &Block, effects: &Effects) {
        if segment > self.indexed.last_segment {
            self.tail.note(segment, block, effects);
        }
    }

    /// Indexes one sealed segment: all its entries and the note of having done so become durable
    /// together. Call it for each sealed segment in order.
    ///
    /// # Errors
    /// [`IndexError`]; nothing was changed.
    pub fn index_segment(
        &mut self,
        log: &mut BlockReader,
        segment: u32,
    ) -> Result<Indexed, IndexError> {
        assert!(
            self.indexed.last_segment == 0 || segment == self.indexed.last_segment + 1,
            "segments are indexed in order"
        );
        let (pages, highest) = pages::of_segment(log, segment)?;
        let first_segment = match self.indexed.first_segment {
            0 => segment,
            first => first,
        };
        let height = self.indexed.height.max(highest.unwrap_or_default());
        let indexed = Indexed { first_segment, last_segment: segment, height };
        let mut batch = sled::Batch::default();
        for page in &pages {
            let key = page.key(segment);
            batch.insert(key.as_slice(), page.encode(&key));
        }
        batch.insert(META_KEY, encode_meta(&indexed, &self.cluster_id));
        guarded(|| {
            self.db.apply_batch(batch)?;
            self.db.flush()?;
            Ok(())
        })?;
        self.indexed = indexed;
        self.tail.forget(segment);
        Ok(indexed)
    }

    /// The last change of a key, or the last at or below a revision.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn blame(
        &self,
        key: &[u8],
        revision: Option<Revision>,
    ) -> Result<Option<Provenance>, IndexError> {
        let mut found = self.search(key, revision, 1)?;
        Ok(found.pop())
    }

    /// The last changes of a key, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn history(&self, key: &[u8], limit: usize) -> Result<Vec<Provenance>, IndexError> {
        self.search(key, None, limit)
    }

    fn search(
        &self,
        key: &[u8],
        revision: Option<Revision>,
        limit: usize,
    ) -> Result<Vec<Provenance>, IndexError> {
        let wanted = |one: &Provenance| revision.is_none_or(|at| one.revision <= at);
        let mut found: Vec<Provenance> = Vec::new();
        let mut seen = BTreeSet::new();
        let mut add = |mut changes: Vec<Provenance>| {
            changes.sort_by_key(|one| core::cmp::Reverse((one.revision, one.ordinal)));
            for change in changes.into_iter().filter(&wanted) {
                // A block executed again after a restart may have its effects in the log twice.
                let new = seen.insert((change.revision, change.ordinal, change.kind));
                if new && found.len() < limit {
                    found.push(change);
                }
            }
            found.len() >= limit
        };
        if limit > 0 && !add(self.tail.find(key)) {
            for segment in (self.indexed.first_segment.max(1)..=self.indexed.last_segment).rev() {
                if add(self.in_segment(segment, key)?) {
                    break;
                }
            }
        }
        Ok(found)
    }

    fn in_segment(&self, segment: u32, key: &[u8]) -> Result<Vec<Provenance>, IndexError> {
        guarded(|| {
            let (first, last) = page_range(segment, key);
            // The page before the key's own may end with the key's first changes.
            let before = self.db.range(page_key(segment, &[], 0)..first.clone()).next_back();
            let mut found = Vec::new();
            for entry in before.into_iter().chain(self.db.range(first..=last)) {
                let (place, bytes) = entry?;
                let page = Page::decode(&place, &bytes).ok_or(IndexError::Damaged)?;
                found.extend(page.entries.into_iter().filter(|one| one.key == key));
            }
            Ok(found)
        })
    }
}

fn remove(directory: &Path) -> Result<(), IndexError> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(IndexError::Remove(error))
        }
        _ => Ok(()),
    }
}

/// sled is known to panic on a damaged file; the index may be lost, the process may not
/// (ecosystem.md 3).
fn guarded<T>(action: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
    catch_unwind(AssertUnwindSafe(action)).unwrap_or(Err(IndexError::Panicked))
}

fn encode_meta(indexed: &Indexed, cluster_id: &ClusterId) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u16(INDEX_VERSION);
    writer.digest(cluster_id);
    writer.u32(indexed.first_segment);
    writer.u32(indexed.last_segment);
    writer.u64(indexed.height.0);
    let checksum = hash(&Context::INDEX, &[META_KEY, writer.as_slice()]);
    writer.digest(&checksum);
    writer.finish().to_vec()
}

fn decode_meta(bytes: &[u8], own: &ClusterId) -> Option<Indexed> {
    let mut reader = Reader::new(bytes::Bytes::copy_from_slice(bytes));
    let version = reader.u16("index version").ok()?;
    let cluster_id = reader.digest("index network").ok()?;
    let indexed = Indexed {
        first_segment: reader.u32("index first segment").ok()?,
        last_segment: reader.u32("index last segment").ok()?,
        height: Height(reader.u64("index height").ok()?),
    };
    let same = version == INDEX_VERSION && cluster_id == *own;
    (same && encode_meta(&indexed, own) == bytes).then_some(indexed)
}

#[cfg(test)]
mod tests;
