//! A start from the log: read every record, execute again what was executed, tell the core the rest.

use std::collections::BTreeMap;
use std::sync::Arc;

use althing::chain::{Block, Certificate, Effects, Record};
use althing::ordering::Recovery;
use althing::storage::log::{LogSettings, Placed, Recovered, ReplayMark, recover};
use althing::types::{Digest, Epoch, Height, LogPosition, View};
use bytes::Bytes;

use crate::sim::checkers::votes::Promises;
use crate::sim::disk::SimDisk;
use crate::sim::machine::Machine;
use crate::sim::plan::Mutant;

/// What the records say.
#[derive(Default)]
struct Found {
    entered: Option<(Epoch, View, Height, Digest)>,
    view_change: Option<(Epoch, View, Bytes)>,
    prepared: Option<Certificate>,
    committed: Option<Certificate>,
    blocks: BTreeMap<Digest, (Placed, Arc<Block>)>,
    effects: BTreeMap<Height, Effects>,
    quarantined: bool,
    promises: Promises,
}

impl Found {
    fn note(&mut self, position: LogPosition, placed: Placed, record: Record) {
        self.promises.appended(position, &record);
        match record {
            Record::ViewEntered { epoch, view, base_height, base_hash } => {
                self.entered = Some((epoch, view, base_height, base_hash));
            }
            Record::ViewChangeSent { epoch, view, message } => {
                self.view_change = Some((epoch, view, message));
            }
            Record::Block(block) => {
                self.blocks.insert(block.hash(), (placed, block));
            }
            Record::Prepared(certificate) => keep_higher(&mut self.prepared, certificate),
            Record::Committed(certificate) => keep_higher(&mut self.committed, certificate),
            Record::Effects(effects) => drop(self.effects.insert(effects.height, effects)),
            Record::Quarantined { .. } => self.quarantined = true,
            _ => {}
        }
    }

    /// The committed chain by height, as far down as the log holds it.
    fn chain(&self) -> Result<BTreeMap<Height, Digest>, String> {
        let mut chain = BTreeMap::new();
        let Some(top) = &self.committed else { return Ok(chain) };
        let (mut hash, mut height) = (top.block_hash, top.height);
        while height > Height(0) {
            let Some((_, block)) = self.blocks.get(&hash) else {
                return Err(format!("the log commits {height} and does not hold its block"));
            };
            chain.insert(height, hash);
            hash = block.header.parent;
            height = height.minus(1);
        }
        Ok(chain)
    }
}

fn keep_higher(kept: &mut Option<Certificate>, new: Certificate) {
    if kept.as_ref().is_none_or(|kept| kept.rank() < new.rank()) {
        *kept = Some(new);
    }
}

/// A replica ready to go on.
pub struct Start {
    /// The log's end.
    pub log: Recovered,
    /// For the core; none on an empty log.
    pub recovery: Option<Recovery>,
    /// Where logged blocks lie that are not executed yet.
    pub placed: BTreeMap<Digest, Placed>,
    /// What the log promises.
    pub promises: Promises,
}

/// Reads the log, brings `machine` to the last executed block.
///
/// # Errors
/// Damage that a crash cannot cause.
pub fn start(
    disk: &SimDisk,
    settings: &LogSettings,
    machine: &mut Machine,
    mutant: Option<Mutant>,
) -> Result<Start, String> {
    let mut found = Found::default();
    let visit = &mut |position, placed, record| found.note(position, placed, record);
    let log = recover(disk, settings, ReplayMark::start(), visit)
        .map_err(|error| format!("recovery: {error}"))?;
    found.promises.durable(log.log_end);
    let placed = found.blocks.iter().map(|(hash, (placed, _))| (*hash, *placed)).collect();
    if log.log_end == LogPosition(0) {
        let promises = found.promises;
        return Ok(Start { log, recovery: None, placed, promises });
    }
    let chain = found.chain()?;
    let mut tip = None;
    for (height, effects) in &found.effects {
        let hash = chain.get(height).ok_or_else(|| {
            format!("the log holds effects of {height}, which it does not commit")
        })?;
        let (placed, block) = &found.blocks[hash];
        let outcome =
            machine.execute(block, *placed).map_err(|error| format!("replay: {error}"))?;
        if outcome.effects != *effects {
            return Err(format!("executing {height} again changed something else"));
        }
        tip = Some(block.header.clone());
    }
    let above = tip.as_ref().map_or(Height(0), |tip| tip.height);
    let blocks = found.blocks.values().map(|(_, block)| Arc::clone(block));
    let window = machine.state.membership().parameters.window as usize;
    let mut recovery = Recovery {
        entered: found.entered,
        view_change: found.view_change,
        prepared: found.prepared,
        committed: found.committed,
        blocks: blocks.filter(|block| block.header.height > above).collect(),
        tip,
        exec_roots: machine.last_roots(window + 1),
        windows: machine.state.sessions.windows().clone(),
        next_expiry: machine.state.next_expiry(),
        quarantined: found.quarantined,
        log_end: log.log_end,
    };
    match mutant {
        Some(Mutant::ForgetsViewChange) => recovery.view_change = None,
        Some(Mutant::ForgetsPrepared) => recovery.prepared = None,
        Some(Mutant::ForgetsView) => recovery.entered = None,
        _ => {}
    }
    Ok(Start { log, recovery: Some(recovery), placed, promises: found.promises })
}
