//! Execution as the shell does it: production `apply` on production `state`, values read back from the
//! log or from blocks that are still on their way to it.

use std::collections::BTreeMap;

use althing::apply::{self, Outcome};
use althing::chain::{Block, ValueError};
use althing::state::State;
use althing::storage::log::Placed;
use althing::storage::values::Values;
use althing::types::{Digest, Height, ReplicaId};
use althing::watch::Ring;

use crate::sim::node_recover::value_refs;

/// One replica's state with what it takes to execute the next block.
pub struct Machine {
    /// Production state.
    pub state: State,
    /// Reads values of this replica: production too.
    pub values: Values,
    /// The newest events: production too.
    pub ring: Ring,
    own: ReplicaId,
    roots: BTreeMap<Height, Digest>,
}

impl Machine {
    /// A state as a start found it, with the roots after its last heights.
    #[must_use]
    pub fn restored(
        state: State,
        values: Values,
        own: ReplicaId,
        roots: BTreeMap<Height, Digest>,
    ) -> Self {
        let ring = Ring::new(state.kv.revision());
        Self { state, values, ring, own, roots }
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
        let refs = value_refs(block, placed);
        let mut outcome = apply::execute(&mut self.state, block, &refs, &self.values, self.own)?;
        self.ring.publish(core::mem::take(&mut outcome.events), outcome.revision);
        self.roots.insert(block.header.height, outcome.effects.exec_root);
        Ok(outcome)
    }
}
