use std::collections::BTreeMap;
use std::sync::Arc;

use crate::chain::{Block, EpochProof, Evidence, Membership, Network, Record};
use crate::crypto::PublicKey;
use crate::ordering::{Message, Mode, TransferStep};
use crate::types::{Digest, Epoch, Height, LogPosition, ReplicaId, View};

/// Everything the core ever asks for. The shell carries outputs out in order.
#[derive(Clone, Debug)]
pub enum Output {
    /// Append a record to the log; positions count up by one.
    Append {
        /// Its number.
        position: LogPosition,
        /// What to write.
        record: Record,
    },
    /// Send a message once `gate` is durable, not before (protocol.md 6).
    Send {
        /// To whom.
        to: Recipients,
        /// What.
        message: Message,
        /// The record that must survive a crash first; 0 for none.
        gate: LogPosition,
    },
    /// Execute a committed block and answer with `Executed`; heights come without a gap. Its record
    /// was appended before.
    Execute {
        /// With its values.
        block: Arc<Block>,
    },
    /// A read may be answered: everything up to `height` is executed here.
    ReadReady {
        /// The request's.
        id: u64,
        /// The height a quorum vouches for.
        height: Height,
    },
    /// No quorum answered for a read in time.
    ReadFailed {
        /// The request's.
        id: u64,
    },
    /// Read committed blocks from the log and send `to` a [`Message::Blocks`] page. What the log holds
    /// only the reader knows: a state transfer leaves gaps, pruning goes on beside.
    ServeBlocks {
        /// Who asked.
        to: ReplicaId,
        /// First height.
        from: Height,
        /// Last height wanted; a page may end before.
        until: Height,
        /// Sent if the log does not hold these blocks with their values.
        instead: Option<Box<Message>>,
    },
    /// An epoch begins: links, pinned keys and what is shown of members follow it.
    Epoch {
        /// Its members.
        network: Box<Network>,
        /// Members of the epoch before that left: linked to until the next epoch begins.
        left: Vec<(ReplicaId, PublicKey)>,
        /// How the epoch before ended; none for the first.
        proof: Option<EpochProof>,
    },
    /// A later epoch is proved: its members, by its keys, are linked to besides, for of this one's
    /// nobody may be left.
    Ahead {
        /// The latest.
        network: Box<Network>,
    },
    /// Send `to` the manifest with this root as a [`Message::Manifest`], without content if it is not
    /// held.
    ServeManifest {
        /// Who asked.
        to: ReplicaId,
        /// The manifest's root.
        root: Digest,
    },
    /// Send `to` a chunk as a [`Message::Chunk`], without bytes if it is not held.
    ServeChunk {
        /// Who asked.
        to: ReplicaId,
        /// The manifest's root.
        root: Digest,
        /// Which chunk of it.
        number: u32,
    },
    /// Carry out a step of a state transfer.
    Transfer(TransferStep),
    /// A replica provably broke the protocol.
    Evidence(Arc<Evidence>),
    /// Something an operator should know; nothing stops.
    Alarm(Alarm),
    /// The own state is not the network's: the core votes no more; serve no key.
    Quarantine {
        /// Says what differs and at which height.
        reason: String,
    },
    /// Going on could break a promise: end the process.
    Halt {
        /// Says what happened.
        reason: String,
    },
}

/// Whom a message goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// One replica.
    One(ReplicaId),
    /// All other members.
    Others,
    /// All other voters.
    Voters,
}

/// What [`Output::Alarm`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// A peer sent a page, certificate or answer that cannot be true; it is not asked for 60 s.
    BadPeer {
        /// Who.
        peer: ReplicaId,
        /// What it sent.
        what: &'static str,
    },
    /// ROLLBACK_DETECTED: own votes are lost, the replica is fenced until a block with its REJOIN is
    /// committed.
    RollbackDetected {
        /// What shows it.
        reason: String,
    },
    /// A replica that was added later begins: nothing tells its empty log from a lost one, so it is
    /// fenced until a block with its REJOIN is committed.
    Joining,
    /// The fence is left.
    Rejoined {
        /// A committed block at or above the REJOIN's.
        height: Height,
    },
    /// The start waits for voters to say what they hold of this replica.
    AwaitsVoters {
        /// Those that have not answered.
        missing: Vec<ReplicaId>,
        /// The log is empty: only when all have answered the network begins.
        first_start: bool,
    },
    /// A state transfer could not go on; it is tried again.
    TransferFailed {
        /// What happened.
        reason: String,
    },
    /// The own clock is further from the median of a quorum than the protocol's time bound.
    ClockSkew {
        /// How far the own clock is ahead of the median, in ms; negative if behind.
        ahead_ms: i64,
    },
}

/// What a core is doing, for status pages and metrics.
#[derive(Clone, Debug)]
pub struct CoreStatus {
    /// The epoch.
    pub epoch: Epoch,
    /// The view in force, or the one asked for during a view change.
    pub view: View,
    /// What this replica does in it.
    pub mode: Mode,
    /// The primary of the view that a quorum is in; none if there is no such view.
    pub primary: Option<ReplicaId>,
    /// Who leads the view after that one.
    pub next_primary: Option<ReplicaId>,
    /// Whether a quorum was heard in normal mode of one view (protocol.md 9).
    pub has_leader: bool,
    /// Highest block known committed, with all its ancestors here.
    pub committed: Height,
    /// Highest block executed.
    pub executed: Height,
    /// The state's root after it.
    pub exec_root: Digest,
    /// Height of the newest checkpoint a quorum holds; 0 if there is none.
    pub stable_checkpoint: Height,
    /// Bundles known and in no block of the current chain.
    pub pool_bundles: usize,
    /// Their bytes.
    pub pool_bytes: usize,
    /// Chunks of a checkpoint that are here and chunks in all, while one is fetched.
    pub transfer: Option<(u32, u32)>,
    /// What the others last said.
    pub peers: BTreeMap<ReplicaId, PeerView>,
    /// Counted since the start.
    pub counters: Counters,
}

impl CoreStatus {
    /// Voters in reach, this replica included if it votes, minus the quorum: below 0 nothing is ordered.
    /// Members without a vote bring a network no closer to a decision.
    #[must_use]
    pub fn quorum_margin(&self, own: ReplicaId, membership: &Membership) -> i64 {
        let up = |id: ReplicaId| id == own || self.peers.get(&id).is_some_and(|peer| peer.up);
        let reached = membership.voters().filter(|voter| up(voter.id)).count();
        let signed = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        signed(reached) - signed(membership.quorum().q())
    }

    /// Whether a replica that was repaired serves keys again: it follows, with a vote or without one, and
    /// is not behind what f + 1 of the `others` claim to have committed, of whom one is correct.
    #[must_use]
    pub fn has_caught_up(&self, others: usize) -> bool {
        let mut claims: Vec<Height> = self.peers.values().map(|peer| peer.committed).collect();
        claims.sort_unstable_by(|one, two| two.cmp(one));
        let claimed = claims.get(others / 3).copied().unwrap_or_default();
        let follows = matches!(self.mode, Mode::Normal | Mode::Observer) && self.has_leader;
        follows && self.executed > Height(0) && self.executed >= claimed
    }
}

/// A peer as its last STATUS showed it.
#[derive(Clone, Debug)]
pub struct PeerView {
    /// Its view.
    pub view: View,
    /// What it does.
    pub mode: Mode,
    /// Its committed height.
    pub committed: Height,
    /// Its executed height.
    pub executed: Height,
    /// Milliseconds since anything was heard of it; none if nothing ever was.
    pub age_ms: Option<u64>,
    /// Whether the link stands.
    pub up: bool,
}

/// Counted since the start, never falling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Votes, view changes and new views signed.
    pub signatures: u64,
    /// Signatures checked, bundles' included.
    pub verifications: u64,
    /// VIEW-CHANGE messages sent, repeats excluded.
    pub view_changes: u64,
    /// Blocks proposed.
    pub proposals: u64,
    /// Proposals of others refused.
    pub refused_proposals: u64,
    /// Views entered.
    pub views_entered: u64,
    /// Blocks that arrived by catch-up pages.
    pub caught_up_blocks: u64,
    /// Of these, sent by the voter that feeds this replica, unasked.
    pub fed_blocks: u64,
    /// ReadIndex questions asked.
    pub read_rounds: u64,
    /// Checkpoints that became stable.
    pub stable_checkpoints: u64,
    /// Votes dropped for a bad signature.
    pub bad_signatures: u64,
    /// State transfers begun.
    pub transfers_begun: u64,
    /// Chunks received and found to be what their manifest names.
    pub chunks_received: u64,
    /// Chunks of a wrong length or hash.
    pub chunks_refused: u64,
    /// Chunks that an earlier attempt had left on disk.
    pub chunks_resumed: u64,
    /// Proofs found or received that a replica broke the protocol.
    pub evidence: u64,
    /// Messages dropped because their sender's signatures or questions had cost enough.
    pub over_budget: u64,
    /// Messages of no use that hardly ever come from a correct peer.
    pub wasted: u64,
}
