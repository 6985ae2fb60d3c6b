//! Own votes: signed only once the record they promise is durable (protocol.md 6), which also lets one
//! signature cover all that became durable together.

use std::sync::Arc;

use crate::chain::{Phase, Vote};
use crate::ordering::{Core, Message, Recipients};
use crate::planted::{self, Bug};
use crate::types::{Digest, Height, LogPosition, View};

impl Core {
    pub(super) fn cast_votes(&mut self) {
        let entered = self.view.entered_position;
        let abstains = self.fence.abstains(self.membership.epoch, self.view.entered);
        let silent = !self.fence.is_cleared() || abstains;
        let left = !self.is_normal() && !planted::is(Bug::VoteAfterViewChange);
        if left || silent || !self.is_voter() || entered > self.log.durable {
            return;
        }
        self.skip_committed();
        let mut votes = Vec::new();
        if let Some((from, hashes)) = self.durable_blocks() {
            self.view.prepare_next = from.plus(hashes.len() as u64);
            votes.push(self.sign_vote(Phase::Prepare, from, hashes));
        }
        if let Some((from, hashes)) = self.durable_prepared() {
            self.view.commit_next = from.plus(hashes.len() as u64);
            self.view.mark = self.view.mark.max(self.view.commit_next.minus(1));
            votes.push(self.sign_vote(Phase::Commit, from, hashes));
        }
        if votes.is_empty() {
            return;
        }
        let gate = self.log.durable;
        self.send(Recipients::Voters, Message::Votes(votes.clone()), gate);
        self.view.own_votes.extend(votes.iter().cloned());
        for vote in votes {
            self.count_own(vote);
        }
    }

    fn count_own(&mut self, vote: Vote) {
        let places: Vec<(View, Height)> = (0..vote.signed.hashes.len() as u64)
            .map(|at| (vote.view, vote.signed.from_height.plus(at)))
            .collect();
        self.file_vote(&Arc::new(vote), true);
        self.evaluate(&places);
    }

    /// What is committed in this view needs no vote: who missed it gets the certificate.
    fn skip_committed(&mut self) {
        self.skip_restored();
        let Some(certificate) = self.certificate_here() else { return };
        if certificate.view == self.view.entered {
            let next = certificate.height.next();
            self.view.prepare_next = self.view.prepare_next.max(next);
            self.view.commit_next = self.view.commit_next.max(next);
        }
    }

    /// A restored state stands above the base without the bodies in between, nor their hashes: what
    /// it holds is committed, and voting goes on above it.
    fn skip_restored(&mut self) {
        let (base, committed) = (self.view.base.0, self.blocks.committed.height);
        let next = self.view.prepare_next;
        let hash = self.view.chain.get(&next);
        let absent = hash.is_none_or(|hash| self.blocks.get(hash).is_none());
        if absent && next > base && next <= committed {
            self.view.prepare_next = committed.next();
        }
        let next = self.view.commit_next;
        if next > base && next <= committed && !self.view.chain.contains_key(&next) {
            self.view.commit_next = committed.next();
        }
    }

    /// The next heights to PREPARE. The primary's own proposals carry their PREPARE already.
    fn durable_blocks(&mut self) -> Option<(Height, Vec<Digest>)> {
        let leads = self.primary() == self.own;
        let mut hashes = Vec::new();
        let mut height = self.view.prepare_next;
        while height <= self.view.tip.height && (hashes.len() as u64) < self.window {
            if leads && height > self.view.base.0 {
                break;
            }
            let Some(hash) = self.view.chain.get(&height) else { break };
            if height > self.view.base.0 && self.blocks.get(hash).is_none() {
                break;
            }
            let waits = !planted::is(Bug::VoteBeforeDurable) && !planted::is(Bug::UngatedPrepare);
            if waits && self.block_position(height, hash) > self.log.durable {
                break;
            }
            hashes.push(*hash);
            height = height.next();
        }
        (!hashes.is_empty()).then_some((self.view.prepare_next, hashes))
    }

    /// `ViewEntered` stands behind the base and its ancestors in the log.
    fn block_position(&self, height: Height, hash: &Digest) -> LogPosition {
        if height <= self.view.base.0 {
            return self.view.entered_position;
        }
        let body = self.blocks.get(hash).expect("the own chain's bodies are here");
        body.position.expect("accepted blocks are appended")
    }

    /// The next heights to COMMIT: up to the highest prepared certificate of this view.
    fn durable_prepared(&self) -> Option<(Height, Vec<Digest>)> {
        let (_, position) = self.blocks.prepared.as_ref()?;
        let prepared = self.prepared_here()?;
        let from = self.view.commit_next;
        if prepared.view != self.view.entered
            || *position > self.log.durable && !planted::is(Bug::VoteBeforeDurable)
            || prepared.height < from
            || self.view.chain.get(&prepared.height) != Some(&prepared.block_hash)
        {
            return None;
        }
        let mut hashes = Vec::new();
        for (height, hash) in self.view.chain.range(from..=prepared.height) {
            if height.0 != from.0 + hashes.len() as u64 || hashes.len() as u64 > self.window {
                break;
            }
            hashes.push(*hash);
        }
        (!hashes.is_empty()).then_some((from, hashes))
    }

    /// Sends everything in flight once more: something of it was lost.
    pub(super) fn repeat_votes(&mut self) {
        if !self.is_normal() || self.view.tip.height <= self.blocks.committed.height {
            return;
        }
        if self.primary() == self.own && self.view.fresh {
            self.repeat_proposals();
        }
        let mut gate = self.log.durable.max(self.view.entered_position);
        if self.blocks.committed.height == Height(0) {
            // A proposal's PREPARE is among them (6.6).
            gate = gate.max(self.log.end);
        }
        for votes in self.view.own_votes.clone().chunks(2) {
            self.send(Recipients::Voters, Message::Votes(votes.to_vec()), gate);
        }
    }

    fn repeat_proposals(&mut self) {
        let mut gate = self.view.entered_position.max(self.fence.gate());
        if self.blocks.committed.height == Height(0) {
            gate = gate.max(self.log.end);
        }
        let votes = self.view.own_votes.clone();
        for prepare in votes.into_iter().filter(|vote| vote.phase == Phase::Prepare) {
            let height = prepare.signed.from_height;
            let known = prepare.signed.hashes.first().and_then(|hash| self.blocks.get(hash));
            if height <= self.view.base.0 || height <= self.blocks.committed.height {
                continue;
            }
            if let Some(body) = known {
                let block = Arc::clone(&body.block);
                self.send(Recipients::Voters, Message::PrePrepare { block, prepare }, gate);
            }
        }
    }
}
