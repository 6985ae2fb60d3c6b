//! Finding committed blocks by height: for catch-up by pages, `althing block get`, and provenance.
//!
//! The log holds every block accepted in any view. Which one was committed at a height follows from
//! the next commit certificate at or above it and the parents' hashes down from there, never from the
//! order of records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::chain::{Block, BlockHeader, Certificate, HEADER_BYTES, Parameters, Record};
use crate::codec::{Decode, Reader};
use crate::planted::{self, Bug};
use crate::storage::disk::{Disk, DiskErrorKind};
use crate::storage::log::frame::{FRAME_HEAD_BYTES, FrameHead};
use crate::storage::log::scan::{SegmentReader, block_segments, decode};
use crate::storage::log::{LogError, LogSettings, Placed};
use crate::types::{Digest, Height};

/// Indexed segments kept: catch-up of several peers at different heights.
const INDEXED_SEGMENTS_MAX: usize = 8;

/// Views overlap in the log by at most this many heights.
const OVERLAP_HEIGHTS: u64 = Parameters::WINDOW_MAX as u64;

/// Blocks in order of height, and what proves them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlocksPage {
    /// Consecutive, not empty.
    pub blocks: Vec<Arc<Block>>,
    /// Of the last block, which it proves with all others by their parents, or of a later one.
    pub certificate: Certificate,
}

impl BlocksPage {
    /// Whether no value of it was pruned.
    #[must_use]
    pub fn has_values(&self) -> bool {
        self.blocks.iter().all(|block| block.has_values())
    }
}

/// One committed block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundBlock {
    /// The block.
    pub block: Arc<Block>,
    /// Where it lies.
    pub placed: Placed,
    /// Of the nearest certified block at or above it.
    pub certificate: Certificate,
    /// The headers above the block, up to the certified one.
    pub headers: Vec<BlockHeader>,
}

#[derive(Clone, Copy)]
struct BlockAt {
    placed: Placed,
    bytes: u32,
    parent: Digest,
}

/// What one page holds of a path from `top` down: all, or as many of the highest up to `until` as fit.
fn part(path: &[BlockAt], top: Height, until: Height, bytes_max: usize) -> &[BlockAt] {
    let size = |blocks: &[BlockAt]| blocks.iter().map(|at| at.bytes as usize).sum::<usize>();
    if size(path) <= bytes_max {
        return path;
    }
    let above = usize::try_from(top.0.saturating_sub(until.0)).unwrap_or(0).min(path.len() - 1);
    let path = &path[above..];
    let mut bytes = 0;
    let fit = path.iter().take_while(|at| {
        bytes += at.bytes as usize;
        bytes <= bytes_max
    });
    let count = fit.count().max(1);
    &path[..count]
}

struct SegmentIndex {
    reader: SegmentReader,
    blocks: BTreeMap<(Height, Digest), BlockAt>,
    commits: BTreeMap<Height, Placed>,
    used: u64,
}

/// Reads committed blocks of the durable log, on another thread than the appender's.
pub struct BlockReader {
    disk: Arc<dyn Disk>,
    settings: LogSettings,
    /// What lies at or behind it may be half written.
    end: Placed,
    /// Height of each segment's first block.
    first_heights: BTreeMap<u32, Height>,
    /// Sealed segments that hold no block. They may hold certificates, also that of the last block of an
    /// epoch, which no later one proves.
    blockless: BTreeSet<u32>,
    /// The open segment, while it holds none.
    open_blockless: Option<u32>,
    indexed: BTreeMap<u32, SegmentIndex>,
    uses: u64,
}

impl BlockReader {
    /// `end` is the log's durable end: [`super::Appender::end`] at start.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, settings: LogSettings, end: Placed) -> Self {
        let (first_heights, indexed) = (BTreeMap::new(), BTreeMap::new());
        let (blockless, open_blockless) = (BTreeSet::new(), None);
        Self { disk, settings, end, first_heights, blockless, open_blockless, indexed, uses: 0 }
    }

    /// More of the log is durable: [`super::Batch::end`].
    pub fn advance(&mut self, end: Placed) {
        self.end = self.end.max(end);
    }

    /// The lowest height a block is held of.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn first_height(&mut self) -> Result<Option<Height>, LogError> {
        self.known_segments()?;
        Ok(self.first_heights.values().min().copied())
    }

    /// The lowest segment that holds a block.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn first_segment(&mut self) -> Result<Option<u32>, LogError> {
        Ok(self.known_segments()?.first().copied())
    }

    /// A segment was pruned: what is open of it is closed, so that its erased content goes.
    pub fn pruned(&mut self, segment: u32) {
        self.indexed.remove(&segment);
    }

    /// A segment was removed.
    pub fn removed(&mut self, segment: u32) {
        self.indexed.remove(&segment);
        self.first_heights.remove(&segment);
        self.blockless.remove(&segment);
    }

    /// All records of a sealed segment, for the index.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn records(&self, segment: u32) -> Result<SegmentReader, LogError> {
        SegmentReader::open(&*self.disk, &self.settings, segment)
    }

    /// Committed blocks from `from` to the certificate that proves them, at most `until` where a lower one
    /// does. If more than `bytes_max` lie before the next certificate, the highest of them up to `until`, at
    /// least one. None if they are not held: above the last certificate, or pruned.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn read_blocks(
        &mut self,
        from: Height,
        until: Height,
        bytes_max: usize,
    ) -> Result<Option<BlocksPage>, LogError> {
        let mut bytes = 0;
        let mut limit = from;
        while limit < until {
            let Some(size) = self.largest_at(limit.next())? else { break };
            bytes += size;
            if bytes > bytes_max {
                break;
            }
            limit = limit.next();
        }
        let Some((top, certificate)) = self.certificate_for(from, limit)? else {
            return Ok(None);
        };
        let Some(path) = self.walk_down(top, certificate.block_hash, from)? else {
            return Ok(None);
        };
        let mut blocks = Vec::with_capacity(path.len());
        for at in part(&path, top, until, bytes_max).iter().rev() {
            blocks.push(self.block_at(at.placed)?);
        }
        Ok(Some(BlocksPage { blocks, certificate }))
    }

    /// The committed block at a height, or None if it is not held.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn block(&mut self, height: Height) -> Result<Option<FoundBlock>, LogError> {
        let Some((top, certificate)) = self.certificate_for(height, height)? else {
            return Ok(None);
        };
        let Some(path) = self.walk_down(top, certificate.block_hash, height)? else {
            return Ok(None);
        };
        let Some((lowest, above)) = path.split_last() else { return Ok(None) };
        let placed = lowest.placed;
        let block = self.block_at(placed)?;
        let mut headers = Vec::new();
        for at in above.iter().rev() {
            headers.push(self.block_at(at.placed)?.header.clone());
        }
        Ok(Some(FoundBlock { block, placed, certificate, headers }))
    }

    fn largest_at(&mut self, height: Height) -> Result<Option<usize>, LogError> {
        let mut largest = None;
        for segment in self.candidates(height)? {
            let index = self.index(segment)?;
            let sizes = index.blocks.range((height, Digest::ZERO)..=(height, Digest([255; 32])));
            let size = sizes.map(|(_, at)| at.bytes as usize).max();
            largest = largest.max(size);
        }
        Ok(largest)
    }

    /// The highest certificate in `from..=limit`, or else the lowest above.
    fn certificate_for(
        &mut self,
        from: Height,
        limit: Height,
    ) -> Result<Option<(Height, Certificate)>, LogError> {
        let mut below: Option<(Height, Placed)> = None;
        let mut above: Option<(Height, Placed)> = None;
        let first = self.candidates(from)?.first().copied();
        let mut numbers = self.known_segments()?;
        if !planted::is(Bug::BlocklessSkipped) {
            numbers.extend(self.blockless.iter().chain(&self.open_blockless));
        }
        numbers.sort_unstable();
        for segment in numbers.into_iter().filter(|number| Some(*number) >= first) {
            // No certificate in a later segment is nearer than what was found.
            let start = self.first_heights.get(&segment).copied().unwrap_or_default();
            let nearest = above.map_or(limit, |(height, _)| height);
            if (below.or(above).is_some()) && start.0 > nearest.0.saturating_add(OVERLAP_HEIGHTS) {
                break;
            }
            let commits = &self.index(segment)?.commits;
            let inside = commits.range(from..=limit).next_back();
            let behind = commits.range(limit.next()..).next();
            if let Some((height, placed)) = inside {
                below = below.max(Some((*height, *placed)));
            }
            if let Some((height, placed)) = behind {
                let found = (*height, *placed);
                above = Some(above.map_or(found, |best| best.min(found)));
            }
        }
        let Some((height, placed)) = below.or(above) else { return Ok(None) };
        match self.record_at(placed)? {
            Record::Committed(certificate) => Ok(Some((height, certificate))),
            _ => unreachable!("only commit certificates are indexed as such"),
        }
    }

    /// From the block `hash` at `top` down to `from`, in that order; None if one is not held.
    fn walk_down(
        &mut self,
        top: Height,
        mut hash: Digest,
        from: Height,
    ) -> Result<Option<Vec<BlockAt>>, LogError> {
        let mut path = Vec::new();
        let mut height = top;
        loop {
            let mut found = None;
            for segment in self.candidates(height)? {
                found = found.or(self.index(segment)?.blocks.get(&(height, hash)).copied());
            }
            let Some(at) = found else { return Ok(None) };
            path.push(at);
            if height <= from {
                return Ok(Some(path));
            }
            hash = at.parent;
            height = height.minus(1);
        }
    }

    fn block_at(&mut self, placed: Placed) -> Result<Arc<Block>, LogError> {
        match self.record_at(placed)? {
            Record::Block(block) => Ok(block),
            _ => unreachable!("only blocks are indexed as such"),
        }
    }

    fn record_at(&mut self, placed: Placed) -> Result<Record, LogError> {
        let payload = self.index(placed.segment)?.reader.payload_at(placed.offset)?;
        decode(placed.segment, placed.offset, payload)
    }

    /// All segments with a block in their durable part, ascending.
    fn known_segments(&mut self) -> Result<Vec<u32>, LogError> {
        let last_known = self.first_heights.keys().next_back().copied();
        if last_known != Some(self.end.segment) {
            let present = match block_segments(&*self.disk) {
                Err(error) if error.kind == DiskErrorKind::NotFound => Vec::new(),
                other => other?,
            };
            let last = self.end.segment;
            self.open_blockless = None;
            for segment in present.into_iter().filter(|segment| *segment <= last) {
                let known = self.first_heights.contains_key(&segment);
                if !known && !self.blockless.contains(&segment) {
                    self.note_first_height(segment)?;
                }
            }
        }
        Ok(self.first_heights.keys().copied().collect())
    }

    fn note_first_height(&mut self, segment: u32) -> Result<(), LogError> {
        let mut reader = SegmentReader::open(&*self.disk, &self.settings, segment)?;
        let end = self.end_in(segment);
        while let Some((head, tag)) = next_head(&mut reader, end)? {
            if tag == TAG_BLOCK {
                let (height, ..) = block_summary(&mut reader, &head)?;
                self.first_heights.insert(segment, height);
                return Ok(());
            }
            reader.skip(&head);
        }
        if segment < self.end.segment {
            self.blockless.insert(segment);
        } else {
            self.open_blockless = Some(segment);
        }
        Ok(())
    }

    fn end_in(&self, segment: u32) -> u32 {
        if segment < self.end.segment { u32::MAX } else { self.end.offset }
    }

    /// The segments that may hold blocks of `height`, ascending.
    fn candidates(&mut self, height: Height) -> Result<Vec<u32>, LogError> {
        let numbers = self.known_segments()?;
        let first_of = |number: &u32| self.first_heights.get(number).copied().unwrap_or_default();
        let nearest = numbers.iter().rposition(|number| first_of(number) <= height).unwrap_or(0);
        let low = numbers[..nearest.min(numbers.len())]
            .iter()
            .rposition(|number| first_of(number).plus(OVERLAP_HEIGHTS) < height)
            .unwrap_or(0);
        Ok(numbers
            .into_iter()
            .skip(low)
            .take_while(|number| first_of(number) <= height.plus(OVERLAP_HEIGHTS))
            .collect())
    }

    fn index(&mut self, segment: u32) -> Result<&mut SegmentIndex, LogError> {
        self.uses += 1;
        if !self.indexed.contains_key(&segment) {
            if self.indexed.len() >= INDEXED_SEGMENTS_MAX {
                let oldest = self.indexed.iter().min_by_key(|(_, index)| index.used);
                if let Some(oldest) = oldest.map(|(number, _)| *number) {
                    self.indexed.remove(&oldest);
                }
            }
            let reader = SegmentReader::open(&*self.disk, &self.settings, segment)?;
            let (blocks, commits) = (BTreeMap::new(), BTreeMap::new());
            self.indexed.insert(segment, SegmentIndex { reader, blocks, commits, used: 0 });
        }
        let (end, uses) = (self.end_in(segment), self.uses);
        let index = self.indexed.get_mut(&segment).expect("just inserted");
        index.used = uses;
        index.extend(end)?;
        Ok(index)
    }
}

impl SegmentIndex {
    /// Indexes what became durable since.
    fn extend(&mut self, end: u32) -> Result<(), LogError> {
        if self.reader.offset() >= end {
            return Ok(());
        }
        self.reader.window().refresh()?;
        while let Some((head, tag)) = next_head(&mut self.reader, end)? {
            let segment = self.reader.header().segment;
            let placed = Placed { segment, offset: self.reader.offset() + FRAME_HEAD_BYTES };
            match tag {
                TAG_BLOCK => {
                    let (height, hash, parent) = block_summary(&mut self.reader, &head)?;
                    let at = BlockAt { placed, bytes: head.length, parent };
                    self.blocks.entry((height, hash)).or_insert(at);
                }
                TAG_COMMITTED => {
                    let height = certificate_height(&mut self.reader, &head)?;
                    self.commits.insert(height, placed);
                }
                _ => {}
            }
            self.reader.skip(&head);
        }
        Ok(())
    }
}

pub(super) const TAG_BLOCK: u8 = 3;
pub(super) const TAG_COMMITTED: u8 = 5;

/// The head at the reader's place and the record's tag, if it lies in front of `end`.
pub(super) fn next_head(
    reader: &mut SegmentReader,
    end: u32,
) -> Result<Option<(FrameHead, u8)>, LogError> {
    if reader.offset() >= end {
        return Ok(None);
    }
    let Some(head) = reader.peek()? else { return Ok(None) };
    if head.previous != reader.chain() {
        return Ok(None);
    }
    let tag = prefix(reader, &head, 1)?.first().copied().unwrap_or_default();
    Ok(Some((head, tag)))
}

/// The first bytes of the payload at the reader's place.
fn prefix(reader: &mut SegmentReader, head: &FrameHead, length: usize) -> Result<Bytes, LogError> {
    let at = u64::from(reader.offset()) + u64::from(FRAME_HEAD_BYTES);
    let length = length.min(head.length as usize);
    let bytes = reader.window().bytes(at, length)?;
    Ok(bytes.map(Bytes::copy_from_slice).unwrap_or_default())
}

fn block_summary(
    reader: &mut SegmentReader,
    head: &FrameHead,
) -> Result<(Height, Digest, Digest), LogError> {
    let place = (reader.header().segment, u64::from(reader.offset()));
    let bytes = prefix(reader, head, 1 + HEADER_BYTES)?;
    let header = BlockHeader::from_bytes(bytes.slice(1.min(bytes.len())..)).map_err(|error| {
        let (segment, offset) = place;
        LogError::Undecodable { segment, offset, error }
    })?;
    Ok((header.height, header.hash(), header.parent))
}

/// A certificate's height: behind the record's tag stand phase, epoch and view.
pub(super) fn certificate_height(
    reader: &mut SegmentReader,
    head: &FrameHead,
) -> Result<Height, LogError> {
    let (segment, offset) = (reader.header().segment, u64::from(reader.offset()));
    let mut fields = Reader::new(prefix(reader, head, 26)?);
    let skipped = fields.raw(18, "certificate");
    let height = skipped.and_then(|_| fields.u64("certificate height"));
    height.map(Height).map_err(|error| LogError::Undecodable { segment, offset, error })
}
