//! A disk that remembers what was synced: a crash keeps that and, of the rest, what chance decides,
//! sector by sector and name by name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use althing::storage::disk::{Disk, DiskError, DiskErrorKind, DiskFile, Open};

use crate::sim::damage::matters;
use crate::sim::random::Random;

/// What a disk writes as one: it is there or it is not.
const SECTOR: usize = 512;

/// What happens to what was written and not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survivors {
    /// Nothing of it is there.
    Nothing,
    /// All of it is there.
    Everything,
    /// What was written first, up to some place.
    Prefix,
    /// Each sector and each name for itself.
    Random,
}

impl Survivors {
    /// All policies.
    pub const ALL: [Self; 4] = [Self::Nothing, Self::Everything, Self::Prefix, Self::Random];
}

#[derive(Default)]
struct File {
    bytes: Vec<u8>,
    synced_len: usize,
    /// What stood in sectors written since the last sync, by sector.
    before: BTreeMap<usize, Vec<u8>>,
    /// What stands in sectors whose sync failed: the system shows the new bytes and calls them clean,
    /// so no later sync writes them (faults.md lesson 4).
    lost: BTreeMap<usize, Vec<u8>>,
}

/// What a disk does wrong, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// The next write fails.
    WriteFails,
    /// The next sync fails; what it should have written is not.
    SyncFails,
    /// The next write finds no space.
    NoSpace,
    /// The next sync of a directory fails.
    DirectorySyncFails,
    /// The power fails: nothing works until the machine starts again.
    PowerFails,
}

impl DiskFault {
    /// All, with the counters that say they happened.
    pub const ALL: [(&'static str, Self); 4] = [
        ("disk: write failed", Self::WriteFails),
        ("disk: sync failed", Self::SyncFails),
        ("disk: no space", Self::NoSpace),
        ("disk: directory sync failed", Self::DirectorySyncFails),
    ];
}

#[derive(Default)]
struct Inner {
    files: BTreeMap<u64, File>,
    /// Path to file, as a process sees it.
    names: BTreeMap<String, u64>,
    /// Path to file, as a crash leaves it.
    synced_names: BTreeMap<String, u64>,
    directories: BTreeSet<String>,
    next_file: u64,
    /// Operations until the power fails; nothing works from then on.
    fuse: Option<u64>,
    operations: u64,
    syncs: u64,
    /// Syncs do nothing.
    lies: bool,
    /// Files that cannot be read.
    unreadable: BTreeSet<u64>,
    /// One of them was read since this was last asked.
    refused: bool,
    /// Waits for its operation.
    fault: Option<DiskFault>,
    /// The fault that an operation met.
    met: Option<DiskFault>,
}

impl Inner {
    fn operation(&mut self, path: &str) -> Result<(), DiskError> {
        match &mut self.fuse {
            Some(0) => {
                self.met = Some(DiskFault::PowerFails);
                return Err(DiskError::new(DiskErrorKind::Failed, path, "the power has failed"));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        self.operations += 1;
        Ok(())
    }

    fn meet(&mut self, faults: &[DiskFault], path: &str) -> Result<(), DiskError> {
        let Some(fault) = self.fault.filter(|fault| faults.contains(fault)) else { return Ok(()) };
        self.fault = None;
        self.met = Some(fault);
        let (kind, why) = match fault {
            DiskFault::NoSpace => (DiskErrorKind::Full, "no space left on device"),
            _ => (DiskErrorKind::Failed, "input/output error"),
        };
        Err(DiskError::new(kind, path, why))
    }

    fn crash(&mut self, survivors: Survivors, random: &mut Random) {
        (self.fault, self.met) = (None, None);
        // Sectors are gone through in order of file and place, which is about that of writing.
        let unsynced = self.files.values().map(|file| file.before.len() as u64).sum::<u64>();
        let mut left = random.below(unsynced + 1);
        let mut keep = |random: &mut Random| match survivors {
            Survivors::Nothing => false,
            Survivors::Everything => true,
            Survivors::Prefix => {
                left = left.saturating_sub(1);
                left > 0
            }
            Survivors::Random => random.chance(500),
        };
        let paths: BTreeSet<String> =
            self.names.keys().chain(self.synced_names.keys()).cloned().collect();
        for path in paths {
            let (new, old) =
                (self.names.get(&path).copied(), self.synced_names.get(&path).copied());
            let after = if new == old || keep(random) { new } else { old };
            match after {
                Some(file) => drop(self.names.insert(path, file)),
                None => drop(self.names.remove(&path)),
            }
        }
        self.synced_names = self.names.clone();
        for file in self.files.values_mut() {
            let unsynced = core::mem::take(&mut file.before).into_iter();
            let back: Vec<_> = unsynced.filter(|_| !keep(random)).collect();
            for (sector, old) in back.into_iter().chain(core::mem::take(&mut file.lost)) {
                let start = sector * SECTOR;
                let end = (start + old.len()).min(file.bytes.len());
                file.bytes[start..end].copy_from_slice(&old[..end - start]);
            }
            if file.bytes.len() > file.synced_len && !keep(random) {
                let more = (file.bytes.len() - file.synced_len) as u64;
                let left = if survivors == Survivors::Nothing { 0 } else { random.below(more) };
                file.bytes.truncate(file.synced_len + usize::try_from(left).expect("a file"));
            }
            file.synced_len = file.bytes.len();
        }
        self.fuse = None;
    }
}

/// One replica's data directory. It outlives the replica's processes.
#[derive(Clone, Default)]
pub struct SimDisk {
    inner: Arc<Mutex<Inner>>,
}

impl SimDisk {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("one thread runs a world")
    }

    /// Lets `operations` more work and none after them, until [`SimDisk::crash`].
    pub fn fail_after(&self, operations: u64) {
        self.inner().fuse = Some(operations);
    }

    /// The power does not fail any more.
    pub fn keep_power(&self) {
        self.inner().fuse = None;
    }

    /// From now on a sync does nothing.
    pub fn lie(&self) {
        self.inner().lies = true;
    }

    /// The next operation of its kind fails.
    pub fn break_once(&self, fault: DiskFault) {
        self.inner().fault = Some(fault);
    }

    /// No operation fails any more.
    pub fn mend(&self) {
        let mut inner = self.inner();
        inner.fault = None;
        inner.unreadable.clear();
    }

    /// From now on this file cannot be read.
    pub fn refuse_reads(&self, path: &str) {
        let mut inner = self.inner();
        if let Some(id) = inner.names.get(path).copied() {
            inner.unreadable.insert(id);
        }
    }

    /// Whether a read was refused since this was last asked.
    pub fn refused_reads(&self) -> bool {
        core::mem::take(&mut self.inner().refused)
    }

    /// All files of the log and the checkpoints, with the bytes in them that are synced.
    #[must_use]
    pub fn files(&self) -> Vec<(String, usize)> {
        let inner = self.inner();
        let names = inner.names.iter().filter(|(name, _)| matters(name));
        names.map(|(name, id)| (name.clone(), inner.files[id].synced_len)).collect()
    }

    /// Whether an operation has met a fault that [`SimDisk::met`] was not yet asked for.
    #[must_use]
    pub fn has_met(&self) -> bool {
        self.inner().met.is_some()
    }

    /// The fault that an operation has met since the last time this was asked.
    pub fn met(&self) -> Option<DiskFault> {
        self.inner().met.take()
    }

    /// The process and the machine die: what was not synced survives as chance has it.
    pub fn crash(&self, survivors: Survivors, random: &mut Random) {
        self.inner().crash(survivors, random);
    }

    /// Changes one byte of one file, as rot does; false if there is no such byte.
    pub fn rot(&self, path: &str, offset: usize, change: u8) -> bool {
        let mut inner = self.inner();
        let Some(id) = inner.names.get(path).copied() else { return false };
        let file = inner.files.get_mut(&id).expect("a name leads to a file");
        match file.bytes.get_mut(offset) {
            Some(byte) => {
                *byte ^= change;
                true
            }
            None => false,
        }
    }

    /// How many operations were done.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.inner().operations
    }

    /// How many syncs were done.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.inner().syncs
    }

    /// A copy as it is now: a restored image, or a second instance's disk.
    #[must_use]
    pub fn copy(&self) -> Self {
        let inner = self.inner();
        let files = inner.files.iter().map(|(id, file)| {
            let before = file.before.clone();
            let (bytes, lost) = (file.bytes.clone(), file.lost.clone());
            (*id, File { bytes, synced_len: file.synced_len, before, lost })
        });
        let copy = Inner {
            files: files.collect(),
            names: inner.names.clone(),
            synced_names: inner.synced_names.clone(),
            directories: inner.directories.clone(),
            next_file: inner.next_file,
            ..Inner::default()
        };
        Self { inner: Arc::new(Mutex::new(copy)) }
    }
}

fn not_found(path: &str) -> DiskError {
    DiskError::new(DiskErrorKind::NotFound, path, "no such file or directory")
}

impl Disk for SimDisk {
    fn create_directory(&self, path: &str) -> Result<(), DiskError> {
        let mut inner = self.inner();
        inner.operation(path)?;
        inner.directories.insert(path.to_owned());
        Ok(())
    }

    fn list(&self, path: &str) -> Result<Vec<String>, DiskError> {
        let inner = self.inner();
        if !path.is_empty() && !inner.directories.contains(path) {
            return Err(not_found(path));
        }
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let all = inner.names.keys().chain(&inner.directories);
        let names: BTreeSet<String> = all
            .filter_map(|name| name.strip_prefix(&prefix))
            .filter(|name| !name.is_empty())
            .map(|name| name.split('/').next().unwrap_or(name).to_owned())
            .collect();
        Ok(names.into_iter().collect())
    }

    fn open(&self, path: &str, how: Open) -> Result<Arc<dyn DiskFile>, DiskError> {
        let mut inner = self.inner();
        inner.operation(path)?;
        let id = match (inner.names.get(path).copied(), how) {
            (Some(id), _) => id,
            (None, Open::Read) => return Err(not_found(path)),
            (None, Open::Create) => {
                inner.next_file += 1;
                let id = inner.next_file;
                inner.files.insert(id, File::default());
                inner.names.insert(path.to_owned(), id);
                id
            }
        };
        Ok(Arc::new(SimFile { disk: self.clone(), id, path: path.to_owned() }))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut inner = self.inner();
        inner.operation(from)?;
        let id = inner.names.remove(from).ok_or_else(|| not_found(from))?;
        inner.names.insert(to.to_owned(), id);
        Ok(())
    }

    fn remove(&self, path: &str) -> Result<(), DiskError> {
        let mut inner = self.inner();
        inner.operation(path)?;
        inner.names.remove(path).ok_or_else(|| not_found(path))?;
        Ok(())
    }

    fn sync_directory(&self, path: &str) -> Result<(), DiskError> {
        let mut inner = self.inner();
        inner.operation(path)?;
        inner.meet(&[DiskFault::DirectorySyncFails], path)?;
        inner.syncs += 1;
        let within = |name: &String| match name.rsplit_once('/') {
            Some((folder, _)) => folder == path,
            None => path.is_empty(),
        };
        let now: Vec<(String, u64)> = inner
            .names
            .iter()
            .filter(|(name, _)| within(name))
            .map(|(n, id)| (n.clone(), *id))
            .collect();
        inner.synced_names.retain(|name, _| !within(name));
        inner.synced_names.extend(now);
        Ok(())
    }
}

struct SimFile {
    disk: SimDisk,
    id: u64,
    path: String,
}

impl SimFile {
    fn with<R>(&self, work: impl FnOnce(&mut File) -> R) -> R {
        let mut inner = self.disk.inner();
        work(inner.files.get_mut(&self.id).expect("an open file stays"))
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut inner = self.disk.inner();
        inner.operation(&self.path)?;
        inner.meet(&[DiskFault::WriteFails, DiskFault::NoSpace], &self.path)?;
        drop(inner);
        let start = usize::try_from(offset).expect("a small disk");
        let end = start + bytes.len();
        self.with(|file| {
            if file.bytes.len() < end {
                file.bytes.resize(end, 0);
            }
            for sector in start / SECTOR..end.div_ceil(SECTOR) {
                let from = sector * SECTOR;
                // Beyond the old length there are zeros: a hole, if the file keeps its new length.
                let until = (from + SECTOR).min(file.bytes.len());
                let old = &file.bytes[from..until];
                // Written anew: dirty again, on top of what the disk really holds.
                let old = file.lost.remove(&sector).unwrap_or_else(|| old.to_vec());
                file.before.entry(sector).or_insert(old);
            }
            file.bytes[start..end].copy_from_slice(bytes);
        });
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> Result<u64, DiskError> {
        Ok(self.with(|file| file.bytes.len() as u64))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let start = usize::try_from(offset).expect("a small disk");
        let mut inner = self.disk.inner();
        if inner.unreadable.contains(&self.id) {
            inner.refused = true;
            let what = "input/output error";
            return Err(DiskError::new(DiskErrorKind::Failed, &self.path, what));
        }
        drop(inner);
        let short = || DiskError::new(DiskErrorKind::Short, &self.path, "the file ends before");
        self.with(|file| {
            let bytes = file.bytes.get(start..start + buffer.len()).ok_or_else(short)?;
            buffer.copy_from_slice(bytes);
            Ok(())
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.write(offset, bytes)
    }

    fn set_len_zeroed(&self, length: u64) -> Result<(), DiskError> {
        let now = self.len()?;
        let more = usize::try_from(length.saturating_sub(now)).expect("a small disk");
        if more > 0 { self.write(now, &vec![0; more]) } else { Ok(()) }
    }

    fn sync(&self) -> Result<(), DiskError> {
        let mut inner = self.disk.inner();
        inner.operation(&self.path)?;
        inner.syncs += 1;
        if inner.lies {
            return Ok(());
        }
        if let Err(error) = inner.meet(&[DiskFault::SyncFails], &self.path) {
            let file = inner.files.get_mut(&self.id).expect("an open file stays");
            for (sector, old) in core::mem::take(&mut file.before) {
                file.lost.entry(sector).or_insert(old);
            }
            return Err(error);
        }
        let file = inner.files.get_mut(&self.id).expect("an open file stays");
        file.before.clear();
        file.synced_len = file.bytes.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk_with(synced: &[u8]) -> (SimDisk, Arc<dyn DiskFile>) {
        let disk = SimDisk::default();
        let file = disk.open("a", Open::Create).unwrap();
        file.write_at(0, synced).unwrap();
        file.sync().unwrap();
        disk.sync_directory("").unwrap();
        (disk, file)
    }

    fn content(disk: &SimDisk) -> Vec<u8> {
        let file = disk.open("a", Open::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_nothing_else_for_sure() {
        let (disk, file) = disk_with(&[1; 2000]);
        file.write_at(100, &[2; 1500]).unwrap();
        file.write_at(2000, &[3; 100]).unwrap();
        disk.crash(Survivors::Nothing, &mut Random::new(1));
        assert_eq!(content(&disk), vec![1; 2000]);
    }

    #[test]
    fn sectors_survive_each_for_itself() {
        let (mut old, mut new) = (0, 0);
        for seed in 0..50 {
            let (disk, file) = disk_with(&[1; 4096]);
            file.write_at(0, &[2; 4096]).unwrap();
            disk.crash(Survivors::Random, &mut Random::new(seed));
            for sector in content(&disk).chunks(SECTOR) {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is never torn");
                if sector[0] == 1 { old += 1 } else { new += 1 }
            }
        }
        assert!(old > 100 && new > 100, "{old} old, {new} new");
    }

    #[test]
    fn a_file_whose_directory_was_not_synced_may_vanish() {
        let disk = SimDisk::default();
        disk.open("a", Open::Create).unwrap().sync().unwrap();
        disk.crash(Survivors::Nothing, &mut Random::new(1));
        assert!(disk.open("a", Open::Read).is_err());
    }
}
