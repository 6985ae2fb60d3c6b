use bytes::Bytes;

use crate::chain::{BlockHeader, Bundle, HEADER_BYTES};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::crypto::{
    Context, PublicKey, Scheme, Signature, SignedKind, hash, merkle_root, signed_bytes,
};
use crate::types::{ClusterId, Digest, Epoch, ReplicaId};

/// Most bytes of one encoded block: one bundle at its limit, or many up to about 1 MiB.
pub const BLOCK_BYTES_MAX: usize = 6 << 20;

const ENTRIES_MAX: usize = 16 << 10;

/// A replica's request to vote again after it lost its disk (consensus.md 6, R3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejoin {
    /// The epoch it was made in.
    pub epoch: Epoch,
    /// Who.
    pub replica: ReplicaId,
    /// Drawn at this start of the process, never read from disk.
    pub nonce: [u8; 32],
    /// The replica's.
    pub signature: Signature,
}

impl Rejoin {
    /// Signs a REJOIN with a nonce drawn at this start of the process.
    #[must_use]
    pub fn sign(
        epoch: Epoch,
        replica: ReplicaId,
        nonce: [u8; 32],
        cluster_id: &ClusterId,
        scheme: &dyn Scheme,
    ) -> Self {
        let mut rejoin = Self { epoch, replica, nonce, signature: Signature([0; 64]) };
        let digest = rejoin.digest();
        let message = signed_bytes(SignedKind::Rejoin, cluster_id, epoch, &digest);
        rejoin.signature = scheme.sign(&message);
        rejoin
    }

    fn digest(&self) -> Digest {
        let mut writer = Writer::new();
        writer.u64(self.epoch.0);
        writer.u16(self.replica.0);
        writer.raw(&self.nonce);
        hash(&Context::REJOIN, &[writer.as_slice()])
    }

    /// Whether the replica signed it.
    #[must_use]
    pub fn verify(&self, cluster_id: &ClusterId, key: &PublicKey, scheme: &dyn Scheme) -> bool {
        let message = signed_bytes(SignedKind::Rejoin, cluster_id, self.epoch, &self.digest());
        scheme.verify(key, &message, &self.signature)
    }
}

impl Encode for Rejoin {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.epoch.0);
        writer.u16(self.replica.0);
        writer.raw(&self.nonce);
        writer.raw(&self.signature.0);
    }
}

impl Decode for Rejoin {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            epoch: Epoch(reader.u64("rejoin epoch")?),
            replica: ReplicaId(reader.u16("rejoin replica")?),
            nonce: reader.array("rejoin nonce")?,
            signature: Signature(reader.array("rejoin signature")?),
        })
    }
}

/// What a block orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Client requests.
    Bundle(Bundle),
    /// A replica comes back.
    Rejoin(Rejoin),
}

impl Entry {
    /// The leaf of this entry under `body_root`; it covers the signature, so one root has one body.
    fn digest(&self) -> Digest {
        let (tag, digest, signature) = match self {
            Self::Bundle(bundle) => (1_u8, bundle.digest(), &bundle.signature),
            Self::Rejoin(rejoin) => (2, rejoin.digest(), &rejoin.signature),
        };
        hash(&Context::BODY, &[&[tag], &digest.0, &signature.0])
    }

    fn n_ops(&self) -> usize {
        match self {
            Self::Bundle(bundle) => bundle.skeletons.len(),
            Self::Rejoin(_) => 1,
        }
    }
}

/// A header with its body, and the bytes they were read from or written to.
///
/// Encoded: header, entries without values (`skeleton_len` bytes), 1 if the values follow or 0 if
/// they were erased, values (`values_len` bytes) in slot order: salt 16, length u32, bytes.
#[derive(Clone, Debug)]
pub struct Block {
    /// What votes are about.
    pub header: BlockHeader,
    /// In order of execution.
    pub entries: Vec<Entry>,
    hash: Digest,
    encoded: Bytes,
}

impl PartialEq for Block {
    fn eq(&self, other: &Self) -> bool {
        self.encoded == other.encoded
    }
}

impl Eq for Block {}

/// Entries encoded once, so that a header can be written over them.
pub struct BlockParts {
    entries: Vec<Entry>,
    skeleton: Bytes,
    values_len: usize,
}

impl BlockParts {
    /// Encodes `entries`, whose bundles hold their values.
    #[must_use]
    pub fn new(entries: Vec<Entry>) -> Self {
        let mut writer = Writer::new();
        writer.length(entries.len());
        for entry in &entries {
            match entry {
                Entry::Bundle(bundle) => {
                    writer.u8(1);
                    writer.bytes(bundle.content());
                    writer.raw(&bundle.signature.0);
                }
                Entry::Rejoin(rejoin) => {
                    writer.u8(2);
                    rejoin.encode(&mut writer);
                }
            }
        }
        let values_len = entries
            .iter()
            .map(|entry| match entry {
                Entry::Bundle(bundle) => bundle.values_len(),
                Entry::Rejoin(_) => 0,
            })
            .sum();
        Self { entries, skeleton: writer.finish(), values_len }
    }

    /// Completes `header`'s four body fields and joins it with the entries.
    #[must_use]
    pub fn into_block(self, mut header: BlockHeader) -> Block {
        header.body_root = body_root(&self.entries);
        header.skeleton_len =
            u32::try_from(self.skeleton.len()).expect("a block is at most a few MiB");
        header.values_len = u32::try_from(self.values_len).expect("a block is at most a few MiB");
        header.n_ops = n_ops(&self.entries);
        let length = HEADER_BYTES + self.skeleton.len() + 1 + self.values_len;
        let mut writer = Writer::with_capacity(length);
        header.encode(&mut writer);
        writer.raw(&self.skeleton);
        writer.u8(1);
        for entry in &self.entries {
            if let Entry::Bundle(bundle) = entry {
                bundle.values.iter().for_each(|value| value.encode(&mut writer));
            }
        }
        assert_eq!(writer.len(), length, "a block's length is known before it is written");
        let hash = header.hash();
        Block { header, entries: self.entries, hash, encoded: writer.finish() }
    }
}

fn body_root(entries: &[Entry]) -> Digest {
    let leaves: Vec<Digest> = entries.iter().map(Entry::digest).collect();
    merkle_root(&Context::BODY, &leaves)
}

fn n_ops(entries: &[Entry]) -> u32 {
    u32::try_from(entries.iter().map(Entry::n_ops).sum::<usize>()).unwrap_or(u32::MAX)
}

impl Block {
    /// The header's hash.
    #[must_use]
    pub fn hash(&self) -> Digest {
        self.hash
    }

    /// The canonical bytes, as sent and logged.
    #[must_use]
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// Whether the values are there.
    #[must_use]
    pub fn has_values(&self) -> bool {
        self.encoded.get(self.values_tag_at()) == Some(&1)
    }

    fn values_tag_at(&self) -> usize {
        HEADER_BYTES + self.header.skeleton_len as usize
    }

    /// The offset of each value (its salt) within [`Block::encoded`], entry by entry in slot order.
    #[must_use]
    pub fn value_offsets(&self) -> Vec<Vec<u32>> {
        let mut at = self.values_tag_at() + 1;
        self.entries
            .iter()
            .map(|entry| match entry {
                Entry::Bundle(bundle) => bundle
                    .values
                    .iter()
                    .map(|value| {
                        let offset = u32::try_from(at).expect("a block is at most a few MiB");
                        at += 20 + value.bytes.len();
                        offset
                    })
                    .collect(),
                Entry::Rejoin(_) => Vec::new(),
            })
            .collect()
    }

    /// The bundles, in order.
    pub fn bundles(&self) -> impl Iterator<Item = &Bundle> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Bundle(bundle) => Some(bundle),
            Entry::Rejoin(_) => None,
        })
    }

    /// The same block with values and salts erased: no hash changes.
    #[must_use]
    pub fn without_values(&self) -> Self {
        let mut writer = Writer::with_capacity(self.values_tag_at() + 1);
        writer.raw(&self.encoded[..self.values_tag_at()]);
        writer.u8(0);
        let mut entries = self.entries.clone();
        for entry in &mut entries {
            if let Entry::Bundle(bundle) = entry {
                bundle.values.clear();
            }
        }
        Self { header: self.header.clone(), entries, hash: self.hash, encoded: writer.finish() }
    }
}

impl Encode for Block {
    fn encode(&self, writer: &mut Writer) {
        writer.raw(&self.encoded);
    }

    fn to_bytes(&self) -> Bytes {
        self.encoded.clone()
    }
}

impl Decode for Block {
    /// Also checks `body_root` and the lengths and counts of the header, which bytes alone decide;
    /// signatures, commitments and everything else are `check`'s.
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let start = reader.position();
        let header = BlockHeader::decode(reader)?;
        let skeleton_start = reader.position();
        let mut entries = Vec::new();
        for _ in 0..reader.length(ENTRIES_MAX, "block entries")? {
            entries.push(decode_entry(reader)?);
        }
        if reader.position() - skeleton_start != header.skeleton_len as usize {
            return Err(DecodeError::Invalid("header skeleton length"));
        }
        if reader.bool("block values tag")? {
            let values_start = reader.position();
            for entry in &mut entries {
                if let Entry::Bundle(bundle) = entry {
                    bundle.decode_values(reader)?;
                }
            }
            if reader.position() - values_start != header.values_len as usize {
                return Err(DecodeError::Invalid("header values length"));
            }
        }
        if body_root(&entries) != header.body_root {
            return Err(DecodeError::Invalid("header body root"));
        }
        if n_ops(&entries) != header.n_ops {
            return Err(DecodeError::Invalid("header op count"));
        }
        let encoded = reader.slice(start, reader.position());
        let hash = header.hash();
        Ok(Self { header, entries, hash, encoded })
    }
}

fn decode_entry(reader: &mut Reader) -> Result<Entry, DecodeError> {
    match reader.u8("block entry")? {
        1 => {
            let content = reader.bytes(BLOCK_BYTES_MAX, "bundle")?;
            let signature = Signature(reader.array("bundle signature")?);
            Ok(Entry::Bundle(Bundle::decode_content(content, signature)?))
        }
        2 => Ok(Entry::Rejoin(Rejoin::decode(reader)?)),
        _ => Err(DecodeError::Invalid("block entry")),
    }
}
