use std::sync::Arc;

use bytes::Bytes;

use crate::chain::{
    BLOCK_BYTES_MAX, BUNDLE_BYTES_MAX, Block, BlockHeader, Bundle, CHUNK_BYTES_MAX, Certificate,
    CheckpointCertificate, CheckpointVote, EpochProof, Evidence, Manifest, NewView, Rejoin,
    ViewChange, Vote,
};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::ordering::{Status, VotesAnswer};
use crate::types::{Digest, Epoch, Height};

/// Names one ReadIndex question for ever: the process's start nonce and a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadNonce {
    /// The asking process's.
    pub start: [u8; 32],
    /// Counts its questions.
    pub counter: u64,
}

/// A voter's answer to [`Message::ReadIndex`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadAnswer {
    /// The question's.
    pub nonce: ReadNonce,
    /// The voter's epoch.
    pub epoch: Epoch,
    /// The highest height it sent a COMMIT for or holds a commit certificate of.
    pub mark: Height,
    /// Its committed height.
    pub committed: Height,
}

/// What replicas tell each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A block, proposed with the primary's PREPARE.
    PrePrepare {
        /// With its values.
        block: Arc<Block>,
        /// The primary's, for this block alone.
        prepare: Vote,
    },
    /// PREPARE and COMMIT range votes of the sender.
    Votes(Vec<Vote>),
    /// See [`ViewChange`].
    ViewChange(Arc<ViewChange>),
    /// See [`NewView`].
    NewView(Arc<NewView>),
    /// See [`Status`].
    Status(Status),
    /// A certificate shown to a replica that is behind or asked for it.
    Certificate(Certificate),
    /// Requests, to the primary or, if it is slow, to all.
    Bundle(Bundle),
    /// What is the highest height you may have helped to commit?
    ReadIndex {
        /// Comes back in the answer.
        nonce: ReadNonce,
    },
    /// See [`ReadAnswer`].
    ReadAnswer(ReadAnswer),
    /// Show a prepared or commit certificate at or above `mark`, which you answered.
    ReadProof {
        /// The height.
        mark: Height,
    },
    /// Send committed blocks.
    GetBlocks {
        /// First height.
        from: Height,
        /// Last height.
        until: Height,
    },
    /// A page of committed blocks: consecutive heights, the last one certified or the parent of what the
    /// receiver holds.
    Blocks {
        /// In ascending order, with values.
        blocks: Vec<Arc<Block>>,
        /// The commit certificate of the last one, or of a later one.
        certificate: Certificate,
    },
    /// Send a block that may not be committed yet.
    GetBody {
        /// Its hash.
        hash: Digest,
    },
    /// The answer to [`Message::GetBody`].
    Body(Arc<Block>),
    /// Let the sender, or the one it relays for, vote again.
    Rejoin(Rejoin),
    /// What do you hold of mine?
    VotesQuestion {
        /// The asking process's.
        start_nonce: [u8; 32],
    },
    /// See [`VotesAnswer`].
    VotesAnswer(Box<VotesAnswer>),
    /// Send how epochs ended.
    GetEpochs {
        /// The first epoch whose end is wanted.
        from: Epoch,
    },
    /// How consecutive epochs ended.
    Epochs(Vec<EpochProof>),
    /// The sender holds a checkpoint durably.
    Checkpoint(CheckpointVote),
    /// A quorum holds a checkpoint: shown to a replica that has not heard of it.
    CheckpointCertificate(CheckpointCertificate),
    /// Send the manifest of a stable checkpoint.
    GetManifest {
        /// Its root, as the certificate names it.
        root: Digest,
    },
    /// The answer to [`Message::GetManifest`].
    Manifest {
        /// The root asked for.
        root: Digest,
        /// Header of the checkpoint's block, and the manifest; none if the sender does not hold it.
        content: Option<(BlockHeader, Arc<Manifest>)>,
    },
    /// Send a chunk of a checkpoint.
    GetChunk {
        /// The manifest's root.
        root: Digest,
        /// Which chunk of it, from 0.
        number: u32,
    },
    /// The answer to [`Message::GetChunk`].
    Chunk {
        /// The manifest's root.
        root: Digest,
        /// Which chunk.
        number: u32,
        /// As the manifest names it; none if the sender does not hold it.
        bytes: Option<Bytes>,
    },
    /// The answer to [`Message::GetBlocks`] when values from there on are erased.
    Erased {
        /// The first height asked for.
        from: Height,
        /// The checkpoint to use instead.
        certificate: CheckpointCertificate,
    },
    /// A vote of somebody else that contradicts a third replica's, both checked (protocol.md 13.3).
    Shown(Arc<Vote>),
    /// A proof of misbehaviour.
    Evidence(Arc<Evidence>),
    /// Send the sender, which has no vote, every block as it commits.
    Follow {
        /// The first height wanted; 0: go on.
        from: Height,
    },
}

/// Most votes of one [`Message::Votes`]: a PREPARE and a COMMIT range, twice over on a repeat.
const VOTES_MAX: usize = 4;
/// Most bytes of one page, unless a single block is larger (protocol.md 11).
pub const PAGE_BYTES_MAX: usize = 1 << 20;
/// Most blocks of one page, and most that one certificate commits at a replica that catches up. So no log
/// has a wider gap between two certificates, and no page needs to be wider.
pub(super) const PAGE_BLOCKS_MAX: usize = 256;

/// Most proofs of one [`Message::Epochs`].
pub(super) const EPOCHS_MAX: usize = 64;

const FRAME: usize = 64 << 10;

impl Message {
    /// Most bytes any message takes.
    pub const BYTES_MAX: usize = BLOCK_BYTES_MAX + FRAME;

    fn tag(&self) -> u8 {
        match self {
            Self::PrePrepare { .. } => 1,
            Self::Votes(_) => 2,
            Self::ViewChange(_) => 3,
            Self::NewView(_) => 4,
            Self::Status(_) => 5,
            Self::Certificate(_) => 6,
            Self::Bundle(_) => 7,
            Self::ReadIndex { .. } => 8,
            Self::ReadAnswer(_) => 9,
            Self::ReadProof { .. } => 10,
            Self::GetBlocks { .. } => 11,
            Self::Blocks { .. } => 12,
            Self::GetBody { .. } => 13,
            Self::Body(_) => 14,
            Self::Rejoin(_) => 21,
            Self::VotesQuestion { .. } => 22,
            Self::VotesAnswer(_) => 23,
            Self::GetEpochs { .. } => 24,
            Self::Epochs(_) => 25,
            Self::Checkpoint(_) => 15,
            Self::CheckpointCertificate(_) => 16,
            Self::GetManifest { .. } => 17,
            Self::Manifest { .. } => 18,
            Self::GetChunk { .. } => 19,
            Self::Chunk { .. } => 20,
            Self::Erased { .. } => 26,
            Self::Shown(_) => 27,
            Self::Evidence(_) => 28,
            Self::Follow { .. } => 29,
        }
    }

    /// Whether the message is bulk: large and late is better than in the way of votes.
    #[must_use]
    pub fn is_bulk(&self) -> bool {
        matches!(
            self,
            Self::Blocks { .. }
                | Self::Body(_)
                | Self::Manifest { .. }
                | Self::Chunk { .. }
                | Self::Epochs(_)
                | Self::Evidence(_)
        )
    }

    /// Most bytes of a message with this tag, checked before anything is decoded (protocol.md 10).
    fn bytes_max(tag: u8) -> Option<usize> {
        match tag {
            2 => Some(4 * (4 << 10)),
            3 | 6 | 16 | 23 | 26 => Some(64 << 10),
            4 => Some(1 << 20),
            28 => Some((1 << 20) + FRAME),
            5 | 8..=11 | 13 | 15 | 17 | 19 | 21 | 22 | 24 | 27 | 29 => Some(4 << 10),
            7 => Some(BUNDLE_BYTES_MAX + FRAME),
            1 | 12 | 14 | 18 | 20 | 25 => Some(Self::BYTES_MAX),
            _ => None,
        }
    }
}

fn put_manifest(
    root: &Digest,
    content: Option<&(BlockHeader, Arc<Manifest>)>,
    writer: &mut Writer,
) {
    writer.digest(root);
    writer.bool(content.is_some());
    if let Some((header, manifest)) = content {
        header.encode(writer);
        manifest.encode(writer);
    }
}

fn put_nonce(nonce: &ReadNonce, writer: &mut Writer) {
    writer.raw(&nonce.start);
    writer.u64(nonce.counter);
}

fn get_nonce(reader: &mut Reader) -> Result<ReadNonce, DecodeError> {
    Ok(ReadNonce { start: reader.array("read nonce")?, counter: reader.u64("read counter")? })
}

impl Encode for Message {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(self.tag());
        match self {
            Self::PrePrepare { block, prepare } => {
                prepare.encode(writer);
                block.encode(writer);
            }
            Self::Votes(votes) => {
                writer.length(votes.len());
                votes.iter().for_each(|vote| vote.encode(writer));
            }
            Self::ViewChange(view_change) => view_change.encode(writer),
            Self::NewView(new_view) => new_view.encode(writer),
            Self::Status(status) => status.encode(writer),
            Self::Certificate(certificate) => certificate.encode(writer),
            Self::Bundle(bundle) => bundle.encode(writer),
            Self::ReadIndex { nonce } => put_nonce(nonce, writer),
            Self::ReadAnswer(answer) => {
                put_nonce(&answer.nonce, writer);
                writer.u64(answer.epoch.0);
                writer.u64(answer.mark.0);
                writer.u64(answer.committed.0);
            }
            Self::ReadProof { mark } => writer.u64(mark.0),
            Self::GetBlocks { from, until } => {
                writer.u64(from.0);
                writer.u64(until.0);
            }
            Self::Blocks { blocks, certificate } => {
                certificate.encode(writer);
                writer.length(blocks.len());
                blocks.iter().for_each(|block| block.encode(writer));
            }
            Self::GetBody { hash } => writer.digest(hash),
            Self::Body(block) => block.encode(writer),
            Self::Rejoin(rejoin) => rejoin.encode(writer),
            Self::VotesQuestion { start_nonce } => writer.raw(start_nonce),
            Self::VotesAnswer(answer) => answer.encode(writer),
            Self::GetEpochs { from } => writer.u64(from.0),
            Self::Epochs(proofs) => {
                writer.length(proofs.len());
                proofs.iter().for_each(|proof| proof.encode(writer));
            }
            Self::Checkpoint(vote) => vote.encode(writer),
            Self::CheckpointCertificate(certificate) => certificate.encode(writer),
            Self::GetManifest { root } => writer.digest(root),
            Self::Manifest { root, content } => put_manifest(root, content.as_ref(), writer),
            Self::GetChunk { root, number } => {
                writer.digest(root);
                writer.u32(*number);
            }
            Self::Chunk { root, number, bytes } => {
                writer.digest(root);
                writer.u32(*number);
                writer.bool(bytes.is_some());
                if let Some(bytes) = bytes {
                    writer.bytes(bytes);
                }
            }
            Self::Erased { from, certificate } => {
                writer.u64(from.0);
                certificate.encode(writer);
            }
            Self::Shown(vote) => vote.encode(writer),
            Self::Evidence(evidence) => evidence.encode(writer),
            Self::Follow { from } => writer.u64(from.0),
        }
    }
}

impl Message {
    /// Checkpoints, their transfer, evidence, and the feed.
    fn decode_later(tag: u8, reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match tag {
            15 => Self::Checkpoint(CheckpointVote::decode(reader)?),
            16 => Self::CheckpointCertificate(CheckpointCertificate::decode(reader)?),
            17 => Self::GetManifest { root: reader.digest("manifest asked")? },
            18 => {
                let root = reader.digest("manifest asked")?;
                let content = if reader.bool("manifest held")? {
                    let header = BlockHeader::decode(reader)?;
                    Some((header, Arc::new(Manifest::decode(reader)?)))
                } else {
                    None
                };
                Self::Manifest { root, content }
            }
            19 => Self::GetChunk {
                root: reader.digest("chunk's manifest")?,
                number: reader.u32("chunk number")?,
            },
            20 => {
                let root = reader.digest("chunk's manifest")?;
                let number = reader.u32("chunk number")?;
                let held = reader.bool("chunk held")?;
                let bytes = if held { Some(reader.bytes(CHUNK_BYTES_MAX, "chunk")?) } else { None };
                Self::Chunk { root, number, bytes }
            }
            26 => Self::Erased {
                from: Height(reader.u64("erased from")?),
                certificate: CheckpointCertificate::decode(reader)?,
            },
            27 => Self::Shown(Arc::new(Vote::decode(reader)?)),
            28 => Self::Evidence(Arc::new(Evidence::decode(reader)?)),
            29 => Self::Follow { from: Height(reader.u64("follow from")?) },
            _ => return Err(DecodeError::Invalid("message tag")),
        })
    }
}

impl Decode for Message {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let tag = reader.u8("message tag")?;
        let bytes_max = Self::bytes_max(tag).ok_or(DecodeError::Invalid("message tag"))?;
        if reader.remaining() > bytes_max {
            return Err(DecodeError::TooLong("message"));
        }
        Ok(match tag {
            1 => {
                let prepare = Vote::decode(reader)?;
                Self::PrePrepare { block: Arc::new(Block::decode(reader)?), prepare }
            }
            2 => {
                let mut votes = Vec::new();
                for _ in 0..reader.length(VOTES_MAX, "votes")? {
                    votes.push(Vote::decode(reader)?);
                }
                Self::Votes(votes)
            }
            3 => Self::ViewChange(Arc::new(ViewChange::decode(reader)?)),
            4 => Self::NewView(Arc::new(NewView::decode(reader)?)),
            5 => Self::Status(Status::decode(reader)?),
            6 => Self::Certificate(Certificate::decode(reader)?),
            7 => Self::Bundle(Bundle::decode(reader)?),
            8 => Self::ReadIndex { nonce: get_nonce(reader)? },
            9 => Self::ReadAnswer(ReadAnswer {
                nonce: get_nonce(reader)?,
                epoch: Epoch(reader.u64("read epoch")?),
                mark: Height(reader.u64("read mark")?),
                committed: Height(reader.u64("read committed")?),
            }),
            10 => Self::ReadProof { mark: Height(reader.u64("proof mark")?) },
            11 => Self::GetBlocks {
                from: Height(reader.u64("page from")?),
                until: Height(reader.u64("page until")?),
            },
            12 => {
                let certificate = Certificate::decode(reader)?;
                let mut blocks = Vec::new();
                for _ in 0..reader.length(PAGE_BLOCKS_MAX, "page blocks")? {
                    blocks.push(Arc::new(Block::decode(reader)?));
                }
                Self::Blocks { blocks, certificate }
            }
            13 => Self::GetBody { hash: reader.digest("body hash")? },
            14 => Self::Body(Arc::new(Block::decode(reader)?)),
            21 => Self::Rejoin(Rejoin::decode(reader)?),
            22 => Self::VotesQuestion { start_nonce: reader.array("question nonce")? },
            23 => Self::VotesAnswer(Box::new(VotesAnswer::decode(reader)?)),
            24 => Self::GetEpochs { from: Epoch(reader.u64("epochs from")?) },
            25 => {
                let mut proofs = Vec::new();
                for _ in 0..reader.length(EPOCHS_MAX, "epoch proofs")? {
                    proofs.push(EpochProof::decode(reader)?);
                }
                Self::Epochs(proofs)
            }
            15..=20 | 26..=29 => return Self::decode_later(tag, reader),
            _ => return Err(DecodeError::Invalid("message tag")),
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::chain::{
        Author, BlockParts, BundleParts, CheckpointId, ChunkEntry, Entry, Op, Phase, Put, Skeleton,
        Value, ValueSlot, VoteSignature,
    };
    use crate::crypto::{Ed25519, Signature};
    use crate::ordering::{Mode, ShownVotes, Standing};
    use crate::types::{LeaseId, ReplicaId};
    use crate::types::{Millis, View};

    fn certificate(seed: u64, signers: u16) -> Certificate {
        let hashes = vec![Digest([7; 32]); 1 + (seed % 4) as usize];
        let signatures = (0..signers)
            .map(|id| VoteSignature {
                replica: ReplicaId(id),
                from_height: Height(seed + 1),
                hashes: hashes.clone(),
                signature: Signature([id as u8; 64]),
            })
            .collect();
        Certificate {
            phase: if seed.is_multiple_of(2) { Phase::Prepare } else { Phase::Commit },
            epoch: Epoch(seed),
            view: View(seed + 2),
            height: Height(seed + 1),
            block_hash: Digest([7; 32]),
            signatures,
        }
    }

    fn bundle(seed: u64, value: Vec<u8>) -> Bundle {
        let value = Value { salt: [3; 16], bytes: value.into() };
        let slot = ValueSlot { index: 0, commitment: value.commitment() };
        let put = Put {
            key: Bytes::from_static(b"key"),
            value: Some(slot),
            lease: LeaseId(0),
            prev_kv: false,
            ignore_lease: false,
        };
        let skeletons = vec![Skeleton { author: Author::default(), op: Op::Put(put) }];
        let parts = BundleParts {
            origin: ReplicaId(1),
            session: seed,
            first_seq: seed,
            not_after_ms: Millis(seed),
            skeletons,
            values: vec![value],
        };
        Bundle::sign(parts, &Digest::ZERO, &Ed25519::from_seed(&[1; 32]))
    }

    fn block(seed: u64, value: Vec<u8>) -> Arc<Block> {
        let header = BlockHeader {
            flags: 0,
            cluster_id: Digest::ZERO,
            epoch: Epoch(0),
            height: Height(seed + 1),
            view: View(seed),
            proposer: ReplicaId(0),
            time_ms: Millis(seed),
            parent: Digest([9; 32]),
            body_root: Digest::ZERO,
            skeleton_len: 0,
            values_len: 0,
            n_ops: 0,
            exec_height: Height(0),
            exec_root: Digest::ZERO,
            config_hash: Digest::ZERO,
        };
        Arc::new(BlockParts::new(vec![Entry::Bundle(bundle(seed, value))]).into_block(header))
    }

    fn manifest(seed: u64) -> Manifest {
        let chunks = vec![ChunkEntry { length: 9, hash: Digest([2; 32]) }; (seed % 3) as usize];
        Manifest {
            cluster_id: Digest::ZERO,
            height: Height(seed),
            block_hash: Digest([1; 32]),
            exec_root: Digest([3; 32]),
            exec_roots: vec![(Height(seed), Digest([3; 32]))],
            chunks,
        }
    }

    fn checkpoint_id(seed: u64) -> CheckpointId {
        CheckpointId {
            height: Height(seed),
            block_hash: Digest([2; 32]),
            exec_root: Digest([3; 32]),
            manifest_root: Digest([4; 32]),
        }
    }

    fn messages(seed: u64, value: Vec<u8>) -> Vec<Message> {
        let scheme = Ed25519::from_seed(&[1; 32]);
        let range = (Height(seed + 1), vec![Digest([7; 32]); 1 + (seed % 4) as usize]);
        let round = (Phase::Commit, Epoch(seed), View(seed));
        let vote = Vote::sign(round, ReplicaId(2), range, &Digest::ZERO, &scheme);
        let nonce = ReadNonce { start: [5; 32], counter: seed };
        let (prepared, committed) = (certificate(seed, 4), certificate(seed + 1, 3));
        let id = checkpoint_id(seed);
        let view_change = Arc::new(ViewChange::sign(
            (Epoch(seed), View(seed)),
            ReplicaId(1),
            (
                (!seed.is_multiple_of(3)).then_some(prepared),
                Some(committed.clone()),
                seed.is_multiple_of(2).then_some(id),
            ),
            &Digest::ZERO,
            &scheme,
        ));
        let all = vec![Arc::clone(&view_change), Arc::clone(&view_change)];
        let round = (Epoch(seed), View(seed));
        let new_view = Arc::new(NewView::sign(round, all, &Digest::ZERO, &scheme));
        let status = Status {
            epoch: Epoch(seed),
            view: View(seed),
            mode: Mode::ViewChange,
            unix_ms: Millis(seed),
            committed: Height(seed),
            executed: Height(seed),
            stable: Height(seed / 2),
        };
        let answer =
            ReadAnswer { nonce, epoch: Epoch(0), mark: Height(seed), committed: Height(1) };
        let block = block(seed, value.clone());
        vec![
            Message::PrePrepare { block: Arc::clone(&block), prepare: vote.clone() },
            Message::Votes(vec![vote.clone(), vote]),
            Message::ViewChange(view_change),
            Message::NewView(new_view),
            Message::Status(status),
            Message::Certificate(committed.clone()),
            Message::Bundle(bundle(seed, value.clone())),
            Message::ReadIndex { nonce },
            Message::ReadAnswer(answer),
            Message::ReadProof { mark: Height(seed) },
            Message::GetBlocks { from: Height(seed), until: Height(seed + 1) },
            Message::Blocks { blocks: vec![Arc::clone(&block)], certificate: committed },
            Message::GetBody { hash: Digest([4; 32]) },
            Message::Body(Arc::clone(&block)),
        ]
        .into_iter()
        .chain(later_messages(seed, value, &block))
        .collect()
    }

    fn later_messages(seed: u64, value: Vec<u8>, block: &Arc<Block>) -> Vec<Message> {
        let scheme = Ed25519::from_seed(&[1; 32]);
        let id = checkpoint_id(seed);
        let checkpoint =
            CheckpointVote::sign(Epoch(seed), ReplicaId(1), id, &Digest::ZERO, &scheme);
        let stable = CheckpointCertificate {
            epoch: Epoch(seed),
            id,
            signatures: vec![(ReplicaId(1), checkpoint.signature)],
        };
        let nonce = [seed as u8; 32];
        let rejoin = Rejoin::sign(Epoch(seed), ReplicaId(1), nonce, &Digest::ZERO, &scheme);
        let votes = ShownVotes {
            commit: seed.is_multiple_of(2).then(|| Arc::new(shown(seed, 7))),
            bundle: seed.is_multiple_of(3).then(|| bundle(seed, value.clone()).header()),
            ..ShownVotes::default()
        };
        let answer = VotesAnswer { nonce, from: [4; 32], standing: Standing::Begun, votes };
        vec![
            Message::Rejoin(rejoin),
            Message::VotesQuestion { start_nonce: nonce },
            Message::VotesAnswer(Box::new(answer)),
            Message::GetEpochs { from: Epoch(seed) },
            Message::Epochs(vec![EpochProof {
                block: Arc::clone(block),
                certificate: certificate(seed + 1, 3),
            }]),
            Message::Checkpoint(checkpoint),
            Message::CheckpointCertificate(stable.clone()),
            Message::Erased { from: Height(seed), certificate: stable },
            Message::GetManifest { root: Digest([6; 32]) },
            Message::Manifest { root: Digest([6; 32]), content: None },
            Message::Manifest {
                root: Digest([6; 32]),
                content: Some((block.header.clone(), Arc::new(manifest(seed)))),
            },
            Message::GetChunk { root: Digest([6; 32]), number: 7 },
            Message::Chunk { root: Digest([6; 32]), number: 7, bytes: None },
            Message::Chunk { root: Digest([6; 32]), number: 7, bytes: Some(value.into()) },
            Message::Shown(Arc::new(shown(seed, 7))),
            Message::Follow { from: Height(seed) },
            Message::Evidence(Arc::new(
                Evidence::double_vote(&shown(seed, 7), &shown(seed, 8)).expect("two blocks"),
            )),
        ]
    }

    fn shown(seed: u64, hash: u8) -> Vote {
        let round = (Phase::Commit, Epoch(seed), View(seed));
        let range = (Height(seed + 1), vec![Digest([hash; 32])]);
        Vote::sign(round, ReplicaId(3), range, &Digest::ZERO, &Ed25519::from_seed(&[3; 32]))
    }

    proptest! {
        #[test]
        fn every_message_has_one_encoding_and_no_prefix_or_extension_is_one(
            seed in 0_u64..1000,
            value in prop::collection::vec(any::<u8>(), 0..64),
            cut in any::<prop::sample::Index>(),
        ) {
            for message in messages(seed, value) {
                let bytes = message.to_bytes();
                prop_assert_eq!(Message::from_bytes(bytes.clone()), Ok(message));
                prop_assert!(Message::from_bytes(bytes.slice(..cut.index(bytes.len()))).is_err());
                let longer = [bytes.as_ref(), &[0]].concat();
                prop_assert!(Message::from_bytes(longer.into()).is_err());
            }
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Message::from_bytes(bytes.into());
        }
    }

    #[test]
    fn a_message_longer_than_its_type_allows_is_refused_unread() {
        let mut bytes = vec![5_u8];
        bytes.resize(5 << 10, 0);
        assert_eq!(Message::from_bytes(bytes.into()), Err(DecodeError::TooLong("message")));
    }
}
