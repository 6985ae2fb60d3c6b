use std::collections::BTreeMap;

use crate::chain::{BlockHeader, HEADER_BYTES, Parameters};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::types::{Height, Millis, ReplicaId};

/// The replicated counters that decide when a checkpoint is due (consensus.md 8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// The last executed block.
    pub height: Height,
    /// Its block time.
    pub time_ms: Millis,
    /// Bytes of blocks since the last checkpoint.
    pub log_bytes: u64,
    /// Height of the last checkpoint, 0 before the first.
    pub checkpoint_height: Height,
    /// Block time of the last checkpoint, or of the first block.
    pub checkpoint_time_ms: Millis,
    /// Whether keys or leases changed since the last checkpoint.
    pub changed: bool,
    /// When each origin last asked for a checkpoint and got one.
    asked: BTreeMap<ReplicaId, Millis>,
}

const CHECKPOINT_EVERY_MS: u64 = 15 * 60 * 1000;
const ASK_AGAIN_MS: u64 = 60 * 1000;
const MEMBERS_MAX: usize = 1 << 16;

impl Counters {
    /// Counts a block in.
    pub(in crate::state) fn enter(&mut self, header: &BlockHeader) {
        if self.height == Height(0) {
            self.checkpoint_time_ms = header.time_ms;
        }
        self.height = header.height;
        self.time_ms = header.time_ms;
        let body = u64::from(header.skeleton_len) + u64::from(header.values_len);
        self.log_bytes += body + HEADER_BYTES as u64;
    }

    /// An origin asks for a checkpoint; false within a minute of its last one.
    pub(crate) fn ask(&mut self, origin: ReplicaId) -> bool {
        let recent =
            self.asked.get(&origin).is_some_and(|asked| self.time_ms < asked.plus(ASK_AGAIN_MS));
        if !recent {
            self.asked.insert(origin, self.time_ms);
        }
        !recent
    }

    /// Whether a checkpoint is due at this block by log bytes or time.
    pub(in crate::state) fn due(&self, parameters: &Parameters, state_bytes: u64) -> bool {
        let factor = u64::from(parameters.checkpoint_state_factor);
        let bytes = parameters.checkpoint_log_bytes.max(state_bytes.saturating_mul(factor));
        let late = self.time_ms >= self.checkpoint_time_ms.plus(CHECKPOINT_EVERY_MS);
        self.log_bytes >= bytes || (self.changed && late)
    }

    /// A checkpoint is made at this block.
    pub(in crate::state) fn checkpointed(&mut self) {
        self.log_bytes = 0;
        self.changed = false;
        self.checkpoint_height = self.height;
        self.checkpoint_time_ms = self.time_ms;
    }
}

impl Encode for Counters {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.height.0);
        writer.u64(self.time_ms.0);
        writer.u64(self.log_bytes);
        writer.u64(self.checkpoint_height.0);
        writer.u64(self.checkpoint_time_ms.0);
        writer.bool(self.changed);
        writer.length(self.asked.len());
        for (origin, asked) in &self.asked {
            writer.u16(origin.0);
            writer.u64(asked.0);
        }
    }
}

impl Decode for Counters {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let mut counters = Self {
            height: Height(reader.u64("counter height")?),
            time_ms: Millis(reader.u64("counter time")?),
            log_bytes: reader.u64("counter log bytes")?,
            checkpoint_height: Height(reader.u64("counter checkpoint height")?),
            checkpoint_time_ms: Millis(reader.u64("counter checkpoint time")?),
            changed: reader.bool("counter changed")?,
            asked: BTreeMap::new(),
        };
        for _ in 0..reader.length(MEMBERS_MAX, "counter askers")? {
            let origin = ReplicaId(reader.u16("counter asker")?);
            if counters.asked.last_key_value().is_some_and(|(last, _)| *last >= origin) {
                return Err(DecodeError::Invalid("counter asker"));
            }
            counters.asked.insert(origin, Millis(reader.u64("counter asked")?));
        }
        Ok(counters)
    }
}
