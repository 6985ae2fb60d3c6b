//! Leaving a view: when, how, and who follows (protocol.md 7).

use std::sync::Arc;

use crate::chain::{Certificate, Phase, Record};
use crate::codec::Encode;
use crate::ordering::{Core, Message, Recipients, ViewChange};
use crate::planted::{self, Bug};
use crate::types::{LogPosition, ReplicaId, View};

/// A VIEW-CHANGE is sent again until its view, or a later one, begins.
const REPEAT_MS: u64 = 500;
/// The longest view-change timeout, below kube's leader-election renew deadline.
const TIMEOUT_MS_MAX: u64 = 8000;

impl Core {
    /// Gives up the own view, unless another one is asked for already (R4).
    pub(super) fn suspect(&mut self) {
        if self.is_in_view() {
            self.send_view_change(self.view.entered.next());
        }
    }

    /// base * 2^k with k view changes since the last commit of client requests.
    pub(super) fn view_timeout_ms(&self) -> u64 {
        let base = self.membership.parameters.view_timeout_ms;
        (base << self.view.failures.min(6)).min(TIMEOUT_MS_MAX.max(base))
    }

    pub(super) fn send_view_change(&mut self, view: View) {
        assert!(view > self.view.highest(), "a replica asks for ever higher views");
        let certified = self.certificate_here().map(|cert| cert.view);
        let hopeless = certified.is_some_and(|certified| certified >= view);
        if hopeless || !self.is_voter() || !self.fence.is_cleared() {
            return;
        }
        let prepared = self.prepared_here().cloned();
        let prepared = prepared.filter(|_| !planted::is(Bug::ViewChangeWithoutCertificate));
        let round = (self.membership.epoch, view);
        let stable = self.checkpoints.stable.as_ref().map(|stable| stable.id);
        let certificates = (prepared, self.certificate_here().cloned(), stable);
        let scheme = self.scheme.as_ref();
        let signed = ViewChange::sign(round, self.own, certificates, &self.cluster_id, scheme);
        let signed = Arc::new(signed);
        let message = Message::ViewChange(Arc::clone(&signed));
        let position = self.append(Record::ViewChangeSent {
            epoch: round.0,
            view,
            message: message.to_bytes(),
        });
        self.counters.signatures += 1;
        self.counters.view_changes += 1;
        self.fence.known.asked = round;
        if self.view.pending.is_none() {
            // Others may go on without this replica; its blocks in flight may be nobody else's.
            for bundle in self.dropped_blocks(&[]) {
                self.pool.add(bundle, self.now_ms);
            }
        }
        self.view.pending = Some(view);
        self.view.waiting = self.view.waiting.take().filter(|waiting| waiting.view >= view);
        self.view.failures += 1;
        self.view.give_up_ms = None;
        self.view.repeat_ms = self.now_ms + REPEAT_MS;
        self.view.own_view_change = Some((Arc::clone(&signed), position));
        self.view.view_changes.insert(self.own, signed);
        self.send(Recipients::Voters, message, position);
        self.after_view_changes();
    }

    pub(super) fn repeat_view_change(&mut self) {
        let waits = self.view.pending.is_some() && self.fence.is_cleared();
        if !waits || self.now_ms < self.view.repeat_ms {
            return;
        }
        self.view.repeat_ms = self.now_ms + REPEAT_MS;
        if let Some((view_change, position)) = self.view.own_view_change.clone() {
            self.send(Recipients::Voters, Message::ViewChange(view_change), position);
        }
    }

    pub(super) fn on_view_change(&mut self, peer: ReplicaId, view_change: Arc<ViewChange>) {
        let (replica, view) = (view_change.replica, view_change.view);
        if view_change.epoch != self.membership.epoch || !self.is_voter() {
            return;
        }
        let known = self.view.view_changes.get(&replica).map(|known| known.view);
        let newer = view > self.view.entered && known.is_none_or(|known| view > known);
        if replica == self.own || !newer {
            self.help_into_view(peer, view);
            return self.waste(peer);
        }
        if !self.may_verify_seldom(peer, 1 + self.certificate_cost(&view_change)) {
            return;
        }
        if !self.view_change_holds(&view_change) {
            self.counters.bad_signatures += 1;
            return self.waste(peer);
        }
        self.note_view_change(&view_change);
        self.view.view_changes.insert(replica, Arc::clone(&view_change));
        self.fence.seen.note_view_change(&view_change);
        if let Some(committed) = view_change.committed.clone() {
            self.adopt_commit(committed);
        }
        if replica == self.primary() && self.is_normal() {
            // A primary that leaves its view, as after a restart (R1), leads it no more.
            self.suspect();
        }
        self.after_view_changes();
    }

    /// Who asks for a view that has begun is shown its beginning.
    fn help_into_view(&mut self, peer: ReplicaId, asked: View) {
        if asked <= self.view.entered && self.is_normal() && self.may_serve(peer, 1) {
            self.show_view(peer);
        }
    }

    /// Signature, and certificates of the right kind below the view asked for.
    pub(super) fn view_change_holds(&mut self, view_change: &ViewChange) -> bool {
        let epoch = self.membership.epoch;
        if view_change.epoch != epoch {
            return false;
        }
        let known = self.view.view_changes.get(&view_change.replica);
        if known.is_some_and(|known| known.as_ref() == view_change) {
            return true;
        }
        self.counters.verifications += 1;
        if !view_change.verify(&self.cluster_id, &self.membership, self.scheme.as_ref()) {
            return false;
        }
        let prepared = view_change.prepared.as_ref().map(|cert| (cert, Phase::Prepare));
        let committed = view_change.committed.as_ref().map(|cert| (cert, Phase::Commit));
        [prepared, committed].into_iter().flatten().all(|(certificate, phase)| {
            certificate.phase == phase
                && certificate.view < view_change.view
                && self.certificate_holds(certificate)
        })
    }

    fn certificate_cost(&self, view_change: &ViewChange) -> u64 {
        let certificates = [view_change.prepared.as_ref(), view_change.committed.as_ref()];
        certificates
            .into_iter()
            .flatten()
            .map(|certificate| certificate.signatures.len() as u64)
            .sum()
    }

    /// Whether a certificate certifies; those known already cost nothing.
    pub(super) fn certificate_holds(&mut self, certificate: &Certificate) -> bool {
        let known = self.blocks.certificate.as_ref() == Some(certificate)
            || self.blocks.prepared.as_ref().is_some_and(|(known, _)| known == certificate);
        if known {
            return true;
        }
        self.counters.verifications += certificate.signatures.len() as u64;
        certificate.check(&self.cluster_id, &self.membership, self.scheme.as_ref()).is_ok()
    }

    /// The join rule, the new-view timer and the new primary's duty.
    pub(super) fn after_view_changes(&mut self) {
        if self.quarantined || !self.fence.is_cleared() {
            return;
        }
        let mut views: Vec<View> = self
            .view
            .view_changes
            .iter()
            .filter(|(replica, _)| **replica != self.own)
            .map(|(_, view_change)| view_change.view)
            .collect();
        views.sort_unstable_by(|one, two| two.cmp(one));
        if let Some(joined) = views.get(self.quorum.f())
            && *joined > self.view.highest()
        {
            return self.send_view_change(*joined);
        }
        let Some(pending) = self.view.pending else { return };
        let asking = self.view.view_changes.values().filter(|vc| vc.view >= pending).count();
        if asking >= self.quorum.q() && self.view.give_up_ms.is_none() {
            self.view.give_up_ms = Some(self.now_ms + self.view_timeout_ms());
        }
        self.lead(pending);
    }

    /// No NEW-VIEW came although a quorum asked for it.
    pub(super) fn give_up_pending(&mut self) {
        if self.fence.is_cleared()
            && self.view.give_up_ms.is_some_and(|at| self.now_ms >= at)
            && let Some(pending) = self.view.pending
        {
            self.send_view_change(pending.next());
        }
    }

    /// Sends a peer what makes it enter this view.
    pub(super) fn show_view(&mut self, peer: ReplicaId) {
        if let Some(new_view) = self.view.new_view.clone() {
            let gate = self.view.entered_position;
            self.send(Recipients::One(peer), Message::NewView(new_view), gate);
        } else if let Some(certificate) = self.certificate_here().cloned()
            && certificate.view == self.view.entered
        {
            self.send(Recipients::One(peer), Message::Certificate(certificate), LogPosition(0));
        }
    }
}
