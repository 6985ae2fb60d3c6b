//! Votes as they arrive, counted before they are verified (protocol.md 4).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::chain::{Certificate, Phase, Vote};
use crate::types::{Digest, Epoch, Height, ReplicaId, View};

/// What one certificate can be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    pub view: View,
    pub height: Height,
    pub phase: Phase,
}

#[derive(Clone, Debug)]
struct Held {
    vote: Arc<Vote>,
    verified: bool,
}

/// One vote per (view, height, phase, replica): the first that came.
#[derive(Default)]
pub(super) struct Votes {
    slots: BTreeMap<Slot, BTreeMap<ReplicaId, Held>>,
}

impl Votes {
    /// Files a vote under each height that `wanted` accepts and that holds no other of its voter.
    pub fn insert(&mut self, vote: &Arc<Vote>, verified: bool, wanted: &dyn Fn(Height) -> bool) {
        for (at, hash) in (0_u64..).zip(&vote.signed.hashes) {
            let height = vote.signed.from_height.plus(at);
            if !wanted(height) {
                continue;
            }
            let slot = Slot { view: vote.view, height, phase: vote.phase };
            let held = self.slots.entry(slot).or_default().entry(vote.signed.replica);
            let held = held.or_insert_with(|| Held { vote: Arc::clone(vote), verified });
            let same = held.vote.signed.hash_at(height) == Some(*hash);
            if same && verified && !held.verified {
                *held = Held { vote: Arc::clone(vote), verified };
            }
        }
    }

    /// A block that at least `q` voters chose in this slot, verified or not.
    pub fn majority(&self, slot: Slot, q: usize) -> Option<Digest> {
        let held = self.slots.get(&slot)?;
        if held.len() < q {
            return None;
        }
        let mut counts: BTreeMap<Digest, usize> = BTreeMap::new();
        for hash in held.values().filter_map(|held| held.vote.signed.hash_at(slot.height)) {
            *counts.entry(hash).or_default() += 1;
        }
        counts.into_iter().find(|(_, count)| *count >= q).map(|(hash, _)| hash)
    }

    /// A certificate for `hash`, if q votes for it verify. Only as many are verified as are needed;
    /// those that fail are forgotten and their senders returned.
    pub fn certify(
        &mut self,
        (slot, hash, epoch): (Slot, Digest, Epoch),
        q: usize,
        verify: &mut dyn FnMut(&Vote) -> bool,
    ) -> (Option<Certificate>, Vec<ReplicaId>) {
        let mut liars = Vec::new();
        let Some(held) = self.slots.get(&slot) else { return (None, liars) };
        let for_hash = |held: &Held| held.vote.signed.hash_at(slot.height) == Some(hash);
        let mut chosen: Vec<Held> = held.values().filter(|held| for_hash(held)).cloned().collect();
        if chosen.len() < q {
            return (None, liars);
        }
        chosen.sort_by_key(|held| (!held.verified, held.vote.signed.replica));
        let mut signatures = Vec::with_capacity(q);
        for held in chosen {
            if signatures.len() == q {
                break;
            }
            if held.verified || verify(&held.vote) {
                self.settle(&held.vote, true);
                signatures.push(held.vote.signed.clone());
            } else {
                self.settle(&held.vote, false);
                liars.push(held.vote.signed.replica);
            }
        }
        if signatures.len() < q {
            return (None, liars);
        }
        signatures.sort_by_key(|signed| signed.replica);
        let certificate = Certificate {
            phase: slot.phase,
            epoch,
            view: slot.view,
            height: slot.height,
            block_hash: hash,
            signatures,
        };
        (Some(certificate), liars)
    }

    /// Marks a vote as verified, or forgets it, under all heights it covers.
    fn settle(&mut self, vote: &Arc<Vote>, valid: bool) {
        for at in 0..vote.signed.hashes.len() as u64 {
            let height = vote.signed.from_height.plus(at);
            let slot = Slot { view: vote.view, height, phase: vote.phase };
            let Some(voters) = self.slots.get_mut(&slot) else { continue };
            let Some(held) = voters.get_mut(&vote.signed.replica) else { continue };
            if held.vote.signed.signature != vote.signed.signature {
                continue;
            }
            if valid {
                held.verified = true;
            } else {
                voters.remove(&vote.signed.replica);
            }
        }
    }

    /// Forgets the slots that `keep` does not want.
    pub fn retain(&mut self, keep: &dyn Fn(&Slot) -> bool) {
        self.slots.retain(|slot, _| keep(slot));
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }
}
