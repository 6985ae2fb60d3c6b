//! R3: a starting replica asks what others hold of its own votes (protocol.md 6.4 to 6.6).

use crate::chain::Vote;
use crate::crypto::PublicKey;
use crate::ordering::fence::{SAY_MS, Stage};
use crate::ordering::shown::{ShownVotes, Standing, VotesAnswer};
use crate::ordering::{Alarm, Core, Message, Output};
use crate::planted::{self, Bug};
use crate::types::{Height, ReplicaId, View};

/// Own signatures in an answer, if it holds one of each kind.
const SHOWN_SIGNATURES: u64 = 5;

impl Core {
    pub(super) fn log_holds_anything(&self) -> bool {
        self.blocks.executed.height > Height(0)
            || self.blocks.certificate.is_some()
            || self.blocks.prepared.is_some()
            || !self.blocks.above(Height(0)).is_empty()
    }

    pub(super) fn other_voters(&self) -> Vec<ReplicaId> {
        let voters = self.membership.voters().map(|member| member.id);
        voters.filter(|id| *id != self.own).collect()
    }

    pub(super) fn ask_votes(&mut self, pause_ms: u64) {
        if self.now_ms < self.fence.next_ask_ms {
            return;
        }
        self.fence.next_ask_ms = self.now_ms + pause_ms;
        let later = self.fence.is_cleared();
        for peer in self.other_voters() {
            if later || !self.fence.answers.contains_key(&peer) {
                self.ask_vote(peer);
            }
        }
    }

    /// A link came up: it costs no waiting to ask at once.
    pub(super) fn ask_vote(&mut self, peer: ReplicaId) {
        let start_nonce = self.fence.nonce;
        self.tell(peer, Message::VotesQuestion { start_nonce });
    }

    /// Tells the operator whom a start waits for.
    pub(super) fn say_missing(&mut self) {
        if self.now_ms < self.fence.next_say_ms {
            return;
        }
        self.fence.next_say_ms = self.now_ms + SAY_MS;
        let answered = |id: &ReplicaId| self.fence.answers.contains_key(id);
        let missing = self.other_voters().into_iter().filter(|id| !answered(id)).collect();
        let first_start = self.fence.empty;
        self.out.push(Output::Alarm(Alarm::AwaitsVoters { missing, first_start }));
    }

    pub(super) fn on_votes_question(&mut self, peer: ReplicaId, nonce: [u8; 32]) {
        let standing = self.standing_towards(peer, nonce);
        let votes = self.fence.seen.of(peer);
        let answer = VotesAnswer { nonce, from: self.fence.nonce, standing, votes };
        self.tell(peer, Message::VotesAnswer(Box::new(answer)));
    }

    fn standing_towards(&self, peer: ReplicaId, nonce: [u8; 32]) -> Standing {
        if self.quarantined || self.fence.is_fenced() {
            Standing::Fenced
        } else if self.fence.empty {
            Standing::Empty
        } else if self.fence.began_with.get(&peer) == Some(&nonce) {
            Standing::Agreed
        } else if self.has_never_voted() {
            Standing::Begun
        } else {
            Standing::Started
        }
    }

    /// Certain from the log alone too: the first block of a network is proposed only once it is durable
    /// (protocol.md 6.6).
    fn has_never_voted(&self) -> bool {
        let view = &self.view;
        view.entered == View(0)
            && view.pending.is_none()
            && view.tip.height == Height(0)
            && self.fence.rejoined.is_none()
            && !self.log_holds_anything()
    }

    pub(super) fn on_votes_answer(&mut self, peer: ReplicaId, answer: VotesAnswer) {
        let VotesAnswer { nonce, from, standing, votes } = answer;
        let counts = nonce == self.fence.nonce && self.membership.voter(peer).is_some();
        if !counts || self.fence.is_fenced() || planted::is(Bug::FenceSkipped) {
            return;
        }
        if !self.may_verify_seldom(peer, SHOWN_SIGNATURES) {
            return;
        }
        if let Some((what, made_here)) = self.lost_vote(&votes) {
            if made_here {
                return self.halt(format!(
                    "DUPLICATE_IDENTITY: replica {peer} holds {what} of this replica that this \
                     process did not make; another process runs with the same key: stop it"
                ));
            }
            let text = format!("replica {peer} holds {what} that this log does not know");
            return self.raise_fence(text);
        }
        if standing == Standing::Fenced {
            return;
        }
        let kept = self.fence.answers.entry(peer).or_insert((standing, from));
        if standing < kept.0 || from != kept.1 {
            *kept = (standing, from);
        }
        self.settle_answers();
    }

    /// An own signature newer than all the log justifies and this process made, and whether it lies in a
    /// view that only this process entered.
    fn lost_vote(&mut self, votes: &ShownVotes) -> Option<(String, bool)> {
        let mut known = self.fence.known;
        if planted::is(Bug::NoExemption) {
            known.proposal = known.prepare;
        }
        let shown = [
            (&votes.commit, known.commit, "a COMMIT"),
            (&votes.prepare, known.prepare, "a PREPARE"),
            (&votes.proposal, known.proposal, "a proposal"),
        ];
        for (vote, known, name) in shown {
            let Some(vote) = vote.as_deref().filter(|vote| vote.rank() > known) else { continue };
            if self.is_own_vote(vote) {
                let current = vote.epoch == self.membership.epoch && vote.view <= self.view.entered;
                let here = current && vote.view >= self.fence.own_views && self.fence.is_cleared();
                let (_, view, height) = vote.rank();
                return Some((format!("{name} in view {view} at height {height}"), here));
            }
        }
        let (cluster_id, scheme) = (&self.cluster_id, self.scheme.as_ref());
        let keys = self.own_keys();
        if let Some(view_change) = &votes.view_change
            && (view_change.epoch, view_change.view) > known.asked
            && view_change.replica == self.own
            && keys.iter().any(|key| view_change.signed_by(key, cluster_id, scheme))
        {
            return Some((format!("a VIEW-CHANGE for view {}", view_change.view), false));
        }
        let bundle = votes.bundle.as_ref()?;
        let newer = bundle.session > known.session && bundle.origin == self.own;
        (newer && keys.iter().any(|key| bundle.verify(cluster_id, key, scheme)))
            .then(|| (format!("a bundle of session {}", bundle.session), false))
    }

    fn is_own_vote(&mut self, vote: &Vote) -> bool {
        self.counters.verifications += 1;
        let signed = |key: &PublicKey| vote.signed_by(key, &self.cluster_id, self.scheme.as_ref());
        vote.signed.replica == self.own && self.own_keys().iter().any(signed)
    }

    /// The key it signs with, and the one it has in this epoch: a log from before a rotation does not
    /// know the key of the votes that it lost (protocol.md 20.10).
    fn own_keys(&self) -> Vec<PublicKey> {
        let own = self.scheme.public_key();
        let member = self.membership.member(self.own).map(|member| member.key);
        core::iter::once(own).chain(member.filter(|key| *key != own)).collect()
    }

    /// Begins to vote once enough have answered.
    pub(super) fn settle_answers(&mut self) {
        if self.fence.stage != Stage::Asking || self.quarantined {
            return;
        }
        let others = self.other_voters();
        let answers: Vec<Standing> = others
            .iter()
            .filter_map(|id| self.fence.answers.get(id).map(|(standing, _)| *standing))
            .collect();
        if !self.fence.empty {
            if answers.len() + 1 >= self.quorum.q() {
                self.clear();
            }
            return;
        }
        let started = answers.iter().filter(|standing| **standing == Standing::Started).count();
        if started > self.quorum.f() {
            let text = format!("the log is empty, and {started} others have voted already");
            return self.raise_fence(text);
        }
        if started == 0 && answers.len() == others.len() && self.is_voter() {
            self.begin(answers.contains(&Standing::Begun));
        }
    }

    /// All voters stand at the network's beginning. If one began without this process, an earlier
    /// process of this replica may have voted in view 0: then it votes in no view before the next.
    pub(super) fn begin(&mut self, reborn: bool) {
        self.fence.empty = false;
        self.fence.stage = Stage::Cleared;
        self.fence.proof_since_ms = None;
        let answers = self.fence.answers.iter();
        self.fence.began_with = answers.map(|(id, (_, from))| (*id, *from)).collect();
        self.view.entered_position = self.record_first_view();
        self.view.fresh = true;
        self.view.since_ms = self.now_ms;
        self.say_that_it_votes();
        if reborn {
            self.suspect();
        }
    }

    /// A commit certificate came while the log is empty: the network has begun without this replica, or
    /// its own first answers are late. True if it must wait.
    pub(super) fn waits_to_begin(&mut self) -> bool {
        if !self.fence.empty || self.fence.is_fenced() {
            return false;
        }
        if !self.is_voter() {
            self.raise_fence("the log is empty, and the network has begun".to_owned());
            return false;
        }
        self.fence.proof_since_ms.get_or_insert(self.now_ms);
        true
    }
}
