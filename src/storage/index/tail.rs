//! What is not yet in a sealed and indexed segment.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::chain::{Block, Effects};
use crate::storage::index::entry::provenances;
use crate::storage::index::{Decode, Encode, Provenance, Reader, Writer};

/// Encoded entries by segment, back to back: compact, quick to add to, searched from front to back
/// when somebody asks, which people do and servers do not.
#[derive(Default)]
pub(super) struct Tail {
    segments: BTreeMap<u32, Vec<u8>>,
}

impl core::fmt::Debug for Tail {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let bytes: usize = self.segments.values().map(Vec::len).sum();
        write!(f, "Tail({bytes} bytes)")
    }
}

impl Tail {
    pub fn note(&mut self, segment: u32, block: &Block, effects: &Effects) {
        let mut writer = Writer::new();
        provenances(block, effects).iter().for_each(|entry| entry.encode(&mut writer));
        self.segments.entry(segment).or_default().extend_from_slice(writer.as_slice());
    }

    pub fn forget(&mut self, through_segment: u32) {
        self.segments.retain(|segment, _| *segment > through_segment);
    }

    pub fn find(&self, key: &[u8]) -> Vec<Provenance> {
        let mut found = Vec::new();
        for bytes in self.segments.values() {
            let mut reader = Reader::new(Bytes::copy_from_slice(bytes));
            while reader.remaining() > 0 {
                let entry = Provenance::decode(&mut reader).expect("written by this process");
                if entry.key == key {
                    // A copy: a slice would keep the whole tail in memory.
                    let key = Bytes::copy_from_slice(&entry.key);
                    found.push(Provenance { key, ..entry });
                }
            }
        }
        found
    }
}
