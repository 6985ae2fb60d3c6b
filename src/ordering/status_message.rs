use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::types::{Epoch, Height, Millis, View};

/// What a replica is doing (protocol.md 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Mode {
    /// Votes in its view.
    Normal = 1,
    /// Left its view and waits for the next.
    ViewChange = 2,
    /// Behind the network: fetches blocks.
    Syncing = 3,
    /// Lost its votes: waits for its REJOIN.
    Fenced = 4,
    /// Its state is not the network's: votes no more.
    Quarantined = 5,
    /// Does not vote.
    Observer = 6,
}

/// What a replica says of itself every 200 ms (protocol.md 8). Unsigned: its channel names it, and a
/// height in it moves nothing without a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The epoch.
    pub epoch: Epoch,
    /// The view it is in, or asks for in a view change.
    pub view: View,
    /// What it does.
    pub mode: Mode,
    /// Its wall clock.
    pub unix_ms: Millis,
    /// Highest block committed, with all ancestors there.
    pub committed: Height,
    /// Highest block executed.
    pub executed: Height,
    /// Height of the newest checkpoint it knows a quorum to hold; 0 for none.
    pub stable: Height,
}

impl Encode for Mode {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(*self as u8);
    }
}

impl Decode for Mode {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.u8("mode")? {
            1 => Self::Normal,
            2 => Self::ViewChange,
            3 => Self::Syncing,
            4 => Self::Fenced,
            5 => Self::Quarantined,
            6 => Self::Observer,
            _ => return Err(DecodeError::Invalid("mode")),
        })
    }
}

impl Encode for Status {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.epoch.0);
        writer.u64(self.view.0);
        self.mode.encode(writer);
        writer.u64(self.unix_ms.0);
        writer.u64(self.committed.0);
        writer.u64(self.executed.0);
        writer.u64(self.stable.0);
    }
}

impl Decode for Status {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            epoch: Epoch(reader.u64("status epoch")?),
            view: View(reader.u64("status view")?),
            mode: Mode::decode(reader)?,
            unix_ms: Millis(reader.u64("status time")?),
            committed: Height(reader.u64("status committed")?),
            executed: Height(reader.u64("status executed")?),
            stable: Height(reader.u64("status stable")?),
        })
    }
}
