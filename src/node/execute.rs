use std::sync::{Arc, PoisonError, RwLock};

use crate::apply::Outcome;
use crate::chain::{Block, Record, ValueError};
use crate::node::recover::value_refs;
use crate::node::values::SharedValues;
use crate::node::{NodeStatus, Shared};
use crate::storage::log::Placed;
use crate::types::{Height, Millis, ReplicaId};

/// Executes committed blocks on the shared state.
pub(super) struct Executor {
    own: ReplicaId,
    shared: Arc<RwLock<Shared>>,
    values: SharedValues,
    time_ms: Millis,
}

impl Executor {
    pub(super) fn new(
        own: ReplicaId,
        shared: Arc<RwLock<Shared>>,
        values: SharedValues,
        time_ms: Millis,
    ) -> Self {
        Self { own, shared, values, time_ms }
    }

    /// Block time of the newest executed block.
    pub(super) fn time_ms(&self) -> Millis {
        self.time_ms
    }

    /// A block's values can be read from now on, though they may not be on disk yet.
    pub(super) fn remember(&self, placed: Placed, record: &Record) {
        if let Record::Block(block) = record {
            self.values.change(|values| values.remember(placed, block.encoded().clone()));
        }
    }

    /// Everything in front of `end` is on disk.
    pub(super) fn durable(&self, end: Placed) {
        self.values.change(|values| {
            values.durable(end);
            // Later reads open the file themselves if this fails; they then say why.
            drop(values.open(end.segment));
        });
    }

    /// Data, revision and events become visible together, under one lock.
    ///
    /// # Errors
    /// A value cannot be read; the state is then half written.
    pub(super) fn execute(&mut self, block: &Block, placed: Placed) -> Result<Outcome, ValueError> {
        let refs = value_refs(block, placed);
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        let mut outcome =
            crate::apply::execute(&mut shared.state, block, &refs, &self.values, self.own)?;
        let events = core::mem::take(&mut outcome.events);
        shared.ring.publish(events, outcome.revision);
        self.time_ms = block.header.time_ms;
        Ok(outcome)
    }

    pub(super) fn fill(&self, status: &mut NodeStatus) {
        let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
        status.revision = shared.state.kv.revision();
        status.compact_revision = shared.state.kv.compact_revision();
        status.keys = shared.state.kv.key_count() as u64;
        status.logical_bytes = shared.state.used_bytes();
    }

    /// Height of the last executed block.
    pub(super) fn height(&self) -> Height {
        let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
        shared.state.counters.height
    }
}
