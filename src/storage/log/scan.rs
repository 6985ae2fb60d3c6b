//! Reading a segment's records in order, and looking for promised records behind a bad place.

use std::sync::Arc;

use bytes::Bytes;

use crate::chain::Record;
use crate::codec::Decode;
use crate::storage::disk::{Disk, DiskError, DiskErrorKind, DiskFile, Open};
use crate::storage::log::frame::{
    ALIGNMENT, FRAME_HEAD_BYTES, FRAME_MAGIC, FrameHead, SegmentHeader, framed_len,
};
use crate::storage::log::{
    LOG_DIRECTORY, LogError, LogSettings, Placed, SEGMENT_HEADER_BYTES, pruned_path, segment_path,
};
use crate::types::{Digest, LogPosition};

const WINDOW_BYTES: usize = 1 << 20;

/// The segments in the log's directory, ascending.
///
/// # Errors
/// [`DiskError`].
pub fn segments(disk: &dyn Disk) -> Result<Vec<u32>, DiskError> {
    numbered(disk, &[".segment"])
}

/// The segments that hold blocks, pruned ones included, ascending.
///
/// # Errors
/// [`DiskError`].
pub(super) fn block_segments(disk: &dyn Disk) -> Result<Vec<u32>, DiskError> {
    numbered(disk, &[".segment", ".pruned"])
}

/// The same without a last one whose making was cut short, which holds nothing.
///
/// # Errors
/// [`LogError`].
pub fn written_segments(disk: &dyn Disk, settings: &LogSettings) -> Result<Vec<u32>, LogError> {
    let mut segments = block_segments(disk)?;
    if let Some(last) = segments.last().copied() {
        match open_segment(disk, settings, last, Open::Read) {
            Ok(Opened::Unfinished) => drop(segments.pop()),
            // A pruned one has another name.
            Ok(Opened::Ready(_)) | Err(LogError::Missing { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(segments)
}

/// The segments that were pruned, ascending.
pub(super) fn pruned_segments(disk: &dyn Disk) -> Result<Vec<u32>, DiskError> {
    numbered(disk, &[".pruned"])
}

fn numbered(disk: &dyn Disk, suffixes: &[&str]) -> Result<Vec<u32>, DiskError> {
    let number =
        |name: &String| suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)?.parse().ok());
    let mut segments: Vec<u32> = disk.list(LOG_DIRECTORY)?.iter().filter_map(number).collect();
    segments.sort_unstable();
    segments.dedup();
    Ok(segments)
}

/// A file read in pieces of about 1 MiB.
pub(super) struct Window {
    file: Arc<dyn DiskFile>,
    length: u64,
    start: u64,
    buffer: Vec<u8>,
}

impl Window {
    pub fn new(file: Arc<dyn DiskFile>) -> Result<Self, DiskError> {
        let length = file.len()?;
        Ok(Self { file, length, start: 0, buffer: Vec::new() })
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    /// The file's length as it is now: a writer may have extended it.
    pub fn refresh(&mut self) -> Result<(), DiskError> {
        self.length = self.file.len()?;
        self.buffer.clear();
        Ok(())
    }

    /// None if the file ends before.
    pub fn bytes(&mut self, offset: u64, length: usize) -> Result<Option<&[u8]>, DiskError> {
        let Some(end) = offset.checked_add(length as u64).filter(|end| *end <= self.length) else {
            return Ok(None);
        };
        let held = self.start + self.buffer.len() as u64;
        if offset < self.start || end > held {
            let left = usize::try_from(self.length - offset).unwrap_or(usize::MAX);
            self.buffer.resize(length.max(WINDOW_BYTES).min(left), 0);
            self.start = offset;
            self.file.read_at(offset, &mut self.buffer)?;
        }
        let at = usize::try_from(offset - self.start).expect("inside the window");
        Ok(Some(&self.buffer[at..at + length]))
    }

    /// Whether all bytes from `offset` on are zero.
    pub fn zero_from(&mut self, offset: u64) -> Result<bool, DiskError> {
        Ok(self.nonzero_end(offset)? == offset)
    }

    /// One past the last byte at or behind `offset` that is not zero; `offset` if there is none.
    pub fn nonzero_end(&mut self, mut offset: u64) -> Result<u64, DiskError> {
        let mut end = offset;
        while offset < self.length {
            let left = usize::try_from(self.length - offset).unwrap_or(usize::MAX);
            let length = left.min(WINDOW_BYTES);
            let bytes = self.bytes(offset, length)?.unwrap_or_default();
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                end = offset + last as u64 + 1;
            }
            offset += length as u64;
        }
        Ok(end)
    }
}

/// What stands at the end of what was read so far.
pub(super) enum Step {
    /// The next record.
    Record { head: FrameHead, payload: Bytes },
    /// Zeros, or the end of the file.
    End,
    /// Neither.
    Bad(&'static str),
}

/// The state of a segment's header.
pub(super) enum Opened {
    /// Whole; the file is positioned at its first record.
    Ready(Box<SegmentReader>),
    /// No header and nothing behind it: its preparation was cut short.
    Unfinished,
}

impl Opened {
    fn with_gaps(self) -> Self {
        match self {
            Self::Ready(mut reader) => {
                reader.gaps = true;
                Self::Ready(reader)
            }
            Self::Unfinished => Self::Unfinished,
        }
    }
}

/// Reads a segment's records one after the other.
pub struct SegmentReader {
    window: Window,
    header: SegmentHeader,
    start: Digest,
    offset: u32,
    chain: Digest,
    expected: Option<LogPosition>,
    /// The segment was pruned: positions have gaps.
    gaps: bool,
}

impl SegmentReader {
    /// Opens a segment that holds records.
    ///
    /// # Errors
    /// [`LogError`]: absent, damaged, somebody else's.
    pub fn open(disk: &dyn Disk, settings: &LogSettings, segment: u32) -> Result<Self, LogError> {
        let opened = match open_segment(disk, settings, segment, Open::Read) {
            // Of a segment pruned meanwhile the old file goes last.
            Err(LogError::Missing { .. }) => {
                let place = (segment, pruned_path(segment));
                open_path(disk, settings, (place.0, &place.1), Open::Read)?.with_gaps()
            }
            other => other?,
        };
        match opened {
            Opened::Ready(reader) => Ok(*reader),
            Opened::Unfinished => Err(LogError::Missing { segment }),
        }
    }

    /// The next record; None at the end of what was written.
    ///
    /// # Errors
    /// [`LogError::Rot`] for anything that is neither a record nor zeros.
    #[allow(clippy::should_implement_trait, reason = "it fails, and needs no iterator")]
    pub fn next(&mut self) -> Result<Option<(LogPosition, Placed, Record)>, LogError> {
        let segment = self.header.segment;
        let offset = self.offset;
        match self.step()? {
            Step::Record { head, payload } => {
                let record = decode(segment, offset, payload)?;
                let placed = Placed { segment, offset: offset + FRAME_HEAD_BYTES };
                Ok(Some((head.position, placed, record)))
            }
            Step::End => Ok(None),
            Step::Bad(why) => {
                let position = self.expected.unwrap_or_default();
                Err(LogError::Rot { segment, offset: u64::from(offset), position, why })
            }
        }
    }

    pub(super) fn header(&self) -> SegmentHeader {
        self.header
    }

    pub(super) fn offset(&self) -> u32 {
        self.offset
    }

    pub(super) fn chain(&self) -> Digest {
        self.chain
    }

    pub(super) fn window(&mut self) -> &mut Window {
        &mut self.window
    }

    pub(super) fn expect(&mut self, position: LogPosition) {
        self.expected = Some(position);
    }

    /// The head at the current place, if there is a good one.
    pub(super) fn peek(&mut self) -> Result<Option<FrameHead>, DiskError> {
        let (start, offset) = (self.start, self.offset);
        let head = self.window.bytes(u64::from(offset), FRAME_HEAD_BYTES as usize)?;
        Ok(head.and_then(|bytes| FrameHead::read(&start, offset, bytes)))
    }

    /// Passes over the record at the current place without reading all of it.
    pub(super) fn skip(&mut self, head: &FrameHead) {
        let framed = framed_len(head.length as usize).unwrap_or(u32::MAX);
        self.offset = self.offset.saturating_add(framed);
        self.chain = head.checksum;
        self.expected = (!self.gaps).then(|| head.position.next());
    }

    /// Reads and checks what stands at the current place.
    pub(super) fn step(&mut self) -> Result<Step, DiskError> {
        let offset = u64::from(self.offset);
        let head_bytes = FRAME_HEAD_BYTES as usize;
        let Some(bytes) = self.window.bytes(offset, head_bytes)? else { return Ok(Step::End) };
        let Some(head) = FrameHead::read(&self.start, self.offset, bytes) else {
            let zero = bytes.iter().all(|byte| *byte == 0);
            return Ok(if zero { Step::End } else { Step::Bad("its head is damaged") });
        };
        if self.expected.is_some_and(|expected| expected != head.position) {
            return Ok(Step::Bad("it has another position in the log"));
        }
        if head.previous != self.chain {
            return Ok(Step::Bad("it does not follow the record before it"));
        }
        let Some(framed) = framed_len(head.length as usize) else {
            return Ok(Step::Bad("its length is impossible"));
        };
        let Some(bytes) = self.window.bytes(offset, framed as usize)? else {
            return Ok(Step::Bad("the file ends inside it"));
        };
        let (payload, padding) = bytes[head_bytes..].split_at(head.length as usize);
        let zero_padding = padding.iter().all(|byte| *byte == 0);
        if !zero_padding || !head.matches(&self.start, self.offset, payload) {
            return Ok(Step::Bad("its checksum does not match"));
        }
        let payload = Bytes::copy_from_slice(payload);
        self.skip(&head);
        Ok(Step::Record { head, payload })
    }

    /// Reads one frame anywhere in this segment, by the offset of its payload.
    pub(super) fn payload_at(&mut self, placed: u32) -> Result<Bytes, LogError> {
        let segment = self.header.segment;
        let rot = |why| LogError::Rot {
            segment,
            offset: u64::from(placed),
            position: LogPosition::default(),
            why,
        };
        let offset = placed.checked_sub(FRAME_HEAD_BYTES).ok_or(rot("no record starts there"))?;
        let head_bytes = FRAME_HEAD_BYTES as usize;
        let start = self.start;
        let bytes = self.window.bytes(u64::from(offset), head_bytes)?;
        let head = bytes.and_then(|bytes| FrameHead::read(&start, offset, bytes));
        let head = head.ok_or(rot("its head is damaged"))?;
        let length = head.length as usize;
        let payload = self.window.bytes(u64::from(placed), length)?;
        let payload = payload.ok_or(rot("the file ends inside it"))?;
        if !head.matches(&start, offset, payload) {
            return Err(rot("its checksum does not match"));
        }
        Ok(Bytes::copy_from_slice(payload))
    }

    /// The first place at or behind `from` where a record stands that was written when the record
    /// `expected` was already durable.
    pub(super) fn promised_behind(
        &mut self,
        from: u32,
        expected: LogPosition,
    ) -> Result<Option<u32>, DiskError> {
        let start = self.start;
        let mut offset = u64::from(from.next_multiple_of(ALIGNMENT));
        while offset + u64::from(FRAME_HEAD_BYTES) <= self.window.length() {
            let left = usize::try_from(self.window.length() - offset).unwrap_or(usize::MAX);
            let piece = self.window.bytes(offset, left.min(WINDOW_BYTES))?.unwrap_or_default();
            let step = ALIGNMENT as usize;
            let found = piece.chunks_exact(step).position(|word| word.starts_with(&FRAME_MAGIC));
            let Some(words) = found else {
                offset += (piece.len() / step * step).max(step) as u64;
                continue;
            };
            offset += (words * step) as u64;
            let Ok(place) = u32::try_from(offset) else { return Ok(None) };
            let bytes = self.window.bytes(offset, FRAME_HEAD_BYTES as usize)?;
            let head = bytes.and_then(|bytes| FrameHead::read(&start, place, bytes));
            if head.is_some_and(|head| head.position > expected && head.synced >= expected) {
                return Ok(Some(place));
            }
            offset += u64::from(ALIGNMENT);
        }
        Ok(None)
    }
}

/// Decodes a record that is whole.
pub(super) fn decode(segment: u32, offset: u32, payload: Bytes) -> Result<Record, LogError> {
    let offset = u64::from(offset);
    Record::from_bytes(payload).map_err(|error| LogError::Undecodable { segment, offset, error })
}

/// Opens a segment and checks its header.
pub(super) fn open_segment(
    disk: &dyn Disk,
    settings: &LogSettings,
    segment: u32,
    how: Open,
) -> Result<Opened, LogError> {
    open_path(disk, settings, (segment, &segment_path(segment)), how)
}

/// As [`open_segment`], under another name.
pub(super) fn open_path(
    disk: &dyn Disk,
    settings: &LogSettings,
    (segment, path): (u32, &str),
    how: Open,
) -> Result<Opened, LogError> {
    let file = disk.open(path, how).map_err(|error| match error.kind {
        DiskErrorKind::NotFound => LogError::Missing { segment },
        _ => LogError::Disk(error),
    })?;
    let mut window = Window::new(file)?;
    let bytes = window.bytes(0, SEGMENT_HEADER_BYTES as usize)?.unwrap_or_default().to_vec();
    let Some(header) = SegmentHeader::decode(&bytes, segment, settings)? else {
        // The header is durable before a record is written: without a header there may be none.
        if window.zero_from(u64::from(SEGMENT_HEADER_BYTES))? {
            return Ok(Opened::Unfinished);
        }
        let why = "the segment's header is damaged";
        return Err(LogError::Rot { segment, offset: 0, position: LogPosition::default(), why });
    };
    if window.length() < u64::from(header.capacity) {
        let (offset, why) = (window.length(), "the file is shorter than it was made");
        return Err(LogError::Rot { segment, offset, position: LogPosition::default(), why });
    }
    let start = header.chain_start();
    let offset = SEGMENT_HEADER_BYTES;
    let (chain, expected, gaps) = (start, None, false);
    let reader = SegmentReader { window, header, start, offset, chain, expected, gaps };
    Ok(Opened::Ready(Box::new(reader)))
}
