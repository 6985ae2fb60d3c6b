//! From votes to certificates, commits and execution (protocol.md 5).

use std::sync::Arc;

use crate::chain::{Certificate, Effects, Network, Phase, Record, Vote};
use crate::ordering::blocks::NoPath;
use crate::ordering::votes::Slot;
use crate::ordering::{Core, Output};
use crate::planted::{self, Bug};
use crate::types::{Digest, Height, Millis, ReplicaId, View};

impl Core {
    pub(super) fn on_votes(&mut self, peer: ReplicaId, votes: Vec<Vote>) {
        for vote in votes {
            if self.are_votes_refused(peer) || vote.signed.replica != peer {
                return self.waste(peer);
            }
            let wanted = vote.epoch == self.membership.epoch
                && vote.signed.hashes.len() as u64 <= self.window + 1
                && self.membership.voter(peer).is_some();
            if !wanted {
                continue;
            }
            let vote = Arc::new(vote);
            if !self.note_vote(&vote) {
                return self.refuse_votes(peer);
            }
            self.fence.seen.note_vote(&vote, &self.membership);
            self.file_vote(&vote, false);
            let heights: Vec<(View, Height)> = (0..vote.signed.hashes.len() as u64)
                .map(|at| (vote.view, vote.signed.from_height.plus(at)))
                .collect();
            self.evaluate(&heights);
        }
    }

    /// Files a vote if it can still help a certificate of higher rank than what is known. Bounded in
    /// views and heights.
    pub(super) fn file_vote(&mut self, vote: &Arc<Vote>, verified: bool) {
        let newest = self.view.highest().next();
        let oldest = match vote.phase {
            Phase::Prepare => self.view.entered,
            Phase::Commit => View(self.view.entered.0.saturating_sub(1)),
        };
        if vote.view < oldest || vote.view > newest {
            return;
        }
        let certified = self.certificate_here().map(|cert| (cert.view, cert.height));
        let (at, around) = (self.blocks.executed.height, 2 * self.window);
        let (low, high) = (at.minus(around), at.plus(around));
        let wanted = |height: Height| {
            height >= low
                && height <= high
                && certified.is_none_or(|known| (vote.view, height) > known)
        };
        self.votes.insert(vote, verified, &wanted);
    }

    /// Looks for certificates at the given places, highest first.
    pub(super) fn evaluate(&mut self, places: &[(View, Height)]) {
        for (view, height) in places.iter().rev() {
            self.look_for_commit(*view, *height);
            self.look_for_prepared(*view, *height);
        }
    }

    fn look_for_prepared(&mut self, view: View, height: Height) {
        if view != self.view.entered || self.quarantined {
            return;
        }
        let rank = (self.membership.epoch, view, height);
        let known = self.blocks.prepared.as_ref().is_some_and(|(cert, _)| cert.rank() >= rank);
        let slot = Slot { view, height, phase: Phase::Prepare };
        let Some(hash) = self.votes.majority(slot, self.quorum.q()) else { return };
        let diverged = self.view.refused_roots.contains(&(view, height, hash));
        let on_chain = self.is_normal() && self.view.chain.get(&height) == Some(&hash);
        if !diverged && (known || !on_chain) {
            return;
        }
        let Some(certificate) = self.certify(slot, hash) else { return };
        if diverged {
            let text = "a quorum prepared a block whose root of the state is not this replica's";
            return self.quarantine(format!("{text}: height {height}"));
        }
        self.adopt_prepared(certificate);
    }

    pub(super) fn adopt_prepared(&mut self, certificate: Certificate) {
        let known = self.blocks.prepared.as_ref().map(|(known, _)| known.rank());
        if known.is_none_or(|known| certificate.rank() > known) {
            let position = if planted::is(Bug::VoteNotPersisted) {
                self.log.durable
            } else {
                self.append(Record::Prepared(certificate.clone()))
            };
            self.blocks.prepared = Some((certificate, position));
        }
    }

    fn look_for_commit(&mut self, view: View, height: Height) {
        let slot = Slot { view, height, phase: Phase::Commit };
        let rank = (self.membership.epoch, view, height);
        if self.blocks.certificate.as_ref().is_some_and(|cert| cert.rank() >= rank) {
            return;
        }
        let Some(hash) = self.votes.majority(slot, self.quorum.q()) else { return };
        if let Some(certificate) = self.certify(slot, hash) {
            self.adopt_commit(certificate);
        }
    }

    fn certify(&mut self, slot: Slot, hash: Digest) -> Option<Certificate> {
        let (cluster_id, membership) = (self.cluster_id, &self.membership);
        let (scheme, counters) = (self.scheme.as_ref(), &mut self.counters);
        let mut verify = |vote: &Vote| {
            counters.verifications += 1;
            vote.verify(&cluster_id, membership, scheme)
        };
        let about = (slot, hash, membership.epoch);
        let (certificate, liars) = self.votes.certify(about, self.quorum.q(), &mut verify);
        liars.into_iter().for_each(|liar| self.refuse_votes(liar));
        certificate
    }

    /// Takes in a commit certificate that holds.
    pub(super) fn adopt_commit(&mut self, certificate: Certificate) {
        if self.contradicts(&certificate) {
            return self.halt_on_fork(&certificate);
        }
        let known = self.blocks.certificate.as_ref().map(Certificate::rank);
        if known.is_some_and(|known| certificate.rank() <= known) {
            return;
        }
        if self.waits_to_begin() {
            return;
        }
        self.view.mark = self.view.mark.max(certificate.height);
        self.blocks.certificate = Some(certificate);
        if let Some(known) = self.certificate_here().map(|it| (it.view, it.height)) {
            self.votes.retain(&|slot| (slot.view, slot.height) > known);
        }
        self.commit_known();
    }

    /// Commits up to the newest certificate if all bodies are here.
    pub(super) fn commit_known(&mut self) {
        let Some(certificate) = self.blocks.certificate.clone() else { return };
        if self.blocks.logged.is_none_or(|logged| certificate.rank() > logged) {
            self.commit_through(&certificate);
        }
    }

    /// Commits up to `certificate`, which holds; false if bodies are missing.
    pub(super) fn commit_through(&mut self, certificate: &Certificate) -> bool {
        let path = loop {
            match self.blocks.path_to(certificate.height, certificate.block_hash) {
                Ok(path) => break path,
                Err(NoPath::Missing(height, hash)) if self.body_from_proposals(height, &hash) => {}
                Err(NoPath::Missing(..)) => return false,
                Err(NoPath::Conflict(_)) => {
                    self.halt_on_fork(certificate);
                    return false;
                }
            }
        };
        let mut client_ops = 0;
        for (_, hash) in &path {
            let block = Arc::clone(&self.blocks.get(hash).expect("on the path").block);
            client_ops += block.header.n_ops;
            self.log_block(&block);
        }
        self.append(Record::Committed(certificate.clone()));
        self.witness.committed = Some(certificate.clone());
        self.blocks.logged = self.blocks.logged.max(Some(certificate.rank()));
        if !path.is_empty() {
            self.blocks.commit(&path);
            self.view.progress_ms = self.now_ms;
            if client_ops > 0 {
                self.view.failures = 0;
            }
        }
        self.note_own_rejoins(&path);
        if !self.postpone_follow(certificate) {
            self.follow_commit(certificate);
        }
        self.leave_fence(certificate);
        true
    }

    /// A body may be among the proposals that were not accepted, in a view change for instance.
    pub(super) fn body_from_proposals(&mut self, height: Height, hash: &Digest) -> bool {
        let found = self.proposals.values().find(|proposal| {
            proposal.block.header.height == height && proposal.block.hash() == *hash
        });
        let Some(proposal) = found else { return false };
        let block = Arc::clone(&proposal.block);
        let whole = super::catch_up::body_is_whole(&block);
        if whole {
            self.blocks.insert(block, None);
        }
        whole
    }

    /// Hands out committed blocks, at most W ahead of execution, each checked against the own root.
    pub(super) fn execute_committed(&mut self) {
        while !self.quarantined
            && self.blocks.executing < self.blocks.committed.height
            && self.blocks.executing < self.blocks.executed.height.plus(self.window)
        {
            let height = self.blocks.executing.next();
            let body = self.blocks.committed_at(height).expect("committed bodies are here");
            let block = Arc::clone(&body.block);
            let header = &block.header;
            if self.blocks.exec_roots.get(&header.exec_height) != Some(&header.exec_root) {
                let at = header.exec_height;
                let text = format!("block {height} is committed with another root for height {at}");
                return self.quarantine(text);
            }
            self.blocks.executing = height;
            self.out.push(Output::Execute { block });
        }
    }

    pub(super) fn on_executed(
        &mut self,
        effects: Effects,
        next_expiry: Option<Millis>,
        network: Option<Box<Network>>,
    ) {
        let height = self.blocks.executed.height.next();
        assert_eq!(effects.height, height, "blocks are executed in order");
        assert!(height <= self.blocks.executing, "only what was handed out is executed");
        self.blocks.executed(effects.exec_root, next_expiry, self.window);
        self.forget_old_votes();
        self.append(Record::Effects(effects));
        let body = self.blocks.committed_at(height).expect("just executed").clone();
        let origins: Vec<ReplicaId> = body.block.bundles().map(|bundle| bundle.origin).collect();
        self.pool.drop_used(&origins, &self.blocks.windows, self.now_ms);
        let committed = self.blocks.committed.height;
        let done = |height: &Height| *height <= committed;
        self.proposals.retain(|(_, height), _| !done(height));
        match network {
            Some(network) => self.start_epoch(*network, &body.block),
            None if body.block.ends_epoch() => {
                self.halt(format!("block {height} ends its epoch, but its change cannot be made"));
            }
            None => {}
        }
    }
}
