//! From what the disk holds to a state and a core that go on where the process stopped
//! (consensus.md 6): newest checkpoint, committed blocks above it executed again, every vote ever sent
//! known again.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::chain::{Block, BlockHeader, Certificate, Effects, Record, ValueRef, ValueSource};
use crate::ordering::Recovery;
use crate::state::State;
use crate::storage::log::Placed;
use crate::types::{Digest, Epoch, Height, LogPosition, ReplicaId, View};

/// What the log says, gathered record by record.
#[derive(Default)]
pub(super) struct LogSummary {
    entered: Option<(Epoch, View, Height, Digest)>,
    view_change: Option<(Epoch, View, Bytes)>,
    prepared: Option<Certificate>,
    /// Commit certificates above the checkpoint, by height.
    committed: BTreeMap<Height, Certificate>,
    newest_committed: Option<Certificate>,
    blocks: BTreeMap<Digest, (Placed, Arc<Block>)>,
    effects: BTreeMap<Height, Digest>,
    /// Effects in the newest segment: the index knows them from memory alone.
    tail: Vec<(u32, Effects)>,
    pub(super) session: u64,
    quarantined: Option<String>,
}

/// A state after replay, and what the core must know.
pub(super) struct Replayed {
    pub(super) recovery: Recovery,
    /// Where the blocks above the tip lie.
    pub(super) placed: BTreeMap<(Height, Digest), Placed>,
    /// What was executed in the newest segment of the log.
    pub(super) tail: Vec<(u32, Arc<Block>, Effects)>,
    /// Blocks executed again.
    pub(super) replayed: u64,
    pub(super) quarantined: Option<String>,
}

/// Where the replay starts.
pub(super) struct Base {
    pub(super) header: Option<BlockHeader>,
    pub(super) exec_roots: Vec<(Height, Digest)>,
}

impl LogSummary {
    /// Takes note of one record above `base`; call it in the order of the log.
    pub(super) fn note(&mut self, base: Height, placed: Placed, record: Record) {
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
            Record::Prepared(certificate) => keep_newest(&mut self.prepared, certificate),
            Record::Committed(certificate) => {
                if certificate.height > base {
                    self.committed.insert(certificate.height, certificate.clone());
                }
                keep_newest(&mut self.newest_committed, certificate);
            }
            Record::Effects(effects) => {
                if effects.height > base {
                    self.effects.insert(effects.height, effects.exec_root);
                }
                self.tail.retain(|(segment, _)| *segment == placed.segment);
                self.tail.push((placed.segment, effects));
            }
            Record::Session { counter } => self.session = self.session.max(counter),
            Record::Quarantined { reason } => {
                self.quarantined = Some(String::from_utf8_lossy(&reason).into_owned());
            }
            _ => {}
        }
    }

    /// The committed blocks above the base, in order of height: those below the highest commit
    /// certificate whose whole chain is held.
    fn committed_chain(&self, base: &Base) -> Vec<Digest> {
        let base_hash = base.header.as_ref().map_or(Digest::ZERO, BlockHeader::hash);
        for certificate in self.committed.values().rev() {
            let mut chain = Vec::new();
            let mut hash = certificate.block_hash;
            while hash != base_hash {
                let Some((_, block)) = self.blocks.get(&hash) else { break };
                chain.push(hash);
                hash = block.header.parent;
            }
            if hash == base_hash {
                chain.reverse();
                return chain;
            }
        }
        Vec::new()
    }

    /// Executes the committed chain on `state` and hands over the rest.
    ///
    /// # Errors
    /// A value that execution needs cannot be read.
    pub(super) fn replay(
        mut self,
        mut base: Base,
        state: &mut State,
        values: &dyn ValueSource,
        (own, log_end): (ReplicaId, LogPosition),
    ) -> Result<Replayed, String> {
        let chain = self.committed_chain(&base);
        let window = state.membership().parameters.window as usize;
        for hash in &chain {
            let (placed, block) = self.blocks.get(hash).expect("the chain was walked");
            let refs = value_refs(block, *placed);
            let height = block.header.height;
            let outcome = crate::apply::execute(state, block, &refs, values, own)
                .map_err(|error| format!("block {height} cannot be executed again: {error}"))?;
            let root = outcome.effects.exec_root;
            if self.effects.get(&height).is_some_and(|before| *before != root) {
                let reason = format!(
                    "executing block {height} again gave root {root}, the log says another; \
                     run `althing replica repair`"
                );
                self.quarantined.get_or_insert(reason);
            }
            base.exec_roots.push((height, root));
            if base.exec_roots.len() > window + 1 {
                base.exec_roots.remove(0);
            }
        }
        let tip = chain.last().and_then(|hash| self.blocks.get(hash));
        let tip = tip.map(|(_, block)| block.header.clone()).or(base.header);
        let executed = tip.as_ref().map_or(Height(0), |header| header.height);
        let tail = self.executed_tail(tip.as_ref());
        self.blocks.retain(|_, (_, block)| block.header.height > executed);
        let placed = self
            .blocks
            .iter()
            .map(|(hash, (placed, block))| ((block.header.height, *hash), *placed))
            .collect();
        let recovery = Recovery {
            entered: self.entered,
            view_change: self.view_change,
            prepared: self.prepared,
            committed: self.newest_committed,
            blocks: self.blocks.into_values().map(|(_, block)| block).collect(),
            tip,
            exec_roots: base.exec_roots,
            windows: state.sessions.windows().clone(),
            next_expiry: state.next_expiry(),
            quarantined: self.quarantined.is_some(),
            log_end,
        };
        let (replayed, quarantined) = (chain.len() as u64, self.quarantined);
        Ok(Replayed { recovery, placed, tail, replayed, quarantined })
    }

    /// The effects in the newest segment with the committed blocks they are of.
    fn executed_tail(&mut self, tip: Option<&BlockHeader>) -> Vec<(u32, Arc<Block>, Effects)> {
        let mut by_height = BTreeMap::new();
        let mut hash = tip.map_or(Digest::ZERO, BlockHeader::hash);
        while let Some((_, block)) = self.blocks.get(&hash) {
            by_height.insert(block.header.height, block.clone());
            hash = block.header.parent;
        }
        let with_block = |(segment, effects): (u32, Effects)| {
            let block = by_height.get(&effects.height)?.clone();
            Some((segment, block, effects))
        };
        core::mem::take(&mut self.tail).into_iter().filter_map(with_block).collect()
    }
}

fn keep_newest(kept: &mut Option<Certificate>, certificate: Certificate) {
    if kept.as_ref().is_none_or(|kept| kept.rank() <= certificate.rank()) {
        *kept = Some(certificate);
    }
}

/// Where this replica keeps a block's values, entry by entry in slot order.
pub(super) fn value_refs(block: &Block, placed: Placed) -> Vec<Vec<ValueRef>> {
    // The record's tag byte stands before the encoded block.
    let start = placed.offset + 1;
    let lengths = block.entries.iter().map(|entry| match entry {
        crate::chain::Entry::Bundle(bundle) => {
            bundle.values.iter().map(|value| value.bytes.len()).collect()
        }
        crate::chain::Entry::Rejoin(_) => Vec::new(),
    });
    block
        .value_offsets()
        .into_iter()
        .zip(lengths)
        .map(|(offsets, lengths): (Vec<u32>, Vec<usize>)| {
            offsets
                .into_iter()
                .zip(lengths)
                .map(|(offset, length)| ValueRef {
                    segment: placed.segment,
                    offset: start + offset,
                    length: u32::try_from(length).expect("a value is at most a few MiB"),
                })
                .collect()
        })
        .collect()
}
