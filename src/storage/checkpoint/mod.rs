//! Checkpoints: the state at one height in chunks, and what a replay above it must know.
//!
//! Chunks go back to back into files that values are read from for as long as the state refers to
//! them; the manifest is written last, so a checkpoint exists whole or not at all. Two are kept: if the
//! newest is damaged, the one before and a longer replay do. Bytes: `docs/storage-format.md`.

mod manifest;
mod reader;
mod writer;

pub(in crate::storage) use manifest::places;
pub use manifest::{Checkpoint, ChunkPlace};
pub(in crate::storage) use reader::read_checkpoint;
pub use reader::{Candidates, Chunk, Chunks, candidates, newest};
pub use writer::{CheckpointParts, CheckpointWriter, remove_old};
pub(in crate::storage) use writer::{chunk_files, write_whole};

use core::fmt;

pub use crate::chain::{ChunkEntry, Manifest};
use crate::storage::disk::DiskError;
use crate::types::{ClusterId, Height};

/// The checkpoints' directory below the data directory.
pub const CHECKPOINT_DIRECTORY: &str = "checkpoint";

/// Checkpoints kept.
pub const CHECKPOINTS_KEPT: usize = 2;

/// The file of chunks with this number.
#[must_use]
pub fn chunk_path(number: u32) -> String {
    format!("{CHECKPOINT_DIRECTORY}/{number:010}.chunks")
}

/// The manifest of the checkpoint at this height.
#[must_use]
pub fn manifest_path(height: Height) -> String {
    format!("{CHECKPOINT_DIRECTORY}/{height:020}.manifest")
}

/// Why a checkpoint cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointError {
    /// The disk refused, or a file is gone.
    Disk(DiskError),
    /// The manifest is not what was written.
    Manifest {
        /// Its file.
        path: String,
    },
    /// The manifest is of another format version.
    Version {
        /// Its file.
        path: String,
        /// The version it names.
        found: u16,
    },
    /// The checkpoint is another network's.
    OtherNetwork {
        /// Its file.
        path: String,
        /// The network it names.
        found: ClusterId,
        /// This replica's.
        own: ClusterId,
    },
    /// A chunk is not what was written.
    Chunk {
        /// Of the checkpoint.
        height: Height,
        /// Its number, from 0.
        number: usize,
        /// The file it should be in.
        path: String,
    },
}

impl From<DiskError> for CheckpointError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(error) => write!(f, "a checkpoint cannot be read: {error}"),
            Self::Manifest { path } => write!(
                f,
                "the checkpoint manifest {path} is damaged; the checkpoint before it is used, or run \
                 `althing replica repair`"
            ),
            Self::Version { path, found } => write!(
                f,
                "the checkpoint manifest {path} has format version {found}, this program reads \
                 version {}; start the program that wrote it",
                manifest::CHECKPOINT_VERSION
            ),
            Self::OtherNetwork { path, found, own } => write!(
                f,
                "the checkpoint manifest {path} belongs to network {found}, this replica to {own}; \
                 check --data-dir and --genesis"
            ),
            Self::Chunk { height, number, path } => write!(
                f,
                "chunk {number} of the checkpoint at height {height} is damaged in {path}; the \
                 checkpoint before it is used, or run `althing replica repair`"
            ),
        }
    }
}

impl std::error::Error for CheckpointError {}

#[cfg(test)]
mod tests;
