//! One change and who asked for it.

use bytes::Bytes;

use crate::chain::{Author, Block, ChangeKind, Effects, Entry, SYSTEM_ORDINAL};
use crate::storage::index::{Decode, DecodeError, Encode, Reader, Writer};
use crate::types::{Height, LeaseId, ReplicaId, Revision};

/// Who caused a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WrittenBy {
    /// A client's op. Only the origin, hence its organisation, is proved; the names are its claim
    /// (trust.md 3.1).
    Client {
        /// The replica that admitted and signed it.
        origin: ReplicaId,
        /// The client certificate's common name; empty without one.
        client_name: Bytes,
        /// The etcd user; empty without authentication.
        user: Bytes,
    },
    /// The system: a lease expired.
    LeaseExpiry {
        /// Which.
        lease: LeaseId,
    },
}

/// Where a change of a key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// The key.
    pub key: Bytes,
    /// The revision the change made.
    pub revision: Revision,
    /// The block.
    pub height: Height,
    /// The op in the block, counted over all entries from 0, or [`SYSTEM_ORDINAL`].
    pub ordinal: u32,
    /// Put or delete.
    pub kind: ChangeKind,
    /// Who.
    pub by: WrittenBy,
}

/// One entry per change of a block. A change of an op the block does not have is left out.
pub(super) fn provenances(block: &Block, effects: &Effects) -> Vec<Provenance> {
    let mut authors: Vec<Option<(ReplicaId, &Author)>> = Vec::new();
    for entry in &block.entries {
        match entry {
            Entry::Bundle(bundle) => authors
                .extend(bundle.skeletons.iter().map(|one| Some((bundle.origin, &one.author)))),
            Entry::Rejoin(_) => authors.push(None),
        }
    }
    let by = |ordinal: u32, lease: LeaseId| {
        if ordinal == SYSTEM_ORDINAL {
            return Some(WrittenBy::LeaseExpiry { lease });
        }
        let (origin, author) = (*authors.get(ordinal as usize)?)?;
        let (client_name, user) = (author.client_name.clone(), author.user.clone());
        Some(WrittenBy::Client { origin, client_name, user })
    };
    let entry = |change: &crate::chain::Change| {
        Some(Provenance {
            key: change.key.clone(),
            revision: change.revision,
            height: effects.height,
            ordinal: change.ordinal,
            kind: change.kind,
            by: by(change.ordinal, change.lease)?,
        })
    };
    effects.changes.iter().filter_map(entry).collect()
}

impl Encode for Provenance {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(&self.key);
        writer.i64(self.revision.0);
        writer.u64(self.height.0);
        writer.u32(self.ordinal);
        writer.u8(self.kind as u8);
        match &self.by {
            WrittenBy::Client { origin, client_name, user } => {
                writer.u8(1);
                writer.u16(origin.0);
                writer.bytes(client_name);
                writer.bytes(user);
            }
            WrittenBy::LeaseExpiry { lease } => {
                writer.u8(2);
                writer.i64(lease.0);
            }
        }
    }
}

impl Decode for Provenance {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            key: reader.bytes(64 << 10, "entry key")?,
            revision: Revision(reader.i64("entry revision")?),
            height: Height(reader.u64("entry height")?),
            ordinal: reader.u32("entry ordinal")?,
            kind: match reader.u8("entry kind")? {
                1 => ChangeKind::Put,
                2 => ChangeKind::Delete,
                _ => return Err(DecodeError::Invalid("entry kind")),
            },
            by: match reader.u8("entry author")? {
                1 => WrittenBy::Client {
                    origin: ReplicaId(reader.u16("entry origin")?),
                    client_name: reader.bytes(Author::NAME_BYTES_MAX, "entry client name")?,
                    user: reader.bytes(Author::NAME_BYTES_MAX, "entry user")?,
                },
                2 => WrittenBy::LeaseExpiry { lease: LeaseId(reader.i64("entry lease")?) },
                _ => return Err(DecodeError::Invalid("entry author")),
            },
        })
    }
}
