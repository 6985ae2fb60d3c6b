use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::chain::{
    Administrators, Block, BlockHeader, Bundle, Certificate, CheckpointCertificate, CheckpointId,
    Effects, EpochProof, Network, SessionWindow,
};
use crate::crypto::Scheme;
use crate::ordering::{Message, SeenVotes, TransferEvent};
use crate::types::{ClusterId, Digest, Epoch, Height, LogPosition, Millis, ReplicaId, View};

/// Everything the core is ever told. Time, randomness, disk and network reach it only here.
#[derive(Clone, Debug)]
pub enum Input {
    /// A message of an authenticated peer.
    Recv {
        /// Who sent it, as its channel proves.
        peer: ReplicaId,
        /// What it sent.
        message: Message,
    },
    /// Monotonic time, never falling; given before other inputs whenever it has changed.
    Tick {
        /// Milliseconds since an arbitrary start.
        mono_ms: u64,
    },
    /// The wall clock, read at the last tick.
    Wall {
        /// Unix time.
        unix_ms: Millis,
    },
    /// All records up to and including `position` survive a crash.
    Durable {
        /// Never falling.
        position: LogPosition,
    },
    /// A block handed out by [`crate::ordering::Output::Execute`] was executed, in that order.
    Executed {
        /// Its height, the root after it and what it changed.
        effects: Effects,
        /// Earliest lease expiry in block time after it; none without leases.
        next_expiry: Option<Millis>,
        /// The next epoch's network, if the block ends its epoch.
        network: Option<Box<Network>>,
        /// Who may change members behind it.
        administrators: Administrators,
    },
    /// A checkpoint's chunks and manifest are durable here.
    CheckpointBuilt {
        /// What it is.
        id: CheckpointId,
    },
    /// This replica admitted and signed a bundle.
    Submit {
        /// Of this origin, in its newest session.
        bundle: Bundle,
    },
    /// A linearizable read waits for its height.
    ReadRequest {
        /// Chosen by the caller, not reused.
        id: u64,
    },
    /// This replica is about to stop, or an operator wants another primary: if it leads, it hands its
    /// view over.
    HandOver,
    /// The shell found the own state or what it rests on damaged: the core votes no more.
    Damaged {
        /// Says what and where.
        reason: String,
    },
    /// How a state transfer goes on.
    Transfer(TransferEvent),
    /// The link to a peer stands.
    PeerUp {
        /// Who.
        peer: ReplicaId,
    },
    /// The link to a peer broke.
    PeerDown {
        /// Who.
        peer: ReplicaId,
    },
}

/// What a core is made from.
pub struct CoreConfig {
    /// The network.
    pub cluster_id: ClusterId,
    /// This replica.
    pub own: ReplicaId,
    /// Members and parameters in force where the state stands.
    pub network: Network,
    /// How every epoch before that one ended, from the first on.
    pub epochs: Vec<EpochProof>,
    /// Members and parameters of the first epoch.
    pub first: Network,
    /// Signs with this replica's key and checks everyone's.
    pub scheme: Arc<dyn Scheme>,
    /// Drawn at every start of the process, never read from disk.
    pub start_nonce: [u8; 32],
    /// When the network was assembled: block time before the first block.
    pub genesis_ms: Millis,
    /// The state's root before the first block.
    pub genesis_root: Digest,
    /// What the log holds; none on an empty one.
    pub recovery: Option<Recovery>,
}

/// What the shell read back from the log: enough to repeat every vote ever sent (protocol.md 6).
#[derive(Clone, Debug)]
pub struct Recovery {
    /// The last `ViewEntered` record: epoch, view, height and hash of the base.
    pub entered: Option<(Epoch, View, Height, Digest)>,
    /// The last `ViewChangeSent` record: epoch, view, the encoded [`Message`].
    pub view_change: Option<(Epoch, View, Bytes)>,
    /// Of all `Prepared` records the one of the highest rank.
    pub prepared: Option<Certificate>,
    /// Of all `Committed` records the one of the highest rank.
    pub committed: Option<Certificate>,
    /// All blocks of the log above `tip`, of any view, in any order.
    pub blocks: Vec<Arc<Block>>,
    /// The last executed block's header; none before the first.
    pub tip: Option<BlockHeader>,
    /// Roots after the last W + 1 executed heights, genesis (height 0) included where it falls in.
    pub exec_roots: Vec<(Height, Digest)>,
    /// Every origin's window after `tip`.
    pub windows: BTreeMap<ReplicaId, SessionWindow>,
    /// Earliest lease expiry in block time after `tip`.
    pub next_expiry: Option<Millis>,
    /// Who may change members after `tip`.
    pub administrators: Administrators,
    /// The newest `CheckpointStable` record.
    pub stable: Option<CheckpointCertificate>,
    /// Checkpoints held on disk.
    pub checkpoints: Vec<CheckpointId>,
    /// Whether a `Quarantined` record stands: the core then casts no vote.
    pub quarantined: bool,
    /// Whether a `Fenced` record stands, with no `Rejoined` after it.
    pub fenced: bool,
    /// The certificate of the last `Rejoined` record.
    pub rejoined: Option<Certificate>,
    /// The highest own session counter of an earlier process.
    pub session_counter: u64,
    /// Others' votes that the log holds, in certificates and blocks.
    pub seen: SeenVotes,
    /// Position of the last record.
    pub log_end: LogPosition,
}
