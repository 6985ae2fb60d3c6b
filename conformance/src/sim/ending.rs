//! After the faults: everybody goes on, everything is answered, nothing is lost, all states are one.

use std::collections::BTreeMap;

use althing::chain::Range;
use althing::types::Height;
use bytes::Bytes;

use crate::sim::checkers::users::are_same;
use crate::sim::checkers::verifier::quorum;
use crate::sim::checkers::votes::Promises;
use crate::sim::disk::Survivors;
use crate::sim::node::Node;
use crate::sim::plan::MILLI;
use crate::sim::recovery::{Owner, start};
use crate::sim::watchers::version;
use crate::sim::world::{Event, World};

impl World {
    /// Is every request answered and everybody at the same height?
    pub(super) fn look(&mut self) -> Result<(), String> {
        let healed_at = self.healed_at.expect("looked only after the faults");
        let top = self.agreement.top();
        let missing = |node: &Node| match &node.life {
            None => Some("is down".to_owned()),
            Some(life) if !life.served => Some("serves no write".to_owned()),
            Some(life) if !life.open.is_empty() => {
                Some(format!("has {} open writes", life.open.len()))
            }
            Some(life) if !life.reads.is_empty() => Some("has open reads".to_owned()),
            Some(_) if node.has_unordered_proof() => Some("lacks a proof it keeps".to_owned()),
            Some(life) if life.machine.height() != top => {
                Some(format!("is at {} of {top}", life.machine.height()))
            }
            Some(_) => None,
        };
        let slots = 0..self.nodes.len();
        let lacks: Vec<String> = slots
            .filter(|slot| self.honest(*slot) && !self.nodes[*slot].gone && self.is_member(*slot))
            .filter_map(|slot| missing(&self.nodes[slot]).map(|what| format!("{slot} {what}")))
            .collect();
        let lacks = if lacks.is_empty() { self.watches_behind() } else { lacks };
        if lacks.is_empty() {
            self.finish();
            return self.final_look(top);
        }
        if self.now > healed_at + self.plan.finish_within {
            return Err(format!(
                "no end after the faults: {}; {}",
                lacks.join(", "),
                self.states()
            ));
        }
        self.schedule(100 * MILLI, Event::Look);
        Ok(())
    }

    /// Nothing that a client was told is lost: it is in every state, and on the disks of a quorum even if
    /// the power fails now. All states are one.
    fn final_look(&mut self, top: Height) -> Result<(), String> {
        let revision = self.model.revisions.get(&top.0).copied().unwrap_or(1);
        if revision < self.requests.seen {
            return Err(format!("a client saw {}, the end is {revision}", self.requests.seen));
        }
        let members: Vec<usize> = (0..self.nodes.len())
            .filter(|slot| self.honest(*slot) && self.is_member(*slot))
            .collect();
        for slot in &members {
            // An enumerated crash that the run did not reach.
            self.nodes[*slot].disk.keep_power();
            self.scan(*slot, top).map_err(|what| format!("at the end {slot} {what}"))?;
            self.check_proofs(*slot).map_err(|what| format!("at the end {slot} {what}"))?;
        }
        if self.model.denied > 0 {
            *self.seen.entry("no right to it").or_default() += self.model.denied;
        }
        self.power_cut(&members)
    }

    /// One state holds every key as the history has it.
    fn scan(&self, slot: usize, top: Height) -> Result<(), String> {
        let Some(life) = &self.nodes[slot].life else { return Ok(()) };
        let state = &life.machine.state;
        if self.agreement.root(top) != Some(state.exec_root()) {
            return Err(format!("has another root at {top}"));
        }
        if !are_same(&self.model.users, &state.auth) {
            return Err(format!("holds other users than the model: {:?}", state.auth));
        }
        let (key, range_end) = (Bytes::from_static(&[0]), Bytes::from_static(&[0]));
        let all = Range { key, range_end, ..Range::default() };
        let found = state.kv.range(&all).map_err(|error| format!("reads nothing: {error:?}"))?;
        let mut theirs = BTreeMap::new();
        for kv in &found.kvs {
            let now = version(kv, &life.machine.values);
            let now = now.map_err(|error| format!("cannot read {:?}: {error}", kv.key))?;
            theirs.insert(kv.key.clone(), now);
        }
        let ours = self.model.keys();
        if theirs != *ours {
            return Err(format!("holds {theirs:?}, by the model {ours:?}"));
        }
        Ok(())
    }

    /// The power fails everywhere, nothing that was not synced survives: the last block that a client was
    /// answered from is on the disks of a quorum.
    fn power_cut(&mut self, members: &[usize]) -> Result<(), String> {
        let (height, now) = (self.requests.height, self.verifier.epochs.now());
        let Some((epoch, hash)) = self.agreement.block(height) else { return Ok(()) };
        if epoch != self.verifier.epochs.epoch() {
            return Ok(());
        }
        let liars = now.voters().filter(|id| self.liars.contains(id)).count();
        let enough = quorum(now.n()).saturating_sub(liars);
        let mut holding = 0;
        for slot in members {
            if !self.votes_now(*slot) {
                continue;
            }
            let node = &self.nodes[*slot];
            let disk = node.disk.copy();
            disk.crash(Survivors::Nothing, &mut self.random);
            let settings = node.log_settings();
            let (genesis, own) = (&node.identity.genesis, node.identity.id);
            let owner = Owner { genesis, own, settings: &settings, mutant: None };
            let held = start(&disk, &owner, &mut Promises::default()).is_ok_and(|start| {
                start.machine.height() >= height || start.blocks.contains_key(&hash)
            });
            holding += usize::from(held);
        }
        self.count("power cut at the end");
        if holding < enough {
            return Err(format!(
                "{height} was answered from, and {holding} disks hold it, not {enough}"
            ));
        }
        Ok(())
    }

    /// What every core says of itself.
    pub(super) fn states(&self) -> String {
        let state = |(slot, node): (usize, &Node)| match &node.life {
            None => format!("{slot}: down"),
            Some(life) => {
                let status = life.core.status();
                format!(
                    "{slot}: {:?} in view {} of {:?}, committed {}, executed {}, {} bundles",
                    status.mode,
                    status.view,
                    status.primary,
                    status.committed,
                    status.executed,
                    status.pool_bundles
                )
            }
        };
        self.nodes.iter().enumerate().map(state).collect::<Vec<_>>().join("; ")
    }
}
