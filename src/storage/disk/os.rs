//! The operating system's files.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::storage::disk::{Disk, DiskError, DiskErrorKind, DiskFile, Open};

/// Held, and naming the holder, for as long as a process uses the directory.
pub const LOCK_PATH: &str = "LOCK";

static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// A data directory of this process alone, or one that is only looked at.
#[derive(Debug)]
pub struct OsDisk {
    directory: PathBuf,
    /// The lock ends with the process, however it ends.
    lock: Option<File>,
    /// Whether a sync waits for the disk.
    waits: bool,
}

impl OsDisk {
    /// Takes a data directory; makes it, readable by its owner alone, if it does not exist.
    ///
    /// # Errors
    /// [`DiskErrorKind::InUse`] with the other process's id, [`DiskErrorKind::Denied`] if it cannot be
    /// written or others may read or write it, and any other.
    pub fn open(directory: &Path) -> Result<Self, DiskError> {
        let shown = directory.display().to_string();
        let failed = |what: &str, error: &io::Error| described(&shown, what, error);
        match DirBuilder::new().recursive(true).mode(0o700).create(directory) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(failed("the data directory cannot be made", &error));
            }
            _ => {}
        }
        check_permissions(directory, &shown)?;
        if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            // Somebody else's parent may not be readable; then the name's durability is theirs.
            match File::open(parent).and_then(|parent| parent.sync_all()) {
                Err(error) if error.kind() != ErrorKind::PermissionDenied => {
                    return Err(failed("its parent cannot be synced", &error));
                }
                _ => {}
            }
        }
        let lock = take_lock(directory, &shown)?;
        Ok(Self { directory: directory.to_owned(), lock: Some(lock), waits: true })
    }

    /// Syncs nothing from now on: what the machine had not written when it stops is lost. Only for a
    /// replica that nobody else counts on (`--unsafe-no-fsync`).
    #[must_use]
    pub fn without_waiting(mut self) -> Self {
        self.waits = false;
        self
    }

    /// Looks at a data directory that a process may be using: nothing can be written.
    ///
    /// # Errors
    /// [`DiskErrorKind::NotFound`], and any other.
    pub fn open_read_only(directory: &Path) -> Result<Self, DiskError> {
        let shown = directory.display().to_string();
        let what = "the data directory cannot be opened";
        let found = fs::metadata(directory).map_err(|error| described(&shown, what, &error))?;
        if !found.is_dir() {
            return Err(DiskError::new(DiskErrorKind::Failed, &shown, "it is not a directory"));
        }
        Ok(Self { directory: directory.to_owned(), lock: None, waits: true })
    }

    /// One file, wherever it lies, to be read.
    ///
    /// # Errors
    /// [`DiskErrorKind::NotFound`], and any other.
    pub fn open_file(path: &Path) -> Result<Arc<dyn DiskFile>, DiskError> {
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
            let shown = path.display().to_string();
            DiskError::new(DiskErrorKind::NotFound, &shown, "it does not name a file")
        })?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        Self::open_read_only(directory.unwrap_or(Path::new(".")))?.open(name, Open::Read)
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn at(&self, path: &str) -> PathBuf {
        assert!(
            !path.starts_with('/') && path.split('/').all(|name| name != ".."),
            "only this program names files, and only inside the data directory"
        );
        self.directory.join(path)
    }

    fn writable(&self, path: &str) -> Result<PathBuf, DiskError> {
        if self.lock.is_none() {
            let what = "the data directory was opened for reading only";
            return Err(DiskError::new(DiskErrorKind::Denied, path, what));
        }
        Ok(self.at(path))
    }
}

fn kind_of(error: &io::Error) -> DiskErrorKind {
    match error.kind() {
        ErrorKind::NotFound => DiskErrorKind::NotFound,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => DiskErrorKind::Full,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => DiskErrorKind::Denied,
        ErrorKind::UnexpectedEof => DiskErrorKind::Short,
        _ => DiskErrorKind::Failed,
    }
}

fn described(path: &str, what: &str, error: &io::Error) -> DiskError {
    DiskError::new(kind_of(error), path, format!("{what}: {error}"))
}

fn check_permissions(directory: &Path, shown: &str) -> Result<(), DiskError> {
    let cannot = "the data directory cannot be examined";
    let found = fs::metadata(directory).map_err(|error| described(shown, cannot, &error))?;
    if !found.is_dir() {
        return Err(DiskError::new(DiskErrorKind::Failed, shown, "it is not a directory"));
    }
    let mode = found.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let mut entries = fs::read_dir(directory).map_err(|error| described(shown, cannot, &error))?;
    if entries.next().is_none() {
        // A fresh directory made by a script or a volume: take it over.
        let what = "its permissions cannot be set to 0700";
        let owner_only = fs::Permissions::from_mode(0o700);
        return fs::set_permissions(directory, owner_only)
            .map_err(|error| described(shown, what, &error));
    }
    let what = format!(
        "the data directory has permissions {mode:04o}, so others may read it; run `chmod 700 {shown}`"
    );
    Err(DiskError::new(DiskErrorKind::Denied, shown, what))
}

fn take_lock(directory: &Path, shown: &str) -> Result<File, DiskError> {
    let path = directory.join(LOCK_PATH);
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    let mut lock =
        opened.map_err(|error| described(shown, "the data directory is not writable", &error))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // The holder may be about to write its id; without it the message is still true.
            let read = lock.read_to_string(&mut holder).unwrap_or(0);
            let holder = if read == 0 { "another".to_owned() } else { holder };
            let what = format!(
                "data directory {shown} is in use by process {}; stop that process or choose another \
                 --data-dir",
                holder.trim()
            );
            return Err(DiskError::new(DiskErrorKind::InUse, shown, what));
        }
        Err(TryLockError::Error(error)) => {
            return Err(described(shown, "the data directory cannot be locked", &error));
        }
    }
    let written = lock
        .set_len(0)
        .and_then(|()| lock.rewind())
        .and_then(|()| writeln!(lock, "{}", std::process::id()));
    written.map_err(|error| described(shown, "the data directory is not writable", &error))?;
    Ok(lock)
}

impl Disk for OsDisk {
    fn create_directory(&self, path: &str) -> Result<(), DiskError> {
        match DirBuilder::new().mode(0o700).create(self.writable(path)?) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                Err(described(path, "the directory cannot be made", &error))
            }
            _ => Ok(()),
        }
    }

    fn list(&self, path: &str) -> Result<Vec<String>, DiskError> {
        let failed = |error: io::Error| described(path, "the directory cannot be listed", &error);
        let mut names = Vec::new();
        for entry in fs::read_dir(self.at(path)).map_err(failed)? {
            // A name that is not UTF-8 is none of this program's.
            names.extend(entry.map_err(failed)?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    fn open(&self, path: &str, how: Open) -> Result<Arc<dyn DiskFile>, DiskError> {
        let opened = match how {
            Open::Read => File::open(self.at(path)),
            Open::Create => OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(self.writable(path)?),
        };
        let file = opened.map_err(|error| described(path, "the file cannot be opened", &error))?;
        Ok(Arc::new(OsFile { file, path: path.to_owned(), waits: self.waits }))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        fs::rename(self.writable(from)?, self.writable(to)?)
            .map_err(|error| described(from, "the file cannot be renamed", &error))
    }

    fn remove(&self, path: &str) -> Result<(), DiskError> {
        fs::remove_file(self.writable(path)?)
            .map_err(|error| described(path, "the file cannot be removed", &error))
    }

    fn sync_directory(&self, path: &str) -> Result<(), DiskError> {
        if !self.waits {
            return Ok(());
        }
        File::open(self.writable(path)?)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| described(path, "the directory cannot be synced", &error))
    }
}

struct OsFile {
    file: File,
    path: String,
    waits: bool,
}

impl OsFile {
    fn described(&self, what: &str, error: &io::Error) -> DiskError {
        described(&self.path, what, error)
    }
}

impl DiskFile for OsFile {
    fn len(&self) -> Result<u64, DiskError> {
        let found = self.file.metadata();
        found
            .map(|found| found.len())
            .map_err(|error| self.described("the file's length cannot be read", &error))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|error| self.described(&format!("reading at {offset} failed"), &error))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(|error| self.described(&format!("writing at {offset} failed"), &error))
    }

    fn set_len_zeroed(&self, length: u64) -> Result<(), DiskError> {
        let mut at = self.len()?;
        while at < length {
            let piece = usize::try_from(length - at).unwrap_or(usize::MAX).min(ZEROS.len());
            self.write_at(at, &ZEROS[..piece])?;
            at += piece as u64;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), DiskError> {
        if !self.waits {
            return Ok(());
        }
        // fdatasync: the data, and of the metadata what reading it back needs, the length included.
        self.file.sync_data().map_err(|error| self.described("a sync failed", &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::log::{LogSettings, ReplayMark, recover};
    use crate::types::{Digest, LogPosition, ReplicaId};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    #[test]
    fn a_log_on_real_files_comes_back() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let directory = home.path().join("deep/data");
        let settings = LogSettings {
            segment_bytes: 1 << 16,
            first_segment_bytes: 1 << 14,
            ..LogSettings::new(Digest([1; 32]), ReplicaId(0), [2; 16])
        };
        let mut written = 0;
        for _ in 0..3 {
            let disk = OsDisk::open(&directory).expect("free");
            let mut shown = 0;
            let recovered =
                recover(&disk, &settings, ReplayMark::start(), &mut |_, _, _| shown += 1);
            let mut appender = recovered.expect("whole").appender;
            assert_eq!(shown, written);
            for counter in 0..300 {
                let record = crate::chain::Record::Session { counter };
                appender.append(appender.last().next(), &record);
                if counter % 50 == 49 {
                    appender.take_batch().expect("full").write(&disk).expect("a real disk");
                }
            }
            written += 300;
            assert_eq!(appender.last(), LogPosition(written));
        }
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&directory.join("log/0000000001.segment")), 0o600);
    }

    #[test]
    fn a_directory_has_one_process_and_no_strangers() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let directory = home.path().join("data");
        let disk = OsDisk::open(&directory).expect("free");
        let error = OsDisk::open(&directory).expect_err("held");
        assert_eq!(error.kind, DiskErrorKind::InUse);
        let holder = format!("is in use by process {};", std::process::id());
        assert!(error.what.contains(&holder), "{error}");
        let looking = OsDisk::open_read_only(&directory).expect("looking is free");
        let refused = looking.open("x", Open::Create).err().expect("read only");
        assert_eq!(refused.kind, DiskErrorKind::Denied);
        drop(disk);
        OsDisk::open(&directory).expect("free again");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("owned");
        let error = OsDisk::open(&directory).expect_err("others may read it");
        assert!(error.what.contains("0755") && error.what.contains("chmod 700"), "{error}");
        let absent = OsDisk::open_read_only(&home.path().join("absent")).expect_err("absent");
        assert_eq!(absent.kind, DiskErrorKind::NotFound);
    }

    #[test]
    fn an_empty_directory_is_taken_over_and_a_file_is_not() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let directory = home.path().join("volume");
        fs::create_dir(&directory).expect("made");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("owned");
        OsDisk::open(&directory).expect("empty");
        assert_eq!(mode(&directory), 0o700);
        let file = home.path().join("file");
        fs::write(&file, b"x").expect("written");
        assert!(OsDisk::open(&file).is_err());
    }
}
