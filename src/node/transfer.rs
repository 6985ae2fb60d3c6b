//! The transfer thread: hashes and writes chunks of a checkpoint that comes from peers, and rebuilds
//! the state once all are there. The protocol thread goes on meanwhile.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use bytes::Bytes;

use crate::chain::{BlockHeader, Genesis, Manifest};
use crate::node::event::Event;
use crate::node::repair::DAMAGED_DIRECTORY;
use crate::node::run::Replica;
use crate::ordering::{TransferEvent, TransferStep};
use crate::state::{KeptChunk, Restore, State};
use crate::storage::checkpoint::{CHECKPOINT_DIRECTORY, Checkpoint};
use crate::storage::disk::{Disk, DiskError, DiskErrorKind};
use crate::storage::log::ReplayMark;
use crate::storage::transfer::Assembly;
use crate::types::{Digest, ReplicaId};

/// A state that was transferred and is complete, and where it will lie.
pub(super) struct Transferred {
    pub(super) checkpoint: Checkpoint,
    pub(super) state: State,
}

/// What the transfer thread is asked.
pub(super) enum TransferJob {
    /// A step that the core asked for.
    Step(TransferStep),
    /// All chunks are there; the replay above begins here.
    Install(ReplayMark),
}

impl Replica {
    /// Hands a step on; the last one says where the replay above the new state begins.
    pub(super) fn transfer(&mut self, step: TransferStep) {
        let job = match step {
            TransferStep::Install { height } => {
                TransferJob::Install(self.persist.appender().replay_mark(height))
            }
            other => TransferJob::Step(other),
        };
        drop(self.transfers.send(job));
    }
}

/// What the transfer thread works on.
pub(super) struct Transfers {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) genesis: Genesis,
    pub(super) events: Sender<Event>,
}

/// Why a step could not be done.
enum Failed {
    /// It is tried again later.
    Later(String),
    /// A write or sync failed: the process ends (README decision 10).
    Disk(DiskError),
    /// The certified bytes give another state here.
    Diverged(String),
}

impl From<DiskError> for Failed {
    fn from(error: DiskError) -> Self {
        match error.kind {
            DiskErrorKind::Full => Self::Later(error.to_string()),
            _ => Self::Disk(error),
        }
    }
}

impl Transfers {
    /// Works until every sender is gone.
    pub(super) fn run(self, jobs: &Receiver<TransferJob>) {
        let mut assembly: Option<(Digest, Assembly)> = None;
        for job in jobs {
            let done = match job {
                TransferJob::Step(TransferStep::Begin { header, manifest }) => {
                    self.begin(header, manifest).map(|(begun, event)| {
                        assembly = Some(begun);
                        Some(Event::Transfer(event))
                    })
                }
                TransferJob::Step(TransferStep::Store { number, peer, bytes }) => {
                    let Some((root, assembly)) = &mut assembly else { continue };
                    store(*root, assembly, (number, peer, &bytes))
                        .map(|event| Some(Event::Transfer(event)))
                }
                TransferJob::Install(replay) => {
                    let Some((_, assembly)) = &mut assembly else { continue };
                    let complete = self.complete(assembly, replay);
                    complete.map(|done| Some(Event::Transferred(Box::new(done))))
                }
                TransferJob::Step(TransferStep::Abandon | TransferStep::Install { .. }) => {
                    assembly = None;
                    Ok(None)
                }
            };
            let event = match done {
                Ok(event) => event,
                Err(Failed::Later(reason)) => {
                    assembly = None;
                    Some(Event::Transfer(TransferEvent::Failed { reason }))
                }
                Err(Failed::Disk(error)) => Some(Event::LogFailed(error.to_string())),
                Err(Failed::Diverged(reason)) => Some(Event::Damaged(reason)),
            };
            if event.is_some_and(|event| self.events.send(event).is_err()) {
                return;
            }
        }
    }

    fn begin(
        &self,
        header: BlockHeader,
        manifest: Arc<Manifest>,
    ) -> Result<((Digest, Assembly), TransferEvent), Failed> {
        let root = manifest.root();
        let (height, bytes) = (manifest.height.0, manifest.bytes());
        let chunks = manifest.chunks.len();
        let reusable = [CHECKPOINT_DIRECTORY, DAMAGED_DIRECTORY];
        let (assembly, held) = Assembly::begin(self.disk.clone(), header, manifest, &reusable)?;
        let here = held.len();
        tracing::info!(event = "transfer", height, bytes, chunks, here, "fetching a checkpoint");
        Ok(((root, assembly), TransferEvent::Begun { root, held }))
    }

    /// The state is rebuilt from what lies on disk, and its root is the certified one, before
    /// anything of it counts.
    fn complete(&self, assembly: &mut Assembly, replay: ReplayMark) -> Result<Transferred, Failed> {
        let checkpoint = assembly.finish(replay)?;
        let mut restore = Restore::new(&self.genesis);
        for chunk in assembly.chunks() {
            let Some((place, bytes)) = chunk else {
                let why = "a chunk that was gathered is not what was written; it is fetched again";
                return Err(Failed::Later(why.to_owned()));
            };
            let kept = KeptChunk { bytes, segment: place.segment(), base: place.base };
            restore.push(&kept).map_err(|error| diverged(&checkpoint, &error))?;
        }
        let state = restore.finish().map_err(|error| diverged(&checkpoint, &error))?;
        let (found, certified) = (state.exec_root(), checkpoint.manifest.exec_root);
        if found != certified {
            return Err(diverged(&checkpoint, &format_args!("its root here is {found}")));
        }
        tracing::info!(
            event = "transfer",
            height = checkpoint.manifest.height.0,
            "a checkpoint is complete"
        );
        Ok(Transferred { checkpoint, state })
    }
}

fn diverged(checkpoint: &Checkpoint, why: &dyn core::fmt::Display) -> Failed {
    let (height, root) = (checkpoint.manifest.height, checkpoint.manifest.exec_root);
    Failed::Diverged(format!(
        "the certified checkpoint at height {height} with root {root} gives no such state here: {why}; \
         is this program of the same version as the others'?"
    ))
}

fn store(
    root: Digest,
    assembly: &mut Assembly,
    (number, peer, bytes): (u32, ReplicaId, &Bytes),
) -> Result<TransferEvent, Failed> {
    let sound = assembly.store(number, bytes)?;
    Ok(TransferEvent::Stored { root, number, peer, sound })
}
