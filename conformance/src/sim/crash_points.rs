//! Every place at which the power can fail: a fixed workload of one replica is repeated with a crash at
//! each operation of its disk in turn, under each policy for what was not synced, and once more inside the
//! recovery from it (faults.md 4.2). And every bit of damage that a log can have.

use althing::chain::Record;
use althing::storage::disk::{Disk, Open};
use althing::storage::log::{LogError, LogSettings, ReplayMark, recover};
use althing::types::{Digest, LogPosition, ReplicaId};
use bytes::Bytes;

use crate::sim::disk::{SimDisk, Survivors};
use crate::sim::plan::{MILLI, Plan, Power, SECOND};
use crate::sim::run;

/// Most operations the workload may have: it ends long before.
const OPERATIONS_MAX: u64 = 20_000;

/// What an enumeration did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Points {
    /// Runs with a crash.
    pub crashes: u64,
    /// Of them with a second one inside recovery.
    pub nested: u64,
}

fn workload(power: Option<Power>) -> Plan {
    let mut plan = Plan::calm(77, 1);
    plan.faulty_for = 400 * MILLI;
    plan.bundle_every = 12 * MILLI;
    plan.checkpoint_log_bytes = 6 << 10;
    plan.finish_within = 20 * SECOND;
    plan.watchers = 0;
    plan.power = power;
    plan
}

/// Crashes at every `stride`-th operation of the disk; with `nested`, at every `stride`-th operation of the
/// recovery as well.
///
/// # Errors
/// The first crash that breaks a rule, and which it was.
pub fn enumerate(stride: u64, nested: bool) -> Result<Points, String> {
    let mut points = Points::default();
    for after in (0..OPERATIONS_MAX).step_by(usize::try_from(stride).expect("small")) {
        let mut met = false;
        for survivors in Survivors::ALL {
            let power = Power { after, survivors, then: None };
            met |= crash(power)? > 0;
            points.crashes += u64::from(met);
        }
        if !met {
            return Ok(points);
        }
        let mut then = after % stride.max(1);
        while then < OPERATIONS_MAX && nested {
            let survivors = Survivors::ALL[usize::try_from(then % 4).expect("small")];
            if crash(Power { after, survivors, then: Some(then) })? < 2 {
                break;
            }
            points.nested += 1;
            then += stride;
        }
    }
    Err(format!("the workload has more than {OPERATIONS_MAX} operations"))
}

/// Plays one crash; how often the power failed.
fn crash(power: Power) -> Result<u64, String> {
    let summary = run(workload(Some(power)), false)
        .map_err(|failure| format!("{power:?}: at {} us: {}", failure.time, failure.what))?;
    Ok(summary.seen.get("disk: power failed").copied().unwrap_or(0))
}

/// A log of `batches` batches of records of about 200 bytes.
fn log_of(batches: u64) -> (SimDisk, LogSettings, Vec<Record>, usize) {
    let disk = SimDisk::default();
    let settings = LogSettings {
        first_segment_bytes: 16 << 10,
        segment_bytes: 16 << 10,
        ..LogSettings::new(Digest([7; 32]), ReplicaId(2), [9; 16])
    };
    let mark = ReplayMark::start();
    let mut log = recover(&disk, &settings, mark, &mut |_, _, _| {}).expect("an empty disk");
    let (mut records, mut last_batch) = (Vec::new(), 0);
    for number in 0..batches {
        last_batch = 0;
        for at in 0..=number % 3 {
            let record = match at {
                0 => Record::Fenced { reason: Bytes::from(vec![b'x'; 150 + number as usize % 90]) },
                _ => Record::Session { counter: number },
            };
            let position = LogPosition(records.len() as u64 + 1);
            log.appender.append(position, &record);
            records.push(record);
            last_batch += 1;
        }
        let batch = log.appender.take_batch().expect("records were appended");
        batch.write(&disk).expect("a healthy disk");
    }
    (disk, settings, records, last_batch)
}

/// Changes every `stride`-th byte of a 64 KiB log, each alone: recovery refuses, or shows a prefix that
/// lacks at most the last batch (which looks torn), never anything else. Returns (refused, as before, cut).
///
/// # Errors
/// The byte whose change was not noticed.
pub fn flip_bytes(stride: usize) -> Result<(u64, u64, u64), String> {
    let (disk, settings, records, last_batch) = log_of(160);
    let (mut refused, mut same, mut cut) = (0, 0, 0);
    let mut change = 1_u8;
    for name in disk.list("log").map_err(|error| error.to_string())? {
        let path = format!("log/{name}");
        let file = disk.open(&path, Open::Read).map_err(|error| error.to_string())?;
        let length =
            usize::try_from(file.len().map_err(|error| error.to_string())?).expect("small");
        for offset in (0..length).step_by(stride) {
            change = change.rotate_left(1);
            let damaged = disk.copy();
            assert!(damaged.rot(&path, offset, change), "the byte is there");
            let mut shown = Vec::new();
            let mut visit = |_, _, record| shown.push(record);
            let result = recover(&damaged, &settings, ReplayMark::start(), &mut visit);
            let prefix = records.starts_with(&shown);
            let promised = records.len() - last_batch;
            match result {
                Err(LogError::Disk(error)) => return Err(format!("{path} {offset}: {error}")),
                Err(_) => refused += 1,
                Ok(_) if shown == records => same += 1,
                Ok(_) if prefix && shown.len() >= promised => cut += 1,
                Ok(_) => {
                    let (found, all) = (shown.len(), records.len());
                    return Err(format!(
                        "{path} byte {offset}: {found} of {all} records, no error"
                    ));
                }
            }
        }
    }
    Ok((refused, same, cut))
}
