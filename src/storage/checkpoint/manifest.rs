//! What names a checkpoint's chunks, and what this replica adds for its own restart.

use bytes::Bytes;

use crate::chain::{BlockHeader, HEADER_BYTES, Manifest};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::crypto::{Context, hash};
use crate::storage::checkpoint::CheckpointError;
use crate::storage::log::{Carried, ReplayMark};
use crate::storage::values::CHECKPOINT_BIT;
use crate::types::{ClusterId, LogPosition};

pub(super) const CHECKPOINT_VERSION: u16 = 2;
const MAGIC: [u8; 8] = *b"ALTHCKP\n";

/// A file of chunks is ended before it would exceed this: offsets in references are 32 bits.
pub(super) const FILE_BYTES_MAX: u32 = 1 << 30;

/// Where a chunk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkPlace {
    /// Number of the file.
    pub file: u32,
    /// Offset of the chunk's first byte in it.
    pub base: u32,
}

impl ChunkPlace {
    /// The file as [`crate::chain::ValueRef::segment`] names it.
    #[must_use]
    pub fn segment(&self) -> u32 {
        CHECKPOINT_BIT | self.file
    }
}

/// A checkpoint as this replica keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The part all replicas share.
    pub manifest: Manifest,
    /// The block's header.
    pub header: BlockHeader,
    /// Where the replay above begins.
    pub replay: ReplayMark,
    /// Number of the first file of chunks.
    pub first_file: u32,
}

impl Checkpoint {
    /// Where each chunk lies.
    #[must_use]
    pub fn places(&self) -> Vec<ChunkPlace> {
        places(&self.manifest, self.first_file)
    }

    /// Numbers of the files of chunks, ascending.
    #[must_use]
    pub fn files(&self) -> Vec<u32> {
        let mut files: Vec<u32> = self.places().iter().map(|place| place.file).collect();
        files.dedup();
        files
    }

    pub(in crate::storage) fn encode_file(&self) -> Bytes {
        let mut writer = Writer::new();
        writer.raw(&MAGIC);
        writer.u16(CHECKPOINT_VERSION);
        self.manifest.encode(&mut writer);
        self.header.encode(&mut writer);
        writer.u32(self.replay.segment);
        writer.u64(self.replay.first_position.0);
        self.replay.carried.encode(&mut writer);
        writer.u32(self.first_file);
        let checksum = hash(&Context::MANIFEST, &[writer.as_slice()]);
        writer.digest(&checksum);
        writer.finish()
    }

    /// Only bytes that [`Checkpoint::encode_file`] wrote for this network.
    pub(super) fn decode_file(
        bytes: &Bytes,
        path: &str,
        own: &ClusterId,
    ) -> Result<Self, CheckpointError> {
        let damaged = || CheckpointError::Manifest { path: path.to_owned() };
        let at = bytes.len().checked_sub(32).ok_or_else(damaged)?;
        let (content, checksum) = (bytes.slice(..at), bytes.slice(at..));
        let mut reader = Reader::new(content.clone());
        let magic: [u8; 8] = reader.array("manifest magic").map_err(|_| damaged())?;
        let version = reader.u16("manifest version").map_err(|_| damaged())?;
        if magic != MAGIC {
            return Err(damaged());
        }
        if version != CHECKPOINT_VERSION {
            return Err(CheckpointError::Version { path: path.to_owned(), found: version });
        }
        if hash(&Context::MANIFEST, &[&content]).0 != checksum[..] {
            return Err(damaged());
        }
        let checkpoint = Self::decode_content(&mut reader).map_err(|_| damaged())?;
        reader.finish().map_err(|_| damaged())?;
        if checkpoint.manifest.cluster_id != *own {
            let found = checkpoint.manifest.cluster_id;
            return Err(CheckpointError::OtherNetwork { path: path.to_owned(), found, own: *own });
        }
        Ok(checkpoint)
    }

    fn decode_content(reader: &mut Reader) -> Result<Self, DecodeError> {
        let manifest = Manifest::decode(reader)?;
        let header = BlockHeader::from_bytes(reader.raw(HEADER_BYTES, "checkpoint header")?)?;
        if header.hash() != manifest.block_hash || header.height != manifest.height {
            return Err(DecodeError::Invalid("checkpoint header"));
        }
        let replay = ReplayMark {
            segment: reader.u32("replay segment")?,
            first_position: LogPosition(reader.u64("replay position")?),
            carried: Carried::decode(reader)?,
        };
        let first_file = reader.u32("checkpoint file")?;
        Ok(Self { manifest, header, replay, first_file })
    }
}

/// Where each chunk lies when the first file has this number.
pub(in crate::storage) fn places(manifest: &Manifest, first_file: u32) -> Vec<ChunkPlace> {
    let (mut file, mut base) = (first_file, 0_u32);
    let mut places = Vec::with_capacity(manifest.chunks.len());
    for chunk in &manifest.chunks {
        (file, base) = place(file, base, chunk.length);
        places.push(ChunkPlace { file, base });
        base += chunk.length;
    }
    places
}

/// Where a chunk goes when the one before ended at `base` of `file`.
pub(super) fn place(file: u32, base: u32, length: u32) -> (u32, u32) {
    let fits = base.checked_add(length).is_some_and(|end| end <= FILE_BYTES_MAX);
    if base == 0 || fits { (file, base) } else { (file.saturating_add(1), 0) }
}
