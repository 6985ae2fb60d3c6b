//! f + 1 liars (faults.md B21): safety may break, and then every honest replica that hears of it stops, and
//! what they hold together names f + 1 replicas, none of them honest.

use std::collections::{BTreeMap, BTreeSet};

use althing::chain::Evidence;
use althing::types::{Digest, Height, ReplicaId};

use crate::sim::plan::{Micros, SECOND};
use crate::sim::world::{Event, World};

/// So long after the halves hear each other again nobody goes on unaware.
const AWARE_WITHIN: Micros = 30 * SECOND;

/// What came of it.
#[derive(Default)]
pub struct Beyond {
    /// What honest replicas executed.
    blocks: BTreeMap<Height, BTreeSet<Digest>>,
    /// Proven by an honest replica to have lied.
    guilty: BTreeSet<ReplicaId>,
    /// Sets of which more than f lied.
    suspects: Vec<Vec<ReplicaId>>,
    /// Honest instances that stopped.
    halted: BTreeSet<usize>,
}

impl Beyond {
    fn forked(&self) -> bool {
        self.blocks.values().any(|blocks| blocks.len() > 1)
    }
}

impl World {
    /// What a rule says that holds for at most f liars alone.
    pub(super) fn within_f<R: Default>(&self, result: Result<R, String>) -> Result<R, String> {
        if self.plan.beyond { Ok(result.unwrap_or_default()) } else { result }
    }

    /// Each half of the honest replicas with one instance of every liar.
    pub(super) fn part(&mut self) {
        let mut honest = 0;
        let sides: Vec<bool> = (0..self.nodes.len())
            .map(|slot| {
                if self.honest(slot) {
                    honest += 1;
                    return honest % 2 == 0;
                }
                // The second instances stand behind the first ones.
                slot >= self.plan.n
            })
            .collect();
        self.network.part(&sides);
        self.count("f + 1 liars divided the others");
    }

    pub(super) fn executed_beyond(&mut self, slot: usize, height: Height, block: Digest) {
        if self.plan.beyond && self.honest(slot) {
            self.beyond.blocks.entry(height).or_default().insert(block);
        }
    }

    pub(super) fn proven(&mut self, evidence: &Evidence) {
        self.beyond.guilty.extend(evidence.accused());
        let suspects = evidence.suspects();
        let fork = matches!(evidence, Evidence::Fork(_));
        if fork && !self.beyond.suspects.contains(&suspects) {
            self.beyond.suspects.push(suspects);
        }
    }

    /// An honest replica stops; true if that was to be expected.
    pub(super) fn halts_beyond(&mut self, slot: usize, reason: &str) -> bool {
        if !self.plan.beyond {
            return false;
        }
        self.say(slot, || format!("halts: {reason}"));
        self.count("halted beyond f");
        self.beyond.halted.insert(slot);
        self.crash(slot);
        self.nodes[slot].gone = true;
        true
    }

    /// Whether the break is known to all honest replicas and names f + 1 liars.
    pub(super) fn look_beyond(&mut self) -> Result<(), String> {
        let healed_at = self.healed_at.expect("looked only after the faults");
        let f = (self.plan.n - 1) / 3;
        let honest: Vec<usize> = (0..self.nodes.len()).filter(|slot| self.honest(*slot)).collect();
        let beyond = &self.beyond;
        let unaware: Vec<usize> =
            honest.iter().copied().filter(|slot| !beyond.halted.contains(slot)).collect();
        let wronged = beyond.guilty.iter().find(|one| !self.liars.contains(one));
        if let Some(wronged) = wronged {
            return Err(format!("{wronged} is honest and called guilty"));
        }
        let too_few = |suspects: &Vec<ReplicaId>| {
            suspects.iter().filter(|one| self.liars.contains(one)).count() <= f
        };
        if let Some(suspects) = beyond.suspects.iter().find(|suspects| too_few(suspects)) {
            return Err(format!("{suspects:?} are suspected, of whom at most {f} lied"));
        }
        if self.now < healed_at + AWARE_WITHIN && !(beyond.forked() && unaware.is_empty()) {
            self.schedule(SECOND / 2, Event::Look);
            return Ok(());
        }
        if !beyond.forked() {
            self.count("f + 1 liars broke nothing");
            self.finish();
            return Ok(());
        }
        if !unaware.is_empty() {
            return Err(format!("the chain has forked, and {unaware:?} go on; {}", self.states()));
        }
        if beyond.guilty.len() <= f && beyond.suspects.is_empty() {
            return Err(format!("the chain has forked, and only {:?} are named", beyond.guilty));
        }
        if beyond.guilty.len() > f {
            self.count("fork: f + 1 named");
        }
        self.count("fork detected by all");
        self.finish();
        Ok(())
    }
}
