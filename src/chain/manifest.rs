use crate::chain::CheckpointId;
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::crypto::{Context, hash};
use crate::types::{ClusterId, Digest, Height};

/// The format of manifests.
pub const MANIFEST_VERSION: u16 = 2;

/// The format of what is in the chunks; who reads one that is newer reads it wrongly.
pub const CHUNK_FORMAT: u16 = 3;

/// Longest chunk: 1 MiB, or one value if that alone is larger.
pub const CHUNK_BYTES_MAX: usize = 6 << 20;

/// Most chunks of one checkpoint: about 128 GiB of state, and what one message can name.
const CHUNKS_MAX: usize = 1 << 17;
const EXEC_ROOTS_MAX: usize = 256;

/// One chunk's length and hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkEntry {
    /// Bytes.
    pub length: u32,
    /// Keyed blake3 of them.
    pub hash: Digest,
}

impl ChunkEntry {
    /// Of these bytes.
    #[must_use]
    pub fn of(chunk: &[u8]) -> Self {
        let length = u32::try_from(chunk.len()).expect("a chunk is at most a few MiB");
        Self { length, hash: hash(&Context::CHUNK, &[chunk]) }
    }
}

/// Adds the root after a block to those that a checkpoint there carries. Which these are follows from
/// the chain alone: `window` is the epoch's W, and nothing before the block that began the epoch counts
/// (protocol.md 16.1). A replica that kept fewer while W was smaller would else write another manifest.
pub fn carry_root(
    roots: &mut Vec<(Height, Digest)>,
    (height, root): (Height, Digest),
    window: u32,
    begins_epoch: bool,
) {
    if begins_epoch {
        roots.clear();
    }
    roots.push((height, root));
    let lowest = height.minus(u64::from(window));
    roots.retain(|(height, _)| *height >= lowest);
}

/// What a checkpoint consists of, equal on all replicas: CHECKPOINT votes are about its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The network.
    pub cluster_id: ClusterId,
    /// The state is as of this block.
    pub height: Height,
    /// Its hash.
    pub block_hash: Digest,
    /// The state's root after it.
    pub exec_root: Digest,
    /// Roots after the heights from the later of the epoch's start and `height` - W on, ascending, the
    /// checkpoint's own last: headers above carry them, and who was not there cannot compute them.
    pub exec_roots: Vec<(Height, Digest)>,
    /// In order.
    pub chunks: Vec<ChunkEntry>,
}

impl Manifest {
    /// What CHECKPOINT votes are about.
    #[must_use]
    pub fn root(&self) -> Digest {
        hash(&Context::MANIFEST, &[&self.to_bytes()])
    }

    /// What a CHECKPOINT vote names.
    #[must_use]
    pub fn id(&self) -> CheckpointId {
        CheckpointId {
            height: self.height,
            block_hash: self.block_hash,
            exec_root: self.exec_root,
            manifest_root: self.root(),
        }
    }

    /// Bytes of all chunks.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.length)).sum()
    }
}

impl Encode for Manifest {
    fn encode(&self, writer: &mut Writer) {
        writer.u16(MANIFEST_VERSION);
        writer.digest(&self.cluster_id);
        writer.u64(self.height.0);
        writer.digest(&self.block_hash);
        writer.digest(&self.exec_root);
        writer.length(self.exec_roots.len());
        for (height, root) in &self.exec_roots {
            writer.u64(height.0);
            writer.digest(root);
        }
        writer.length(self.chunks.len());
        for chunk in &self.chunks {
            writer.u32(chunk.length);
            writer.digest(&chunk.hash);
        }
    }
}

impl Decode for Manifest {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        if reader.u16("manifest version")? != MANIFEST_VERSION {
            return Err(DecodeError::Invalid("manifest version"));
        }
        let cluster_id = reader.digest("manifest network")?;
        let height = Height(reader.u64("manifest height")?);
        let block_hash = reader.digest("manifest block")?;
        let exec_root = reader.digest("manifest root")?;
        let mut exec_roots = Vec::new();
        for _ in 0..reader.length(EXEC_ROOTS_MAX, "manifest roots")? {
            let height = Height(reader.u64("manifest root height")?);
            exec_roots.push((height, reader.digest("manifest root")?));
        }
        let mut chunks = Vec::new();
        for _ in 0..reader.length(CHUNKS_MAX, "manifest chunks")? {
            let length = reader.u32("chunk length")?;
            if length as usize > CHUNK_BYTES_MAX {
                return Err(DecodeError::TooLong("chunk length"));
            }
            chunks.push(ChunkEntry { length, hash: reader.digest("chunk hash")? });
        }
        Ok(Self { cluster_id, height, block_hash, exec_root, exec_roots, chunks })
    }
}
