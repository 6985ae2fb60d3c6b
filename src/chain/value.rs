use core::fmt;

use bytes::Bytes;

use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::crypto::{Context, hash};
use crate::types::Digest;

/// An erasable value: the salt that hides it and its bytes.
///
/// Only the commitment is hashed into the chain, so erasing both breaks no hash; the salt keeps a short
/// Secret from being guessed (consensus.md 4).
#[derive(Clone, PartialEq, Eq)]
pub struct Value {
    /// Drawn by the admitting replica, never derived from anything kept.
    pub salt: [u8; 16],
    /// What the client wrote.
    pub bytes: Bytes,
}

impl Value {
    /// Longest value: etcd's request limit may be raised to 4 MiB (consensus.md 8).
    pub const BYTES_MAX: usize = 4 << 20;

    /// What the chain knows of this value.
    #[must_use]
    pub fn commitment(&self) -> Digest {
        hash(&Context::VALUE, &[&self.salt, &self.bytes])
    }

    /// The part of a commitment that references keep, so that garbage is noticed when it is read.
    #[must_use]
    pub fn check(commitment: &Digest) -> u32 {
        let [a, b, c, d, ..] = commitment.0;
        u32::from_le_bytes([a, b, c, d])
    }
}

impl fmt::Debug for Value {
    /// Never shows bytes: values do not reach logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({} bytes)", self.bytes.len())
    }
}

impl Encode for Value {
    fn encode(&self, writer: &mut Writer) {
        writer.raw(&self.salt);
        writer.bytes(&self.bytes);
    }
}

impl Decode for Value {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            salt: reader.array("value salt")?,
            bytes: reader.bytes(Self::BYTES_MAX, "value")?,
        })
    }
}

/// A value's place inside a skeleton: which of the bundle's values it is, and its commitment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueSlot {
    /// Ordinal among the bundle's values; slots count up from 0 in the order they are written.
    pub index: u32,
    /// [`Value::commitment`].
    pub commitment: Digest,
}

impl Encode for ValueSlot {
    fn encode(&self, writer: &mut Writer) {
        writer.u32(self.index);
        writer.digest(&self.commitment);
    }
}

impl Decode for ValueSlot {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            index: reader.u32("value slot")?,
            commitment: reader.digest("value commitment")?,
        })
    }
}

/// Where this replica keeps a value: a local fact, never hashed, serialised or compared between
/// replicas (layout.md 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ValueRef {
    /// A log segment, or a checkpoint file if the top bit is set.
    pub segment: u32,
    /// Offset of the 16 salt bytes in that file; a u32 length and the bytes follow.
    pub offset: u32,
    /// Length of the bytes alone.
    pub length: u32,
    /// [`Value::check`] of what was put there; 0 if it is not compared.
    pub check: u32,
}

/// Why a value could not be read.
#[derive(Debug, PartialEq, Eq)]
pub enum ValueError {
    /// Its file is gone: the value was compacted and pruned.
    Erased(ValueRef),
    /// The bytes are not what was written there.
    Rotten(ValueRef),
    /// The disk refused.
    Disk(String),
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Erased(at) => {
                write!(f, "the value at segment {} offset {} was erased", at.segment, at.offset)
            }
            Self::Rotten(at) => write!(
                f,
                "the value at segment {} offset {} is damaged; run `althing replica repair`",
                at.segment, at.offset
            ),
            Self::Disk(why) => write!(f, "a value could not be read: {why}"),
        }
    }
}

impl std::error::Error for ValueError {}

/// How `apply` and the shell get a value's bytes: recent blocks, then log segment, then checkpoint
/// chunk (state.md 0.2).
pub trait ValueSource: Send + Sync {
    /// Reads one value.
    ///
    /// # Errors
    /// [`ValueError`].
    fn read(&self, at: ValueRef) -> Result<Value, ValueError>;

    /// Reads many; neighbouring ones in one read of the file. The order of the answers is that of
    /// `refs`.
    ///
    /// # Errors
    /// The first [`ValueError`].
    fn read_many(&self, refs: &[ValueRef]) -> Result<Vec<Value>, ValueError> {
        refs.iter().map(|at| self.read(*at)).collect()
    }
}
