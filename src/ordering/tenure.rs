//! Planned changes of the primary: at the end of a tenure, or when it is about to stop
//! (protocol.md 7.9). They keep view changes exercised and no liar in the lead for ever.

use crate::ordering::Core;

/// Nobody leads longer.
const TENURE_MS: u64 = 600_000;
/// So much longer a primary may take to see its own end before the others do.
const OVERSTAY_MS: u64 = 10_000;

impl Core {
    /// As the primary, stops proposing; the view ends when nothing is in flight any more. Who leads
    /// alone goes on.
    pub(super) fn hand_over(&mut self) {
        if self.leads() && self.membership.voters().count() > 1 {
            self.view.leaving = true;
            self.leave_when_quiet();
        }
    }

    /// Whether this replica leads the view it is in.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.is_normal() && self.is_voter() && self.primary() == self.own
    }

    /// Whether this replica gives its lead away, or waits for whoever leads next. Too few in reach take
    /// nothing over.
    #[must_use]
    pub fn is_handing_over(&self) -> bool {
        let up = |id| id == self.own || self.peers.get(&id).is_some_and(|peer| peer.up);
        let reached = self.membership.voters().filter(|voter| up(voter.id)).count();
        let gives = self.view.leaving || self.view.pending.is_some() && self.primary() == self.own;
        gives && reached >= self.quorum.q()
    }

    /// Ends the own tenure when its time has come.
    pub(super) fn end_tenure(&mut self) {
        let blocks = self.blocks_led() >= u64::from(self.membership.parameters.tenure_blocks);
        let time = self.tenure_deadline().is_some_and(|at| self.now_ms >= at);
        if self.leads() && !self.view.leaving && (blocks || time) {
            self.hand_over();
        }
        self.leave_when_quiet();
    }

    /// What is in flight commits first, so that nobody waits for it across the view change. If it does
    /// not, the timers that watch every primary end the view.
    fn leave_when_quiet(&mut self) {
        let quiet = self.view.tip.height <= self.blocks.committed.height;
        if self.view.leaving && self.leads() && quiet {
            self.suspect();
        }
    }

    fn blocks_led(&self) -> u64 {
        self.view.tip.height.0.saturating_sub(self.view.base.0.0)
    }

    /// When the own tenure ends by time. A view without a block needs no other primary, and a quiet
    /// network writes nothing.
    pub(super) fn tenure_deadline(&self) -> Option<u64> {
        let due = self.leads() && self.blocks_led() > 0 && self.membership.voters().count() > 1;
        (due && !self.view.leaving).then_some(self.view.since_ms + TENURE_MS)
    }

    /// When a primary that does not hand over is suspected.
    pub(super) fn overstay_deadline(&self) -> Option<u64> {
        if !self.is_normal() || self.primary() == self.own {
            return None;
        }
        let blocks = self.blocks_led();
        let allowed = u64::from(self.membership.parameters.tenure_blocks) + self.window;
        if blocks > allowed {
            return Some(self.view.progress_ms.max(self.quorum_since_ms?));
        }
        (blocks > 0)
            .then_some(self.view.since_ms.max(self.quorum_since_ms?) + TENURE_MS + OVERSTAY_MS)
    }
}
