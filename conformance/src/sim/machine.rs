//! Execution as the shell does it: production `apply` on production `state`, values read back from the
//! log or from blocks that are still on their way to it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use althing::apply::{self, Outcome};
use althing::chain::{Block, Entry, Genesis, Value, ValueError, ValueRef, ValueSource};
use althing::codec::{Decode, Reader};
use althing::state::State;
use althing::storage::disk::{Disk, Open};
use althing::storage::log::{Placed, segment_path};
use althing::types::{Digest, Height, ReplicaId};
use bytes::Bytes;

use crate::sim::disk::SimDisk;

/// Where values are found: in blocks that came in lately, else in the log.
#[derive(Clone)]
pub struct LogValues {
    disk: SimDisk,
    /// Encoded blocks by segment and offset.
    recent: Arc<Mutex<BTreeMap<(u32, u32), Bytes>>>,
}

impl LogValues {
    /// Over one replica's disk.
    #[must_use]
    pub fn new(disk: SimDisk) -> Self {
        Self { disk, recent: Arc::default() }
    }

    fn remember(&self, placed: Placed, block: &Block) {
        let mut recent = self.recent.lock().expect("one thread runs a world");
        recent.insert((placed.segment, placed.offset + 1), block.encoded().clone());
        if recent.len() > 64 {
            recent.pop_first();
        }
    }
}

fn decode(bytes: Bytes, at: ValueRef) -> Result<Value, ValueError> {
    Value::decode(&mut Reader::new(bytes)).map_err(|_| ValueError::Rotten(at))
}

impl ValueSource for LogValues {
    fn read(&self, at: ValueRef) -> Result<Value, ValueError> {
        let recent = self.recent.lock().expect("one thread runs a world");
        let before = recent.range(..=(at.segment, at.offset)).next_back();
        if let Some(((segment, offset), bytes)) = before {
            let inside = (at.offset - offset) as usize;
            if *segment == at.segment && inside < bytes.len() {
                return decode(bytes.slice(inside..), at);
            }
        }
        let failed = |error: althing::storage::disk::DiskError| ValueError::Disk(error.to_string());
        let file = self.disk.open(&segment_path(at.segment), Open::Read).map_err(failed)?;
        let mut bytes = vec![0; 20 + at.length as usize];
        file.read_at(u64::from(at.offset), &mut bytes).map_err(failed)?;
        decode(Bytes::from(bytes), at)
    }
}

/// One replica's state with what it takes to execute the next block.
pub struct Machine {
    /// Production state.
    pub state: State,
    /// Reads values of this replica.
    pub values: LogValues,
    own: ReplicaId,
    roots: BTreeMap<Height, Digest>,
}

impl Machine {
    /// The state before the first block.
    #[must_use]
    pub fn new(genesis: &Genesis, own: ReplicaId, disk: SimDisk) -> Self {
        let state = State::genesis(genesis);
        let roots = BTreeMap::from([(Height(0), state.exec_root())]);
        Self { state, values: LogValues::new(disk), own, roots }
    }

    /// The last executed height.
    #[must_use]
    pub fn height(&self) -> Height {
        self.state.counters.height
    }

    /// Roots after the last `count` heights.
    #[must_use]
    pub fn last_roots(&self, count: usize) -> Vec<(Height, Digest)> {
        let skip = self.roots.len().saturating_sub(count);
        self.roots.iter().skip(skip).map(|(height, root)| (*height, *root)).collect()
    }

    /// A block went to the log.
    pub fn remember(&mut self, placed: Placed, block: &Block) {
        self.values.remember(placed, block);
    }

    /// Executes a block that lies at `placed` in the log.
    ///
    /// # Errors
    /// A value cannot be read.
    pub fn execute(&mut self, block: &Block, placed: Placed) -> Result<Outcome, ValueError> {
        let refs = references(block, placed);
        let outcome = apply::execute(&mut self.state, block, &refs, &self.values, self.own)?;
        self.roots.insert(block.header.height, outcome.effects.exec_root);
        Ok(outcome)
    }
}

/// Where a logged block's values lie, per entry and slot.
fn references(block: &Block, placed: Placed) -> Vec<Vec<ValueRef>> {
    let offsets = block.value_offsets();
    let entries = block.entries.iter().zip(offsets);
    entries
        .map(|(entry, offsets)| match entry {
            Entry::Bundle(bundle) => offsets
                .iter()
                .zip(&bundle.values)
                .map(|(offset, value)| ValueRef {
                    segment: placed.segment,
                    offset: placed.offset + 1 + offset,
                    length: u32::try_from(value.bytes.len()).expect("a value is a few MiB"),
                })
                .collect(),
            Entry::Rejoin(_) => Vec::new(),
        })
        .collect()
}
