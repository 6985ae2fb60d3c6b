//! Proofs of misbehaviour: one file each, never changed, bounded in number.

use bytes::Bytes;

use crate::storage::disk::{Disk, DiskError, DiskErrorKind, Open};

/// The directory below the data directory.
pub const EVIDENCE_DIRECTORY: &str = "evidence";
/// Most files kept. A liar that could fill the disk with proofs against itself would be none the worse.
pub const EVIDENCE_FILES_MAX: usize = 256;
/// Longest file: two bundles of a request of 4 MiB each.
const FILE_BYTES_MAX: u64 = 12 << 20;
const SUFFIX: &str = ".evidence";

fn path(name: &str) -> String {
    format!("{EVIDENCE_DIRECTORY}/{name}{SUFFIX}")
}

/// Writes a proof under a name made of hexadecimal digits; false if it is there or there is no room.
///
/// # Errors
/// The disk's.
pub fn keep_evidence(disk: &dyn Disk, name: &str, bytes: &[u8]) -> Result<bool, DiskError> {
    let known = evidence_names(disk)?;
    if known.iter().any(|other| other == name) || known.len() >= EVIDENCE_FILES_MAX {
        return Ok(false);
    }
    disk.create_directory(EVIDENCE_DIRECTORY)?;
    disk.sync_directory("")?;
    let temporary = format!("{}.tmp", path(name));
    let file = disk.open(&temporary, Open::Create)?;
    file.write_at(0, bytes)?;
    file.sync()?;
    disk.rename(&temporary, &path(name))?;
    disk.sync_directory(EVIDENCE_DIRECTORY)?;
    Ok(true)
}

/// The names of all proofs, sorted.
///
/// # Errors
/// The disk's.
pub fn evidence_names(disk: &dyn Disk) -> Result<Vec<String>, DiskError> {
    let files = match disk.list(EVIDENCE_DIRECTORY) {
        Ok(files) => files,
        Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let names = files.iter().filter_map(|file| file.strip_suffix(SUFFIX));
    Ok(names.map(str::to_owned).collect())
}

/// A proof's bytes.
///
/// # Errors
/// The disk's; [`DiskErrorKind::NotFound`] for a name that is none.
pub fn read_evidence(disk: &dyn Disk, name: &str) -> Result<Bytes, DiskError> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(DiskError::new(DiskErrorKind::NotFound, name, "no proof has such a name"));
    }
    let path = path(name);
    let file = disk.open(&path, Open::Read)?;
    let length = file.len()?;
    if length > FILE_BYTES_MAX {
        return Err(DiskError::new(DiskErrorKind::Failed, &path, "longer than any proof"));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_at(0, &mut bytes)?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk::memory::MemoryDisk;

    #[test]
    fn a_proof_is_written_once_and_their_number_is_bounded() {
        let disk = MemoryDisk::default();
        assert_eq!(evidence_names(&disk), Ok(Vec::new()));
        assert_eq!(keep_evidence(&disk, "ab12", b"proof"), Ok(true));
        assert_eq!(keep_evidence(&disk, "ab12", b"other"), Ok(false));
        assert_eq!(read_evidence(&disk, "ab12").as_deref(), Ok(&b"proof"[..]));
        for name in ["../identity", "", "ab13", "AB12/.."] {
            let error = read_evidence(&disk, name).expect_err("no such proof");
            assert_eq!(error.kind, DiskErrorKind::NotFound, "{name}");
        }
        for n in 0..300 {
            keep_evidence(&disk, &format!("{n:04x}"), b"x").expect("kept or not");
        }
        assert_eq!(evidence_names(&disk).map(|names| names.len()), Ok(EVIDENCE_FILES_MAX));
    }
}
