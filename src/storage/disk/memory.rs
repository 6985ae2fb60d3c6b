//! Files in memory, for tests.
#![allow(clippy::disallowed_types, reason = "a lock, in tests alone")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::storage::disk::{Disk, DiskError, DiskErrorKind, DiskFile, Open};

type Files = BTreeMap<String, Arc<MemoryFile>>;

#[derive(Default)]
pub(crate) struct MemoryDisk {
    files: Mutex<Files>,
}

pub(crate) struct MemoryFile {
    path: String,
    bytes: Mutex<Vec<u8>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("tests do not panic while they hold it")
}

impl MemoryDisk {
    pub fn read(&self, path: &str) -> Vec<u8> {
        lock(&lock(&self.files)[path].bytes).clone()
    }

    pub fn put(&self, path: &str, bytes: Vec<u8>) {
        let file = MemoryFile { path: path.to_owned(), bytes: Mutex::new(bytes) };
        lock(&self.files).insert(path.to_owned(), Arc::new(file));
    }

    pub fn paths(&self) -> Vec<String> {
        lock(&self.files).keys().cloned().collect()
    }

    /// The same bytes in files of their own.
    pub fn copy(&self) -> Self {
        let copy = Self::default();
        self.paths().iter().for_each(|path| copy.put(path, self.read(path)));
        copy
    }
}

impl Disk for MemoryDisk {
    fn create_directory(&self, _: &str) -> Result<(), DiskError> {
        Ok(())
    }

    fn list(&self, path: &str) -> Result<Vec<String>, DiskError> {
        let prefix = format!("{path}/");
        let files = lock(&self.files);
        Ok(files.keys().filter_map(|name| name.strip_prefix(&prefix)).map(str::to_owned).collect())
    }

    fn open(&self, path: &str, how: Open) -> Result<Arc<dyn DiskFile>, DiskError> {
        let mut files = lock(&self.files);
        if let Some(file) = files.get(path) {
            return Ok(Arc::clone(file) as Arc<dyn DiskFile>);
        }
        if how == Open::Read {
            return Err(DiskError::new(DiskErrorKind::NotFound, path, "no such file"));
        }
        let file = Arc::new(MemoryFile { path: path.to_owned(), bytes: Mutex::new(Vec::new()) });
        files.insert(path.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut files = lock(&self.files);
        let missing = || DiskError::new(DiskErrorKind::NotFound, from, "no such file");
        let file = files.remove(from).ok_or_else(missing)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &str) -> Result<(), DiskError> {
        let missing = || DiskError::new(DiskErrorKind::NotFound, path, "no such file");
        lock(&self.files).remove(path).map(|_| ()).ok_or_else(missing)
    }

    fn sync_directory(&self, _: &str) -> Result<(), DiskError> {
        Ok(())
    }
}

impl DiskFile for MemoryFile {
    fn len(&self) -> Result<u64, DiskError> {
        Ok(lock(&self.bytes).len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = lock(&self.bytes);
        let end = at.saturating_add(buffer.len());
        let short = || DiskError::new(DiskErrorKind::Short, &self.path, "the file ends before");
        buffer.copy_from_slice(bytes.get(at..end).ok_or_else(short)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> Result<(), DiskError> {
        let at = usize::try_from(offset).expect("small files");
        let mut bytes = lock(&self.bytes);
        if bytes.len() < at + from.len() {
            bytes.resize(at + from.len(), 0);
        }
        bytes[at..at + from.len()].copy_from_slice(from);
        Ok(())
    }

    fn set_len_zeroed(&self, length: u64) -> Result<(), DiskError> {
        let length = usize::try_from(length).expect("small files");
        let mut bytes = lock(&self.bytes);
        if bytes.len() < length {
            bytes.resize(length, 0);
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), DiskError> {
        Ok(())
    }
}
