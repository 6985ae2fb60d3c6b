//! Finding the newest checkpoint that is whole, and reading its chunks.

use std::sync::Arc;

use bytes::Bytes;

use crate::planted::{self, Bug};
use crate::storage::checkpoint::{
    CHECKPOINT_DIRECTORY, Checkpoint, CheckpointError, ChunkEntry, ChunkPlace, chunk_path,
};
use crate::storage::disk::{Disk, DiskErrorKind, DiskFile, Open};
use crate::types::ClusterId;

/// Longest manifest: 2^24 chunks would be 16 TiB of state; this allows for 1 TiB.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;

/// What the checkpoints' directory holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    /// Whole in their manifests, newest first; chunks are checked when read.
    pub whole: Vec<Checkpoint>,
    /// Damaged ones.
    pub damaged: Vec<CheckpointError>,
}

/// Reads all manifests.
///
/// # Errors
/// Another network's or version's manifest, and a disk that refuses. Damage is no error.
pub fn candidates(disk: &dyn Disk, own: &ClusterId) -> Result<Candidates, CheckpointError> {
    let mut names = match disk.list(CHECKPOINT_DIRECTORY) {
        Err(error) if error.kind == DiskErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    names.retain(|name| name.ends_with(".manifest"));
    names.sort();
    let mut found = Candidates::default();
    for name in names.into_iter().rev() {
        let path = format!("{CHECKPOINT_DIRECTORY}/{name}");
        match read_checkpoint(disk, &path, own) {
            Ok(checkpoint) => found.whole.push(checkpoint),
            Err(error @ CheckpointError::Manifest { .. }) => found.damaged.push(error),
            Err(error) => return Err(error),
        }
    }
    found.whole.sort_by_key(|checkpoint| core::cmp::Reverse(checkpoint.manifest.height));
    Ok(found)
}

pub(in crate::storage) fn read_checkpoint(
    disk: &dyn Disk,
    path: &str,
    own: &ClusterId,
) -> Result<Checkpoint, CheckpointError> {
    let file = disk.open(path, Open::Read)?;
    let length = file.len()?;
    if length > MANIFEST_BYTES_MAX {
        return Err(CheckpointError::Manifest { path: path.to_owned() });
    }
    let mut bytes = vec![0; usize::try_from(length).expect("bounded")];
    file.read_at(0, &mut bytes)?;
    Checkpoint::decode_file(&Bytes::from(bytes), path, own)
}

/// The newest checkpoint whose every chunk is whole, and the damage met on the way to it. None: the
/// replay begins with the log's first record, if that is there, else a peer's state is needed.
///
/// # Errors
/// As [`candidates`].
pub fn newest(
    disk: &Arc<dyn Disk>,
    own: &ClusterId,
) -> Result<(Option<Checkpoint>, Vec<CheckpointError>), CheckpointError> {
    let Candidates { whole, mut damaged } = candidates(&**disk, own)?;
    for checkpoint in whole {
        match checkpoint.chunks(disk).find_map(Result::err) {
            None => return Ok((Some(checkpoint), damaged)),
            Some(error) => damaged.push(error),
        }
    }
    Ok((None, damaged))
}

/// A chunk, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its bytes.
    pub bytes: Bytes,
    /// Where they lie: values inside are referred to by this.
    pub place: ChunkPlace,
}

/// Reads a checkpoint's chunks in order; ends after the first error.
pub struct Chunks {
    disk: Arc<dyn Disk>,
    checkpoint_height: crate::types::Height,
    rest: std::vec::IntoIter<(usize, (ChunkEntry, ChunkPlace))>,
    file: Option<(u32, Arc<dyn DiskFile>)>,
    failed: bool,
}

impl Checkpoint {
    /// One chunk, checked; none of that number.
    ///
    /// # Errors
    /// [`CheckpointError::Chunk`] if it is damaged or gone.
    #[must_use]
    pub fn chunk(
        &self,
        disk: &Arc<dyn Disk>,
        number: u32,
    ) -> Option<Result<Bytes, CheckpointError>> {
        let entry = self.manifest.chunks.get(number as usize)?;
        let place = *self.places().get(number as usize)?;
        let one = vec![(number as usize, (*entry, place))].into_iter();
        let height = self.manifest.height;
        let disk = Arc::clone(disk);
        let mut chunks =
            Chunks { disk, checkpoint_height: height, rest: one, file: None, failed: false };
        chunks.next().map(|chunk| chunk.map(|chunk| chunk.bytes))
    }

    /// Reads the chunks.
    #[must_use]
    pub fn chunks(&self, disk: &Arc<dyn Disk>) -> Chunks {
        let entries = self.manifest.chunks.iter().copied().zip(self.places());
        Chunks {
            disk: Arc::clone(disk),
            checkpoint_height: self.manifest.height,
            rest: entries.enumerate().collect::<Vec<_>>().into_iter(),
            file: None,
            failed: false,
        }
    }
}

impl Chunks {
    fn read(&mut self, entry: ChunkEntry, place: ChunkPlace) -> Result<Bytes, DiskErrorKind> {
        let file = match &self.file {
            Some((number, file)) if *number == place.file => Arc::clone(file),
            _ => {
                let opened = self.disk.open(&chunk_path(place.file), Open::Read);
                let file = opened.map_err(|error| error.kind)?;
                self.file = Some((place.file, Arc::clone(&file)));
                file
            }
        };
        let mut bytes = vec![0; entry.length as usize];
        file.read_at(u64::from(place.base), &mut bytes).map_err(|error| error.kind)?;
        Ok(Bytes::from(bytes))
    }
}

impl Iterator for Chunks {
    type Item = Result<Chunk, CheckpointError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let (number, (entry, place)) = self.rest.next()?;
        match self.read(entry, place) {
            Ok(bytes) if ChunkEntry::of(&bytes) == entry || planted::is(Bug::ChunkUnchecked) => {
                Some(Ok(Chunk { bytes, place }))
            }
            // A chunk that cannot be read is as lost as a damaged one (faults.md D11).
            _ => {
                self.failed = true;
                let (height, path) = (self.checkpoint_height, chunk_path(place.file));
                Some(Err(CheckpointError::Chunk { height, number, path }))
            }
        }
    }
}
