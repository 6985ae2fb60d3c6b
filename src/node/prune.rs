//! Erasing behind the horizon, on the checkpoint thread: values and votes of log segments, then whole
//! segments that are older than the retention, then checkpoints that are not kept.

use std::sync::mpsc::Sender;

use crate::chain::ValueSource;
use crate::node::bulk::BulkJob;
use crate::node::checkpoint::{Checkpoints, PAUSE, said};
use crate::node::event::Event;
use crate::node::index::IndexJob;
use crate::state::{KeptChunk, moved_keys};
use crate::storage::checkpoint::{Checkpoint, candidates, remove_old};
use crate::storage::disk::DiskErrorKind;
use crate::storage::log::{Horizon, LogError, drop_oldest, prune_segment, prune_steps};
use crate::types::{Height, Millis, Revision};

/// Keys whose references are changed under one hold of the state's lock.
const KEYS_PER_SLICE: usize = 256;

/// What may be erased.
pub(super) struct PruneJob {
    /// Heights of the checkpoints a quorum holds.
    pub(super) stable: Vec<Height>,
    /// The older of the two newest that are held here too.
    pub(super) horizon: Option<Height>,
    /// The segment that is written to.
    pub(super) open: u32,
    /// Block time of the newest executed block.
    pub(super) time_ms: Millis,
}

/// How far the state's values have moved.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moved {
    /// No value of a block up to here is referred to in the log.
    pub(super) height: Height,
    /// Events up to here may refer to values in the log.
    revision: Revision,
}

impl Moved {
    /// A state restored from the checkpoint at this height; nobody has seen an event of it.
    pub(super) fn at(height: Height) -> Self {
        Self { height, revision: Revision(0) }
    }
}

impl Checkpoints {
    /// Lets the state refer to a checkpoint's files, a few keys at a time.
    pub(super) fn relocate(&mut self, checkpoint: &Checkpoint) -> Result<(), String> {
        for chunk in checkpoint.chunks(&self.disk) {
            let chunk = chunk.map_err(said)?;
            let (segment, base) = (chunk.place.segment(), chunk.place.base);
            let kept = KeptChunk { bytes: chunk.bytes, segment, base };
            for keys in moved_keys(&kept).map_err(said)?.chunks(KEYS_PER_SLICE) {
                self.write_shared(|shared| shared.state.relocate(keys));
                std::thread::sleep(PAUSE);
            }
        }
        let revision = self.write_shared(|shared| shared.state.kv.revision());
        self.moved = Moved { height: checkpoint.manifest.height, revision };
        self.in_use = checkpoint.files();
        Ok(())
    }

    /// Erases what may go. A full disk or a damaged old segment puts it off; a failed write ends the
    /// process like one of the log's.
    pub(super) fn prune(&mut self, job: &PruneJob, events: &Sender<Event>) {
        self.stable.clone_from(&job.stable);
        match self.try_prune(job) {
            Ok(()) => {}
            Err(LogError::Disk(error)) if error.kind == DiskErrorKind::Failed => {
                drop(events.send(Event::LogFailed(format!("pruning the log failed: {error}"))));
            }
            Err(error) => tracing::warn!(event = "prune", "the log was not pruned: {error}"),
        }
    }

    fn try_prune(&mut self, job: &PruneJob) -> Result<(), LogError> {
        if let Some(height) = job.horizon {
            self.prune_log(height, job.open)?;
            self.drop_history(job.time_ms)?;
        }
        self.remove_checkpoints();
        Ok(())
    }

    /// Checkpoints that are not kept go, with their chunks.
    pub(super) fn remove_checkpoints(&self) {
        let kept = (self.in_use.as_slice(), self.stable.as_slice());
        if let Err(error) = remove_old(self.disk.as_ref(), &self.cluster_id, kept) {
            tracing::warn!(event = "prune", "old checkpoints stay: {error}");
        }
    }

    fn prune_log(&mut self, height: Height, open: u32) -> Result<(), LogError> {
        let found = match candidates(self.disk.as_ref(), &self.cluster_id) {
            Ok(found) => found.whole.into_iter().find(|one| one.manifest.height == height),
            Err(error) => {
                tracing::warn!(event = "prune", "the log was not pruned: {error}");
                None
            }
        };
        let Some(oldest) = found else { return Ok(()) };
        let Moved { height: moved, revision } = self.moved;
        let horizon = Horizon { segment: oldest.replay.segment, height, moved, open };
        // A watcher that lags goes on from the state's history, whose references have moved.
        self.write_shared(|shared| shared.ring.forget(revision));
        let steps = prune_steps(self.disk.as_ref(), &self.settings, &horizon)?;
        let count = steps.len();
        for step in steps {
            if self.stop.load(std::sync::atomic::Ordering::Relaxed) {
                return Ok(());
            }
            self.values.change(|values| values.erase(step.segment()));
            prune_segment(self.disk.as_ref(), &self.settings, (step, &horizon), &mut || {
                std::thread::sleep(PAUSE);
            })?;
            // Readers close what they hold open of it, only then is its old content gone. Threads that
            // are gone hold nothing open.
            drop(self.bulk.send(BulkJob::Pruned(step.segment())));
            drop(self.index.send(IndexJob::Pruned(step.segment())));
        }
        if count > 0 {
            let height = height.0;
            tracing::info!(event = "prune", height, segments = count, "pruned the log");
        }
        Ok(())
    }

    /// Segments that are older than the retention go.
    fn drop_history(&self, time_ms: Millis) -> Result<(), LogError> {
        if self.retention_ms == 0 {
            return Ok(());
        }
        let before = Millis(time_ms.0.saturating_sub(self.retention_ms));
        while let Some(segment) = drop_oldest(self.disk.as_ref(), &self.settings, before)? {
            drop(self.bulk.send(BulkJob::Removed(segment)));
            drop(self.index.send(IndexJob::Removed(segment)));
            tracing::info!(event = "prune", segment, "dropped a segment older than the retention");
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Reads values for a chunk from where they are now.
    pub(super) fn source(&self) -> &dyn ValueSource {
        &self.values
    }
}
