//! One instance of a replica as the shell would run it: what survives a crash, and what does not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use althing::chain::{Block, Genesis, Membership, Network, REJOIN_SHIFT};
use althing::crypto::{PublicKey, Scheme};
use althing::ordering::{Core, CoreConfig, Message, Recipients};
use althing::storage::log::{Appender, Batch, BlockReader, LogSettings, Placed};
use althing::types::{Digest, Epoch, Height, LogPosition, ReplicaId, Revision, View};
use althing::watch::WatchStream;

use crate::sim::checkers::requests::OpenRead;
use crate::sim::checkers::votes::Promises;
use crate::sim::checkpoint::Checkpointing;
use crate::sim::disk::SimDisk;
use crate::sim::machine::Machine;
use crate::sim::node_stable::Stable;
use crate::sim::plan::{MILLI, Micros, Mutant};
use crate::sim::proofs::KeptProofs;
use crate::sim::prune::Pruning;
use crate::sim::random::Random;
use crate::sim::recovery::{Owner, Start, start};
use crate::sim::transfer::Fetching;
use crate::sim::workload::Workload;
use crate::sim::world::Event;

/// A message whose gate is not durable yet.
pub struct Waiting {
    /// The record it waits for.
    pub gate: LogPosition,
    /// To whom.
    pub to: Recipients,
    /// What.
    pub message: Message,
}

/// A process: all of it is gone after a crash.
pub struct Life {
    /// Counts the starts of this instance; events of an older one mean nothing.
    pub number: u64,
    /// When it started.
    pub since: Micros,
    /// In its questions and its REJOIN.
    pub nonce: [u8; 32],
    /// Production ordering.
    pub core: Core,
    /// Production apply on production state.
    pub machine: Machine,
    /// Production log.
    pub appender: Appender,
    /// Reads committed blocks back.
    pub reader: BlockReader,
    /// Handed to the log thread, not synced yet.
    pub batch: Option<Batch>,
    /// What is.
    pub durable: LogPosition,
    /// The last record it planned.
    pub appended: LogPosition,
    /// Its key was rotated: it ends, and starts again with the new one.
    pub ends: Option<KeyChange>,
    /// Messages behind their gates.
    pub waiting: Vec<Waiting>,
    /// Committed, not executed yet.
    pub to_execute: VecDeque<Arc<Block>>,
    /// Where logged blocks lie.
    pub placed: BTreeMap<Digest, Placed>,
    /// Blocks of the log up to the tip this process started from.
    pub replayed: Vec<Arc<Block>>,
    /// A checkpoint being written.
    pub checkpoint: Option<Checkpointing>,
    /// Height of the newest on disk.
    pub checkpoint_height: Height,
    /// Its store revision: what is older refers to it, not to the log.
    pub moved: Revision,
    /// Checkpoint files that values are read from.
    pub in_use: Vec<u32>,
    /// What a quorum holds too.
    pub(super) stable: Stable,
    /// The log being erased behind them.
    pub pruning: Option<Pruning>,
    /// The segment that is written to.
    pub open_segment: u32,
    /// A checkpoint that is being fetched.
    pub fetching: Fetching,
    /// When the next tick is scheduled.
    pub tick_at: Option<Micros>,
    /// The last monotonic and wall time given.
    pub clocks: (u64, u64),
    /// The session of its bundles.
    pub session: u64,
    /// Number of the next op.
    pub next_seq: u64,
    /// Ops sent and not answered, with when they were sent.
    pub open: BTreeMap<u64, Micros>,
    /// The streams of watch clients, by client.
    pub streams: BTreeMap<usize, WatchStream>,
    /// Reads asked and not answered.
    pub reads: BTreeMap<u64, OpenRead>,
    /// Reads that may answer from this height on.
    pub ready: Vec<(u64, Height)>,
    /// Number of the next read.
    pub next_read: u64,
    /// Highest epoch and view, committed and executed height shown so far.
    pub shown: ((Epoch, View), Height, Height),
    /// Whether an op sent well after the end of the faults was answered in time.
    pub served: bool,
}

/// A replica's key was rotated.
pub struct KeyChange {
    /// Its log must be durable up to here.
    pub end: LogPosition,
    /// The first epoch with the new key.
    pub epoch: Epoch,
    /// Signs with it.
    pub scheme: Arc<dyn Scheme>,
    /// It.
    pub key: PublicKey,
}

/// What all instances of a replica share with the world.
pub struct Identity {
    /// Which replica.
    pub id: ReplicaId,
    /// Signs as it.
    pub scheme: Arc<dyn Scheme>,
    /// Its public key.
    pub key: PublicKey,
    /// The network.
    pub genesis: Arc<Genesis>,
    /// Its first members.
    pub membership: Membership,
    /// Its id.
    pub cluster_id: Digest,
    /// The state's root before the first block.
    pub genesis_root: Digest,
}

/// What became of a replica's disk (protocol.md 6.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lost {
    /// Nothing, or it votes again.
    #[default]
    No,
    /// All of it is gone.
    Wiped,
    /// It was replaced by an older one, and nobody has noticed.
    Unnoticed,
    /// Some of it is rotten or cannot be read.
    Damaged,
    /// The replica is fenced.
    Fenced,
    /// It joined later, and nothing tells it from one that lost everything, until it votes.
    Joined,
}

/// Settings of its own, which must not show in what it executes (faults.md O4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// Of the log.
    pub first_segment_bytes: u32,
    /// Of the log.
    pub segment_bytes: u32,
    /// Events a watcher reads from history at a time.
    pub catch_up_events: usize,
    /// Whether it erases what lies behind the second stable checkpoint.
    pub prunes: bool,
}

impl Local {
    /// As everybody has them.
    pub const COMMON: Self = Self {
        first_segment_bytes: 32 << 10,
        segment_bytes: 128 << 10,
        catch_up_events: 7,
        prunes: true,
    };

    /// As some operator chose them.
    #[must_use]
    pub fn draw(random: &mut Random) -> Self {
        Self {
            first_segment_bytes: *random.pick(&[8 << 10, 20 << 10, 64 << 10]),
            segment_bytes: *random.pick(&[48 << 10, 128 << 10, 1 << 20]),
            catch_up_events: *random.pick(&[1, 30, 1000]),
            prunes: random.chance(700),
        }
    }
}

/// A replica's instance: disk and identity outlive its processes.
pub struct Node {
    /// Which replica.
    pub identity: Identity,
    /// The first epoch with the key it signs with.
    pub key_epoch: Epoch,
    /// Its disk.
    pub disk: SimDisk,
    /// Starts so far: also its durable session counter.
    pub starts: u64,
    /// Running, or crashed.
    pub life: Option<Life>,
    /// Stopped for a while.
    pub paused: bool,
    /// What arrived since, in order.
    pub arrived: Vec<Event>,
    /// What its durable log promises; a crash takes nothing of it back.
    pub promises: Promises,
    /// It met damage: it votes no more and serves nothing, until it is repaired.
    pub quarantined: bool,
    /// Down for good.
    pub gone: bool,
    /// Whom it is linked to.
    pub links: BTreeSet<ReplicaId>,
    /// Who else votes, as far as it knows.
    pub voters: BTreeSet<ReplicaId>,
    /// The epoch that it was told of when it joined, and who its members are.
    pub known: (Epoch, BTreeSet<ReplicaId>),
    /// Height of the newest checkpoint its disk holds for sure.
    pub checkpoint_durable: Height,
    /// How far its wall clock is ahead, in ms.
    pub skew_ms: i64,
    /// Proofs of misbehaviour on its disk.
    pub proofs: KeptProofs,
    /// How its disk was lost or replaced, until it votes again.
    pub lost: Lost,
    /// An older copy of its disk.
    pub older: Option<SimDisk>,
    /// How fast its monotonic clock runs, in parts of 1,000.
    pub rate: u64,
    /// Its operator's choices.
    pub local: Local,
    /// Its clients.
    pub workload: Workload,
    /// Put into it on purpose.
    pub mutant: Option<Mutant>,
    /// Fixed for its log.
    pub salt: [u8; 16],
}

impl Node {
    /// The log's settings: small segments, so that they change often.
    #[must_use]
    pub fn log_settings(&self) -> LogSettings {
        LogSettings {
            first_segment_bytes: self.local.first_segment_bytes,
            segment_bytes: self.local.segment_bytes,
            ..LogSettings::new(self.identity.cluster_id, self.identity.id, self.salt)
        }
    }

    /// Starts a process from what the disk holds.
    ///
    /// # Errors
    /// The disk failed, or holds what a crash cannot leave.
    pub fn boot(&mut self, now: Micros, random: &mut Random) -> Result<(), String> {
        let identity = &self.identity;
        let settings = self.log_settings();
        let owner = Owner {
            genesis: &identity.genesis,
            own: identity.id,
            settings: &settings,
            mutant: self.mutant,
        };
        let Start { log, machine, mut recovery, placed, in_use, base, stable, blocks, epochs } =
            start(&self.disk, &owner, &mut self.promises)?;
        if let Some(recovery) = &mut recovery {
            recovery.session_counter = self.starts;
        }
        self.starts += 1;
        let durable = log.log_end;
        let shown = Height(machine.height().0);
        let reader = BlockReader::new(Arc::new(self.disk.clone()), settings, log.appender.end());
        let tip = recovery.as_ref().and_then(|recovery| recovery.tip.as_ref());
        let mut replayed = Vec::new();
        let mut at = tip.map_or(Digest::ZERO, |header| header.hash());
        while let Some(block) = blocks.get(&at) {
            at = block.header.parent;
            replayed.push(Arc::clone(block));
        }
        replayed.reverse();
        let mut nonce = random.bytes();
        if self.mutant == Some(Mutant::NonceFromDisk) {
            nonce = identity.cluster_id.0;
        }
        let core = Core::new(CoreConfig {
            cluster_id: identity.cluster_id,
            own: identity.id,
            network: machine.state.network().clone(),
            epochs,
            first: Network::of(&identity.genesis),
            scheme: Arc::clone(&identity.scheme),
            start_nonce: nonce,
            genesis_ms: identity.genesis.created_ms,
            genesis_root: identity.genesis_root,
            recovery,
        });
        self.life = Some(Life {
            number: self.starts,
            since: now,
            nonce,
            core,
            machine,
            appender: log.appender,
            reader,
            batch: None,
            durable,
            appended: durable,
            ends: None,
            waiting: Vec::new(),
            to_execute: VecDeque::new(),
            placed,
            replayed,
            checkpoint: None,
            checkpoint_height: base,
            moved: Revision(0),
            in_use,
            stable,
            pruning: None,
            open_segment: 0,
            fetching: Fetching::default(),
            tick_at: None,
            clocks: (u64::MAX, 0),
            session: 0,
            next_seq: 0,
            open: BTreeMap::new(),
            streams: BTreeMap::new(),
            reads: BTreeMap::new(),
            ready: Vec::new(),
            next_read: 0,
            shown: ((Epoch(0), View(0)), Height(0), shown),
            served: false,
        });
        Ok(())
    }

    /// Its monotonic time, in ms since its process started.
    #[must_use]
    pub fn mono_ms(&self, now: Micros) -> u64 {
        self.life.as_ref().map_or(0, |life| (now - life.since) * self.rate / 1_000 / MILLI)
    }

    /// When its monotonic clock shows `mono_ms`.
    #[must_use]
    pub fn when(&self, mono_ms: u64) -> Micros {
        let since = self.life.as_ref().map_or(0, |life| life.since);
        since + (mono_ms * MILLI * 1_000).div_ceil(self.rate)
    }

    /// The session of this process's bundles: REJOINs executed << 48 | its durable counter.
    #[must_use]
    pub fn session(&self) -> u64 {
        let rejoins = self.life.as_ref().map_or(0, |life| life.core.own_rejoins());
        (rejoins << REJOIN_SHIFT) | self.starts
    }
}
