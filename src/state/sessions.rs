use std::collections::BTreeMap;

use crate::chain::SessionWindow;
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::types::ReplicaId;

/// What of each origin's requests is done, along the executed chain (consensus.md 9).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    windows: BTreeMap<ReplicaId, SessionWindow>,
    /// How often a replica came back after it lost its disk.
    rejoins: BTreeMap<ReplicaId, u64>,
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
        self.rejoins.get(&replica).copied().unwrap_or(0)
    }

    /// Uses a sequence number; false if the op is to be skipped. A session from before the origin's
    /// last REJOIN is closed: a wiped origin must not reuse numbers.
    pub(crate) fn mark(&mut self, origin: ReplicaId, session: u64, seq: u64) -> bool {
        if session >> 48 < self.rejoins(origin) {
            return false;
        }
        self.windows.entry(origin).or_default().mark(session, seq)
    }

    /// Counts a REJOIN.
    pub(crate) fn rejoin(&mut self, replica: ReplicaId) {
        *self.rejoins.entry(replica).or_default() += 1;
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
        writer.length(self.rejoins.len());
        for (replica, count) in &self.rejoins {
            writer.u16(replica.0);
            writer.u64(*count);
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
        for _ in 0..reader.length(MEMBERS_MAX, "rejoin counts")? {
            let replica = ReplicaId(reader.u16("rejoin replica")?);
            let ascending =
                sessions.rejoins.last_key_value().is_none_or(|(last, _)| *last < replica);
            if !ascending {
                return Err(DecodeError::Invalid("rejoin replica"));
            }
            sessions.rejoins.insert(replica, reader.u64("rejoin count")?);
        }
        Ok(sessions)
    }
}
