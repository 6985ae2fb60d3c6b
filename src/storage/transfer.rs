//! A checkpoint of the others on its way: its chunks gather in a directory of their own, each checked
//! before it is written, and become an ordinary checkpoint once all are there (protocol.md 18.5).
//!
//! What gathered survives a crash: the manifest lies beside the chunks, and every chunk says by its
//! hash whether it is there. Chunks that an own checkpoint holds already are copied, not asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::chain::{BlockHeader, ChunkEntry, Manifest};
use crate::codec::{Decode, Encode, Reader, Writer};
use crate::crypto::{Context, hash};
use crate::planted::{self, Bug};
use crate::storage::checkpoint::{
    CHECKPOINT_DIRECTORY, Checkpoint, ChunkPlace, chunk_files, chunk_path, manifest_path, places,
    read_checkpoint, write_whole,
};
use crate::storage::disk::{Disk, DiskError, DiskErrorKind, DiskFile, Open};
use crate::storage::log::ReplayMark;
use crate::types::ClusterId;

/// The directory of a state transfer below the data directory.
pub const TRANSFER_DIRECTORY: &str = "transfer";

const PARTIAL_PATH: &str = "transfer/partial";
const PARTIAL_BYTES_MAX: u64 = 16 << 20;

/// Numbers of chunk files left free for checkpoints that are written meanwhile.
const NUMBERS_APART: u32 = 1000;

/// Bytes written between two syncs: what a crash may cost.
const SYNC_BYTES: u64 = 16 << 20;

fn path(number: u32) -> String {
    format!("{TRANSFER_DIRECTORY}/{number:010}.chunks")
}

/// A checkpoint being gathered.
pub struct Assembly {
    disk: Arc<dyn Disk>,
    manifest: Arc<Manifest>,
    header: BlockHeader,
    first_file: u32,
    places: Vec<ChunkPlace>,
    open: BTreeMap<u32, Arc<dyn DiskFile>>,
    unsynced: u64,
}

impl Assembly {
    /// Prepares to gather what a certified manifest names, and says which chunks are there already:
    /// from an earlier attempt, or copied from the directories named, which hold checkpoints.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn begin(
        disk: Arc<dyn Disk>,
        header: BlockHeader,
        manifest: Arc<Manifest>,
        reusable: &[&str],
    ) -> Result<(Self, Vec<u32>), DiskError> {
        disk.create_directory(TRANSFER_DIRECTORY)?;
        disk.sync_directory("")?;
        let earlier = read_partial(&*disk)?;
        let same = earlier.as_ref().filter(|(_, of)| *of == *manifest).map(|(first, _)| *first);
        let first_file = match same {
            Some(first_file) => first_file,
            None => free_number(&*disk)?,
        };
        let (open, unsynced) = (BTreeMap::new(), 0);
        let places_of_chunks = places(&manifest, first_file);
        let mut assembly =
            Self { disk, manifest, header, first_file, places: places_of_chunks, open, unsynced };
        let mut held = assembly.held();
        if same.is_none() {
            let mut known = BTreeMap::new();
            if let Some((first, of)) = &earlier {
                note_chunks(of, &places(of, *first), &path, &mut known);
            }
            for directory in reusable {
                assembly.note_checkpoints(directory, &mut known)?;
            }
            held = assembly.copy(&known)?;
            assembly.sync()?;
            assembly.write_partial()?;
            assembly.remove_others()?;
        }
        Ok((assembly, held))
    }

    /// Chunks that lie in their places.
    fn held(&mut self) -> Vec<u32> {
        let entries: Vec<_> =
            self.manifest.chunks.iter().copied().zip(self.places.clone()).collect();
        let whole = |(number, (entry, place)): (u32, (ChunkEntry, ChunkPlace))| {
            let bytes = self.read(entry, place)?;
            (ChunkEntry::of(&bytes) == entry).then_some(number)
        };
        (0..).zip(entries).filter_map(whole).collect()
    }

    fn read(&mut self, entry: ChunkEntry, place: ChunkPlace) -> Option<Bytes> {
        if !self.open.contains_key(&place.file) {
            let file = self.disk.open(&path(place.file), Open::Read).ok()?;
            self.open.insert(place.file, file);
        }
        read_chunk(&**self.open.get(&place.file)?, entry, place.base)
    }

    fn note_checkpoints(
        &self,
        directory: &str,
        known: &mut BTreeMap<[u8; 32], Source>,
    ) -> Result<(), DiskError> {
        let names = match self.disk.list(directory) {
            Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        // A set aside checkpoint's files have a prefix before their names.
        for name in names.iter().filter(|name| name.ends_with(".manifest")) {
            let manifest = format!("{directory}/{name}");
            let cluster_id: &ClusterId = &self.manifest.cluster_id;
            // One that is damaged offers nothing.
            let Ok(found) = read_checkpoint(&*self.disk, &manifest, cluster_id) else { continue };
            let digits = "00000000000000000000.manifest".len();
            let prefix = &name[..name.len().saturating_sub(digits)];
            let files = |number| format!("{directory}/{prefix}{number:010}.chunks");
            note_chunks(&found.manifest, &found.places(), &files, known);
        }
        Ok(())
    }

    /// Copies every chunk that is known to lie elsewhere.
    fn copy(&mut self, known: &BTreeMap<[u8; 32], Source>) -> Result<Vec<u32>, DiskError> {
        let mut held = Vec::new();
        let mut files: BTreeMap<String, Arc<dyn DiskFile>> = BTreeMap::new();
        let manifest = Arc::clone(&self.manifest);
        for (number, entry) in (0..).zip(&manifest.chunks) {
            let Some(source) = known.get(&entry.hash.0) else { continue };
            if !files.contains_key(&source.path) {
                let Ok(file) = self.disk.open(&source.path, Open::Read) else { continue };
                files.insert(source.path.clone(), file);
            }
            let Some(file) = files.get(&source.path) else { continue };
            let Some(bytes) = read_chunk(&**file, *entry, source.base) else { continue };
            if self.store(number, &bytes)? {
                held.push(number);
            }
        }
        Ok(held)
    }

    /// Checks a chunk and writes it where it belongs; false if it is not the one that is named.
    ///
    /// # Errors
    /// [`DiskError`]; [`DiskErrorKind::Full`] ends this attempt only.
    pub fn store(&mut self, number: u32, bytes: &[u8]) -> Result<bool, DiskError> {
        let entry = self.manifest.chunks.get(number as usize).copied();
        let place = self.places.get(number as usize).copied();
        let (Some(entry), Some(place)) = (entry, place) else { return Ok(false) };
        if ChunkEntry::of(bytes) != entry && !planted::is(Bug::TransferUnchecked) {
            return Ok(false);
        }
        let file = self.disk.open(&path(place.file), Open::Create)?;
        file.write_at(u64::from(place.base), bytes)?;
        self.open.insert(place.file, file);
        self.unsynced += u64::from(entry.length);
        if self.unsynced >= SYNC_BYTES {
            self.sync()?;
        }
        Ok(true)
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        self.unsynced = 0;
        self.open.values().try_for_each(|file| file.sync())?;
        self.disk.sync_directory(TRANSFER_DIRECTORY)
    }

    /// The bytes of all chunks in order, each checked once more as it lies on disk, with the place it
    /// will have: to rebuild the state from. None for one that is not there.
    pub fn chunks(&mut self) -> impl Iterator<Item = Option<(ChunkPlace, Bytes)>> {
        let manifest = Arc::clone(&self.manifest);
        let places = self.places.clone();
        (0..manifest.chunks.len()).map(move |number| {
            let (entry, place) = (manifest.chunks[number], places[number]);
            let bytes = self.read(entry, place)?;
            (ChunkEntry::of(&bytes) == entry).then_some((place, bytes))
        })
    }

    /// Everything that was stored is durable when this returns, and can be installed.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn finish(&mut self, replay: ReplayMark) -> Result<Checkpoint, DiskError> {
        self.sync()?;
        let (manifest, header) = ((*self.manifest).clone(), self.header.clone());
        Ok(Checkpoint { manifest, header, replay, first_file: self.first_file })
    }

    fn write_partial(&self) -> Result<(), DiskError> {
        let mut writer = Writer::new();
        writer.u32(self.first_file);
        self.manifest.encode(&mut writer);
        let checksum = hash(&Context::MANIFEST, &[writer.as_slice()]);
        writer.digest(&checksum);
        write_whole(&*self.disk, PARTIAL_PATH, &writer.finish())
    }

    /// Removes chunks of another attempt.
    fn remove_others(&self) -> Result<(), DiskError> {
        let own: Vec<u32> = self.places.iter().map(|place| place.file).collect();
        for number in chunk_files(&*self.disk, TRANSFER_DIRECTORY)? {
            if !own.contains(&number) {
                self.disk.remove(&path(number))?;
            }
        }
        self.disk.sync_directory(TRANSFER_DIRECTORY)
    }
}

/// Where a chunk can be copied from.
struct Source {
    path: String,
    base: u32,
}

fn note_chunks(
    manifest: &Manifest,
    places: &[ChunkPlace],
    path: &dyn Fn(u32) -> String,
    known: &mut BTreeMap<[u8; 32], Source>,
) {
    for (entry, place) in manifest.chunks.iter().zip(places) {
        let source = || Source { path: path(place.file), base: place.base };
        known.entry(entry.hash.0).or_insert_with(source);
    }
}

fn read_chunk(file: &dyn DiskFile, entry: ChunkEntry, base: u32) -> Option<Bytes> {
    let mut bytes = vec![0; entry.length as usize];
    // A chunk that cannot be read is as absent as one that was never written.
    file.read_at(u64::from(base), &mut bytes).ok()?;
    Some(Bytes::from(bytes))
}

/// A number far behind all files of chunks, wherever they are.
fn free_number(disk: &dyn Disk) -> Result<u32, DiskError> {
    let mut last = 0;
    for directory in [CHECKPOINT_DIRECTORY, TRANSFER_DIRECTORY] {
        last = last.max(chunk_files(disk, directory)?.last().copied().unwrap_or(0));
    }
    Ok(last.checked_add(NUMBERS_APART).expect("2^31 files of chunks are never written"))
}

/// What an earlier attempt left, if it can be read.
fn read_partial(disk: &dyn Disk) -> Result<Option<(u32, Manifest)>, DiskError> {
    let file = match disk.open(PARTIAL_PATH, Open::Read) {
        Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let length = file.len()?;
    if !(32..=PARTIAL_BYTES_MAX).contains(&length) {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(length).expect("bounded")];
    file.read_at(0, &mut bytes)?;
    let bytes = Bytes::from(bytes);
    let at = bytes.len() - 32;
    if hash(&Context::MANIFEST, &[&bytes[..at]]).0 != bytes[at..] {
        return Ok(None);
    }
    let mut reader = Reader::new(bytes.slice(..at));
    let first_file = reader.u32("first file");
    let manifest = Manifest::decode(&mut reader);
    Ok(first_file.ok().zip(manifest.ok()))
}

/// Turns what was gathered into a checkpoint. No checkpoint may be being written. A crash in between
/// leaves chunks that belong to no checkpoint, and the transfer begins anew.
///
/// # Errors
/// [`DiskError`].
pub fn install(disk: &dyn Disk, checkpoint: &Checkpoint) -> Result<(), DiskError> {
    disk.create_directory(CHECKPOINT_DIRECTORY)?;
    disk.sync_directory("")?;
    for number in checkpoint.files() {
        disk.rename(&path(number), &chunk_path(number))?;
    }
    disk.sync_directory(CHECKPOINT_DIRECTORY)?;
    disk.sync_directory(TRANSFER_DIRECTORY)?;
    let height = checkpoint.manifest.height;
    write_whole(disk, &manifest_path(height), &checkpoint.encode_file())?;
    disk.remove(PARTIAL_PATH)?;
    disk.sync_directory(TRANSFER_DIRECTORY)
}

#[cfg(test)]
mod tests {
    use crate::storage::checkpoint::{CheckpointParts, CheckpointWriter, newest};
    use crate::storage::disk::memory::MemoryDisk;
    use crate::storage::testing::{NETWORK, header};
    use crate::types::{Digest, Height};

    use super::*;

    fn chunk(number: u8) -> Vec<u8> {
        vec![number; 100 + usize::from(number)]
    }

    fn manifest(numbers: &[u8]) -> Arc<Manifest> {
        Arc::new(Manifest {
            cluster_id: NETWORK,
            height: Height(9),
            block_hash: header(9).hash(),
            exec_root: Digest([4; 32]),
            exec_roots: vec![(Height(9), Digest([4; 32]))],
            chunks: numbers.iter().map(|number| ChunkEntry::of(&chunk(*number))).collect(),
        })
    }

    fn begin(disk: &Arc<MemoryDisk>, numbers: &[u8]) -> (Assembly, Vec<u32>) {
        let reusable = [CHECKPOINT_DIRECTORY, "damaged"];
        let shared: Arc<dyn Disk> = disk.clone();
        Assembly::begin(shared, header(9), manifest(numbers), &reusable).expect("memory")
    }

    #[test]
    fn a_transfer_goes_on_with_the_chunks_that_are_whole_and_becomes_a_checkpoint() {
        let disk = Arc::new(MemoryDisk::default());
        let (mut assembly, held) = begin(&disk, &[1, 2, 3, 4]);
        assert!(held.is_empty());
        assert_eq!(assembly.store(0, &chunk(2)), Ok(false), "another chunk of the manifest");
        assert_eq!(assembly.store(9, &chunk(1)), Ok(false), "no such number");
        for number in [2_u8, 1, 4] {
            assert_eq!(assembly.store(u32::from(number) - 1, &chunk(number)), Ok(true));
        }
        drop(assembly);
        // One of them rots before the next attempt.
        let path = disk.paths().into_iter().find(|path| path.ends_with(".chunks")).expect("chunks");
        let mut bytes = disk.read(&path);
        bytes[150] ^= 1;
        disk.put(&path, bytes);
        let (mut assembly, held) = begin(&disk, &[1, 2, 3, 4]);
        assert_eq!(held, [0, 3]);
        assert!(assembly.chunks().any(|chunk| chunk.is_none()));
        assert_eq!(assembly.store(1, &chunk(2)), Ok(true));
        assert_eq!(assembly.store(2, &chunk(3)), Ok(true));
        let places: Vec<_> = assembly.chunks().map(|chunk| chunk.expect("whole").0).collect();
        let checkpoint = assembly.finish(ReplayMark::start()).expect("memory");
        assert_eq!(checkpoint.places(), places);
        install(&*disk, &checkpoint).expect("memory");
        let shared: Arc<dyn Disk> = disk.clone();
        assert_eq!(newest(&shared, &NETWORK), Ok((Some(checkpoint), Vec::new())));
        assert!(disk.paths().iter().all(|path| !path.starts_with(TRANSFER_DIRECTORY)));
    }

    #[test]
    fn chunks_of_own_checkpoints_and_of_an_earlier_attempt_are_not_fetched_again() {
        let disk = Arc::new(MemoryDisk::default());
        let shared: Arc<dyn Disk> = disk.clone();
        for (height, number) in [(1, 1), (2, 2)] {
            let mut writer = CheckpointWriter::begin(shared.clone()).expect("memory");
            writer.push(&chunk(number)).expect("memory");
            let parts = CheckpointParts {
                cluster_id: NETWORK,
                header: header(height),
                exec_root: Digest([4; 32]),
                exec_roots: Vec::new(),
                replay: ReplayMark::start(),
            };
            writer.finish(parts).expect("memory");
        }
        // The first was set aside by a repair.
        for name in ["0000000001.chunks", "00000000000000000001.manifest"] {
            let (from, to) = (format!("checkpoint/{name}"), format!("damaged/checkpoint-{name}"));
            disk.rename(&from, &to).expect("memory");
        }
        let (mut assembly, held) = begin(&disk, &[2, 3, 1]);
        assert_eq!(held, [0, 2]);
        assert_eq!(assembly.store(1, &chunk(3)), Ok(true));
        drop(assembly);
        let (_, held) = begin(&disk, &[4, 3]);
        assert_eq!(held, [1], "of another checkpoint, from the attempt before");
    }
}
