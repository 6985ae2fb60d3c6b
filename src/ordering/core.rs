use crate::ordering::{CoreConfig, CoreStatus, Counters, Input, Mode, Output};
use crate::types::{Digest, Height, View};
use std::collections::BTreeMap;

/// One replica's ordering.
pub struct Core {
    config: CoreConfig,
    now_ms: u64,
}

impl Core {
    /// A core at the end of the log that `config.recovery` describes.
    #[must_use]
    pub fn new(config: CoreConfig) -> Self {
        Self { config, now_ms: 0 }
    }

    /// Takes one input and appends what is to be done about it.
    pub fn step(&mut self, input: Input, _out: &mut Vec<Output>) {
        if let Input::Tick { mono_ms } = input {
            self.now_ms = mono_ms;
        }
    }

    /// When the core next wants a tick, in monotonic ms.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        Some(self.now_ms + 200)
    }

    /// What it is doing.
    #[must_use]
    pub fn status(&self) -> CoreStatus {
        CoreStatus {
            epoch: self.config.membership.epoch,
            view: View(0),
            mode: Mode::Normal,
            primary: None,
            has_leader: false,
            committed: Height(0),
            executed: Height(0),
            exec_root: Digest::ZERO,
            pool_bundles: 0,
            pool_bytes: 0,
            peers: BTreeMap::new(),
            counters: Counters::default(),
        }
    }
}
