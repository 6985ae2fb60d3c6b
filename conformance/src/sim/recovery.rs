//! A start from the disk with production code alone: the newest checkpoint, then the log above it by the
//! node's own replay.

use std::collections::BTreeMap;
use std::sync::Arc;

use althing::chain::{Block, EpochProof, Genesis, Record};
use althing::ordering::Recovery;
use althing::state::{KeptChunk, Restore, State};
use althing::storage::checkpoint;
use althing::storage::disk::Disk;
use althing::storage::log::{LogSettings, Placed, Recovered, ReplayMark, recover};
use althing::storage::values::Values;
use althing::types::{Digest, Height, LogPosition, ReplicaId};

use crate::sim::checkers::votes::Promises;
use crate::sim::disk::SimDisk;
use crate::sim::machine::Machine;
use crate::sim::node_recover::{Base, Replay};
use crate::sim::node_stable::Stable;
use crate::sim::plan::Mutant;

/// Whose disk it is.
pub struct Owner<'a> {
    /// The network.
    pub genesis: &'a Genesis,
    /// The replica.
    pub own: ReplicaId,
    /// Of its log.
    pub settings: &'a LogSettings,
    /// Put into the replay on purpose.
    pub mutant: Option<Mutant>,
}

/// A replica ready to go on.
pub struct Start {
    /// The log's end.
    pub log: Recovered,
    /// The state where it stands.
    pub machine: Machine,
    /// For the core; none on an empty log.
    pub recovery: Option<Recovery>,
    /// Where logged blocks lie that are not executed yet.
    pub placed: BTreeMap<Digest, Placed>,
    /// Checkpoint files that values are read from.
    pub in_use: Vec<u32>,
    /// Height of the checkpoint that was restored.
    pub base: Height,
    /// Those a quorum holds too.
    pub(super) stable: Stable,
    /// The blocks of the log, by hash: the replay may be the first to execute one of them.
    pub blocks: BTreeMap<Digest, Arc<Block>>,
    /// How every epoch before the state's ended.
    pub epochs: Vec<EpochProof>,
}

/// Reads checkpoint and log; `promises` sees every record of the log.
///
/// # Errors
/// Damage that a crash cannot cause.
pub fn start(disk: &SimDisk, owner: &Owner<'_>, promises: &mut Promises) -> Result<Start, String> {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let values = Values::new(Arc::clone(&shared));
    let state = State::genesis(owner.genesis);
    let exec_roots = vec![(Height(0), state.exec_root())];
    let mut base = Base { state, header: None, exec_roots };
    let (mut mark, mut in_use) = (ReplayMark::start(), Vec::new());
    let whole = checkpoint::candidates(disk, &owner.genesis.cluster_id());
    let whole = whole.map_err(|error| error.to_string())?.whole;
    let held: Vec<Height> = whole.iter().map(|one| one.manifest.height).collect();
    let mut checkpoints = Vec::new();
    if let Some((found, state)) = restore(&shared, owner.genesis)? {
        checkpoints.push(found.manifest.id());
        in_use = found.files();
        mark = found.replay;
        base = Base { state, header: Some(found.header), exec_roots: found.manifest.exec_roots };
    }
    let base_height = base.header.as_ref().map_or(Height(0), |header| header.height);
    let mut replay = Replay::new(base, &values, owner.own);
    for (position, record) in mark.carried.records() {
        promises.appended(position, &record);
        replay.note(Placed::default(), record);
    }
    let mut blocks = BTreeMap::new();
    let log = recover(disk, owner.settings, mark, &mut |position, placed, record| {
        promises.appended(position, &record);
        if let Record::Block(block) = &record {
            blocks.insert(block.hash(), Arc::clone(block));
        }
        replay.note(placed, record);
    })
    .map_err(|error| format!("recovery: {error}"))?;
    promises.durable(log.log_end);
    let replayed = replay.finish(log.log_end)?;
    if let Some(why) = replayed.quarantined {
        return Err(why);
    }
    let placed = replayed.placed.into_iter().map(|((_, hash), placed)| (hash, placed)).collect();
    let epochs = replayed.epochs;
    let mut recovery = replayed.recovery;
    let stable = Stable::recovered(held, replayed.stable.iter().copied());
    recovery.checkpoints = checkpoints;
    match owner.mutant {
        Some(Mutant::ForgetsViewChange) => recovery.view_change = None,
        Some(Mutant::ForgetsPrepared) => recovery.prepared = None,
        Some(Mutant::ForgetsView) => recovery.entered = None,
        _ => {}
    }
    let carried = recovery.exec_roots.clone();
    let machine = Machine::restored(replayed.state, values, owner.own, carried);
    let recovery = (log.log_end > LogPosition(0)).then_some(recovery);
    Ok(Start { log, machine, recovery, placed, in_use, base: base_height, stable, blocks, epochs })
}

fn restore(
    disk: &Arc<dyn Disk>,
    genesis: &Genesis,
) -> Result<Option<(checkpoint::Checkpoint, State)>, String> {
    let (found, damaged) =
        checkpoint::newest(disk, &genesis.cluster_id()).map_err(|error| error.to_string())?;
    if let Some(error) = damaged.first() {
        return Err(format!("a crash damaged a checkpoint: {error}"));
    }
    let Some(found) = found else { return Ok(None) };
    let mut restore = Restore::new(genesis);
    for chunk in found.chunks(disk) {
        let chunk = chunk.map_err(|error| error.to_string())?;
        let (segment, base) = (chunk.place.segment(), chunk.place.base);
        let kept = KeptChunk { bytes: chunk.bytes, segment, base };
        restore.push(&kept).map_err(|error| error.to_string())?;
    }
    let state = restore.finish().map_err(|error| error.to_string())?;
    if state.exec_root() != found.manifest.exec_root {
        return Err(format!("the checkpoint at {} gives another root", found.manifest.height));
    }
    Ok(Some((found, state)))
}
