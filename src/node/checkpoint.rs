//! Checkpoints in the background, in slices: a slice is planned under the read lock, values are read
//! and written without it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::chain::{BlockHeader, ValueSource};
use crate::node::Shared;
use crate::node::event::Event;
use crate::node::values::SharedValues;
use crate::observe;
use crate::state::Snapshotter;
use crate::storage::checkpoint::{CheckpointParts, CheckpointWriter, remove_old};
use crate::storage::disk::Disk;
use crate::storage::log::ReplayMark;
use crate::types::{ClusterId, Digest, Height};

/// Pause between two slices, so that flushes of the log go first.
const PAUSE: Duration = Duration::from_millis(2);

/// A checkpoint to be written.
pub(super) struct CheckpointJob {
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
    /// Files of the checkpoint this process was restored from: its values are still read there.
    pub(super) in_use: Vec<u32>,
    /// The state is about to be replaced: what is being written is given up.
    pub(super) stop: Arc<AtomicBool>,
}

impl Checkpoints {
    /// Writes checkpoints until every sender is gone.
    pub(super) fn run(self, jobs: &Receiver<CheckpointJob>, events: &Sender<Event>) {
        // Known from the start, so that /metrics shows it before the first checkpoint.
        drop(observe::histogram(&observe::table::BACKEND_COMMIT_SECONDS, &[]));
        for job in jobs {
            let height = job.header.height;
            let done = self.write(job).map(|()| height);
            if events.send(Event::Checkpointed(done)).is_err() {
                return;
            }
        }
    }

    fn write(&self, job: CheckpointJob) -> Result<(), String> {
        let CheckpointJob { mut snapshotter, header, exec_root, exec_roots, replay } = job;
        let mut writer = CheckpointWriter::begin(self.disk.clone()).map_err(said)?;
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
            let values: &dyn ValueSource = &self.values;
            writer.push(&plan.write(values).map_err(said)?).map_err(said)?;
            seconds.record(began.elapsed());
            std::thread::sleep(PAUSE);
        }
        drop(snapshotter);
        let cluster_id = self.cluster_id;
        let parts = CheckpointParts { cluster_id, header, exec_root, exec_roots, replay };
        writer.finish(parts).map_err(said)?;
        remove_old(self.disk.as_ref(), &self.cluster_id, &self.in_use).map_err(said)
    }
}

fn said(error: impl core::fmt::Display) -> String {
    error.to_string()
}
