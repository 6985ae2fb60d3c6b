use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::types::Millis;

/// The only clock: monotonic time for timers, Unix time for block time.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Milliseconds since the process started.
    pub(super) fn mono_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Milliseconds of Unix time; 0 if the host's clock is before 1970.
    pub(super) fn unix_ms(&self) -> Millis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}
