//! Execution as the shell does it: production `apply` on production `state`, values read back from the
//! log or from blocks that are still on their way to it.

use std::collections::BTreeMap;

use althing::apply::{self, Outcome};
use althing::chain::{Block, ValueError, carry_root};
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
    /// All that this process knows.
    roots: BTreeMap<Height, Digest>,
    /// Those that a checkpoint carries.
    carried: Vec<(Height, Digest)>,
}

impl Machine {
    /// A state as a start found it, with the roots that a checkpoint there carries.
    #[must_use]
    pub fn restored(
        state: State,
        values: Values,
        own: ReplicaId,
        carried: Vec<(Height, Digest)>,
    ) -> Self {
        let ring = Ring::new(state.kv.revision());
        let roots = carried.iter().copied().collect();
        Self { state, values, ring, own, roots, carried }
    }

    /// The last executed height.
    #[must_use]
    pub fn height(&self) -> Height {
        self.state.counters.height
    }

    /// All roots that this process knows.
    #[must_use]
    pub fn roots(&self) -> Vec<(Height, Digest)> {
        self.roots.iter().map(|(height, root)| (*height, *root)).collect()
    }

    /// Those that a checkpoint of the state as it is carries.
    #[must_use]
    pub fn carried_roots(&self) -> &[(Height, Digest)] {
        &self.carried
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
        let at = (block.header.height, outcome.effects.exec_root);
        self.roots.insert(at.0, at.1);
        let window = self.state.membership().parameters.window;
        carry_root(&mut self.carried, at, window, block.ends_epoch());
        Ok(outcome)
    }
}
