//! Proofs of misbehaviour: each is kept as the shell keeps its file, ordered once by somebody, and in the
//! end in every state.

use std::collections::BTreeMap;
use std::sync::Arc;

use althing::chain::{Evidence, Op};
use althing::codec::Encode;
use althing::state::report_after_ms;
use althing::types::Digest;

use crate::sim::node::Node;
use crate::sim::plan::{MILLI, Micros, SECOND};
use crate::sim::world::World;

/// So long an op that orders a proof may take.
const AGAIN: Micros = 10 * SECOND;

/// The proofs a replica keeps on its disk.
#[derive(Default)]
pub struct KeptProofs {
    /// With when each was learned of, and last handed in.
    kept: BTreeMap<Digest, (Arc<Evidence>, Micros, Option<Micros>)>,
}

impl KeptProofs {
    /// What the core hands out.
    pub fn keep(&mut self, evidence: &Arc<Evidence>, now: Micros) {
        let kept = (Arc::clone(evidence), now, None);
        self.kept.entry(evidence.digest()).or_insert(kept);
    }
}

impl Node {
    /// An op for a proof that this replica's state lacks, once its turn to order it has come.
    pub(super) fn due_proof(&mut self, now: Micros) -> Option<Op> {
        let (own, state) = (self.identity.id, &self.life.as_ref()?.machine.state);
        let due = self.proofs.kept.iter_mut().find(|(digest, (evidence, since, last))| {
            let turn = report_after_ms(digest, own, state.membership()) * MILLI;
            now >= *since + turn
                && last.is_none_or(|last| now >= last + AGAIN)
                && state.proofs.lacks(evidence)
        });
        let (_, (evidence, _, last)) = due?;
        *last = Some(now);
        Some(Op::Evidence { proof: evidence.to_bytes() })
    }

    /// Whether its state still lacks a proof that it keeps.
    pub(super) fn has_unordered_proof(&self) -> bool {
        let Some(life) = &self.life else { return false };
        self.proofs.kept.values().any(|(evidence, ..)| life.machine.state.proofs.lacks(evidence))
    }
}

impl World {
    /// The state accuses liars only, and everyone whom an honest replica has proven to lie.
    pub(super) fn check_proofs(&mut self, slot: usize) -> Result<(), String> {
        let Some(life) = &self.nodes[slot].life else { return Ok(()) };
        let mut recorded = 0;
        for (digest, proof) in life.machine.state.proofs.list() {
            if !self.liars.contains(&proof.accused) {
                return Err(format!("accuses {}, who is honest, by {digest}", proof.accused));
            }
            recorded += 1;
        }
        if self.nodes[slot].has_unordered_proof() {
            return Err("lacks a proof that its replica keeps".to_owned());
        }
        if recorded > 0 {
            self.count("proof in the final state");
        }
        Ok(())
    }
}
