//! The newest record of each kind that recovery needs, however long ago it was written.

use std::collections::BTreeMap;

use crate::chain::Record;
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::types::LogPosition;

/// What a replay that begins in the middle of the log must know of the records before: the view, the
/// newest certificates, fences, the session counter. Blocks and effects are left out; the state they
/// made is in the checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// By tag; of epochs' beginnings the first of each, by epoch, of everything else the newest.
    by_tag: BTreeMap<(u8, u64), (LogPosition, Record)>,
}

const RECORDS_MAX: usize = 64 << 10;

fn key(record: &Record) -> (u8, u64) {
    let epoch = match record {
        Record::EpochStart(proof) => proof.block.header.epoch.0,
        _ => 0,
    };
    (record.tag(), epoch)
}

impl Carried {
    /// Takes note of one record; call it in the order of positions.
    pub fn note(&mut self, position: LogPosition, record: &Record) {
        let older_rank = |kept: Option<&(LogPosition, Record)>, new: &crate::chain::Certificate| {
            matches!(kept, Some((_, Record::Prepared(old) | Record::Committed(old)))
                if old.rank() > new.rank())
        };
        let keep = match record {
            Record::Block(_) | Record::Effects(_) => false,
            // Written again when this replica gets there itself; only the first are in their order.
            Record::EpochStart(_) => !self.by_tag.contains_key(&key(record)),
            Record::Prepared(certificate) | Record::Committed(certificate) => {
                !older_rank(self.by_tag.get(&key(record)), certificate)
            }
            _ => true,
        };
        if keep {
            self.by_tag.insert(key(record), (position, record.clone()));
        }
    }

    /// The records in the order they were written.
    #[must_use]
    pub fn records(&self) -> Vec<(LogPosition, Record)> {
        let mut records: Vec<_> = self.by_tag.values().cloned().collect();
        records.sort_by_key(|(position, _)| *position);
        records
    }
}

impl Encode for Carried {
    fn encode(&self, writer: &mut Writer) {
        writer.length(self.by_tag.len());
        for (position, record) in self.by_tag.values() {
            writer.u64(position.0);
            record.encode(writer);
        }
    }
}

impl Decode for Carried {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let mut carried = Self::default();
        let mut last = (0, 0);
        for _ in 0..reader.length(RECORDS_MAX, "carried records")? {
            let position = LogPosition(reader.u64("carried position")?);
            let record = Record::decode(reader)?;
            let block_or_effects = matches!(record, Record::Block(_) | Record::Effects(_));
            if key(&record) <= last || block_or_effects {
                return Err(DecodeError::Invalid("carried records"));
            }
            last = key(&record);
            carried.by_tag.insert(last, (position, record));
        }
        Ok(carried)
    }
}
