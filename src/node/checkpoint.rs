//! Checkpoints in the background, in slices: a slice is planned under the read lock, values are read
//! and written without it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::chain::{BlockHeader, CheckpointId};
use crate::node::Shared;
use crate::node::bulk::BulkJob;
use crate::node::event::Event;
use crate::node::halt::{EXIT_LOG_FAILED, halt};
use crate::node::index::IndexJob;
use crate::node::prune::{Moved, PruneJob};
use crate::node::values::SharedValues;
use crate::observe;
use crate::state::Snapshotter;
use crate::storage::checkpoint::{Checkpoint, CheckpointParts, CheckpointWriter};
use crate::storage::disk::{Disk, DiskError, DiskErrorKind};
use crate::storage::log::{LogSettings, ReplayMark};
use crate::types::{ClusterId, Digest, Height};

/// Pause between two slices, so that flushes of the log go first.
pub(super) const PAUSE: Duration = Duration::from_millis(2);

/// What the checkpoint thread is asked.
pub(super) enum CheckpointJob {
    /// Write one.
    Write(Box<WriteJob>),
    /// Erase what stable checkpoints make needless.
    Prune(PruneJob),
}

/// A checkpoint to be written.
pub(super) struct WriteJob {
    pub(super) snapshotter: Snapshotter,
    pub(super) header: BlockHeader,
    pub(super) exec_root: Digest,
    pub(super) exec_roots: Vec<(Height, Digest)>,
    pub(super) replay: ReplayMark,
}

/// What the checkpoint thread works on.
pub(super) struct Checkpoints {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) cluster_id: ClusterId,
    pub(super) shared: Arc<RwLock<Shared>>,
    pub(super) values: SharedValues,
    pub(super) settings: LogSettings,
    /// Files of the checkpoint that the state refers to.
    pub(super) in_use: Vec<u32>,
    pub(super) moved: Moved,
    /// Heights of the checkpoints a quorum holds.
    pub(super) stable: Vec<Height>,
    /// How long blocks are kept, in block time; 0 for ever.
    pub(super) retention_ms: u64,
    pub(super) bulk: Sender<BulkJob>,
    pub(super) index: Sender<IndexJob>,
    /// The state is about to be replaced: what is being written is given up.
    pub(super) stop: Arc<AtomicBool>,
}

impl Checkpoints {
    /// Writes checkpoints and prunes until every sender is gone.
    pub(super) fn run(mut self, jobs: &Receiver<CheckpointJob>, events: &Sender<Event>) {
        // Known from the start, so that /metrics shows it before the first checkpoint.
        drop(observe::histogram(&observe::table::BACKEND_COMMIT_SECONDS, &[]));
        for job in jobs {
            let done = match job {
                CheckpointJob::Write(job) => self.write(*job, events),
                CheckpointJob::Prune(job) => {
                    self.prune(&job, events);
                    continue;
                }
            };
            if events.send(Event::Checkpointed(done)).is_err() {
                return;
            }
        }
    }

    fn write(&mut self, job: WriteJob, events: &Sender<Event>) -> Result<CheckpointId, String> {
        let WriteJob { mut snapshotter, header, exec_root, exec_roots, replay } = job;
        let mut writer = CheckpointWriter::begin(self.disk.clone()).map_err(refused)?;
        let seconds = observe::histogram(&observe::table::BACKEND_COMMIT_SECONDS, &[]);
        loop {
            let began = std::time::Instant::now();
            let plan = {
                let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
                snapshotter.plan_chunk(&shared.state)
            };
            let Some(plan) = plan else { break };
            if self.stop.load(Ordering::Relaxed) {
                return Err("the replica starts over".to_owned());
            }
            let chunk = plan.write(self.source()).map_err(|error| {
                // Nobody moves values while this thread writes: what it cannot read is lost.
                drop(events.send(Event::Damaged(error.to_string())));
                error.to_string()
            })?;
            writer.push(&chunk).map_err(refused)?;
            seconds.record(began.elapsed());
            std::thread::sleep(PAUSE);
        }
        drop(snapshotter);
        let cluster_id = self.cluster_id;
        let parts = CheckpointParts { cluster_id, header, exec_root, exec_roots, replay };
        let checkpoint: Checkpoint = writer.finish(parts).map_err(refused)?;
        self.relocate(&checkpoint)?;
        self.remove_checkpoints();
        Ok(checkpoint.manifest.id())
    }

    pub(super) fn write_shared<R>(&self, f: impl FnOnce(&mut Shared) -> R) -> R {
        f(&mut self.shared.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A full disk costs a checkpoint; any other failed write ends the process (README decision 10).
fn refused(error: DiskError) -> String {
    if error.kind == DiskErrorKind::Failed {
        halt(EXIT_LOG_FAILED, &format!("a checkpoint cannot be written: {error}"));
    }
    error.to_string()
}

pub(super) fn said(error: impl core::fmt::Display) -> String {
    error.to_string()
}
