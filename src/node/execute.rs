use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::sync::{Arc, PoisonError, RwLock};

use crate::apply::Outcome;
use crate::chain::{Block, BlockHeader, CheckpointId, Record, ValueError, carry_root};
use crate::node::checkpoint::{CheckpointJob, WriteJob};
use crate::node::gates::Gates;
use crate::node::index::IndexJob;
use crate::node::recover::value_refs;
use crate::node::values::SharedValues;
use crate::node::{NodeStatus, Shared};
use crate::state::Snapshotter;
use crate::storage::log::{Appender, Placed};
use crate::types::{Digest, Epoch, Height, LogPosition, Millis, ReplicaId};

/// One being written, and one behind it.
const CHECKPOINTS_RUNNING_MAX: usize = 2;

/// Executes committed blocks on the shared state.
pub(super) struct Executor {
    pub(super) own: ReplicaId,
    pub(super) shared: Arc<RwLock<Shared>>,
    pub(super) values: SharedValues,
    /// The last executed block's; none before the first.
    pub(super) header: Option<BlockHeader>,
    /// Roots that a checkpoint carries.
    pub(super) exec_roots: Vec<(Height, Digest)>,
    pub(super) checkpoints: Sender<CheckpointJob>,
    /// Checkpoints begun and not finished.
    pub(super) checkpoints_running: usize,
    /// Those of them that wait for the log.
    pub(super) checkpoints_waiting: Gates<Box<WriteJob>>,
    /// Height of the newest checkpoint on disk.
    pub(super) checkpoint: Height,
    pub(super) index: Sender<IndexJob>,
    /// Puts and deletes executed since the process started.
    pub(super) puts: u64,
    pub(super) deletes: u64,
    /// Executed, their effects not yet planned; several when one step commits several blocks.
    pub(super) unplanned: VecDeque<Arc<Block>>,
}

impl Executor {
    /// Block time of the newest executed block.
    pub(super) fn time_ms(&self) -> Millis {
        self.header.as_ref().map_or(Millis(0), |header| header.time_ms)
    }

    /// Epoch, height and root of the state.
    pub(super) fn tip(&self) -> (Epoch, (Height, Digest)) {
        let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
        let state = &shared.state;
        (state.membership().epoch, (state.counters.height, state.exec_root()))
    }

    /// A record was planned: a block's values can be read from now on, though they may not be on disk
    /// yet, and the index learns what the last block changed.
    pub(super) fn remember(&mut self, placed: Placed, record: &Record) {
        match record {
            Record::Block(block) => {
                self.values.change(|values| values.remember(placed, block.encoded().clone()));
            }
            Record::Effects(effects) => {
                let Some(block) = self.unplanned.pop_front() else { return };
                assert_eq!(block.header.height, effects.height, "effects follow their block");
                let job = IndexJob::Executed(placed.segment, block, effects.clone());
                // Without an index thread there is no index, and nothing else is affected.
                drop(self.index.send(job));
            }
            _ => {}
        }
    }

    /// Everything in front of `end` is on disk, the record at `position` the last.
    pub(super) fn durable(&mut self, position: LogPosition, end: Placed) {
        self.values.change(|values| {
            values.durable(end);
            // Later reads open the file themselves if this fails; they then say why.
            drop(values.open(end.segment));
        });
        drop(self.index.send(IndexJob::Durable(end)));
        for job in self.checkpoints_waiting.open(position) {
            drop(self.checkpoints.send(CheckpointJob::Write(job)));
        }
    }

    /// Data, revision and events become visible together, under one lock.
    ///
    /// # Errors
    /// A value cannot be read; the state is then half written.
    pub(super) fn execute(
        &mut self,
        block: &Arc<Block>,
        placed: Placed,
    ) -> Result<Outcome, ValueError> {
        let refs = value_refs(block, placed);
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        let mut outcome =
            crate::apply::execute(&mut shared.state, block, &refs, &self.values, self.own)?;
        self.puts += outcome.puts;
        self.deletes += outcome.deletes;
        let events = core::mem::take(&mut outcome.events);
        shared.ring.publish(events, outcome.revision);
        let own = shared.state.organisation_of(self.own);
        for login in core::mem::take(&mut outcome.logins) {
            if Some(login.organisation) == own {
                shared.tokens.add(login, block.header.time_ms);
            }
        }
        let window = shared.state.membership().parameters.window;
        drop(shared);
        let at = (block.header.height, outcome.effects.exec_root);
        carry_root(&mut self.exec_roots, at, window, block.ends_epoch());
        self.header = Some(block.header.clone());
        self.unplanned.push_back(block.clone());
        Ok(outcome)
    }

    pub(super) fn fill(&self, status: &mut NodeStatus) {
        let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
        status.revision = shared.state.kv.revision();
        status.compact_revision = shared.state.kv.compact_revision();
        status.keys = shared.state.kv.key_count() as u64;
        status.logical_bytes = shared.state.used_bytes();
        status.checkpoint = self.checkpoint;
        (status.puts, status.deletes) = (self.puts, self.deletes);
    }

    /// Begins a checkpoint of the state as it is, unless one is being written and another waits. The
    /// log goes on in a new segment, so that this one can be pruned. Nothing is written before the log
    /// is durable up to `after`: a state of a new epoch is opened with the proof of it in the log.
    pub(super) fn begin_checkpoint(&mut self, appender: &mut Appender, after: LogPosition) {
        let Some(header) = self.header.clone() else { return };
        if self.checkpoints_running >= CHECKPOINTS_RUNNING_MAX {
            return;
        }
        self.checkpoints_running += 1;
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        let job = WriteJob {
            snapshotter: Snapshotter::begin(&mut shared.state),
            exec_root: shared.state.exec_root(),
            exec_roots: self.exec_roots.clone(),
            replay: appender.replay_mark(header.height),
            header,
        };
        appender.rotate();
        if let Some(job) = self.checkpoints_waiting.pass(after, Box::new(job)) {
            drop(self.checkpoints.send(CheckpointJob::Write(job)));
        }
    }

    /// A checkpoint is on disk; the log in front of the one before it is not replayed any more.
    pub(super) fn checkpointed(
        &mut self,
        done: Result<CheckpointId, String>,
        appender: &mut Appender,
    ) -> Option<CheckpointId> {
        self.checkpoints_running -= 1;
        match done {
            Ok(id) => {
                let height = id.height;
                appender.forget_below(self.checkpoint);
                self.checkpoint = height;
                tracing::info!(event = "checkpoint", height = height.0, "a checkpoint is on disk");
                Some(id)
            }
            Err(why) => {
                tracing::warn!(event = "checkpoint", "no checkpoint was made: {why}");
                None
            }
        }
    }
}
