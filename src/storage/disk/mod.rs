//! Files as the log and the checkpoints see them. Two implementations: the operating system's
//! and the simulator's, which loses, tears and misdirects what was not synced.

#[cfg(test)]
pub(crate) mod memory;
#[cfg(feature = "server")]
#[allow(clippy::disallowed_methods, reason = "the one module that opens files")]
pub mod os;

use core::fmt;
use std::sync::Arc;

/// What went wrong, as far as a caller decides by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// No such file or directory.
    NotFound,
    /// The file ends before the bytes asked for.
    Short,
    /// No space is left.
    Full,
    /// Not permitted, or a read-only file system.
    Denied,
    /// Another process holds the directory.
    InUse,
    /// It belongs to another network, replica or version.
    Foreign,
    /// Any other failure; on a write, sync or rename it is fatal and never retried.
    Failed,
}

/// A disk operation failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskError {
    /// Decides what to do.
    pub kind: DiskErrorKind,
    /// Relative to the data directory, or the directory itself.
    pub path: String,
    /// The operation and the system's words.
    pub what: String,
}

impl DiskError {
    /// An error about `path`.
    #[must_use]
    pub fn new(kind: DiskErrorKind, path: &str, what: impl Into<String>) -> Self {
        Self { kind, path: path.to_owned(), what: what.into() }
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.what)
    }
}

impl std::error::Error for DiskError {}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; made empty if absent, kept as it is otherwise.
    Create,
}

/// A data directory. Paths are relative to it, with `/` between names, never absolute, never `..`;
/// the empty path is the directory itself.
pub trait Disk: Send + Sync {
    /// Makes a directory, unless it is there. Durable after [`Disk::sync_directory`] of its parent.
    ///
    /// # Errors
    /// [`DiskError`].
    fn create_directory(&self, path: &str) -> Result<(), DiskError>;

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// [`DiskErrorKind::NotFound`] if it does not exist, and any other.
    fn list(&self, path: &str) -> Result<Vec<String>, DiskError>;

    /// Opens a file.
    ///
    /// # Errors
    /// [`DiskErrorKind::NotFound`] with [`Open::Read`], and any other.
    fn open(&self, path: &str, how: Open) -> Result<Arc<dyn DiskFile>, DiskError>;

    /// Gives a file another name, replacing what had it. Durable after [`Disk::sync_directory`].
    ///
    /// # Errors
    /// [`DiskError`].
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError>;

    /// Removes a file. Files still open stay readable. Durable after [`Disk::sync_directory`].
    ///
    /// # Errors
    /// [`DiskError`].
    fn remove(&self, path: &str) -> Result<(), DiskError>;

    /// Makes names made, changed and removed in a directory durable.
    ///
    /// # Errors
    /// [`DiskError`]; fatal.
    fn sync_directory(&self, path: &str) -> Result<(), DiskError>;
}

/// An open file. Reads and writes name their offset, so threads share it.
pub trait DiskFile: Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// [`DiskError`].
    fn len(&self) -> Result<u64, DiskError>;

    /// Whether it has no byte.
    ///
    /// # Errors
    /// [`DiskError`].
    fn is_empty(&self) -> Result<bool, DiskError> {
        Ok(self.len()? == 0)
    }

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// [`DiskErrorKind::Short`] if the file ends before, and any other.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError>;

    /// Writes all of `bytes` at `offset`, extending the file if it must.
    ///
    /// # Errors
    /// [`DiskError`]; fatal, except [`DiskErrorKind::Full`] for who has not promised the write.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;

    /// Makes the file at least `length` long, really writing zeros for what is new, so that a later
    /// overwrite needs no new block and its sync no journal entry.
    ///
    /// # Errors
    /// As [`DiskFile::write_at`].
    fn set_len_zeroed(&self, length: u64) -> Result<(), DiskError>;

    /// Makes the file's bytes and length durable.
    ///
    /// # Errors
    /// [`DiskError`]; fatal and never retried: a second sync after an error lies.
    fn sync(&self) -> Result<(), DiskError>;
}
