//! The write-ahead log: the one thing a replica's promises rest on (protocol: durable before visible).
//!
//! [`Appender`] plans writes on the protocol thread and touches no file; [`Batch`]es are written and
//! synced on the log thread; [`recover()`] reads the log back at start. A record names what was durable
//! when it was written, so recovery tells a torn tail, which nobody was promised and which is cut,
//! from rot inside, which is refused. Bytes: `docs/storage-format.md`.

mod appender;
mod blocks;
mod carried;
mod frame;
mod prune;
mod recover;
mod retain;
mod scan;

pub use appender::{Appender, Batch, LogWriter, Placed, Preparation, ReplayMark};
pub use blocks::{BlockReader, BlocksPage, FoundBlock};
pub use carried::Carried;
pub use frame::{FRAME_HEAD_BYTES, LOG_VERSION, SEGMENT_HEADER_BYTES};
pub use prune::{Horizon, PruneStep, prune_segment, prune_steps};
pub use recover::{Recovered, recover};
pub use retain::drop_oldest;
pub use scan::{SegmentReader, segments, written_segments};

use core::fmt;

use crate::codec::DecodeError;
use crate::storage::disk::{DiskError, DiskErrorKind};
use crate::types::{ClusterId, LogPosition, ReplicaId};

/// The log's directory below the data directory.
pub const LOG_DIRECTORY: &str = "log";

/// The file of a segment.
#[must_use]
pub fn segment_path(segment: u32) -> String {
    format!("{LOG_DIRECTORY}/{segment:010}.segment")
}

/// The file of a segment that was pruned.
#[must_use]
pub fn pruned_path(segment: u32) -> String {
    format!("{LOG_DIRECTORY}/{segment:010}.pruned")
}

/// What stays of a segment that was dropped.
#[must_use]
pub fn anchors_path(segment: u32) -> String {
    format!("{LOG_DIRECTORY}/{segment:010}.anchors")
}

/// Whose log it is, and how large its files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// The network.
    pub cluster_id: ClusterId,
    /// The replica.
    pub replica: ReplicaId,
    /// Drawn by the shell; used only if the log is new. It keys every checksum, so that a client who
    /// writes a well-formed record as a value forges nothing that recovery would find.
    pub salt: [u8; 16],
    /// Bytes of segment 1: small, so that a first start is quick.
    pub first_segment_bytes: u32,
    /// Bytes of the others. A record larger than that gets a segment of its own size.
    pub segment_bytes: u32,
}

impl LogSettings {
    /// 1 MiB, then 64 MiB each (performance.md 4.1).
    #[must_use]
    pub fn new(cluster_id: ClusterId, replica: ReplicaId, salt: [u8; 16]) -> Self {
        Self { cluster_id, replica, salt, first_segment_bytes: 1 << 20, segment_bytes: 64 << 20 }
    }

    fn capacity(&self, segment: u32) -> u32 {
        if segment == FIRST_SEGMENT { self.first_segment_bytes } else { self.segment_bytes }
    }
}

const FIRST_SEGMENT: u32 = 1;

/// Why the log cannot be read. None of these changes a byte on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogError {
    /// The disk refused.
    Disk(DiskError),
    /// Bytes that were promised are damaged or gone.
    Rot {
        /// The segment.
        segment: u32,
        /// Where in it.
        offset: u64,
        /// The record expected there.
        position: LogPosition,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A segment that must be there is not.
    Missing {
        /// Which.
        segment: u32,
    },
    /// The segment is another network's.
    OtherNetwork {
        /// Which segment.
        segment: u32,
        /// The network it names.
        found: ClusterId,
        /// This replica's.
        own: ClusterId,
    },
    /// The segment is another replica's or another log's.
    OtherReplica {
        /// Which segment.
        segment: u32,
        /// The replica it names.
        found: ReplicaId,
        /// This one.
        own: ReplicaId,
    },
    /// The segment is of another format version.
    Version {
        /// Which segment.
        segment: u32,
        /// The version it names.
        found: u16,
    },
    /// A record is whole but does not decode.
    Undecodable {
        /// The segment.
        segment: u32,
        /// Where in it.
        offset: u64,
        /// What the decoder says.
        error: DecodeError,
    },
}

impl LogError {
    /// Whether the log is damaged, so that the replica is quarantined until
    /// `althing replica repair` (protocol: corruption), a failed read included (faults.md D11).
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Rot { .. } | Self::Missing { .. } | Self::Undecodable { .. } => true,
            Self::Disk(error) => error.kind == DiskErrorKind::Failed,
            Self::OtherNetwork { .. } | Self::OtherReplica { .. } | Self::Version { .. } => false,
        }
    }
}

impl From<DiskError> for LogError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |segment: &u32| segment_path(*segment);
        match self {
            Self::Disk(error) => write!(f, "the log cannot be read: {error}"),
            Self::Rot { segment, offset, position, why } => write!(
                f,
                "log segment {segment} ({}) is damaged at offset {offset}, record {position}: {why}. \
                 What stood there was promised to others, so nothing is cut; \
                 run `althing replica repair`",
                path(segment)
            ),
            Self::Missing { segment } => write!(
                f,
                "log segment {segment} ({}) is missing; restore the file or run \
                 `althing replica repair`",
                path(segment)
            ),
            Self::OtherNetwork { segment, found, own } => write!(
                f,
                "log segment {segment} ({}) belongs to network {found}, this replica to {own}; \
                 check --data-dir and --genesis",
                path(segment)
            ),
            Self::OtherReplica { segment, found, own } => write!(
                f,
                "log segment {segment} ({}) belongs to another log (replica {found}; this is replica \
                 {own}); check --data-dir",
                path(segment)
            ),
            Self::Version { segment, found } => write!(
                f,
                "log segment {segment} ({}) has format version {found}, this program reads version \
                 {LOG_VERSION}; start the program that wrote it",
                path(segment)
            ),
            Self::Undecodable { segment, offset, error } => write!(
                f,
                "the record at offset {offset} of log segment {segment} ({}) is whole but {error}; it \
                 may come from a newer program; start that one or run `althing replica repair`",
                path(segment)
            ),
        }
    }
}

impl std::error::Error for LogError {}

#[cfg(test)]
mod tests;
