use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A file or directory that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Something is there already and must not be lost.
    #[error("{0} exists already and is not overwritten; move it away or choose another place")]
    Exists(PathBuf),
    /// The system refused.
    #[error("cannot {what} {path}: {why}")]
    System {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// The file system does not keep permissions.
    #[error(
        "{path} has mode {mode:03o} after it was created with {wanted:03o}: this file system \
             does not keep permissions; choose another place"
    )]
    Mode {
        /// Of what.
        path: PathBuf,
        /// What it has.
        mode: u32,
        /// What it was given.
        wanted: u32,
    },
}

fn system<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |why| FileError::System { what, path: path.to_path_buf(), why }
}

/// Creates a file durably: temporary file, fsync, link, fsync of the directory (faults.md 5.2).
///
/// # Errors
/// [`FileError::Exists`] if the name is taken, also by a race; whatever the system refuses.
pub fn create_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    if path.symlink_metadata().is_ok() {
        return Err(FileError::Exists(path.to_path_buf()));
    }
    let temporary = write_temporary(path, bytes, mode)?;
    // A link, not a rename: a rename would replace what another process put there meanwhile.
    let linked = fs::hard_link(&temporary, path);
    let removed = fs::remove_file(&temporary);
    match linked {
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {
            return Err(FileError::Exists(path.to_path_buf()));
        }
        other => other.map_err(system("create", path))?,
    }
    removed.map_err(system("remove", &temporary))?;
    sync_directory_of(path)
}

/// Writes a file durably over whatever has its name, all of it or nothing.
///
/// # Errors
/// Whatever the system refuses.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let temporary = write_temporary(path, bytes, mode)?;
    if let Err(why) = fs::rename(&temporary, path) {
        // The temporary file is of no use; the rename's error is the one to report.
        let _ = fs::remove_file(&temporary);
        return Err(system("rename a new file to", path)(why));
    }
    sync_directory_of(path)
}

/// Makes a directory, and its parents, that only its owner may enter; an existing one is left as
/// it is.
///
/// # Errors
/// Whatever the system refuses.
pub fn make_private_directory(path: &Path) -> Result<(), FileError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(system("create the directory", path))?;
    sync_directory_of(path)
}

fn write_temporary(path: &Path, bytes: &[u8], mode: u32) -> Result<PathBuf, FileError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.new", std::process::id()));
    // What an ended process of the same number left behind.
    let _ = fs::remove_file(&temporary);
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary);
    let mut file = opened.map_err(system("create", &temporary))?;
    let written = file
        .set_permissions(fs::Permissions::from_mode(mode))
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| file.sync_all())
        .and_then(|()| file.metadata());
    let metadata = written.map_err(|why| {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
        system("write", path)(why)
    })?;
    let found = metadata.mode() & 0o777;
    if found != mode {
        let _ = fs::remove_file(&temporary);
        return Err(FileError::Mode { path: path.to_path_buf(), mode: found, wanted: mode });
    }
    Ok(temporary)
}

fn sync_directory_of(path: &Path) -> Result<(), FileError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let synced = File::open(parent).and_then(|directory| directory.sync_all());
    synced.map_err(system("sync the directory", parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_is_private_complete_and_never_overwritten() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let path = home.path().join("replica.key");
        create_new(&path, b"one", 0o600).expect("written");
        let again = create_new(&path, b"two", 0o600);
        assert!(matches!(again, Err(FileError::Exists(_))), "{again:?}");
        assert_eq!(fs::read(&path).expect("readable"), b"one");
        assert_eq!(path.metadata().expect("there").mode() & 0o777, 0o600);
        replace(&path, b"three", 0o644).expect("replaced");
        assert_eq!(fs::read(&path).expect("readable"), b"three");
        assert_eq!(fs::read_dir(home.path()).expect("listed").count(), 1, "no temporary is left");
    }
}
