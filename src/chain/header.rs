use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::crypto::{Context, hash};
use crate::types::{ClusterId, Digest, Epoch, Height, Millis, ReplicaId, View};

/// Bits of [`BlockHeader::flags`].
pub mod flags {
    /// No entries: the block only carries time forward.
    pub const TICK: u16 = 1;
    /// The last block of its epoch.
    pub const CONFIG: u16 = 2;
    /// Holds governance ops.
    pub const GOVERNANCE: u16 = 4;
    /// All bits that mean something.
    pub const ALL: u16 = TICK | CONFIG | GOVERNANCE;
}

/// Encoded length of a header.
pub const HEADER_BYTES: usize = 218;

/// What votes are about: a block's header, whose hash is the block's hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// [`flags`].
    pub flags: u16,
    /// The network.
    pub cluster_id: ClusterId,
    /// The membership in force.
    pub epoch: Epoch,
    /// Place in the chain, from 1.
    pub height: Height,
    /// The view of the *first* proposal; votes carry the voting view.
    pub view: View,
    /// That view's primary.
    pub proposer: ReplicaId,
    /// Block time: Unix milliseconds, never below the parent's.
    pub time_ms: Millis,
    /// Hash of the block before, zero for height 1.
    pub parent: Digest,
    /// Merkle root over the entries' digests.
    pub body_root: Digest,
    /// Bytes of the entries without values.
    pub skeleton_len: u32,
    /// Bytes of the values with their salts.
    pub values_len: u32,
    /// Ops in all bundles, a REJOIN counting as one.
    pub n_ops: u32,
    /// The height whose root this header carries: `max(epoch start, height - W)`.
    pub exec_height: Height,
    /// The state's root after `exec_height`.
    pub exec_root: Digest,
    /// Hash of membership and parameters in force.
    pub config_hash: Digest,
}

impl BlockHeader {
    /// The format's version, the first two bytes.
    pub const VERSION: u16 = 1;

    /// The block's hash.
    #[must_use]
    pub fn hash(&self) -> Digest {
        let mut writer = Writer::with_capacity(HEADER_BYTES);
        self.encode(&mut writer);
        hash(&Context::BLOCK_HEADER, &[writer.as_slice()])
    }
}

impl Encode for BlockHeader {
    fn encode(&self, writer: &mut Writer) {
        let start = writer.len();
        writer.u16(Self::VERSION);
        writer.u16(self.flags);
        writer.digest(&self.cluster_id);
        writer.u64(self.epoch.0);
        writer.u64(self.height.0);
        writer.u64(self.view.0);
        writer.u16(self.proposer.0);
        writer.u64(self.time_ms.0);
        writer.digest(&self.parent);
        writer.digest(&self.body_root);
        writer.u32(self.skeleton_len);
        writer.u32(self.values_len);
        writer.u32(self.n_ops);
        writer.u64(self.exec_height.0);
        writer.digest(&self.exec_root);
        writer.digest(&self.config_hash);
        assert_eq!(writer.len() - start, HEADER_BYTES, "the header's length is fixed");
    }
}

impl Decode for BlockHeader {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        if reader.u16("header version")? != Self::VERSION {
            return Err(DecodeError::Invalid("header version"));
        }
        let header = Self {
            flags: reader.u16("header flags")?,
            cluster_id: reader.digest("header cluster id")?,
            epoch: Epoch(reader.u64("header epoch")?),
            height: Height(reader.u64("header height")?),
            view: View(reader.u64("header view")?),
            proposer: ReplicaId(reader.u16("header proposer")?),
            time_ms: Millis(reader.u64("header time")?),
            parent: reader.digest("header parent")?,
            body_root: reader.digest("header body root")?,
            skeleton_len: reader.u32("header skeleton length")?,
            values_len: reader.u32("header values length")?,
            n_ops: reader.u32("header op count")?,
            exec_height: Height(reader.u64("header exec height")?),
            exec_root: reader.digest("header exec root")?,
            config_hash: reader.digest("header config hash")?,
        };
        if header.flags & !flags::ALL != 0 {
            return Err(DecodeError::Invalid("header flags"));
        }
        Ok(header)
    }
}
