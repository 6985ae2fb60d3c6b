//! State transfer in simulated time: production's assembly on the simulated disk, and what the shell's
//! threads do for it.

use std::collections::VecDeque;
use std::sync::Arc;

use althing::chain::CheckpointId;
use althing::ordering::{Input, Message, Recipients, TransferEvent, TransferStep};
use althing::storage::checkpoint::{CHECKPOINT_DIRECTORY, Checkpoint, candidates};
use althing::storage::disk::Disk;
use althing::storage::log::ReplayMark;
use althing::storage::transfer::{Assembly, install};
use althing::types::{Digest, ReplicaId};

use crate::sim::node::Life;
use crate::sim::plan::{MILLI, Mutant};
use crate::sim::world::{Local, World};

/// What a process knows of the checkpoint that it fetches.
#[derive(Default)]
pub struct Fetching {
    assembly: Option<(Digest, Assembly)>,
    jobs: VecDeque<Job>,
}

enum Job {
    Step(TransferStep),
    Install(ReplayMark),
}

impl World {
    /// A checkpoint is on disk.
    pub(super) fn checkpoint_built(&mut self, slot: usize, id: CheckpointId) -> Result<(), String> {
        if self.honest(slot) {
            let same = self.agreement.checkpoint(&id);
            self.within_f(same)?;
        }
        self.step(slot, Input::CheckpointBuilt { id })?;
        self.prune(slot)
    }

    fn held(&self, slot: usize, root: Digest) -> Option<Checkpoint> {
        let node = &self.nodes[slot];
        let found = candidates(&node.disk, &node.identity.cluster_id).ok()?;
        found.whole.into_iter().find(|one| one.manifest.root() == root)
    }

    pub(super) fn serve_manifest(
        &mut self,
        slot: usize,
        to: ReplicaId,
        root: Digest,
    ) -> Result<(), String> {
        let held = self.held(slot, root);
        let content = held.map(|one| (one.header.clone(), Arc::new(one.manifest)));
        self.transmit(slot, Recipients::One(to), &Message::Manifest { root, content })
    }

    pub(super) fn serve_chunk(
        &mut self,
        slot: usize,
        to: ReplicaId,
        (root, number): (Digest, u32),
    ) -> Result<(), String> {
        let disk: Arc<dyn Disk> = Arc::new(self.nodes[slot].disk.clone());
        let chunk = self.held(slot, root).and_then(|one| one.chunk(&disk, number));
        let bytes = match chunk.transpose() {
            Ok(bytes) => bytes,
            Err(error) => {
                self.unread(slot, format!("{slot} cannot serve a chunk: {error}"))?;
                None
            }
        };
        self.transmit(slot, Recipients::One(to), &Message::Chunk { root, number, bytes })
    }

    /// Queues a step for the transfer thread.
    pub(super) fn transfer(&mut self, slot: usize, step: TransferStep) -> Result<(), String> {
        let Some(life) = &mut self.nodes[slot].life else { return Ok(()) };
        life.fetching.jobs.push_back(match step {
            TransferStep::Install { height } => Job::Install(life.appender.replay_mark(height)),
            other => Job::Step(other),
        });
        let delay = self.random.between(100, 5 * MILLI);
        self.schedule_local(slot, delay, Local::Transfer);
        Ok(())
    }

    pub(super) fn transferred(&mut self, slot: usize) -> Result<(), String> {
        let disk = self.nodes[slot].disk.clone();
        let Some(life) = &mut self.nodes[slot].life else { return Ok(()) };
        let Some(job) = life.fetching.jobs.pop_front() else { return Ok(()) };
        let failed = |error: &dyn core::fmt::Display| format!("{slot} cannot gather: {error}");
        let event = match job {
            Job::Step(TransferStep::Begin { header, manifest }) => {
                let root = manifest.root();
                let shared: Arc<dyn Disk> = Arc::new(disk);
                let begun = Assembly::begin(shared, header, manifest, &[CHECKPOINT_DIRECTORY]);
                let (assembly, held) = begun.map_err(|error| failed(&error))?;
                life.fetching.assembly = Some((root, assembly));
                self.count("state transfer");
                if !held.is_empty() {
                    self.count("chunk not asked for again");
                }
                TransferEvent::Begun { root, held }
            }
            Job::Step(TransferStep::Store { number, peer, bytes }) => {
                let Some((root, assembly)) = &mut life.fetching.assembly else { return Ok(()) };
                let sound = assembly.store(number, &bytes).map_err(|error| failed(&error))?;
                let root = *root;
                self.count(if sound { "chunk stored" } else { "chunk refused" });
                TransferEvent::Stored { root, number, peer, sound }
            }
            Job::Step(TransferStep::Abandon | TransferStep::Install { .. }) => {
                life.fetching.assembly = None;
                return Ok(());
            }
            Job::Install(mark) => return self.install(slot, mark),
        };
        self.step(slot, Input::Transfer(event))
    }

    /// The process starts over on the new state; its log is written out first.
    fn install(&mut self, slot: usize, mark: ReplayMark) -> Result<(), String> {
        let disk = self.nodes[slot].disk.clone();
        let gathered = |life: &Life| life.fetching.assembly.is_some();
        if !self.nodes[slot].life.as_ref().is_some_and(gathered) {
            return Ok(());
        }
        let Some(mut life) = self.nodes[slot].life.take() else { return Ok(()) };
        let Some((_, assembly)) = &mut life.fetching.assembly else { return Ok(()) };
        let failed = |error: &dyn core::fmt::Display| format!("{slot} cannot install: {error}");
        let checkpoint = assembly.finish(mark).map_err(|error| failed(&error))?;
        if assembly.chunks().any(|chunk| chunk.is_none()) {
            return Err(failed(&"a chunk is missing"));
        }
        let drops = self.plan.mutant == Some(Mutant::DropsLogEnd);
        let rest = life.appender.take_batch().filter(|_| !drops);
        for batch in [life.batch.take(), rest].into_iter().flatten() {
            batch.write(&disk).map_err(|error| failed(&error))?;
            self.nodes[slot].promises.durable(batch.last);
        }
        install(&disk, &checkpoint).map_err(|error| failed(&error))?;
        self.nodes[slot].promises.crashed();
        self.nodes[slot].promises.installed(checkpoint.manifest.block_hash);
        self.count("state installed");
        self.say(slot, || format!("installs the state at {}", checkpoint.manifest.height));
        self.restart(slot)
    }
}
