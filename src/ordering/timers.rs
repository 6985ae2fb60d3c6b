//! All timers. Every one is a moment in state compared with the last tick; none is started or
//! stopped elsewhere (protocol.md 7.2).

use crate::ordering::Core;
use crate::ordering::status::RECENT_MS;

/// A primary silent for so long is suspected; its STATUS comes five times as often.
const IDLE_MS: u64 = RECENT_MS;
/// Nobody is accused by a replica that has not heard a quorum for half the shortest timer: it is itself
/// cut off, and its timers would run out just before it forgets whom it heard (protocol.md 7.2).
const ACCUSE_HEARD_MS: u64 = IDLE_MS / 2;
/// Past the earliest lease expiry by so much, by a quorum's median clock, the primary is suspected.
const LEASE_GRACE_MS: u64 = 2000;

impl Core {
    pub(super) fn run_timers(&mut self) {
        self.send_status();
        self.run_fence();
        if self.quarantined {
            return;
        }
        if !self.is_voter() {
            return self.guard_requests();
        }
        self.rest_rejoins();
        self.repeat_view_change();
        self.give_up_pending();
        self.guard_requests();
        self.end_tenure();
        let expired = [self.idle_deadline(), self.progress_deadline(), self.request_deadline()];
        let expired = expired.into_iter().chain([self.overstay_deadline(), self.rejoin_deadline()]);
        let due = expired.flatten().any(|at| self.now_ms >= at) || self.lease_is_overdue();
        if due && self.voters_heard_within(ACCUSE_HEARD_MS) >= self.quorum.q() {
            self.suspect();
        }
    }

    /// The primary is silent. Counts only while a quorum is heard: without one no view can begin,
    /// and a replica cut off alone would leave its view for nothing.
    fn idle_deadline(&self) -> Option<u64> {
        if !self.is_normal() || self.primary() == self.own {
            return None;
        }
        let heard = self.peers.get(&self.primary()).and_then(|peer| peer.heard_ms).unwrap_or(0);
        Some(heard.max(self.quorum_since_ms?).max(self.view.since_ms) + IDLE_MS)
    }

    /// Something is in flight and nothing commits.
    fn progress_deadline(&self) -> Option<u64> {
        let in_flight = self.view.tip.height > self.blocks.committed.height;
        if !self.is_normal() || !in_flight {
            return None;
        }
        Some(self.view.progress_ms.max(self.quorum_since_ms?) + self.view_timeout_ms())
    }

    fn lease_is_overdue(&self) -> bool {
        let idle = self.view.tip.height == self.blocks.executed.height;
        let Some(expiry) = self.blocks.next_expiry else { return false };
        let settled = self.now_ms >= self.view.since_ms.max(self.view.progress_ms) + LEASE_GRACE_MS;
        self.is_normal()
            && self.primary() != self.own
            && self.quorum_since_ms.is_some()
            && idle
            && settled
            && self.median_unix().is_some_and(|median| median >= expiry.plus(LEASE_GRACE_MS))
    }

    /// When the core next wants a tick, in monotonic ms; a tick at any other time does no harm.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        if self.halted {
            return None;
        }
        let mut deadlines = vec![Some(self.next_status_ms)];
        if !self.quarantined {
            deadlines.extend([
                self.view.pending.map(|_| self.view.repeat_ms),
                self.view.give_up_ms,
                self.idle_deadline(),
                self.progress_deadline(),
                self.request_deadline(),
                self.rejoin_deadline(),
                self.fence_deadline(),
                self.guard_deadline(),
                self.propose_deadline(),
                self.tenure_deadline(),
                self.overstay_deadline(),
                self.catch_up_deadline(),
                self.feed_deadline(),
                self.transfer_deadline(),
                self.read_deadline(),
            ]);
        }
        // What is due was done in the last step, as far as it can be done now.
        deadlines.into_iter().flatten().filter(|at| *at > self.now_ms).min()
    }
}
