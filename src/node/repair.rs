//! `althing replica repair`: the damaged log and state are set aside, and the replica begins again
//! with an empty log that says it is fenced: its votes are gone, so it counts as rolled back until
//! it has rejoined (protocol.md 19.4).
//!
//! Every step can be interrupted: a small file says how far it is, and the next start goes on.

use crate::chain::Record;
use crate::storage::checkpoint::CHECKPOINT_DIRECTORY;
use crate::storage::disk::{Disk, DiskError, DiskErrorKind, Open};
use crate::storage::log::{LOG_DIRECTORY, LogSettings, ReplayMark, recover};
use crate::storage::transfer::TRANSFER_DIRECTORY;

/// Says that a repair is under way, and how far it is.
const MARKER_PATH: &str = "repair";

/// What was set aside by the last repair: evidence, and chunks that a transfer may use again.
pub(super) const DAMAGED_DIRECTORY: &str = "damaged";

/// Files are being moved away.
const MOVING: &[u8] = b"moving\n";
/// All were moved; what the log directory holds is the new log, not used yet.
const MOVED: &[u8] = b"moved\n";

/// Decides that the directory's log and state are given up. From here on every start goes on with it.
///
/// # Errors
/// [`DiskError`]; nothing was changed, or the repair has begun.
pub(super) fn begin(disk: &dyn Disk) -> Result<(), DiskError> {
    disk.create_directory(DAMAGED_DIRECTORY)?;
    disk.sync_directory("")?;
    clear(disk, DAMAGED_DIRECTORY)?;
    mark(disk, MOVING)
}

/// Goes on with a repair that was begun, if one was.
///
/// # Errors
/// [`DiskError`]; the next start tries again.
pub(super) fn complete(disk: &dyn Disk, settings: &LogSettings) -> Result<(), DiskError> {
    let Some(phase) = phase(disk)? else { return Ok(()) };
    if phase != MOVED {
        disk.create_directory(DAMAGED_DIRECTORY)?;
        for directory in [LOG_DIRECTORY, CHECKPOINT_DIRECTORY] {
            for name in names(disk, directory)? {
                let kept = format!("{DAMAGED_DIRECTORY}/{directory}-{name}");
                disk.rename(&format!("{directory}/{name}"), &kept)?;
            }
        }
        disk.sync_directory(DAMAGED_DIRECTORY)?;
        for directory in [LOG_DIRECTORY, CHECKPOINT_DIRECTORY] {
            sync_if_there(disk, directory)?;
        }
        clear(disk, TRANSFER_DIRECTORY)?;
        mark(disk, MOVED)?;
    }
    clear(disk, LOG_DIRECTORY)?;
    begin_log(disk, settings)?;
    disk.remove(MARKER_PATH)?;
    disk.sync_directory("")
}

/// The first record of the new log: this replica's votes are lost.
fn begin_log(disk: &dyn Disk, settings: &LogSettings) -> Result<(), DiskError> {
    let recovered = recover(disk, settings, ReplayMark::start(), &mut |_, _, _| {});
    let mut recovered = recovered
        .map_err(|error| DiskError::new(DiskErrorKind::Failed, LOG_DIRECTORY, error.to_string()))?;
    let reason = "the log was damaged and set aside by `althing replica repair`";
    let record = Record::Fenced { reason: reason.as_bytes().into() };
    recovered.appender.append(recovered.log_end.next(), &record);
    let batch = recovered.appender.take_batch().expect("a record was appended");
    batch.write(disk)
}

fn phase(disk: &dyn Disk) -> Result<Option<Vec<u8>>, DiskError> {
    let file = match disk.open(MARKER_PATH, Open::Read) {
        Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let length = usize::try_from(file.len()?).unwrap_or(usize::MAX).min(MOVING.len());
    let mut bytes = vec![0; length];
    file.read_at(0, &mut bytes)?;
    Ok(Some(bytes))
}

fn mark(disk: &dyn Disk, phase: &[u8]) -> Result<(), DiskError> {
    let temporary = format!("{MARKER_PATH}.tmp");
    match disk.remove(&temporary) {
        Err(error) if error.kind != DiskErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.open(&temporary, Open::Create)?;
    file.write_at(0, phase)?;
    file.sync()?;
    disk.rename(&temporary, MARKER_PATH)?;
    disk.sync_directory("")
}

fn names(disk: &dyn Disk, directory: &str) -> Result<Vec<String>, DiskError> {
    match disk.list(directory) {
        Err(error) if error.kind == DiskErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

fn clear(disk: &dyn Disk, directory: &str) -> Result<(), DiskError> {
    for name in names(disk, directory)? {
        disk.remove(&format!("{directory}/{name}"))?;
    }
    sync_if_there(disk, directory)
}

fn sync_if_there(disk: &dyn Disk, directory: &str) -> Result<(), DiskError> {
    match disk.sync_directory(directory) {
        Err(error) if error.kind == DiskErrorKind::NotFound => Ok(()),
        other => other,
    }
}
