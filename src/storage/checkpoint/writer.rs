//! Writing a checkpoint: chunks, then the manifest under its final name.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::chain::BlockHeader;
use crate::planted::{self, Bug};
use crate::storage::checkpoint::CheckpointError;
use crate::storage::checkpoint::manifest::place;
use crate::storage::checkpoint::{
    CHECKPOINT_DIRECTORY, CHECKPOINTS_KEPT, Checkpoint, ChunkEntry, ChunkPlace, Manifest,
    candidates, chunk_path, manifest_path,
};
use crate::storage::disk::{Disk, DiskError, DiskErrorKind, DiskFile, Open};
use crate::storage::log::ReplayMark;
use crate::types::{ClusterId, Digest, Height};

/// Bytes written between two syncs, so that no single sync holds up the log's for long.
const SYNC_BYTES: u64 = 4 << 20;

/// What the manifest says beside the chunks.
#[derive(Clone, Debug)]
pub struct CheckpointParts {
    /// The network.
    pub cluster_id: ClusterId,
    /// Of the block the state is as of.
    pub header: BlockHeader,
    /// The state's root after it.
    pub exec_root: Digest,
    /// See [`Manifest::exec_roots`].
    pub exec_roots: Vec<(Height, Digest)>,
    /// See [`Checkpoint::replay`].
    pub replay: ReplayMark,
}

/// A checkpoint being written. Dropped unfinished, it leaves files that [`remove_old`] takes away.
pub struct CheckpointWriter {
    disk: Arc<dyn Disk>,
    first_file: u32,
    /// End of what was written.
    end: ChunkPlace,
    file: Option<Arc<dyn DiskFile>>,
    chunks: Vec<ChunkEntry>,
    unsynced: u64,
}

impl CheckpointWriter {
    /// Begins behind all files of chunks there are.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn begin(disk: Arc<dyn Disk>) -> Result<Self, DiskError> {
        disk.create_directory(CHECKPOINT_DIRECTORY)?;
        disk.sync_directory("")?;
        let last = chunk_files(&*disk, CHECKPOINT_DIRECTORY)?.last().copied().unwrap_or(0);
        let first_file = last.checked_add(1).expect("2^31 files of chunks are never written");
        let end = ChunkPlace { file: first_file, base: 0 };
        Ok(Self { disk, first_file, end, file: None, chunks: Vec::new(), unsynced: 0 })
    }

    /// Writes the next chunk and says where it lies.
    ///
    /// # Errors
    /// [`DiskError`]. [`DiskErrorKind::Full`] ends this checkpoint only: nothing was promised.
    pub fn push(&mut self, chunk: &[u8]) -> Result<ChunkPlace, DiskError> {
        let entry = ChunkEntry::of(chunk);
        let (number, base) = place(self.end.file, self.end.base, entry.length);
        if number != self.end.file {
            self.sync()?;
            self.file = None;
        }
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => self.disk.open(&chunk_path(number), Open::Create)?,
        };
        file.write_at(u64::from(base), chunk)?;
        self.file = Some(file);
        self.end = ChunkPlace { file: number, base: base + entry.length };
        self.chunks.push(entry);
        self.unsynced += u64::from(entry.length);
        if self.unsynced >= SYNC_BYTES {
            self.sync()?;
        }
        Ok(ChunkPlace { file: number, base })
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        self.unsynced = 0;
        self.file.as_ref().map_or(Ok(()), |file| file.sync())
    }

    /// Makes the chunks durable without a checkpoint: they hold values that a first state refers to.
    ///
    /// # Errors
    /// As [`CheckpointWriter::push`].
    pub fn sync_files(mut self) -> Result<(), DiskError> {
        self.sync()?;
        self.disk.sync_directory(CHECKPOINT_DIRECTORY)
    }

    /// Makes the checkpoint exist: all is durable when this returns.
    ///
    /// # Errors
    /// As [`CheckpointWriter::push`].
    pub fn finish(mut self, parts: CheckpointParts) -> Result<Checkpoint, DiskError> {
        self.sync()?;
        self.disk.sync_directory(CHECKPOINT_DIRECTORY)?;
        let CheckpointParts { cluster_id, header, exec_root, exec_roots, replay } = parts;
        let (height, block_hash) = (header.height, header.hash());
        let chunks = self.chunks;
        let manifest = Manifest { cluster_id, height, block_hash, exec_root, exec_roots, chunks };
        let first_file = self.first_file;
        let checkpoint = Checkpoint { manifest, header, replay, first_file };
        write_whole(&*self.disk, &manifest_path(height), &checkpoint.encode_file())?;
        Ok(checkpoint)
    }
}

/// Writes a small file so that it has its old content or its new one, whenever the power fails.
pub(in crate::storage) fn write_whole(
    disk: &dyn Disk,
    path: &str,
    bytes: &Bytes,
) -> Result<(), DiskError> {
    let temporary = format!("{path}.tmp");
    remove_if_there(disk, &temporary)?;
    let file = disk.open(&temporary, Open::Create)?;
    file.write_at(0, bytes)?;
    if !planted::is(Bug::UnsyncedRename) {
        file.sync()?;
    }
    disk.rename(&temporary, path)?;
    disk.sync_directory(path.rsplit_once('/').map_or("", |(directory, _)| directory))
}

fn remove_if_there(disk: &dyn Disk, path: &str) -> Result<(), DiskError> {
    match disk.remove(path) {
        Err(error) if error.kind == DiskErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Numbers of the files of chunks, ascending.
pub(in crate::storage) fn chunk_files(
    disk: &dyn Disk,
    directory: &str,
) -> Result<Vec<u32>, DiskError> {
    let names = match disk.list(directory) {
        Err(error) if error.kind == DiskErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    let mut numbers: Vec<u32> =
        names.iter().filter_map(|name| name.strip_suffix(".chunks")?.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Removes all checkpoints but what is kept, and files of chunks that belong to none. Kept are of those
/// whole in their manifests the two newest of `stable`, which a quorum holds, and of those above them the
/// two newest. Files in `in_use`, which the running state's values are read from, stay.
/// Not while a checkpoint is being written.
///
/// # Errors
/// [`CheckpointError`].
pub fn remove_old(
    disk: &dyn Disk,
    cluster_id: &ClusterId,
    (in_use, stable): (&[u32], &[Height]),
) -> Result<Vec<Height>, CheckpointError> {
    let names = match disk.list(CHECKPOINT_DIRECTORY) {
        // Nothing was ever written.
        Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let found = candidates(disk, cluster_id)?;
    let kept = kept(&found.whole, stable);
    let manifests: BTreeSet<String> =
        kept.iter().map(|checkpoint| manifest_path(checkpoint.manifest.height)).collect();
    let mut files: BTreeSet<u32> = in_use.iter().copied().collect();
    files.extend(kept.iter().flat_map(|checkpoint| checkpoint.files()));
    // Manifests first: a manifest whose chunks are gone would look damaged.
    for name in names {
        let path = format!("{CHECKPOINT_DIRECTORY}/{name}");
        if !name.ends_with(".chunks") && !manifests.contains(&path) {
            disk.remove(&path)?;
        }
    }
    disk.sync_directory(CHECKPOINT_DIRECTORY)?;
    for number in chunk_files(disk, CHECKPOINT_DIRECTORY)?
        .into_iter()
        .filter(|number| !files.contains(number))
    {
        disk.remove(&chunk_path(number))?;
    }
    disk.sync_directory(CHECKPOINT_DIRECTORY)?;
    Ok(kept.iter().map(|checkpoint| checkpoint.manifest.height).collect())
}

/// `whole` is in descending order of height; so is the answer.
fn kept<'a>(whole: &'a [Checkpoint], stable: &[Height]) -> Vec<&'a Checkpoint> {
    let is_stable = |checkpoint: &&Checkpoint| stable.contains(&checkpoint.manifest.height);
    let newest = whole.iter().find(is_stable).map_or(Height(0), |one| one.manifest.height);
    let above = whole.iter().filter(|checkpoint| checkpoint.manifest.height > newest);
    let mut kept: Vec<&Checkpoint> = above.take(CHECKPOINTS_KEPT).collect();
    kept.extend(whole.iter().filter(is_stable).take(CHECKPOINTS_KEPT));
    kept
}
