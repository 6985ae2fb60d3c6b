//! Dropping whole segments that are older than an operator wants to keep. What proves the rest to
//! somebody who only knows the genesis stays: epochs, and a checkpoint a day.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::chain::{CheckpointCertificate, Record};
use crate::codec::Encode;
use crate::storage::disk::Disk;
use crate::storage::log::frame::FrameHead;
use crate::storage::log::prune::write_segment;
use crate::storage::log::scan::{SegmentReader, pruned_segments};
use crate::storage::log::{LOG_DIRECTORY, LogError, LogSettings, anchors_path, pruned_path};
use crate::types::{Digest, Height, LogPosition, Millis};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Drops the oldest pruned segment if all its blocks are older than `before`; its number. Call it until
/// there is none.
///
/// # Errors
/// [`LogError`]. A crash leaves the segment, or what is kept of it, or both.
pub fn drop_oldest(
    disk: &dyn Disk,
    settings: &LogSettings,
    before: Millis,
) -> Result<Option<u32>, LogError> {
    let Some(segment) = pruned_segments(disk)?.first().copied() else { return Ok(None) };
    let kept = anchors(disk, settings, segment, before)?;
    let Some(kept) = kept else { return Ok(None) };
    if !kept.is_empty() {
        let (path, records) = (anchors_path(segment), kept.iter());
        let temporary = format!("{path}.tmp");
        let header = SegmentReader::open(disk, settings, segment)?.header();
        write_segment(disk, (&temporary, header), records)?;
        disk.rename(&temporary, &path)?;
        disk.sync_directory(LOG_DIRECTORY)?;
    }
    disk.remove(&pruned_path(segment))?;
    disk.sync_directory(LOG_DIRECTORY)?;
    Ok(Some(segment))
}

type Anchors = Vec<(FrameHead, bytes::Bytes)>;

/// What stays of a segment: `EpochStart` records, and for each day the block and the certificate of the
/// last checkpoint in it. None if the segment is not old enough.
fn anchors(
    disk: &dyn Disk,
    settings: &LogSettings,
    segment: u32,
    before: Millis,
) -> Result<Option<Anchors>, LogError> {
    // A certificate comes a little after its block, often in the next segment.
    let mut stable: BTreeMap<Height, (LogPosition, CheckpointCertificate)> = BTreeMap::new();
    for number in [segment, segment.saturating_add(1)] {
        let Ok(mut reader) = SegmentReader::open(disk, settings, number) else { continue };
        while let Some((position, _, record)) = reader.next()? {
            if let Record::CheckpointStable(certificate) = record {
                stable.insert(certificate.id.height, (position, certificate));
            }
        }
    }
    let mut kept: BTreeMap<LogPosition, Record> = BTreeMap::new();
    let mut of_day: BTreeMap<u64, Vec<LogPosition>> = BTreeMap::new();
    let mut reader = SegmentReader::open(disk, settings, segment)?;
    while let Some((position, _, record)) = reader.next()? {
        match record {
            Record::Block(block) => {
                let header = &block.header;
                if header.time_ms >= before {
                    return Ok(None);
                }
                let found = stable.get(&header.height);
                if let Some((at, certificate)) = found
                    && certificate.id.block_hash == block.hash()
                {
                    let places = vec![position, *at];
                    let earlier = of_day.insert(header.time_ms.0 / DAY_MS, places);
                    earlier.into_iter().flatten().for_each(|place| drop(kept.remove(&place)));
                    kept.insert(*at, Record::CheckpointStable(certificate.clone()));
                    kept.insert(position, Record::Block(Arc::clone(&block)));
                }
            }
            Record::EpochStart(proof) => {
                kept.insert(position, Record::EpochStart(proof));
            }
            _ => {}
        }
    }
    let frame = |(position, record): (LogPosition, Record)| {
        let payload = record.to_bytes();
        let length = u32::try_from(payload.len()).expect("a record stays far below 4 GiB");
        let synced = position.minus(1);
        let (previous, checksum) = (Digest::ZERO, Digest::ZERO);
        (FrameHead { length, position, synced, previous, checksum }, payload)
    };
    Ok(Some(kept.into_iter().map(frame).collect()))
}
