//! A primary that is alive but slow (protocol.md 7.10): a liar may lead just under every timeout.
//! What it is measured by is how long own bundles wait for a block, against the views before it.

use std::collections::VecDeque;

use crate::ordering::Core;
use crate::ordering::pool::BundleKey;
use crate::types::ReplicaId;

/// The newest waits of a view that count.
const SAMPLES: usize = 32;
/// So few say nothing.
const SAMPLES_MIN: usize = 8;
/// Faster than this nobody is slow.
const SLOW_MS_MIN: u64 = 250;
/// Slow is so many times the best of the views before.
const SLOW_FACTOR: u64 = 4;
/// Slow for so long is too slow.
const PATIENCE_MS: u64 = 5000;
/// At most one accusation in this time: if everything is slow, changing primaries makes it worse.
const PAUSE_MS: u64 = 30_000;

/// How quickly primaries took up this replica's bundles.
#[derive(Default)]
pub(super) struct Pace {
    /// Of the view entered, in ms.
    waits: VecDeque<u64>,
    slow_since_ms: Option<u64>,
    /// Medians of the last views that had enough samples, one per voter.
    medians: VecDeque<u64>,
    accused: Option<(ReplicaId, u64)>,
}

impl Pace {
    fn median(&self) -> Option<u64> {
        let mut waits: Vec<u64> = self.waits.iter().copied().collect();
        waits.sort_unstable();
        (waits.len() >= SAMPLES_MIN).then(|| waits[waits.len() / 2])
    }
}

impl Core {
    /// A block of the primary holds this bundle. One that found the pipeline full did not wait for
    /// the primary but for a quorum.
    pub(super) fn note_wait(&mut self, origin: ReplicaId, key: BundleKey) {
        let in_flight = self.view.tip.height.0.saturating_sub(self.blocks.committed.height.0);
        let Some(pooled) = self.pool.get(origin, key) else { return };
        if origin != self.own || self.primary() == self.own || in_flight >= self.window {
            return;
        }
        let waited = self.now_ms.saturating_sub(pooled.since_ms);
        self.pace.waits.push_back(waited);
        if self.pace.waits.len() > SAMPLES {
            self.pace.waits.pop_front();
        }
    }

    /// Leaves the view of a primary that has been slow for long; at most every 30 s, and never twice
    /// running for one replica.
    pub(super) fn watch_pace(&mut self) {
        let primary = self.primary();
        let slow = self.is_normal() && primary != self.own && self.is_slow();
        if !slow {
            self.pace.slow_since_ms = None;
            return;
        }
        let since = *self.pace.slow_since_ms.get_or_insert(self.now_ms);
        let allowed = self.pace.accused.is_none_or(|(accused, at)| {
            accused != primary && self.now_ms >= at.saturating_add(PAUSE_MS)
        });
        if allowed && self.now_ms >= since + PATIENCE_MS {
            self.pace.accused = Some((primary, self.now_ms));
            self.suspect();
        }
    }

    fn is_slow(&self) -> bool {
        let best = self.pace.medians.iter().min().copied().unwrap_or(0);
        let bound = SLOW_MS_MIN.max(best.saturating_mul(SLOW_FACTOR));
        self.pace.median().is_some_and(|median| median > bound)
    }

    /// Another view begins: what was measured becomes what the next are measured by.
    pub(super) fn restart_pace(&mut self) {
        if let Some(median) = self.pace.median() {
            self.pace.medians.push_back(median);
        }
        while self.pace.medians.len() > self.quorum.n() {
            self.pace.medians.pop_front();
        }
        self.pace.waits.clear();
        self.pace.slow_since_ms = None;
    }
}
