//! Finding, checking and spreading proof of misbehaviour (protocol.md 13).

use std::sync::Arc;

use crate::chain::{BlockHeader, Bundle, Certificate, Evidence, NewView, Phase, ViewChange, Vote};
use crate::codec::Encode;
use crate::ordering::witness::{Place, Seen};
use crate::ordering::{Core, Message, Output};
use crate::types::{Height, ReplicaId, View};

/// Longest proof that is sent to peers and given again to one that comes up; a longer one each
/// replica finds by itself or never.
const TOLD_BYTES_MAX: usize = 1 << 20;

impl Core {
    /// Takes note of a vote that came from its voter, before it is known to be needed. False if it
    /// turned out not to be its voter's.
    pub(super) fn note_vote(&mut self, vote: &Arc<Vote>) -> bool {
        if vote.signed.replica == self.own || !self.is_notable(vote) {
            return true;
        }
        if let Some(seen) = self.witness.file(vote, false)
            && !self.compare_votes(&seen, vote)
        {
            return false;
        }
        let forgetful = self
            .witness
            .view_change(vote.signed.replica)
            .and_then(|view_change| Evidence::amnesia(vote, &view_change));
        if let Some(evidence) = forgetful
            && self.is_signed(vote)
        {
            self.accuse(evidence);
        }
        self.show_opposed(vote)
    }

    /// Places in which a correct replica may be told of votes: the last W heights and the window
    /// ahead, in the views that overlap this replica's.
    fn is_notable(&self, vote: &Vote) -> bool {
        let last = vote.signed.hashes.len().saturating_sub(1) as u64;
        let until = vote.signed.from_height.plus(last);
        vote.epoch == self.membership.epoch
            && self.is_noted((vote.view, vote.signed.from_height))
            && self.is_noted((vote.view, until))
    }

    fn is_noted(&self, (view, height): Place) -> bool {
        let (entered, highest) = (self.view.entered, self.view.highest());
        let executed = self.blocks.executed.height;
        let views = [View(entered.0.saturating_sub(1)), entered, highest, highest.next()];
        views.contains(&view)
            && height >= executed.minus(2 * self.window)
            && height <= executed.plus(2 * self.window)
    }

    /// Forgets what lies outside the places of interest.
    pub(super) fn forget_old_votes(&mut self) {
        let bound = usize::try_from(32 * self.window).expect("W is at most 64");
        if self.witness.places() > bound {
            let mut witness = core::mem::take(&mut self.witness);
            witness.retain(&|place| self.is_noted(*place));
            self.witness = witness;
        }
    }

    fn is_signed(&mut self, vote: &Vote) -> bool {
        let signed = self.verify_vote(vote);
        if signed {
            self.witness.settle(vote);
        } else {
            self.witness.forget(vote);
        }
        signed
    }

    /// Two votes of one replica at one place for different blocks. False if the new one is forged.
    fn compare_votes(&mut self, seen: &Seen, vote: &Arc<Vote>) -> bool {
        let Some(evidence) = Evidence::double_vote(&seen.vote, vote) else { return true };
        if !self.witness.is_news(&evidence) {
            return true;
        }
        if !self.verify_vote(vote) {
            return false;
        }
        if seen.verified || self.is_signed(&seen.vote) {
            self.accuse(evidence);
        } else {
            self.witness.file(vote, true);
        }
        true
    }

    /// Votes of two replicas for different blocks at one place: somebody lies. All are shown both, for
    /// a liar tells each half its own; who holds the other half has the proof. False if the vote is
    /// forged.
    fn show_opposed(&mut self, vote: &Arc<Vote>) -> bool {
        let Some((place, other)) = self.witness.opposed(vote) else { return true };
        if !self.is_signed(vote) {
            return false;
        }
        if other.verified || self.is_signed(&other.vote) {
            for vote in [vote, &other.vote] {
                if self.witness.show(place, vote) {
                    self.tell_all_but(&[vote.signed.replica], &Message::Shown(Arc::clone(vote)));
                }
            }
        }
        true
    }

    /// A vote that a peer was sent by somebody else and found to contradict a third one's.
    pub(super) fn on_shown(&mut self, peer: ReplicaId, vote: &Arc<Vote>) {
        let voter = vote.signed.replica;
        let wanted = voter != self.own && voter != peer && self.is_notable(vote);
        if self.is_hearsay_refused(peer) {
            return self.waste(peer);
        }
        if !wanted || !self.may_verify(peer, 1) {
            return;
        }
        if !self.verify_vote(vote) {
            // Who shows a vote has checked it: this is the peer's lie, not the voter's.
            self.counters.bad_signatures += 1;
            return self.refuse_hearsay(peer);
        }
        if let Some(seen) = self.witness.file(vote, true) {
            self.compare_votes(&seen, vote);
        }
    }

    /// Looks for COMMITs that a VIEW-CHANGE which holds has forgotten.
    pub(super) fn note_view_change(&mut self, view_change: &Arc<ViewChange>) {
        let replica = view_change.replica;
        if replica == self.own {
            return;
        }
        self.witness.file_view_change(view_change);
        let mut commits = self.witness.commits_below(view_change.view, replica);
        commits.extend(self.certified_commit_of(replica));
        for seen in commits {
            if let Some(evidence) = Evidence::amnesia(&seen.vote, view_change)
                && self.witness.is_news(&evidence)
                && (seen.verified || self.is_signed(&seen.vote))
            {
                self.accuse(evidence);
            }
        }
    }

    fn certified_commit_of(&self, replica: ReplicaId) -> Option<Seen> {
        let certificate = self.blocks.certificate.as_ref()?;
        let signed = certificate.signatures.iter().find(|signed| signed.replica == replica)?;
        let vote = Vote {
            phase: Phase::Commit,
            epoch: certificate.epoch,
            view: certificate.view,
            signed: signed.clone(),
        };
        Some(Seen { vote: Arc::new(vote), verified: true })
    }

    /// A NEW-VIEW that this replica refuses; perhaps bytes alone refuse it too.
    pub(super) fn note_false_new_view(&mut self, new_view: &NewView) {
        self.counters.verifications += 1;
        if let Some(evidence) = Evidence::false_new_view(new_view, &self.trust()) {
            self.accuse(evidence);
        }
    }

    /// A bundle that verifies.
    pub(super) fn note_bundle(&mut self, bundle: &Bundle) {
        if bundle.origin == self.own {
            return;
        }
        if let Some(other) = self.witness.file_bundle(bundle)
            && let Some(evidence) = Evidence::double_bundle(&other, bundle)
        {
            self.accuse(evidence);
        }
    }

    /// A bundle that may not be admissible any more, but says other than an earlier one.
    pub(super) fn note_second_content(&mut self, peer: ReplicaId, bundle: &Bundle) {
        let news = self
            .witness
            .other_content(bundle)
            .and_then(|other| Evidence::double_bundle(&other, bundle))
            .filter(|evidence| self.witness.is_news(evidence));
        let Some(evidence) = news else { return };
        // The other one may be from before the origin's key was rotated (13.8).
        if bundle.origin != self.own && self.may_verify(peer, 2) {
            self.counters.verifications += 2;
            if evidence.verify(&self.trust()).is_ok() {
                self.accuse(evidence);
            }
        }
    }

    /// The proof that a bundle carries, which holds.
    pub(super) fn note_proof(&mut self, bundle: &Bundle) {
        if let Some((evidence, accused)) = bundle.proof().and_then(Evidence::of_op)
            && accused != self.own
        {
            self.accuse(evidence);
        }
    }

    /// Two certified chains differ: before this replica halts it shows what it knows.
    pub(super) fn note_fork(&mut self, certificate: &Certificate) {
        let Some(own) = self.witness.committed.clone() else { return };
        let (low, high) = if own.height <= certificate.height {
            (own.height, certificate)
        } else {
            (certificate.height, &own)
        };
        let mut headers: Vec<BlockHeader> = Vec::new();
        let mut next = high.block_hash;
        while Height(low.0 + headers.len() as u64) < high.height {
            let Some(body) = self.blocks.get(&next) else { return };
            next = body.block.header.parent;
            headers.push(body.block.header.clone());
        }
        headers.reverse();
        if let Some(evidence) = Evidence::fork(&own, certificate, headers) {
            self.accuse(evidence);
        }
    }

    /// Whether a commit certificate, if it holds, and the own one cannot both be without more than f
    /// liars: one height has one block, and no later view commits below an earlier one (protocol.md 13.6).
    pub(super) fn contradicts(&self, certificate: &Certificate) -> bool {
        let Some(own) = self.certificate_here() else { return false };
        if certificate.epoch != own.epoch {
            return false;
        }
        let at = |height: Height| match height {
            height if height == own.height => Some(own.block_hash),
            height if height == self.blocks.committed.height => Some(self.blocks.committed.hash),
            height => self.blocks.path.get(&height).copied(),
        };
        let other_block = at(certificate.height).is_some_and(|own| own != certificate.block_hash);
        let views = certificate.view.cmp(&own.view);
        let heights = certificate.height.cmp(&own.height);
        other_block || views.is_lt() && heights.is_gt() || views.is_gt() && heights.is_lt()
    }

    /// More than f replicas lied. All are shown both certificates, so that nobody who is linked goes on
    /// unaware.
    pub(super) fn halt_on_fork(&mut self, other: &Certificate) {
        self.note_fork(other);
        let own = self.certificate_here().cloned();
        for certificate in own.into_iter().chain([other.clone()]) {
            self.tell_all_but(&[], &Message::Certificate(certificate));
        }
        self.halt(format!(
            "a commit certificate of view {} for height {} contradicts the chain here: more than f \
             replicas lied; keep the logs of all replicas, they prove who",
            other.view, other.height
        ));
    }

    /// A proof that a peer found.
    pub(super) fn on_evidence(&mut self, peer: ReplicaId, evidence: Evidence) {
        if self.is_hearsay_refused(peer) {
            return self.waste(peer);
        }
        if !self.witness.is_news(&evidence) {
            return;
        }
        let cost = match &evidence {
            Evidence::FalseNewView(both) => 1 + 8 * both.1.view_changes.len() as u64,
            Evidence::Fork(_) => 2 * self.quorum.n() as u64,
            _ => 2,
        };
        if !self.may_verify_seldom(peer, cost) {
            return;
        }
        self.counters.verifications += cost;
        match evidence.verify(&self.trust()) {
            Ok(()) => {
                let fork = matches!(evidence, Evidence::Fork(_));
                self.accuse(evidence);
                if fork {
                    self.halt(
                        "a peer proves that the chain has forked: more than f lied".to_owned(),
                    );
                }
            }
            // Of an epoch this replica has not reached.
            Err(crate::chain::EvidenceError::Epoch(_)) => {}
            Err(_) => self.refuse_hearsay(peer),
        }
    }

    /// Keeps a proof that holds, hands it out and tells the others, once.
    pub(super) fn accuse(&mut self, evidence: Evidence) {
        if !self.witness.is_news(&evidence) {
            return;
        }
        self.counters.evidence += 1;
        let evidence = Arc::new(evidence);
        self.witness.remember(&evidence);
        self.out.push(Output::Evidence(Arc::clone(&evidence)));
        if evidence.to_bytes().len() <= TOLD_BYTES_MAX {
            self.tell_all_but(&evidence.accused(), &Message::Evidence(Arc::clone(&evidence)));
        }
        if evidence.accused().contains(&self.primary()) {
            self.witness.proven_in = Some(self.view.entered);
        }
    }

    /// Leaves a view whose primary was proven a liar in this step: whom it told the other story votes
    /// no more there, so all move on together (7.1).
    pub(super) fn leave_proven(&mut self) {
        if self.witness.proven_in.take() == Some(self.view.entered) {
            self.suspect();
        }
    }

    /// What a peer that was away may have missed.
    pub(super) fn tell_proofs(&mut self, peer: ReplicaId) {
        let mut budget = TOLD_BYTES_MAX;
        for evidence in self.witness.proofs() {
            let bytes = evidence.to_bytes().len();
            if bytes <= budget && !evidence.accused().contains(&peer) {
                budget -= bytes;
                self.tell(peer, Message::Evidence(evidence));
            }
        }
    }

    fn tell_all_but(&mut self, left_out: &[ReplicaId], message: &Message) {
        let members: Vec<ReplicaId> = self.membership.members.iter().map(|m| m.id).collect();
        for id in members {
            if id != self.own && !left_out.contains(&id) {
                self.tell(id, message.clone());
            }
        }
    }
}
