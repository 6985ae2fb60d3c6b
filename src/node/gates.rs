use std::collections::BTreeMap;

use crate::types::LogPosition;

/// What waits for its promise to be on disk: messages (README decision 4), checkpoints (protocol.md 16.2).
pub(super) struct Gates<T> {
    durable: LogPosition,
    waiting: BTreeMap<LogPosition, Vec<T>>,
}

impl<T> Gates<T> {
    pub(super) fn new(durable: LogPosition) -> Self {
        Self { durable, waiting: BTreeMap::new() }
    }

    /// Whether everything up to this position is durable.
    pub(super) fn is_open(&self, gate: LogPosition) -> bool {
        gate <= self.durable
    }

    /// Keeps something until `gate` is durable; gives it back at once if it is.
    pub(super) fn pass(&mut self, gate: LogPosition, held: T) -> Option<T> {
        if self.is_open(gate) {
            return Some(held);
        }
        self.waiting.entry(gate).or_default().push(held);
        None
    }

    /// Everything up to `position` is on disk: what may go, in the order of the gates.
    pub(super) fn open(&mut self, position: LogPosition) -> Vec<T> {
        assert!(position >= self.durable, "the durable end of the log never goes back");
        self.durable = position;
        let still_waiting = self.waiting.split_off(&position.next());
        let opened = core::mem::replace(&mut self.waiting, still_waiting);
        opened.into_values().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_passes_a_gate_before_the_log_is_durable_up_to_it() {
        let mut gates = Gates::new(LogPosition(2));
        assert_eq!(gates.pass(LogPosition(2), "on disk"), Some("on disk"));
        assert_eq!(gates.pass(LogPosition(5), "later"), None);
        assert_eq!(gates.pass(LogPosition(3), "first"), None);
        assert_eq!(gates.pass(LogPosition(3), "second"), None);
        assert_eq!(gates.open(LogPosition(2)), Vec::<&str>::new());
        assert_eq!(gates.open(LogPosition(4)), ["first", "second"]);
        assert_eq!(gates.pass(LogPosition(4), "on disk"), Some("on disk"));
        assert_eq!(gates.open(LogPosition(9)), ["later"]);
    }
}
