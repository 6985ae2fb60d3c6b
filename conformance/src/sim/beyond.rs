//! f + 1 liars (faults.md B21): safety may break, and then every honest replica that hears of it stops, and
//! what they hold together names f + 1 replicas, none of them honest.

use std::collections::{BTreeMap, BTreeSet};

use althing::chain::{BlockHeader, Certificate, Evidence, Record, Trust};
use althing::storage::log::{ReplayMark, recover};
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

fn too_few_of(suspects: &[ReplicaId], liars: &BTreeSet<ReplicaId>, f: usize) -> bool {
    suspects.iter().filter(|one| liars.contains(one)).count() <= f
}

/// What a log holds of a chain.
#[derive(Default)]
struct Logged {
    headers: BTreeMap<Digest, BlockHeader>,
    commits: Vec<Certificate>,
}

impl Logged {
    /// Its first certificate at or above a height.
    fn commit_from(&self, height: Height) -> Option<&Certificate> {
        self.commits.iter().filter(|one| one.height >= height).min_by_key(|one| one.height)
    }

    /// Headers above `low` up to the block of `high`.
    fn headers(&self, low: Height, high: &Certificate) -> Option<Vec<BlockHeader>> {
        let (mut found, mut next) = (Vec::new(), high.block_hash);
        while (found.len() as u64) < high.height.0 - low.0 {
            let header = self.headers.get(&next)?;
            next = header.parent;
            found.push(header.clone());
        }
        found.reverse();
        Some(found)
    }
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

    fn log_of(&self, slot: usize) -> Result<Logged, String> {
        let node = &self.nodes[slot];
        let mut logged = Logged::default();
        recover(&node.disk, &node.log_settings(), ReplayMark::start(), &mut |_, _, record| {
            match record {
                Record::Block(block) => {
                    logged.headers.insert(block.hash(), block.header.clone());
                }
                Record::Committed(certificate) => logged.commits.push(certificate),
                _ => {}
            }
        })
        .map_err(|error| format!("the log of {slot}: {error}"))?;
        Ok(logged)
    }

    /// What the logs of two honest replicas on two branches prove, by production's check: a set of which
    /// more than f lied.
    fn proof_from_logs(&self, honest: &[usize]) -> Result<Vec<ReplicaId>, String> {
        let logs: Vec<Logged> =
            honest.iter().map(|slot| self.log_of(*slot)).collect::<Result<_, _>>()?;
        let differing = self.beyond.blocks.iter().find(|(_, blocks)| blocks.len() > 1);
        let (height, _) = differing.ok_or("the chain has not forked")?;
        let identity = &self.nodes[0].identity;
        let memberships = [identity.membership.clone()];
        let (cluster_id, scheme) = (&identity.cluster_id, identity.scheme.as_ref());
        let trust = Trust { cluster_id, memberships: &memberships, scheme };
        for (one, other) in logs.iter().flat_map(|one| logs.iter().map(move |other| (one, other))) {
            let (low, high) = (one.commit_from(*height), other.commit_from(*height));
            let Some((low, high)) = low.zip(high).filter(|(low, high)| low.height <= high.height)
            else {
                continue;
            };
            let headers = other.headers(low.height, high);
            let evidence = headers.and_then(|headers| Evidence::fork(low, high, headers));
            if let Some(evidence) = evidence
                && evidence.verify(&trust).is_ok()
            {
                return Ok(evidence.suspects());
            }
        }
        Err("the chain has forked, and no two logs prove it".to_owned())
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
        let too_few = |suspects: &&Vec<ReplicaId>| too_few_of(suspects, &self.liars, f);
        if let Some(suspects) = beyond.suspects.iter().find(too_few) {
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
        if beyond.guilty.len() > f {
            self.count("fork: f + 1 named by messages");
        }
        let suspects = self.proof_from_logs(&honest)?;
        if too_few_of(&suspects, &self.liars, f) {
            return Err(format!("the logs name {suspects:?}, of whom at most {f} lied"));
        }
        self.count("fork: f + 1 named by logs");
        self.count("fork detected by all");
        self.finish();
        Ok(())
    }
}
