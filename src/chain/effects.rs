use bytes::Bytes;

use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::types::{Digest, Height, LeaseId, Revision};

/// The ordinal of a change that no op made: a lease expired.
pub const SYSTEM_ORDINAL: u32 = u32::MAX;

const CHANGES_MAX: usize = 16 << 20;

/// Put or delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ChangeKind {
    /// The key has a new version.
    Put = 1,
    /// The key is gone.
    Delete = 2,
}

/// One key changed at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which op of the block did it, counted over all entries from 0, or [`SYSTEM_ORDINAL`].
    pub ordinal: u32,
    /// The revision; several changes of one transaction share it.
    pub revision: Revision,
    /// Put or delete.
    pub kind: ChangeKind,
    /// The key.
    pub key: Bytes,
    /// The new value's commitment; zero for a delete.
    pub commitment: Digest,
    /// The lease that expired, for [`SYSTEM_ORDINAL`]; else 0.
    pub lease: LeaseId,
}

impl Encode for Change {
    fn encode(&self, writer: &mut Writer) {
        writer.u32(self.ordinal);
        writer.i64(self.revision.0);
        writer.u8(self.kind as u8);
        writer.bytes(&self.key);
        writer.digest(&self.commitment);
        writer.i64(self.lease.0);
    }
}

impl Decode for Change {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            ordinal: reader.u32("change ordinal")?,
            revision: Revision(reader.i64("change revision")?),
            kind: match reader.u8("change kind")? {
                1 => ChangeKind::Put,
                2 => ChangeKind::Delete,
                _ => return Err(DecodeError::Invalid("change kind")),
            },
            key: reader.bytes(64 << 10, "change key")?,
            commitment: reader.digest("change commitment")?,
            lease: LeaseId(reader.i64("change lease")?),
        })
    }
}

/// What executing a block changed. Kept in the log, because a compare on an erased value cannot be
/// repeated (layout.md 1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// The block.
    pub height: Height,
    /// The state's root after it.
    pub exec_root: Digest,
    /// In order of (revision, sub-revision).
    pub changes: Vec<Change>,
}

impl Encode for Effects {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.height.0);
        writer.digest(&self.exec_root);
        writer.length(self.changes.len());
        self.changes.iter().for_each(|change| change.encode(writer));
    }
}

impl Decode for Effects {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let height = Height(reader.u64("effects height")?);
        let exec_root = reader.digest("effects root")?;
        let mut changes = Vec::new();
        for _ in 0..reader.length(CHANGES_MAX, "effects changes")? {
            changes.push(Change::decode(reader)?);
        }
        Ok(Self { height, exec_root, changes })
    }
}
