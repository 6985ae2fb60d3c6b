use std::collections::BTreeMap;

use crate::ordering::{Message, Recipients};
use crate::types::LogPosition;

/// Messages that wait for their promise to be on disk (README decision 4).
#[derive(Default)]
pub(super) struct Gates {
    durable: LogPosition,
    waiting: BTreeMap<LogPosition, Vec<(Recipients, Message)>>,
}

impl Gates {
    pub(super) fn new(durable: LogPosition) -> Self {
        Self { durable, waiting: BTreeMap::new() }
    }

    /// Whether everything up to this position is durable.
    pub(super) fn is_open(&self, gate: LogPosition) -> bool {
        gate <= self.durable
    }

    /// Keeps a message until `gate` is durable; gives it back at once if it is.
    pub(super) fn pass(
        &mut self,
        to: Recipients,
        message: Message,
        gate: LogPosition,
    ) -> Option<(Recipients, Message)> {
        if self.is_open(gate) {
            return Some((to, message));
        }
        self.waiting.entry(gate).or_default().push((to, message));
        None
    }

    /// Everything up to `position` is on disk: the messages that may go, in the order of their gates.
    pub(super) fn open(&mut self, position: LogPosition) -> Vec<(Recipients, Message)> {
        assert!(position >= self.durable, "the durable end of the log never goes back");
        self.durable = position;
        let still_waiting = self.waiting.split_off(&position.next());
        let opened = core::mem::replace(&mut self.waiting, still_waiting);
        opened.into_values().flatten().collect()
    }
}
