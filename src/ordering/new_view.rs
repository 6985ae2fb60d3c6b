//! Entering a view: the base follows from the certificates alone (protocol.md 7.4).

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::chain::{Certificate, Record};
use crate::ordering::blocks::{NoPath, Tip};
use crate::ordering::view::Waiting;
use crate::ordering::{Core, Message, NewView, Recipients};
use crate::planted::{self, Bug};
use crate::types::{Digest, Epoch, Height, ReplicaId, View};

/// What decides between certificates: their rank.
fn order(certificate: &Certificate) -> (Epoch, View, Height) {
    let (epoch, view, height) = certificate.rank();
    if planted::is(Bug::WinnerByHeight) {
        return (epoch, View(height.0), Height(view.0));
    }
    (epoch, view, height)
}

impl Core {
    /// As the primary of `pending`, begins it once q replicas ask for it.
    pub(super) fn lead(&mut self, pending: View) {
        let begun = self.view.waiting.as_ref().is_some_and(|waiting| waiting.view >= pending);
        if self.membership.primary(pending) != self.own || begun {
            return;
        }
        let view_changes: Vec<_> = self
            .view
            .view_changes
            .values()
            .filter(|view_change| view_change.view == pending)
            .take(self.quorum.q())
            .cloned()
            .collect();
        if view_changes.len() < self.quorum.q() {
            return;
        }
        let round = (self.membership.epoch, pending);
        let scheme = self.scheme.as_ref();
        let new_view = NewView::sign(round, view_changes, &self.cluster_id, scheme);
        self.counters.signatures += 1;
        self.await_base(Arc::new(new_view));
    }

    pub(super) fn on_new_view(&mut self, peer: ReplicaId, new_view: Arc<NewView>) {
        let view = new_view.view;
        let wanted = self.fence.is_cleared()
            && new_view.epoch == self.membership.epoch
            && self.is_voter()
            && view > self.view.entered
            && self.view.pending.is_none_or(|pending| view >= pending)
            && self.view.waiting.as_ref().is_none_or(|waiting| view > waiting.view);
        let signers = new_view.view_changes.len() as u64;
        if !wanted {
            return self.waste(peer);
        }
        if !self.may_verify_seldom(peer, 1 + signers * (1 + signers)) {
            return;
        }
        if self.new_view_holds(&new_view) {
            for view_change in &new_view.view_changes {
                self.note_view_change(view_change);
            }
            self.await_base(new_view);
        } else {
            self.waste(peer);
            self.note_false_new_view(&new_view);
        }
    }

    fn new_view_holds(&mut self, new_view: &NewView) -> bool {
        if planted::is(Bug::NewViewUnchecked) {
            return true;
        }
        let all = &new_view.view_changes;
        let shaped = all.len() >= self.quorum.q()
            && all.is_sorted_by(|one, two| one.replica < two.replica)
            && all.iter().all(|view_change| view_change.view == new_view.view);
        if !shaped {
            return false;
        }
        self.counters.verifications += 1;
        new_view.verify(&self.cluster_id, &self.membership, self.scheme.as_ref())
            && all.iter().all(|view_change| self.view_change_holds(view_change))
    }

    /// Recomputes the base; the view is entered when all its blocks are here.
    fn await_base(&mut self, new_view: Arc<NewView>) {
        let certificates = |select: fn(&crate::ordering::ViewChange) -> Option<&Certificate>| {
            new_view
                .view_changes
                .iter()
                .filter_map(|view_change| select(view_change))
                .max_by_key(|certificate| order(certificate))
                .cloned()
        };
        let prepared = certificates(|view_change| view_change.prepared.as_ref());
        let committed = certificates(|view_change| view_change.committed.as_ref());
        let winner = [prepared.as_ref(), committed.as_ref()]
            .into_iter()
            .flatten()
            .max_by_key(|certificate| order(certificate));
        let base = winner.map_or(self.epochs.start, |winner| (winner.height, winner.block_hash));
        let holders = winner.map_or_else(Vec::new, |winner| {
            winner.signatures.iter().map(|signed| signed.replica).collect()
        });
        if let Some(committed) = committed {
            self.adopt_commit(committed);
        }
        if let Some(prepared) = prepared {
            self.adopt_prepared(prepared);
        }
        if new_view.view > self.view.entered && new_view.view >= self.view.highest() {
            let view = new_view.view;
            self.view.waiting = Some(Waiting { view, new_view, base, holders });
            self.try_enter();
        }
    }

    /// Enters the view whose NEW-VIEW waits, if the base and its ancestors are here.
    pub(super) fn try_enter(&mut self) {
        let Some(waiting) = &self.view.waiting else { return };
        let (view, base) = (waiting.view, waiting.base);
        if base.0 < self.blocks.committed.height {
            // Commits above this base happened in this view or a later one: their certificate leads
            // in (7.6), this message no more.
            return;
        }
        let path = loop {
            match self.blocks.path_to(base.0, base.1) {
                Ok(path) => break path,
                Err(NoPath::Missing(height, hash)) if self.body_from_proposals(height, &hash) => {}
                Err(NoPath::Missing(..)) => return,
                Err(NoPath::Conflict(height)) => {
                    return self.halt(format!("a new view contradicts the chain at {height}"));
                }
            }
        };
        let Some(waiting) = self.view.waiting.take() else { return };
        for (_, hash) in &path {
            let block = Arc::clone(&self.blocks.get(hash).expect("on the path").block);
            self.log_block(&block);
        }
        self.enter(view, base, &path);
        self.view.new_view = Some(Arc::clone(&waiting.new_view));
        self.view.fresh = true;
        if base.0 > self.epochs.start.0 {
            self.view.prepare_next = base.0;
            self.view.commit_next = base.0;
        }
        if self.primary() == self.own {
            let gate = self.view.entered_position;
            self.send(Recipients::Voters, Message::NewView(waiting.new_view), gate);
        }
        self.evaluate_view();
    }

    /// Follows a commit certificate into the own chain, or into the view it was made in.
    pub(super) fn follow_commit(&mut self, certificate: &Certificate) {
        if certificate.epoch != self.membership.epoch {
            return;
        }
        let (view, at) = (certificate.view, (certificate.height, certificate.block_hash));
        let reached = at.0 == self.blocks.committed.height;
        if view > self.view.entered {
            let free = self.view.pending.is_none_or(|pending| pending <= view);
            if free && reached && self.is_voter() && !self.quarantined {
                // Its block is committed in `view`, so it extends the view's base, and this replica
                // has cast no vote there: it may start from that block (7.6).
                self.enter(view, at, &[]);
                self.view.fresh = false;
                self.evaluate_view();
            }
            return;
        }
        if view < self.view.entered || !self.is_in_view() {
            return;
        }
        let own = self.view.chain.get(&at.0);
        if own.is_none() && reached && at.0 > self.view.tip.height {
            self.extend_to_committed();
        } else if own.is_some_and(|own| *own != at.1) {
            self.suspect();
        }
        self.view.own_votes.retain(|vote| {
            vote.signed.from_height.plus(vote.signed.hashes.len() as u64 - 1) > at.0
        });
        self.view.chain = self.view.chain.split_off(&at.0);
    }

    /// Blocks of this view were committed without passing here. If they leave the own chain, the
    /// primary proposed two blocks at one height.
    fn extend_to_committed(&mut self) {
        let tip = self.view.tip;
        let committed = self.blocks.committed_at(tip.height).map(|body| body.block.hash());
        if committed.is_some_and(|hash| hash != tip.hash) {
            return self.suspect();
        }
        let windows = self.blocks.windows_after(&[]);
        self.view.tip = self.blocks.committed;
        self.view.windows = windows;
        self.view.chain.insert(self.blocks.committed.height, self.blocks.committed.hash);
        self.drop_pooled();
    }

    /// Starts a view at `base`, which `path` joins to the committed chain.
    pub(super) fn enter(&mut self, view: View, base: (Height, Digest), path: &[(Height, Digest)]) {
        assert!(view >= self.view.highest() && view > self.view.entered, "views only rise");
        let epoch = self.membership.epoch;
        let (base_height, base_hash) = base;
        let position = self.append(Record::ViewEntered { epoch, view, base_height, base_hash });
        let tip = path.last().map_or(self.blocks.committed, |(_, hash)| {
            Tip::of(&self.blocks.get(hash).expect("on the path").block.header, *hash)
        });
        assert_eq!((tip.height, tip.hash), base, "a base is the end of its path");
        let windows = self.blocks.windows_after(path);
        let dropped = self.dropped_blocks(path);
        let state = &mut self.view;
        state.entered = view;
        state.entered_position = position;
        state.pending = None;
        state.leaving = false;
        state.base = base;
        state.chain.clear();
        state.chain.insert(base_height, base_hash);
        state.tip = tip;
        state.windows = windows;
        state.prepare_next = base_height.next();
        state.commit_next = base_height.next();
        state.own_votes.clear();
        state.mark = base_height.max(self.blocks.executed.height);
        state.view_changes.retain(|_, view_change| view_change.view > view);
        state.own_view_change = None;
        state.new_view = None;
        state.refused_roots.clear();
        state.give_up_ms = None;
        state.since_ms = self.now_ms;
        state.progress_ms = self.now_ms;
        if state.waiting.as_ref().is_some_and(|waiting| waiting.view <= view) {
            state.waiting = None;
        }
        self.counters.views_entered += 1;
        self.restart_pace();
        self.votes.retain(&|slot| slot.view.next() >= view);
        self.proposals.retain(|(of, _), _| *of >= view);
        self.pool.restart_timers(self.now_ms);
        self.restart_rejoin_timers();
        for bundle in dropped {
            self.pool.add(bundle, self.now_ms);
        }
        self.drop_pooled();
        self.restart_reads();
        self.pass_own_bundles();
    }

    /// The bundles of the old view's blocks that the new base does not hold.
    pub(super) fn dropped_blocks(&self, path: &[(Height, Digest)]) -> Vec<crate::chain::Bundle> {
        let kept: BTreeSet<Digest> = path.iter().map(|(_, hash)| *hash).collect();
        let mut dropped = Vec::new();
        let mut next = self.view.tip.hash;
        while let Some(body) = self.blocks.get(&next) {
            let height = body.block.header.height;
            let committed = self.blocks.committed_at(height);
            if committed.is_some_and(|body| body.block.hash() == next) || kept.contains(&next) {
                break;
            }
            dropped.extend(body.block.bundles().cloned());
            next = body.block.header.parent;
        }
        dropped
    }

    /// Votes of the view may have come before it was entered.
    fn evaluate_view(&mut self) {
        let heights: Vec<(View, Height)> = (self.view.base.0.0
            ..=self.view.base.0.0 + 2 * self.window)
            .map(|height| (self.view.entered, Height(height)))
            .collect();
        self.evaluate(&heights);
    }
}
