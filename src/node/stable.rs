//! Which of this replica's checkpoints a quorum holds, and how far the log may be erased behind them.

use std::collections::BTreeSet;

use crate::types::{Height, LogPosition};

/// Checkpoints held on disk and certificates in the log. The log may be pruned behind the second
/// newest checkpoint that is both (protocol.md 16.5).
#[derive(Clone, Debug, Default)]
pub(super) struct Stable {
    held: BTreeSet<Height>,
    certified: BTreeSet<Height>,
    /// Certificates that are not durable yet.
    waiting: Vec<(LogPosition, Height)>,
    changed: bool,
}

impl Stable {
    /// As recovery found them.
    pub(super) fn recovered(
        held: impl IntoIterator<Item = Height>,
        certified: impl IntoIterator<Item = Height>,
    ) -> Self {
        Self {
            held: held.into_iter().collect(),
            certified: certified.into_iter().collect(),
            waiting: Vec::new(),
            // What a crash kept from being pruned is pruned now.
            changed: true,
        }
    }

    /// Heights of those a quorum holds.
    pub(super) fn certified(&self) -> Vec<Height> {
        self.certified.iter().copied().collect()
    }

    /// A `CheckpointStable` record was planned.
    pub(super) fn appended(&mut self, position: LogPosition, height: Height) {
        self.waiting.push((position, height));
    }

    /// All records up to `position` are durable.
    pub(super) fn durable(&mut self, position: LogPosition) {
        let (done, waiting) = core::mem::take(&mut self.waiting)
            .into_iter()
            .partition::<Vec<_>, _>(|(at, _)| *at <= position);
        self.waiting = waiting;
        self.changed |= !done.is_empty();
        self.certified.extend(done.into_iter().map(|(_, height)| height));
    }

    /// A checkpoint is on disk.
    pub(super) fn built(&mut self, height: Height) {
        self.held.insert(height);
        self.changed |= self.certified.contains(&height);
    }

    /// All that are certified, and the height values may be erased up to: once after each change.
    pub(super) fn take(&mut self) -> Option<(Vec<Height>, Option<Height>)> {
        if !core::mem::take(&mut self.changed) || self.certified.is_empty() {
            return None;
        }
        let horizon = self.horizon();
        if let Some(horizon) = horizon {
            // Those below are being removed.
            self.held = self.held.split_off(&horizon);
            self.certified = self.certified.split_off(&horizon);
        }
        Some((self.certified.iter().copied().collect(), horizon))
    }

    /// The second newest that is held and certified.
    fn horizon(&self) -> Option<Height> {
        self.held.iter().rev().filter(|height| self.certified.contains(height)).nth(1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_may_go_behind_the_second_newest_that_is_held_certified_and_durable() {
        let mut stable = Stable::recovered([Height(10)], [Height(10)]);
        assert_eq!(stable.take(), Some((vec![Height(10)], None)));
        stable.appended(LogPosition(5), Height(20));
        stable.durable(LogPosition(4));
        assert_eq!(stable.take(), None);
        stable.durable(LogPosition(5));
        assert_eq!(stable.take(), Some((vec![Height(10), Height(20)], None)), "not held");
        stable.built(Height(20));
        assert_eq!(stable.take(), Some((vec![Height(10), Height(20)], Some(Height(10)))));
        stable.built(Height(30));
        assert_eq!(stable.take(), None, "not certified");
        stable.appended(LogPosition(9), Height(30));
        stable.durable(LogPosition(9));
        assert_eq!(stable.take(), Some((vec![Height(20), Height(30)], Some(Height(20)))));
    }
}
