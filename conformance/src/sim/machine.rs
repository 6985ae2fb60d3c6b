//! Execution as the shell does it: production `apply` on production `state`, values read back from the
//! log or from blocks that are still on their way to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use althing::apply::{self, Outcome};
use althing::chain::{Block, Entry, Genesis, ValueError, ValueRef};
use althing::state::State;
use althing::storage::log::Placed;
use althing::storage::values::Values;
use althing::types::{Digest, Height, ReplicaId};

use crate::sim::disk::SimDisk;

/// One replica's state with what it takes to execute the next block.
pub struct Machine {
    /// Production state.
    pub state: State,
    /// Reads values of this replica: production too.
    pub values: Values,
    own: ReplicaId,
    roots: BTreeMap<Height, Digest>,
}

impl Machine {
    /// The state before the first block.
    #[must_use]
    pub fn new(genesis: &Genesis, own: ReplicaId, disk: SimDisk) -> Self {
        let state = State::genesis(genesis);
        let roots = BTreeMap::from([(Height(0), state.exec_root())]);
        Self { state, values: Values::new(Arc::new(disk)), own, roots }
    }

    /// The last executed height.
    #[must_use]
    pub fn height(&self) -> Height {
        self.state.counters.height
    }

    /// Roots after the last `count` heights.
    #[must_use]
    pub fn last_roots(&self, count: usize) -> Vec<(Height, Digest)> {
        let skip = self.roots.len().saturating_sub(count);
        self.roots.iter().skip(skip).map(|(height, root)| (*height, *root)).collect()
    }

    /// A block went to the log.
    pub fn remember(&mut self, placed: Placed, block: &Block) {
        self.values.remember(placed, block.encoded().clone());
    }

    /// Executes a block that lies at `placed` in the log.
    ///
    /// # Errors
    /// A value cannot be read.
    pub fn execute(&mut self, block: &Block, placed: Placed) -> Result<Outcome, ValueError> {
        let refs = references(block, placed);
        let outcome = apply::execute(&mut self.state, block, &refs, &self.values, self.own)?;
        self.roots.insert(block.header.height, outcome.effects.exec_root);
        Ok(outcome)
    }
}

/// Where a logged block's values lie, per entry and slot.
fn references(block: &Block, placed: Placed) -> Vec<Vec<ValueRef>> {
    let offsets = block.value_offsets();
    let entries = block.entries.iter().zip(offsets);
    entries
        .map(|(entry, offsets)| match entry {
            Entry::Bundle(bundle) => offsets
                .iter()
                .zip(&bundle.values)
                .map(|(offset, value)| ValueRef {
                    segment: placed.segment,
                    offset: placed.offset + 1 + offset,
                    length: u32::try_from(value.bytes.len()).expect("a value is a few MiB"),
                })
                .collect(),
            Entry::Rejoin(_) => Vec::new(),
        })
        .collect()
}
