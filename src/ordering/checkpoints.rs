//! Checkpoints that a quorum holds (protocol.md 16): votes, certificates, and who is shown them.

use std::collections::BTreeMap;

use crate::chain::{CheckpointCertificate, CheckpointId, CheckpointVote, Evidence, Record};
use crate::ordering::{Core, Message, Recipients};
use crate::types::{Height, LogPosition, ReplicaId};

/// Heights above the stable checkpoint that one replica's votes are kept for.
const HEIGHTS_MAX: usize = 4;
/// Own votes that are not stable yet go out again.
const REPEAT_MS: u64 = 1000;

/// What is known of checkpoints. Bounded: [`HEIGHTS_MAX`] votes per voter.
#[derive(Default)]
pub(super) struct Checkpoints {
    /// The newest that a quorum holds.
    pub stable: Option<CheckpointCertificate>,
    /// Held durably here, above the stable one.
    own: BTreeMap<Height, CheckpointId>,
    /// Checked votes above the stable one, the own included; one per replica and height.
    votes: BTreeMap<ReplicaId, BTreeMap<Height, CheckpointVote>>,
    repeat_ms: u64,
}

impl Checkpoints {
    pub fn stable_height(&self) -> Height {
        self.stable.as_ref().map_or(Height(0), |stable| stable.id.height)
    }

    /// What a recovered log and the checkpoints on disk say.
    pub fn recover(&mut self, stable: Option<CheckpointCertificate>, held: Vec<CheckpointId>) {
        self.stable = stable;
        let above = self.stable_height();
        let held = held.into_iter().filter(|id| id.height > above).map(|id| (id.height, id));
        self.own.extend(held);
        keep_highest(&mut self.own);
    }
}

fn keep_highest<V>(of_height: &mut BTreeMap<Height, V>) {
    while of_height.len() > HEIGHTS_MAX {
        of_height.pop_first();
    }
}

impl Core {
    /// A checkpoint's chunks and manifest are durable here: that is the vote's gate (protocol.md 6.1).
    pub(super) fn on_checkpoint_built(&mut self, id: CheckpointId) {
        let stable = self.checkpoints.stable.as_ref().map(|stable| stable.id);
        if stable.is_some_and(|stable| stable.height == id.height && stable != id) {
            return self.diverged_checkpoint(id.height);
        }
        if stable.is_some_and(|stable| stable.height >= id.height) {
            return;
        }
        self.checkpoints.own.insert(id.height, id);
        keep_highest(&mut self.checkpoints.own);
        self.vote_checkpoint(id);
        self.settle_checkpoint(id.height);
    }

    fn vote_checkpoint(&mut self, id: CheckpointId) {
        if !self.is_voter() || self.quarantined || !self.fence.is_cleared() {
            return;
        }
        let (epoch, scheme) = (self.membership.epoch, self.scheme.as_ref());
        let vote = CheckpointVote::sign(epoch, self.own, id, &self.cluster_id, scheme);
        self.counters.signatures += 1;
        let votes = self.checkpoints.votes.entry(self.own).or_default();
        votes.insert(id.height, vote.clone());
        keep_highest(votes);
        self.send(Recipients::Others, Message::Checkpoint(vote), LogPosition(0));
    }

    /// Votes for what is held, after a restart and in a new epoch: votes of another epoch's keys do
    /// not add up.
    pub(super) fn vote_checkpoints_again(&mut self) {
        self.checkpoints.votes.clear();
        for (height, id) in self.checkpoints.own.clone() {
            self.vote_checkpoint(id);
            self.settle_checkpoint(height);
        }
    }

    /// Every second, as long as a quorum does not hold what is held here.
    pub(super) fn repeat_checkpoint_votes(&mut self) {
        if self.now_ms < self.checkpoints.repeat_ms {
            return;
        }
        self.checkpoints.repeat_ms = self.now_ms + REPEAT_MS;
        let own = self.checkpoints.votes.get(&self.own);
        for vote in own.into_iter().flat_map(BTreeMap::values).cloned().collect::<Vec<_>>() {
            self.send(Recipients::Others, Message::Checkpoint(vote), LogPosition(0));
        }
    }

    pub(super) fn on_checkpoint(&mut self, peer: ReplicaId, vote: CheckpointVote) {
        let height = vote.id.height;
        // A peer that is an epoch behind or ahead is honest all the same, and votes again in this one.
        let stale =
            height <= self.checkpoints.stable_height() || vote.epoch != self.membership.epoch;
        if vote.replica != peer || self.are_votes_refused(peer) {
            return self.waste(peer);
        }
        if stale {
            return;
        }
        let known = self.checkpoints.votes.get(&peer).and_then(|votes| votes.get(&height)).cloned();
        if known.as_ref().is_some_and(|known| known.id == vote.id) {
            return;
        }
        if !self.may_verify_seldom(peer, 1) {
            return;
        }
        self.counters.verifications += 1;
        if !vote.verify(&self.cluster_id, &self.membership, self.scheme.as_ref()) {
            return self.refuse_votes(peer);
        }
        if let Some(known) = known {
            // Two valid votes of one replica for different checkpoints at one height: it lies.
            let evidence = Evidence::double_checkpoint(&known, &vote);
            return evidence.into_iter().for_each(|evidence| self.accuse(evidence));
        }
        let votes = self.checkpoints.votes.entry(peer).or_default();
        votes.insert(height, vote);
        keep_highest(votes);
        self.settle_checkpoint(height);
    }

    /// q equal votes make a checkpoint stable; f + 1 equal ones are true, so that an own checkpoint
    /// that differs is wrong (faults.md B10).
    fn settle_checkpoint(&mut self, height: Height) {
        let mut by_id: BTreeMap<CheckpointId, Vec<&CheckpointVote>> = BTreeMap::new();
        for vote in self.checkpoints.votes.values().filter_map(|votes| votes.get(&height)) {
            by_id.entry(vote.id).or_default().push(vote);
        }
        let own = self.checkpoints.own.get(&height);
        let wrong = |(id, votes): (&CheckpointId, &Vec<&CheckpointVote>)| {
            votes.len() >= self.quorum.weak() && own.is_some_and(|own| own != id)
        };
        if by_id.iter().any(wrong) {
            return self.diverged_checkpoint(height);
        }
        let q = self.quorum.q();
        let Some((id, votes)) = by_id.into_iter().find(|(_, votes)| votes.len() >= q) else {
            return;
        };
        let signatures = votes.iter().map(|vote| (vote.replica, vote.signature)).collect();
        let epoch = self.membership.epoch;
        self.adopt_stable(CheckpointCertificate { epoch, id, signatures });
    }

    fn diverged_checkpoint(&mut self, height: Height) {
        self.quarantine(format!(
            "the checkpoint at height {height} is not the one that f + 1 others hold"
        ));
    }

    /// Takes in a certificate that holds.
    fn adopt_stable(&mut self, certificate: CheckpointCertificate) {
        let (height, id) = (certificate.id.height, certificate.id);
        if height <= self.checkpoints.stable_height() || self.waits_to_begin() {
            return;
        }
        if self.checkpoints.own.get(&height).is_some_and(|own| *own != id) {
            return self.diverged_checkpoint(height);
        }
        self.append(Record::CheckpointStable(certificate.clone()));
        self.counters.stable_checkpoints += 1;
        self.checkpoints.stable = Some(certificate);
        self.checkpoints.own.retain(|of, _| *of > height);
        for votes in self.checkpoints.votes.values_mut() {
            votes.retain(|of, _| *of > height);
        }
        self.checkpoints.votes.retain(|_, votes| !votes.is_empty());
    }

    pub(super) fn on_checkpoint_certificate(
        &mut self,
        peer: ReplicaId,
        certificate: CheckpointCertificate,
    ) {
        if certificate.id.height <= self.checkpoints.stable_height() {
            return;
        }
        self.look_ahead(peer, certificate.epoch);
        let Some(membership) = self.members_of(certificate.epoch).cloned() else { return };
        let checks = certificate.signatures.len() as u64;
        if !self.may_verify_seldom(peer, checks) {
            return;
        }
        self.counters.verifications += checks;
        let q = membership.quorum().q();
        let checked = certificate.check(&self.cluster_id, &membership, self.scheme.as_ref(), q);
        if checked.is_err() {
            self.counters.bad_signatures += 1;
            return self.ban(peer, "a checkpoint certificate that certifies nothing");
        }
        self.adopt_stable(certificate);
    }

    /// Shows a peer the stable checkpoint it has not heard of.
    pub(super) fn show_stable(&mut self, peer: ReplicaId, known: Height) -> bool {
        let newer = self.checkpoints.stable.as_ref().filter(|stable| stable.id.height > known);
        let Some(certificate) = newer.cloned() else { return false };
        self.tell(peer, Message::CheckpointCertificate(certificate));
        true
    }

    /// What to use if blocks from `from` on are not to be had here.
    pub(super) fn instead_of(&self, from: Height) -> Option<Box<Message>> {
        let stable = self.checkpoints.stable.as_ref();
        let certificate = stable.filter(|stable| stable.id.height >= from)?.clone();
        Some(Box::new(Message::Erased { from, certificate }))
    }
}
