use std::sync::Arc;

use bytes::Bytes;

use crate::chain::{Block, Certificate, CheckpointCertificate, Effects, EpochProof};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::types::{Digest, Epoch, Height, View};

/// What the write-ahead log holds: enough to rebuild every vote ever sent (consensus.md 6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// This replica entered a view, on this base.
    ViewEntered {
        /// The view's epoch.
        epoch: Epoch,
        /// The view.
        view: View,
        /// Height of the base.
        base_height: Height,
        /// Its hash.
        base_hash: Digest,
    },
    /// This replica left its view: a VIEW-CHANGE for `view`, as sent.
    ViewChangeSent {
        /// The new view's epoch.
        epoch: Epoch,
        /// The new view.
        view: View,
        /// The encoded message.
        message: Bytes,
    },
    /// A block, accepted or caught up.
    Block(Arc<Block>),
    /// q PREPAREs.
    Prepared(Certificate),
    /// q COMMITs.
    Committed(Certificate),
    /// What executing a block changed.
    Effects(Effects),
    /// A quorum holds this checkpoint.
    CheckpointStable(CheckpointCertificate),
    /// An epoch begins: how the one before ended.
    EpochStart(EpochProof),
    /// This replica found that its log was rolled back: no vote until it rejoins.
    Fenced {
        /// Why.
        reason: Bytes,
    },
    /// The certificate that ended a fence.
    Rejoined(Certificate),
    /// This replica's state is not the network's.
    Quarantined {
        /// Why.
        reason: Bytes,
    },
    /// The session counter in use from here on.
    Session {
        /// Larger than any before.
        counter: u64,
    },
}

impl Record {
    /// The tag byte, also shown by `althing log`.
    #[must_use]
    pub fn tag(&self) -> u8 {
        match self {
            Self::ViewEntered { .. } => 1,
            Self::ViewChangeSent { .. } => 2,
            Self::Block(_) => 3,
            Self::Prepared(_) => 4,
            Self::Committed(_) => 5,
            Self::Effects(_) => 6,
            Self::CheckpointStable(_) => 7,
            Self::EpochStart(_) => 8,
            Self::Fenced { .. } => 9,
            Self::Rejoined(_) => 10,
            Self::Quarantined { .. } => 11,
            Self::Session { .. } => 12,
        }
    }
}

impl Encode for Record {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(self.tag());
        match self {
            Self::ViewEntered { epoch, view, base_height, base_hash } => {
                writer.u64(epoch.0);
                writer.u64(view.0);
                writer.u64(base_height.0);
                writer.digest(base_hash);
            }
            Self::ViewChangeSent { epoch, view, message } => {
                writer.u64(epoch.0);
                writer.u64(view.0);
                writer.bytes(message);
            }
            Self::Block(block) => block.encode(writer),
            Self::Prepared(certificate)
            | Self::Committed(certificate)
            | Self::Rejoined(certificate) => certificate.encode(writer),
            Self::Effects(effects) => effects.encode(writer),
            Self::CheckpointStable(certificate) => certificate.encode(writer),
            Self::EpochStart(proof) => proof.encode(writer),
            Self::Fenced { reason } | Self::Quarantined { reason } => writer.bytes(reason),
            Self::Session { counter } => writer.u64(*counter),
        }
    }
}

const MESSAGE_MAX: usize = 1 << 20;
const REASON_MAX: usize = 4096;

impl Decode for Record {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.u8("record tag")? {
            1 => Self::ViewEntered {
                epoch: Epoch(reader.u64("record epoch")?),
                view: View(reader.u64("record view")?),
                base_height: Height(reader.u64("record base height")?),
                base_hash: reader.digest("record base")?,
            },
            2 => Self::ViewChangeSent {
                epoch: Epoch(reader.u64("record epoch")?),
                view: View(reader.u64("record view")?),
                message: reader.bytes(MESSAGE_MAX, "record message")?,
            },
            3 => Self::Block(Arc::new(Block::decode(reader)?)),
            4 => Self::Prepared(Certificate::decode(reader)?),
            5 => Self::Committed(Certificate::decode(reader)?),
            6 => Self::Effects(Effects::decode(reader)?),
            7 => Self::CheckpointStable(CheckpointCertificate::decode(reader)?),
            8 => Self::EpochStart(EpochProof::decode(reader)?),
            9 => Self::Fenced { reason: reader.bytes(REASON_MAX, "record reason")? },
            10 => Self::Rejoined(Certificate::decode(reader)?),
            11 => Self::Quarantined { reason: reader.bytes(REASON_MAX, "record reason")? },
            12 => Self::Session { counter: reader.u64("record session")? },
            _ => return Err(DecodeError::Invalid("record tag")),
        })
    }
}
