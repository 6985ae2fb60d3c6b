use std::collections::BTreeMap;

use crate::chain::{Rejoin, SessionWindow};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::types::{Millis, ReplicaId};

/// What of each origin's requests is done, along the executed chain (consensus.md 9).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    windows: BTreeMap<ReplicaId, SessionWindow>,
}

impl Sessions {
    /// All windows.
    #[must_use]
    pub fn windows(&self) -> &BTreeMap<ReplicaId, SessionWindow> {
        &self.windows
    }

    /// How many REJOINs of this replica were executed.
    #[must_use]
    pub fn rejoins(&self, replica: ReplicaId) -> u64 {
        self.windows.get(&replica).map_or(0, SessionWindow::rejoins)
    }

    /// Uses a sequence number; false if the op is to be skipped.
    pub(crate) fn mark(&mut self, origin: ReplicaId, session: u64, seq: u64) -> bool {
        self.windows.entry(origin).or_default().mark(session, seq)
    }

    /// Counts a REJOIN that `ordering` admitted by the same rule.
    pub(crate) fn rejoin(&mut self, rejoin: &Rejoin, time_ms: Millis) {
        self.windows.entry(rejoin.replica).or_default().rejoin(&rejoin.nonce, time_ms);
    }
}

const MEMBERS_MAX: usize = 1 << 16;

impl Encode for Sessions {
    fn encode(&self, writer: &mut Writer) {
        writer.length(self.windows.len());
        for (origin, window) in &self.windows {
            writer.u16(origin.0);
            window.encode(writer);
        }
    }
}

impl Decode for Sessions {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let mut sessions = Self::default();
        for _ in 0..reader.length(MEMBERS_MAX, "session windows")? {
            let origin = ReplicaId(reader.u16("session origin")?);
            let ascending =
                sessions.windows.last_key_value().is_none_or(|(last, _)| *last < origin);
            if !ascending {
                return Err(DecodeError::Invalid("session origin"));
            }
            sessions.windows.insert(origin, SessionWindow::decode(reader)?);
        }
        Ok(sessions)
    }
}
