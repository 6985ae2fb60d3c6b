//! A checkpoint as a file of etcd, and back: keys with their history in the order of revisions, leases,
//! users, and beside them what proves that the network's replicas certified this very content
//! (`docs/storage-format.md`, "A snapshot for etcd").

mod check;
mod chunk;
mod etcd;
mod export;
mod import;
#[cfg(test)]
mod tests;

use core::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::chain::{CheckpointCertificate, EpochProof, Manifest};
use crate::codec::DecodeError;
use crate::storage::bbolt::DatabaseError;
use crate::storage::checkpoint::{Checkpoint, ChunkPlace, chunk_path};
use crate::storage::disk::{Disk, DiskError, DiskFile, Open};

pub use check::{Backup, Content};
pub use etcd::STORAGE_VERSION;
pub use export::Export;
pub use import::{Change, EtcdSnapshot, ImportError, Put};

/// The bucket that etcd does not know.
const BUCKET: &[u8] = b"althing";

/// Version of what is in it.
const FORMAT: u16 = 1;

/// What shows that the network holds this content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Names the chunks.
    pub manifest: Manifest,
    /// Over the manifest's root.
    pub certificate: CheckpointCertificate,
    /// How the epochs before the certificate's ended.
    pub epochs: Vec<EpochProof>,
}

/// Why a snapshot for etcd cannot be made or does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupError {
    /// The disk refused.
    Disk(DiskError),
    /// The file is no bbolt file, or damaged.
    Database(DatabaseError),
    /// A value cannot be read.
    Value(String),
    /// Something in the bucket `althing` does not decode.
    Decode(&'static str, DecodeError),
    /// Who took the file went away.
    Stopped,
    /// The file holds nothing that could be checked.
    Unproven,
    /// The file's content does not give this chunk.
    Chunk {
        /// Its number, from 0.
        number: usize,
        /// What is wrong.
        what: String,
    },
    /// A bucket holds something else than the certified chunks say.
    Bucket {
        /// Its name.
        name: String,
        /// What is wrong.
        what: String,
    },
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(error) => write!(f, "{error}"),
            Self::Database(error) => write!(f, "{error}"),
            Self::Value(error) => f.write_str(error),
            Self::Decode(what, error) => write!(f, "the file's {what} is damaged: {error}"),
            Self::Stopped => f.write_str("the one who takes the snapshot went away"),
            Self::Unproven => f.write_str(
                "the file carries no certificate: it is etcd's own, or was taken within a minute of \
                 another one; `althing snapshot save` saves one that carries it",
            ),
            Self::Chunk { number, what } => {
                write!(f, "chunk {number} is not what the replicas certified: {what}")
            }
            Self::Bucket { name, what } => {
                write!(f, "the bucket {name} is not what the replicas certified: {what}")
            }
        }
    }
}

impl std::error::Error for BackupError {}

impl From<DiskError> for BackupError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

impl From<DatabaseError> for BackupError {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error)
    }
}

/// The chunks that a snapshot is made of: files that stay readable when their names are gone.
pub struct ChunkFiles {
    files: Vec<Arc<dyn DiskFile>>,
    /// File, offset and length of each chunk.
    places: Vec<(usize, u64, u32)>,
}

impl ChunkFiles {
    /// Those of a checkpoint. Files opened here can be pruned meanwhile.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn of(checkpoint: &Checkpoint, disk: &dyn Disk) -> Result<Self, DiskError> {
        let numbers = checkpoint.files();
        let open = |number: &u32| disk.open(&chunk_path(*number), Open::Read);
        let files = numbers.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let place = |(place, length): (ChunkPlace, u32)| {
            let file = numbers.iter().position(|number| *number == place.file);
            (file.expect("the files are those of the places"), u64::from(place.base), length)
        };
        let lengths = checkpoint.manifest.chunks.iter().map(|chunk| chunk.length);
        let places = checkpoint.places().into_iter().zip(lengths).map(place).collect();
        Ok(Self { files, places })
    }

    /// None yet: they are pushed to a file without a name.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn begin(disk: &dyn Disk) -> Result<Self, DiskError> {
        const PATH: &str = "snapshot.tmp";
        let file = disk.open(PATH, Open::Create)?;
        disk.remove(PATH)?;
        Ok(Self { files: vec![file], places: Vec::new() })
    }

    /// Adds the next chunk.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), DiskError> {
        let at = self.places.last().map_or(0, |(_, at, length)| at + u64::from(*length));
        self.files[0].write_at(at, chunk)?;
        let length = u32::try_from(chunk.len()).expect("a chunk is a few MiB");
        self.places.push((0, at, length));
        Ok(())
    }

    fn count(&self) -> usize {
        self.places.len()
    }

    fn chunk(&self, number: usize) -> Result<Bytes, BackupError> {
        let (_, _, length) = self.places[number];
        self.part(number, 0, length)
    }

    fn part(&self, number: usize, offset: u32, length: u32) -> Result<Bytes, BackupError> {
        let (file, at, _) = self.places[number];
        let mut bytes = vec![0; length as usize];
        self.files[file].read_at(at + u64::from(offset), &mut bytes)?;
        Ok(Bytes::from(bytes))
    }
}
