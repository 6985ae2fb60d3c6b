//! A page: the changes of neighbouring keys in one segment, stored as one value.

use bytes::Bytes;

use crate::crypto::{Context, hash};
use crate::storage::index::{Decode, Encode, Provenance, Reader, Writer};

/// A page is ended before it would exceed this.
pub(super) const PAGE_BYTES_MAX: usize = 64 << 10;

const PAGE_PREFIX: u8 = b'p';
const ENTRIES_MAX: usize = PAGE_BYTES_MAX;

/// Entries in order of (key, revision).
pub(super) struct Page {
    pub entries: Vec<Provenance>,
    /// Counts the pages that begin with the same key.
    pub number: u32,
}

/// `p`, segment, first key, number; ordered as (segment, first key, number). In the key a zero byte is
/// followed by 255, and two zeros end it, so that no key's pages lie among another's.
pub(super) fn page_key(segment: u32, key: &[u8], number: u32) -> Vec<u8> {
    let mut place = vec![PAGE_PREFIX];
    place.extend_from_slice(&segment.to_be_bytes());
    for byte in key {
        place.push(*byte);
        if *byte == 0 {
            place.push(255);
        }
    }
    place.extend_from_slice(&[0, 0]);
    place.extend_from_slice(&number.to_be_bytes());
    place
}

/// First and last place of pages that begin with `key`.
pub(super) fn page_range(segment: u32, key: &[u8]) -> (Vec<u8>, Vec<u8>) {
    (page_key(segment, key, 0), page_key(segment, key, u32::MAX))
}

impl Page {
    pub fn key(&self, segment: u32) -> Vec<u8> {
        let first = self.entries.first().expect("a page holds at least one entry");
        page_key(segment, &first.key, self.number)
    }

    /// Checksum over place and entries, then the entries.
    pub fn encode(&self, place: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.length(self.entries.len());
        self.entries.iter().for_each(|entry| entry.encode(&mut writer));
        let checksum = hash(&Context::INDEX, &[place, writer.as_slice()]);
        [&checksum.0[..], writer.as_slice()].concat()
    }

    /// None unless [`Page::encode`] wrote it for this place.
    pub fn decode(place: &[u8], bytes: &[u8]) -> Option<Self> {
        let (checksum, content) = bytes.split_at_checked(32)?;
        if hash(&Context::INDEX, &[place, content]).0 != checksum {
            return None;
        }
        let mut reader = Reader::new(Bytes::copy_from_slice(content));
        let mut entries = Vec::new();
        for _ in 0..reader.length(ENTRIES_MAX, "page entries").ok()? {
            entries.push(Provenance::decode(&mut reader).ok()?);
        }
        reader.finish().ok()?;
        Some(Self { entries, number: 0 })
    }
}
