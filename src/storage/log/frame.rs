//! The bytes around a record, and in front of a segment.

use bytes::Bytes;

use crate::codec::{Reader, Writer};
use crate::crypto::{Context, hash};
use crate::storage::log::{LogError, LogSettings};
use crate::types::{Digest, LogPosition, ReplicaId};

/// The format's version.
pub const LOG_VERSION: u16 = 1;

/// Bytes in front of a segment's first record.
pub const SEGMENT_HEADER_BYTES: u32 = 104;

/// Bytes in front of a record's payload.
pub const FRAME_HEAD_BYTES: u32 = 96;

/// Records start at multiples of this.
pub(super) const ALIGNMENT: u32 = 8;

const SEGMENT_MAGIC: [u8; 8] = *b"ALTHLOG\n";
pub(super) const FRAME_MAGIC: [u8; 4] = *b"\xa1REC";

/// A segment's header. Written and synced before the segment's first record, never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub segment: u32,
    pub cluster_id: Digest,
    pub replica: ReplicaId,
    /// The log's, equal in all its segments.
    pub salt: [u8; 16],
    /// Bytes of the file, all durable before the header is: a shorter one was cut off.
    pub capacity: u32,
}

impl SegmentHeader {
    fn body(&self) -> Writer {
        let mut writer = Writer::with_capacity(SEGMENT_HEADER_BYTES as usize);
        writer.raw(&SEGMENT_MAGIC);
        writer.u16(LOG_VERSION);
        writer.u16(self.replica.0);
        writer.u32(self.segment);
        writer.digest(&self.cluster_id);
        writer.raw(&self.salt);
        writer.u32(self.capacity);
        writer.u32(0);
        writer
    }

    /// The segment's identity: its record chain starts here and every checksum in it covers it, so
    /// that a record in the wrong segment is never valid.
    pub fn chain_start(&self) -> Digest {
        hash(&Context::LOG_RECORD, &[self.body().as_slice()])
    }

    pub fn encode(&self) -> Bytes {
        let mut writer = self.body();
        writer.digest(&self.chain_start());
        assert_eq!(writer.len(), SEGMENT_HEADER_BYTES as usize, "the header's length is fixed");
        writer.finish()
    }

    /// None if the bytes are no header; an error if they are one of somebody else.
    pub fn decode(
        bytes: &[u8],
        segment: u32,
        settings: &LogSettings,
    ) -> Result<Option<Self>, LogError> {
        let Some((magic, version, header, checksum)) = split_header(bytes) else {
            return Ok(None);
        };
        if magic != SEGMENT_MAGIC {
            return Ok(None);
        }
        // A version of 0 is never written; it is what a torn header reads as.
        if version != LOG_VERSION && version != 0 {
            return Err(LogError::Version { segment, found: version });
        }
        if header.chain_start() != checksum || header.segment != segment {
            return Ok(None);
        }
        if header.cluster_id != settings.cluster_id {
            let (found, own) = (header.cluster_id, settings.cluster_id);
            return Err(LogError::OtherNetwork { segment, found, own });
        }
        if header.replica != settings.replica {
            let (found, own) = (header.replica, settings.replica);
            return Err(LogError::OtherReplica { segment, found, own });
        }
        Ok(Some(header))
    }
}

fn split_header(bytes: &[u8]) -> Option<([u8; 8], u16, SegmentHeader, Digest)> {
    let mut reader = Reader::new(Bytes::copy_from_slice(bytes));
    let magic = reader.array("segment magic").ok()?;
    let version = reader.u16("segment version").ok()?;
    let replica = ReplicaId(reader.u16("segment replica").ok()?);
    let segment = reader.u32("segment number").ok()?;
    let cluster_id = reader.digest("segment network").ok()?;
    let salt = reader.array("segment salt").ok()?;
    let capacity = reader.u32("segment capacity").ok()?;
    reader.u32("segment padding").ok().filter(|padding| *padding == 0)?;
    let checksum = reader.digest("segment checksum").ok()?;
    let header = SegmentHeader { segment, cluster_id, replica, salt, capacity };
    Some((magic, version, header, checksum))
}

/// What stands in front of a record's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    /// Payload bytes.
    pub length: u32,
    pub position: LogPosition,
    /// Every record up to this one was durable before this one was written.
    pub synced: LogPosition,
    /// Checksum of the record before, or the segment's chain start.
    pub previous: Digest,
    pub checksum: Digest,
}

/// Bytes of a frame with this payload, padding included.
pub(super) fn framed_len(payload: usize) -> Option<u32> {
    let payload = u32::try_from(payload).ok()?;
    FRAME_HEAD_BYTES.checked_add(payload)?.checked_next_multiple_of(ALIGNMENT)
}

fn head_start(length: u32, position: LogPosition, synced: LogPosition) -> Writer {
    let mut writer = Writer::with_capacity(FRAME_HEAD_BYTES as usize);
    writer.raw(&FRAME_MAGIC);
    writer.u32(length);
    writer.u64(position.0);
    writer.u64(synced.0);
    writer
}

fn head_check(start: &Digest, offset: u32, head: &[u8]) -> u64 {
    let digest = hash(&Context::LOG_RECORD, &[&start.0, &offset.to_le_bytes(), head]);
    let mut low = [0; 8];
    low.copy_from_slice(&digest.0[..8]);
    u64::from_le_bytes(low)
}

fn checksum(head: &[u8], previous: &Digest, payload: &[u8]) -> Digest {
    hash(&Context::LOG_RECORD, &[head, &previous.0, payload])
}

impl FrameHead {
    /// Appends a whole frame to `out` and returns its checksum, the `previous` of the next one.
    pub fn write(
        (start, offset): (&Digest, u32),
        (position, synced): (LogPosition, LogPosition),
        previous: &Digest,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Digest {
        let length = u32::try_from(payload.len()).expect("the appender bounds a record");
        let mut head = head_start(length, position, synced);
        head.u64(head_check(start, offset, head.as_slice()));
        let checksum = checksum(head.as_slice(), previous, payload);
        head.digest(previous);
        head.digest(&checksum);
        assert_eq!(head.len(), FRAME_HEAD_BYTES as usize, "the head's length is fixed");
        out.extend_from_slice(head.as_slice());
        out.extend_from_slice(payload);
        out.resize(out.len().next_multiple_of(ALIGNMENT as usize), 0);
        checksum
    }

    /// None unless the first 32 bytes are a head written for this place.
    pub fn read(start: &Digest, offset: u32, bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..FRAME_HEAD_BYTES as usize)?;
        let mut reader = Reader::new(Bytes::copy_from_slice(head));
        let magic: [u8; 4] = reader.array("frame magic").ok()?;
        let length = reader.u32("frame length").ok()?;
        let position = LogPosition(reader.u64("frame position").ok()?);
        let synced = LogPosition(reader.u64("frame synced").ok()?);
        let check = reader.u64("frame check").ok()?;
        let previous = reader.digest("frame previous").ok()?;
        let checksum = reader.digest("frame checksum").ok()?;
        let whole = magic == FRAME_MAGIC && check == head_check(start, offset, &head[..24]);
        whole.then_some(Self { length, position, synced, previous, checksum })
    }

    /// Whether `payload` is what was written behind this head.
    pub fn matches(&self, start: &Digest, offset: u32, payload: &[u8]) -> bool {
        let mut head = head_start(self.length, self.position, self.synced);
        head.u64(head_check(start, offset, head.as_slice()));
        checksum(head.as_slice(), &self.previous, payload) == self.checksum
    }
}
