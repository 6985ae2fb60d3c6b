//! Exactly once: which sequence numbers of an origin's session are used, and how often the origin came
//! back without its disk.

use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::types::Millis;

/// How many sequence numbers above the floor may be in use: 4 bundles of 512 ops.
pub const SESSION_WINDOW: u64 = 2048;

const WORDS: usize = 32;

/// The bits of a session that count its origin's REJOINs stand above this many of its own counter.
pub const REJOIN_SHIFT: u32 = 48;

/// Block time between two REJOINs of one replica.
pub const REJOIN_INTERVAL_MS: u64 = 10_000;

/// Nonces of its REJOINs that are remembered per replica, to refuse them a second time.
const NONCES_MAX: usize = 16;

/// One origin's window. `ordering` keeps one along the proposed chain to decide what may be proposed,
/// `state` keeps one along the executed chain to decide what is done; both call this
/// (consensus.md 9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionWindow {
    session: u64,
    floor: u64,
    /// Bit `seq % 2048` for `seq` in `floor..floor + 2048`; the floor's own bit is never set.
    used: [u64; WORDS],
    rejoins: u64,
    /// Block time of the newest REJOIN.
    rejoined_ms: Millis,
    /// Of the newest REJOINs, oldest first.
    nonces: Vec<[u8; 32]>,
}

impl Default for SessionWindow {
    fn default() -> Self {
        Self {
            session: 0,
            floor: 0,
            used: [0; WORDS],
            rejoins: 0,
            rejoined_ms: Millis(0),
            nonces: Vec::new(),
        }
    }
}

impl SessionWindow {
    /// The newest session seen; older ones are closed.
    #[must_use]
    pub fn session(&self) -> u64 {
        self.session
    }

    /// Every sequence number below it is used.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Whether `count` ops from `first_seq` on may still be proposed: a session that is not closed,
    /// numbers inside the window, and at least one of them unused.
    #[must_use]
    pub fn admits(&self, session: u64, first_seq: u64, count: u64) -> bool {
        let Some(end) = first_seq.checked_add(count) else { return false };
        if session > self.session {
            return end <= SESSION_WINDOW;
        }
        session == self.session
            && end <= self.floor.saturating_add(SESSION_WINDOW)
            && (first_seq..end).any(|seq| !self.is_used(seq))
    }

    fn is_used(&self, seq: u64) -> bool {
        let (word, bit) = position(seq);
        seq < self.floor || self.used[word] & bit != 0
    }

    /// Uses one number; false if it was used, its session is closed, or it lies beyond the window:
    /// the op is then skipped.
    pub fn mark(&mut self, session: u64, seq: u64) -> bool {
        if session < self.session {
            return false;
        }
        if session > self.session {
            self.open(session);
        }
        if self.is_used(seq) || seq >= self.floor.saturating_add(SESSION_WINDOW) {
            return false;
        }
        let (word, bit) = position(seq);
        self.used[word] |= bit;
        loop {
            let (word, bit) = position(self.floor);
            if self.used[word] & bit == 0 {
                return true;
            }
            self.used[word] &= !bit;
            self.floor += 1;
        }
    }

    fn open(&mut self, session: u64) {
        self.session = session;
        self.floor = 0;
        self.used = [0; WORDS];
    }

    /// How many REJOINs of this replica were executed: the upper 16 bits of its sessions.
    #[must_use]
    pub fn rejoins(&self) -> u64 {
        self.rejoins
    }

    /// Whether a REJOIN with this nonce may stand in a block of this time: no known nonce, and no other
    /// within 10 s of block time.
    #[must_use]
    pub fn admits_rejoin(&self, nonce: &[u8; 32], time_ms: Millis) -> bool {
        let rested = self.rejoins == 0 || time_ms >= self.rejoined_ms.plus(REJOIN_INTERVAL_MS);
        rested && !self.knows_nonce(nonce)
    }

    /// Whether a REJOIN with this nonce was executed and is remembered.
    #[must_use]
    pub fn knows_nonce(&self, nonce: &[u8; 32]) -> bool {
        self.nonces.contains(nonce)
    }

    /// Executes a REJOIN that is admitted: counts it, and closes every session from before, because an
    /// origin without its disk does not know which numbers it used. False if it is to be skipped.
    pub fn rejoin(&mut self, nonce: &[u8; 32], time_ms: Millis) -> bool {
        if !self.admits_rejoin(nonce, time_ms) {
            return false;
        }
        self.rejoins += 1;
        self.rejoined_ms = time_ms;
        if self.nonces.len() == NONCES_MAX {
            self.nonces.remove(0);
        }
        self.nonces.push(*nonce);
        let oldest = self.rejoins << REJOIN_SHIFT;
        if self.session < oldest {
            self.open(oldest);
        }
        true
    }
}

fn position(seq: u64) -> (usize, u64) {
    let slot = seq % SESSION_WINDOW;
    let word = usize::try_from(slot / 64).expect("below 32");
    (word, 1 << (slot % 64))
}

impl Encode for SessionWindow {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.session);
        writer.u64(self.floor);
        self.used.iter().for_each(|word| writer.u64(*word));
        writer.u64(self.rejoins);
        writer.u64(self.rejoined_ms.0);
        writer.length(self.nonces.len());
        self.nonces.iter().for_each(|nonce| writer.raw(nonce));
    }
}

impl Decode for SessionWindow {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let mut window = Self {
            session: reader.u64("session")?,
            floor: reader.u64("session floor")?,
            ..Self::default()
        };
        for word in &mut window.used {
            *word = reader.u64("session bits")?;
        }
        window.rejoins = reader.u64("rejoin count")?;
        window.rejoined_ms = Millis(reader.u64("rejoin time")?);
        for _ in 0..reader.length(NONCES_MAX, "rejoin nonces")? {
            window.nonces.push(reader.array("rejoin nonce")?);
        }
        let (word, bit) = position(window.floor);
        if window.used[word] & bit != 0 {
            return Err(DecodeError::Invalid("session floor"));
        }
        Ok(window)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    use super::*;

    proptest! {
        #[test]
        fn a_number_is_used_once_in_any_order(order in prop::collection::vec(0_u64..3000, 1..400)) {
            let mut window = SessionWindow::default();
            let mut model = BTreeSet::new();
            for seq in order {
                let floor = (0..).find(|n| !model.contains(n)).unwrap_or(0);
                let fresh = !model.contains(&seq) && seq < floor + SESSION_WINDOW;
                let unopened = window.session() == 0;
                prop_assert_eq!(window.admits(1, seq, 1) || unopened, fresh || unopened);
                prop_assert_eq!(window.mark(1, seq), fresh);
                if fresh { model.insert(seq); }
            }
            prop_assert_eq!(SessionWindow::from_bytes(window.to_bytes()), Ok(window));
        }
    }

    #[test]
    fn a_rejoin_closes_older_sessions_once_per_nonce_and_ten_seconds() {
        let mut window = SessionWindow::default();
        assert!(window.mark(7, 0));
        assert!(window.rejoin(&[1; 32], Millis(5)));
        assert!(!window.mark(8, 0), "a session from before");
        assert!(!window.rejoin(&[2; 32], Millis(5 + REJOIN_INTERVAL_MS - 1)), "too early");
        assert!(!window.rejoin(&[1; 32], Millis(60_000)), "a known nonce");
        assert!(window.mark((1 << REJOIN_SHIFT) | 1, 0));
        assert!(window.rejoin(&[2; 32], Millis(5 + REJOIN_INTERVAL_MS)));
        assert!(!window.mark((1 << REJOIN_SHIFT) | 9, 0));
        assert_eq!((window.rejoins(), window.session()), (2, 2 << REJOIN_SHIFT));
        assert_eq!(SessionWindow::from_bytes(window.to_bytes()), Ok(window));
    }

    #[test]
    fn a_newer_session_closes_the_older() {
        let mut window = SessionWindow::default();
        assert!(window.mark(3, 0));
        assert!(window.mark(4, 0));
        assert!(!window.mark(3, 1));
        assert!(!window.admits(3, 1, 1));
    }
}
