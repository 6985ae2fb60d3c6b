//! Erasing behind stable checkpoints, a segment at a time between other events, as the node does it.

use althing::storage::checkpoint::{candidates, remove_old};
use althing::storage::log::{Horizon, PruneStep, prune_segment, prune_steps};
use althing::types::Height;

use crate::sim::disk::SimDisk;
use crate::sim::node::Node;
use crate::sim::plan::MILLI;
use crate::sim::world::{Local, World};

/// What is left to be erased.
pub struct Pruning {
    horizon: Horizon,
    steps: Vec<PruneStep>,
}

impl Pruning {
    /// Rewrites the next segment; false if there is none.
    ///
    /// # Errors
    /// The disk.
    pub fn step(&mut self, node: &mut Node, disk: &SimDisk) -> Result<bool, String> {
        if self.steps.is_empty() {
            return Ok(false);
        }
        let step = self.steps.remove(0);
        let settings = node.log_settings();
        let Some(life) = &mut node.life else { return Ok(false) };
        life.machine.values.erase(step.segment());
        prune_segment(disk, &settings, (step, &self.horizon), &mut || {})
            .map_err(|error| error.to_string())?;
        life.reader.pruned(step.segment());
        Ok(true)
    }
}

impl World {
    /// Nobody needs blocks from peers below this height: every replica that may come back holds a
    /// checkpoint there.
    fn needed_by_nobody(&self, height: Height) -> bool {
        let needs = |slot: &usize| self.is_member(*slot) && !self.nodes[*slot].gone;
        let mut needing = (0..self.nodes.len()).filter(needs);
        needing.all(|slot| self.nodes[slot].checkpoint_durable >= height)
    }

    pub(super) fn prune(&mut self, slot: usize) -> Result<(), String> {
        let Some(life) = &mut self.nodes[slot].life else { return Ok(()) };
        let Some((stable, horizon)) = life.stable.take() else { return Ok(()) };
        // Whoever is behind fetches the state, in a plan that has it so.
        // Beyond f the logs are to prove who lied.
        let prunes = self.nodes[slot].local.prunes && !self.plan.beyond;
        let may = |height: &Height| prunes && (self.plan.erases || self.needed_by_nobody(*height));
        let horizon = horizon.filter(may);
        let node = &self.nodes[slot];
        let Some(life) = &node.life else { return Ok(()) };
        let cluster_id = &node.identity.cluster_id;
        let found = match candidates(&node.disk, cluster_id) {
            Ok(found) => found,
            Err(error) => return self.unread(slot, format!("{slot} cannot prune: {error}")),
        };
        let oldest = found.whole.iter().find(|one| Some(one.manifest.height) == horizon);
        if let Some(oldest) = oldest {
            let horizon = Horizon {
                segment: oldest.replay.segment,
                height: oldest.manifest.height,
                moved: life.checkpoint_height,
                open: life.open_segment,
            };
            let steps = match prune_steps(&node.disk, &node.log_settings(), &horizon) {
                Ok(steps) => steps,
                Err(error) => return self.unread(slot, format!("{slot} cannot prune: {error}")),
            };
            let Some(life) = &mut self.nodes[slot].life else { return Ok(()) };
            life.machine.ring.forget(life.moved);
            life.pruning = Some(Pruning { horizon, steps });
            let delay = self.random.between(MILLI, 50 * MILLI);
            self.schedule_local(slot, delay, Local::Prune);
        }
        let node = &self.nodes[slot];
        let Some(life) = &node.life else { return Ok(()) };
        if life.checkpoint.is_none() {
            let kept = (life.in_use.as_slice(), stable.as_slice());
            if let Err(error) = remove_old(&node.disk, &node.identity.cluster_id, kept) {
                return self.unread(slot, format!("{slot} cannot remove checkpoints: {error}"));
            }
        }
        Ok(())
    }

    pub(super) fn prune_slice(&mut self, slot: usize) -> Result<(), String> {
        let disk = self.nodes[slot].disk.clone();
        let Some(life) = &mut self.nodes[slot].life else { return Ok(()) };
        let Some(mut pruning) = life.pruning.take() else { return Ok(()) };
        let more = match pruning.step(&mut self.nodes[slot], &disk) {
            Ok(more) => more,
            Err(error) => return self.unread(slot, format!("{slot} cannot prune: {error}")),
        };
        if more {
            self.count("segment pruned");
            if let Some(life) = &mut self.nodes[slot].life {
                life.pruning = Some(pruning);
            }
            let delay = self.random.between(MILLI, 50 * MILLI);
            self.schedule_local(slot, delay, Local::Prune);
        }
        Ok(())
    }

    /// The crash may come inside a rewrite of a segment.
    pub(super) fn crash_inside_prune(&mut self, slot: usize) {
        let disk = self.nodes[slot].disk.clone();
        let Some(life) = &mut self.nodes[slot].life else { return };
        let Some(mut pruning) = life.pruning.take() else { return };
        disk.fail_after(self.random.below(10));
        while let Ok(true) = pruning.step(&mut self.nodes[slot], &disk) {}
        self.count("crash inside a prune");
    }
}
