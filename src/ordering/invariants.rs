//! What holds after every step, in production too. Each is a comparison or two.

use crate::chain::{Phase, Vote};
use crate::ordering::Core;

impl Core {
    pub(super) fn check_invariants(&self) {
        if self.halted {
            return;
        }
        let (blocks, view) = (&self.blocks, &self.view);
        assert!(self.log.durable <= self.log.end, "nothing is durable before it is appended");
        assert!(blocks.executed.height <= blocks.executing, "executed before it was handed out");
        assert!(blocks.executing <= blocks.committed.height, "executed before it was committed");
        assert!(
            blocks.executing.0 - blocks.executed.height.0 <= self.window,
            "more than W blocks wait for execution"
        );
        let certified = blocks.certificate.as_ref();
        assert!(
            certified.is_none_or(|cert| cert.phase == Phase::Commit),
            "a commit certificate is made of COMMITs"
        );
        let prepared = blocks.prepared.as_ref();
        assert!(
            prepared.is_none_or(|(cert, _)| cert.phase == Phase::Prepare),
            "a prepared certificate is made of PREPAREs"
        );
        assert!(
            view.pending.is_none_or(|pending| pending > view.entered),
            "a view asked for lies above the one entered"
        );
        if self.is_normal() && self.is_voter() {
            self.check_chain();
        }
        self.check_bounds();
    }

    fn check_chain(&self) {
        let (blocks, view) = (&self.blocks, &self.view);
        assert!(view.tip.height >= view.base.0, "the own chain starts at the base");
        assert!(
            view.tip.height >= blocks.committed.height,
            "in normal mode the own chain holds what is committed"
        );
        assert!(
            view.tip.height <= blocks.committed.height.max(view.base.0).plus(2 * self.window),
            "no more than a window is in flight"
        );
        let prepared = blocks.prepared.as_ref().map_or(view.base.0, |(cert, _)| cert.height);
        assert!(
            view.mark <= view.tip.height.max(self.certified_height()).max(prepared),
            "no COMMIT above the tip and the prepared certificate"
        );
        let mine = |vote: &Vote| vote.view == view.entered && vote.signed.replica == self.own;
        assert!(view.own_votes.iter().all(mine), "votes kept for repetition are own and current");
    }

    fn certified_height(&self) -> crate::types::Height {
        let executed = self.blocks.executed.height;
        self.blocks.certificate.as_ref().map_or(executed, |cert| cert.height.max(executed))
    }

    fn check_bounds(&self) {
        let window = usize::try_from(self.window).expect("W is at most 64");
        assert!(self.proposals.len() <= 12 * window + 12, "proposals are bounded");
        assert!(self.votes.len() <= 64 * window + 64, "vote slots are bounded");
        assert!(self.view.own_votes.len() <= 8 * window + 8, "own votes are bounded");
    }
}
