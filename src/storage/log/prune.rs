//! Erasing from the log what no replay from a kept checkpoint needs (protocol.md 16.5): a segment is
//! written anew without it, beside the old one, which goes once the new one is durable under its
//! name. A crash leaves the old one, the new one or both, never half of one.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::chain::{Block, Record};
use crate::codec::Encode;
use crate::planted::{self, Bug};
use crate::storage::disk::{Disk, DiskError, DiskErrorKind, DiskFile, Open};
use crate::storage::log::blocks::{TAG_BLOCK, TAG_COMMITTED, certificate_height, next_head};
use crate::storage::log::frame::{FrameHead, SegmentHeader, framed_len};
use crate::storage::log::scan::{Opened, SegmentReader, Step, decode, open_path};
use crate::storage::log::{
    LOG_DIRECTORY, LogError, LogSettings, SEGMENT_HEADER_BYTES, pruned_path, segment_path, segments,
};
use crate::types::{Digest, Height, LogPosition};

/// Of the commit certificates of a pruned segment one in so many heights stays, and the highest:
/// that bounds the headers a proof of one block needs.
const CERTIFICATE_EVERY: u64 = 128;

/// Bytes written between two syncs, so that no single sync holds up the log's for long.
const SYNC_BYTES: usize = 4 << 20;

/// What may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Horizon {
    /// The segment that a replay from the oldest kept checkpoint begins in: values, votes and most
    /// certificates of those below go.
    pub segment: u32,
    /// The height of that checkpoint: in `segment` itself the values up to it go, all else stays.
    pub height: Height,
    /// The state refers to no value of a block up to here in the log.
    pub moved: Height,
    /// The segment that records go to: it stays as it is.
    pub open: u32,
}

/// One segment to be rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PruneStep {
    segment: u32,
    whole: bool,
}

impl PruneStep {
    /// Which.
    #[must_use]
    pub fn segment(&self) -> u32 {
        self.segment
    }
}

/// The segments behind the horizon that still hold what may go, ascending.
///
/// # Errors
/// [`LogError`].
pub fn prune_steps(
    disk: &dyn Disk,
    settings: &LogSettings,
    horizon: &Horizon,
) -> Result<Vec<PruneStep>, LogError> {
    let mut steps = Vec::new();
    for segment in segments(disk)? {
        if segment >= horizon.open || segment > horizon.segment {
            break;
        }
        let whole = segment < horizon.segment;
        if whole || holds_values(disk, settings, segment, horizon)? {
            steps.push(PruneStep { segment, whole });
        }
    }
    Ok(steps)
}

/// Whether a segment holds values up to the horizon's height, and none that the state refers to.
fn holds_values(
    disk: &dyn Disk,
    settings: &LogSettings,
    segment: u32,
    horizon: &Horizon,
) -> Result<bool, LogError> {
    let mut reader = SegmentReader::open(disk, settings, segment)?;
    let mut found = false;
    while let Some((_, _, record)) = reader.next()? {
        if let Record::Block(block) = record {
            if block.header.height > horizon.moved {
                return Ok(false);
            }
            found |= is_erasable(&block, horizon.height);
        }
    }
    Ok(found)
}

fn is_erasable(block: &Block, height: Height) -> bool {
    block.header.height <= height
        && block.has_values()
        && block.bundles().any(|bundle| !bundle.values.is_empty())
}

/// Rewrites one segment. `pause` is called now and then: flushes of the log go first.
///
/// # Errors
/// [`LogError`]. What stands on disk is the old segment or the new one, or both.
pub fn prune_segment(
    disk: &dyn Disk,
    settings: &LogSettings,
    (step, horizon): (PruneStep, &Horizon),
    pause: &mut dyn FnMut(),
) -> Result<(), LogError> {
    let segment = step.segment;
    let (old, new) = (segment_path(segment), pruned_path(segment));
    if !step.whole {
        let temporary = format!("{old}.tmp");
        let mut kept = |_: &FrameHead, payload: Bytes| strip(segment, payload, horizon.height);
        rewrite(disk, settings, (segment, &temporary), (&mut kept, pause))?;
        disk.rename(&temporary, &old)?;
        return Ok(disk.sync_directory(LOG_DIRECTORY)?);
    }
    if !exists(disk, &new)? {
        let certificates = kept_certificates(disk, settings, segment)?;
        let temporary = format!("{new}.tmp");
        let mut kept = |head: &FrameHead, payload: Bytes| match payload.first().copied() {
            Some(TAG_COMMITTED) if !certificates.contains(&head.position) => Ok(None),
            Some(tag) if TAGS_DROPPED.contains(&tag) => Ok(None),
            _ => strip(segment, payload, Height(u64::MAX)),
        };
        rewrite(disk, settings, (segment, &temporary), (&mut kept, pause))?;
        disk.rename(&temporary, &new)?;
        disk.sync_directory(LOG_DIRECTORY)?;
    }
    disk.remove(&old)?;
    Ok(disk.sync_directory(LOG_DIRECTORY)?)
}

/// Votes, and what a checkpoint's carried records hold: `ViewEntered`, `ViewChangeSent`, `Prepared`,
/// `Fenced`, `Rejoined`, `Quarantined`, `Session`.
const TAGS_DROPPED: [u8; 7] = [1, 2, 4, 9, 10, 11, 12];

fn exists(disk: &dyn Disk, path: &str) -> Result<bool, DiskError> {
    match disk.open(path, Open::Read) {
        Ok(_) => Ok(true),
        Err(error) if error.kind == DiskErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The positions of the certificates that stay.
fn kept_certificates(
    disk: &dyn Disk,
    settings: &LogSettings,
    segment: u32,
) -> Result<BTreeSet<LogPosition>, LogError> {
    let mut reader = SegmentReader::open(disk, settings, segment)?;
    let mut kept = BTreeSet::new();
    let mut last_kept = Height(0);
    let mut highest: Option<(Height, LogPosition)> = None;
    while let Some((head, tag)) = next_head(&mut reader, u32::MAX)? {
        if tag == TAG_COMMITTED {
            let height = certificate_height(&mut reader, &head)?;
            highest = highest.max(Some((height, head.position)));
            if height >= last_kept.plus(CERTIFICATE_EVERY) {
                last_kept = height;
                kept.insert(head.position);
            }
        }
        reader.skip(&head);
    }
    kept.extend(highest.map(|(_, position)| position));
    Ok(kept)
}

/// A record as it stays: a block up to `height` without its values.
fn strip(segment: u32, payload: Bytes, height: Height) -> Result<Option<Bytes>, LogError> {
    if payload.first() != Some(&TAG_BLOCK) || planted::is(Bug::ValueKept) {
        return Ok(Some(payload));
    }
    match decode(segment, 0, payload.clone())? {
        Record::Block(block) if is_erasable(&block, height) => {
            Ok(Some(Record::Block(Arc::new(block.without_values())).to_bytes()))
        }
        _ => Ok(Some(payload)),
    }
}

type Kept<'a> = dyn FnMut(&FrameHead, Bytes) -> Result<Option<Bytes>, LogError> + 'a;

/// Writes what `kept` says of each record of a segment to `path`, durably.
fn rewrite(
    disk: &dyn Disk,
    settings: &LogSettings,
    (segment, path): (u32, &str),
    (kept, pause): (&mut Kept<'_>, &mut dyn FnMut()),
) -> Result<(), LogError> {
    match disk.remove(path) {
        Err(error) if error.kind != DiskErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    // The header names the file's length, and the records' chain begins with the header.
    let mut capacity = SEGMENT_HEADER_BYTES;
    let mut header = each(disk, settings, segment, &mut |head, payload| {
        let length = kept(head, payload)?.map_or(0, |payload| payload.len());
        capacity += if length > 0 { framed(length) } else { 0 };
        Ok(())
    })?;
    header.capacity = capacity;
    let mut out = Output::new(disk.open(path, Open::Create)?, header);
    each(disk, settings, segment, &mut |head, payload| {
        if let Some(payload) = kept(head, payload)? {
            out.push(head, &payload);
        }
        if out.unwritten.len() >= SYNC_BYTES {
            out.flush()?;
            pause();
        }
        Ok(())
    })?;
    assert_eq!(out.offset, capacity, "both passes see the same records");
    Ok(out.flush()?)
}

fn framed(payload: usize) -> u32 {
    framed_len(payload).expect("no record grows by being rewritten")
}

/// Shows every record of a segment, and answers the segment's header.
fn each(
    disk: &dyn Disk,
    settings: &LogSettings,
    segment: u32,
    visit: &mut dyn FnMut(&FrameHead, Bytes) -> Result<(), LogError>,
) -> Result<SegmentHeader, LogError> {
    let path = segment_path(segment);
    let mut reader = match open_path(disk, settings, (segment, &path), Open::Read)? {
        Opened::Ready(reader) => reader,
        Opened::Unfinished => return Err(LogError::Missing { segment }),
    };
    loop {
        let offset = u64::from(reader.offset());
        match reader.step()? {
            Step::Record { head, payload } => visit(&head, payload)?,
            Step::End => return Ok(reader.header()),
            Step::Bad(why) => {
                let position = LogPosition::default();
                return Err(LogError::Rot { segment, offset, position, why });
            }
        }
    }
}

/// Writes a small segment of these records, durably.
pub(super) fn write_segment<'a>(
    disk: &dyn Disk,
    (path, mut header): (&str, SegmentHeader),
    records: impl Iterator<Item = &'a (FrameHead, Bytes)> + Clone,
) -> Result<(), LogError> {
    match disk.remove(path) {
        Err(error) if error.kind != DiskErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let bytes = records.clone().map(|(_, payload)| framed(payload.len())).sum::<u32>();
    header.capacity = SEGMENT_HEADER_BYTES + bytes;
    let mut out = Output::new(disk.open(path, Open::Create)?, header);
    records.for_each(|(head, payload)| out.push(head, payload));
    Ok(out.flush()?)
}

/// A segment being written.
struct Output {
    file: Arc<dyn DiskFile>,
    start: Digest,
    /// Where the next frame goes.
    offset: u32,
    chain: Digest,
    written: u64,
    unwritten: Vec<u8>,
}

impl Output {
    fn new(file: Arc<dyn DiskFile>, header: SegmentHeader) -> Self {
        let start = header.chain_start();
        let unwritten = header.encode().to_vec();
        Self { file, start, offset: SEGMENT_HEADER_BYTES, chain: start, written: 0, unwritten }
    }

    /// The records keep their positions, the chain is the new segment's own.
    fn push(&mut self, head: &FrameHead, payload: &[u8]) {
        let place = (&self.start, self.offset);
        let about = (head.position, head.synced);
        self.chain = FrameHead::write(place, about, &self.chain, payload, &mut self.unwritten);
        self.offset += framed(payload.len());
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.file.write_at(self.written, &self.unwritten)?;
        self.written += self.unwritten.len() as u64;
        self.unwritten.clear();
        self.file.sync()
    }
}
