//! Planning writes (pure, on the protocol thread) and doing them (on the log thread).

use std::collections::VecDeque;
use std::sync::Arc;

use crate::chain::Record;
use crate::codec::Encode;
use crate::planted::{self, Bug};
use crate::storage::disk::{Disk, DiskError, DiskErrorKind, DiskFile, Open};
use crate::storage::log::frame::{FRAME_HEAD_BYTES, FrameHead, SegmentHeader, framed_len};
use crate::storage::log::{
    Carried, LOG_DIRECTORY, LogSettings, SEGMENT_HEADER_BYTES, segment_path,
};
use crate::types::{Digest, Height, LogPosition};

/// Where a record's payload lies: its tag byte is at `offset`, a block's encoded bytes follow at
/// `offset + 1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placed {
    /// The segment.
    pub segment: u32,
    /// Of the payload, in the segment's file.
    pub offset: u32,
}

/// Where a replay above a checkpoint begins, and what it must know of the records before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayMark {
    /// The first segment to read.
    pub segment: u32,
    /// The position of its first record.
    pub first_position: LogPosition,
    /// Of the segments before.
    pub carried: Carried,
}

impl ReplayMark {
    /// From the log's first record.
    #[must_use]
    pub fn start() -> Self {
        Self {
            segment: super::FIRST_SEGMENT,
            first_position: LogPosition(1),
            carried: Carried::default(),
        }
    }
}

/// What is known of the segments that a replay may still begin in.
#[derive(Debug)]
pub(super) struct Track {
    starts: VecDeque<(ReplayMark, Height)>,
    carried: Carried,
}

impl Track {
    pub fn new(mark: ReplayMark) -> Self {
        let carried = mark.carried.clone();
        Self { starts: VecDeque::from([(mark, Height(0))]), carried }
    }

    pub fn begin_segment(&mut self, segment: u32, first_position: LogPosition) {
        let mark = ReplayMark { segment, first_position, carried: self.carried.clone() };
        self.starts.push_back((mark, Height(0)));
    }

    pub fn note(&mut self, position: LogPosition, record: &Record) {
        self.carried.note(position, record);
        let height = match record {
            Record::Block(block) => block.header.height,
            Record::Effects(effects) => effects.height,
            _ => return,
        };
        let (_, highest) = self.starts.back_mut().expect("there is always a current segment");
        *highest = (*highest).max(height);
    }

    /// A segment whose beginning is not durable may be gone after a crash; an earlier one is as right.
    fn mark(&self, height: Height, durable: LogPosition) -> ReplayMark {
        let above = self.starts.iter().take_while(|(_, highest)| *highest <= height).count();
        let kept = |(mark, _): &&(ReplayMark, Height)| mark.first_position <= durable;
        let starts = self.starts.iter().take(above + 1);
        let (mark, _) = starts.rev().find(kept).or(self.starts.front()).expect("never empty");
        mark.clone()
    }

    fn forget(&mut self, height: Height) {
        while self.starts.len() > 1 && self.starts.front().is_some_and(|(_, top)| *top <= height) {
            self.starts.pop_front();
        }
    }
}

/// Plans where records go. It knows every byte of the log's end and touches no file.
#[derive(Debug)]
pub struct Appender {
    settings: LogSettings,
    header: SegmentHeader,
    start: Digest,
    /// Where the next frame goes; at most `capacity`.
    offset: u32,
    capacity: u32,
    /// Checksum of the last record, or the segment's chain start.
    chain: Digest,
    next: LogPosition,
    /// First record of the batch being gathered: all before it are in earlier batches, which are
    /// durable before this one is written.
    batch_first: LogPosition,
    writes: Vec<Write>,
    durable: LogPosition,
    track: Track,
}

/// The end of the log as recovery found it.
pub(super) struct LogEnd {
    pub header: SegmentHeader,
    pub offset: u32,
    pub chain: Digest,
    pub last: LogPosition,
}

impl Appender {
    pub(super) fn resume(settings: LogSettings, end: &LogEnd, track: Track) -> Self {
        Self {
            settings,
            header: end.header,
            start: end.header.chain_start(),
            offset: end.offset,
            capacity: end.header.capacity,
            chain: end.chain,
            next: end.last.next(),
            batch_first: end.last.next(),
            writes: Vec::new(),
            durable: end.last,
            track,
        }
    }

    /// The end of a log that nothing is ever appended to: of a replica whose own log is damaged.
    #[must_use]
    pub fn unwritten(settings: LogSettings) -> Self {
        let (_, header) = Preparation::first(&settings);
        let chain = header.chain_start();
        let end = LogEnd { header, offset: SEGMENT_HEADER_BYTES, chain, last: LogPosition(0) };
        Self::resume(settings, &end, Track::new(ReplayMark::start()))
    }

    /// Plans one record. Positions come in order, without a gap.
    pub fn append(&mut self, position: LogPosition, record: &Record) -> Placed {
        assert_eq!(position, self.next, "log positions count up by one");
        let payload = record.to_bytes();
        let framed = framed_len(payload.len()).expect("a record stays far below 4 GiB");
        if self.capacity.saturating_sub(self.offset) < framed {
            self.open_segment(framed);
        }
        self.track.note(position, record);
        let offset = self.offset;
        let (synced, start, chain) = (self.batch_first.minus(1), self.start, self.chain);
        let out = &mut self.write_at_end().bytes;
        self.chain = FrameHead::write((&start, offset), (position, synced), &chain, &payload, out);
        self.offset += framed;
        self.next = position.next();
        Placed { segment: self.header.segment, offset: offset + FRAME_HEAD_BYTES }
    }

    fn write_at_end(&mut self) -> &mut Write {
        let segment = self.header.segment;
        if self.writes.last().is_none_or(|write| write.segment != segment) {
            self.writes.push(Write {
                segment,
                offset: self.offset,
                bytes: Vec::new(),
                opens: None,
            });
        }
        self.writes.last_mut().expect("just pushed")
    }

    fn open_segment(&mut self, framed: u32) {
        let preparation = self.next_segment(framed);
        self.header = preparation.header;
        self.start = self.header.chain_start();
        self.chain = self.start;
        self.offset = SEGMENT_HEADER_BYTES;
        self.capacity = preparation.header.capacity;
        self.track.begin_segment(preparation.segment(), self.next);
        self.write_at_end().opens = Some(preparation);
    }

    fn next_segment(&self, framed: u32) -> Preparation {
        let segment = self.header.segment.checked_add(1).expect("2^31 segments are never filled");
        assert!(segment < 1 << 31, "the top bit of a segment number marks checkpoint files");
        let least = SEGMENT_HEADER_BYTES.checked_add(framed).expect("a record is below 4 GiB");
        let capacity = self.settings.capacity(segment).max(least);
        Preparation { header: SegmentHeader { segment, capacity, ..self.header } }
    }

    /// The next record begins a segment: what was written so far can then be pruned without what
    /// comes. Without effect on a segment that holds no record yet.
    pub fn rotate(&mut self) {
        if self.offset > SEGMENT_HEADER_BYTES {
            self.capacity = self.offset;
        }
    }

    /// Everything planned since the last batch. Batches are written in order, each one durable before
    /// the next is begun; records name that, and recovery relies on it.
    pub fn take_batch(&mut self) -> Option<Batch> {
        if self.writes.is_empty() {
            return None;
        }
        let writes = core::mem::take(&mut self.writes);
        let last = self.next.minus(1);
        self.batch_first = self.next;
        Some(Batch { writes, last, end: self.end() })
    }

    /// Where the log ends, planned records included.
    #[must_use]
    pub fn end(&self) -> Placed {
        Placed { segment: self.header.segment, offset: self.offset }
    }

    /// The segment that will follow the current one, to be zero-written in the background.
    #[must_use]
    pub fn preparation(&self) -> Preparation {
        self.next_segment(0)
    }

    /// The segment records go to; all below are sealed once the batches taken are durable.
    #[must_use]
    pub fn segment(&self) -> u32 {
        self.header.segment
    }

    /// The position of the last record planned.
    #[must_use]
    pub fn last(&self) -> LogPosition {
        self.next.minus(1)
    }

    /// Where a replay above `height` begins: the first segment with a block or effects above it.
    #[must_use]
    pub fn replay_mark(&self, height: Height) -> ReplayMark {
        self.track.mark(height, self.durable)
    }

    /// Everything up to `position` is durable.
    pub fn durable(&mut self, position: LogPosition) {
        self.durable = position;
    }

    /// No replay begins at or below `height` any more: a checkpoint there, and the one before it, are
    /// kept.
    pub fn forget_below(&mut self, height: Height) {
        self.track.forget(height);
    }
}

#[derive(Clone, Debug)]
struct Write {
    segment: u32,
    offset: u32,
    bytes: Vec<u8>,
    /// This is the segment's first write.
    opens: Option<Preparation>,
}

/// Records to be written and synced together.
#[derive(Clone, Debug)]
pub struct Batch {
    writes: Vec<Write>,
    /// What is durable once the batch is.
    pub last: LogPosition,
    /// Where the batch ends: what lies below is durable once the batch is.
    pub end: Placed,
}

impl Batch {
    /// Bytes to be written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.writes.iter().map(|write| write.bytes.len()).sum()
    }

    /// Never: a batch holds at least one record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Writes and syncs. After an error nothing is known of the log's end: the process ends, and
    /// recovery looks.
    ///
    /// # Errors
    /// [`DiskError`], fatal.
    pub fn write(&self, disk: &dyn Disk) -> Result<(), DiskError> {
        LogWriter::default().write(disk, self)
    }
}

/// Writes batches and keeps the current segment open between them.
#[derive(Default)]
pub struct LogWriter {
    open: Option<(u32, Arc<dyn DiskFile>)>,
}

impl LogWriter {
    /// Writes and syncs one batch.
    ///
    /// # Errors
    /// As [`Batch::write`].
    pub fn write(&mut self, disk: &dyn Disk, batch: &Batch) -> Result<(), DiskError> {
        for write in &batch.writes {
            if let Some(preparation) = &write.opens {
                preparation.finish(disk)?;
            }
            let file = self.file(disk, write.segment)?;
            file.write_at(u64::from(write.offset), &write.bytes)?;
            let again = planted::is(Bug::RetriedSync);
            file.sync().or_else(|error| if again { file.sync() } else { Err(error) })?;
        }
        Ok(())
    }

    fn file(&mut self, disk: &dyn Disk, segment: u32) -> Result<Arc<dyn DiskFile>, DiskError> {
        match &self.open {
            Some((open, file)) if *open == segment => Ok(Arc::clone(file)),
            _ => {
                let file = disk.open(&segment_path(segment), Open::Create)?;
                self.open = Some((segment, Arc::clone(&file)));
                Ok(file)
            }
        }
    }
}

/// A segment to be made: zeros to its full size, synced, then its header, synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preparation {
    header: SegmentHeader,
}

impl Preparation {
    /// Which.
    #[must_use]
    pub fn segment(&self) -> u32 {
        self.header.segment
    }

    fn file(&self, disk: &dyn Disk) -> Result<Arc<dyn DiskFile>, DiskError> {
        disk.open(&segment_path(self.header.segment), Open::Create)
    }

    /// Writes and syncs at most `bytes_max` zeros, for the log thread between two batches; true once
    /// the segment is ready.
    ///
    /// # Errors
    /// [`DiskError`]; [`DiskErrorKind::Full`] is fatal only when a batch needs the segment.
    pub fn step(&self, disk: &dyn Disk, bytes_max: u32) -> Result<bool, DiskError> {
        let file = self.file(disk)?;
        let (length, capacity) = (file.len()?, u64::from(self.header.capacity));
        let until = length.saturating_add(u64::from(bytes_max)).min(capacity);
        if until < capacity {
            file.set_len_zeroed(until)?;
            file.sync()?;
            return Ok(false);
        }
        self.finish(disk)?;
        Ok(true)
    }

    /// Makes the segment ready, however far it is. Harmless when it is.
    ///
    /// # Errors
    /// [`DiskError`], fatal when a batch needs the segment.
    pub fn finish(&self, disk: &dyn Disk) -> Result<(), DiskError> {
        let (file, header) = (self.file(disk)?, self.header.encode());
        let capacity = u64::from(self.header.capacity);
        let long_enough = file.len()? >= capacity;
        let mut found = vec![0; SEGMENT_HEADER_BYTES as usize];
        match file.read_at(0, &mut found) {
            Ok(()) if long_enough && found == header => return Ok(()),
            Err(error) if error.kind != DiskErrorKind::Short => return Err(error),
            _ => {}
        }
        file.set_len_zeroed(capacity)?;
        // The header says that the whole length is there.
        file.sync()?;
        file.write_at(0, &header)?;
        file.sync()?;
        if planted::is(Bug::DirectorySyncIgnored) {
            return Ok(());
        }
        disk.sync_directory(LOG_DIRECTORY)
    }

    pub(super) fn first(settings: &LogSettings) -> (Self, SegmentHeader) {
        let segment = super::FIRST_SEGMENT;
        let header = SegmentHeader {
            segment,
            cluster_id: settings.cluster_id,
            replica: settings.replica,
            salt: settings.salt,
            capacity: settings.capacity(segment),
        };
        (Self { header }, header)
    }
}
