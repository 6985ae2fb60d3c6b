//! Turning a sealed segment into pages.

use std::collections::BTreeMap;

use crate::chain::{Effects, Record};
use crate::storage::index::entry::provenances;
use crate::storage::index::page::{PAGE_BYTES_MAX, Page};
use crate::storage::index::{Encode, IndexError, Provenance, Writer};
use crate::storage::log::BlockReader;
use crate::types::Height;

/// Bytes of blocks read at once.
const BLOCKS_BYTES: usize = 4 << 20;

/// The pages of a segment in ascending order, and the highest block whose effects are in it.
pub(super) fn of_segment(
    log: &mut BlockReader,
    segment: u32,
) -> Result<(Vec<Page>, Option<Height>), IndexError> {
    let mut effects: BTreeMap<Height, Effects> = BTreeMap::new();
    let mut records = log.records(segment)?;
    while let Some((_, _, record)) = records.next()? {
        if let Record::Effects(one) = record {
            effects.insert(one.height, one);
        }
    }
    let highest = effects.keys().next_back().copied();
    let mut entries: Vec<Provenance> = Vec::new();
    // The block of the first effects may lie in a segment that is older than the retention.
    let held = log.first_height()?.unwrap_or_default();
    let first = effects.range(held..).next().map(|(height, _)| *height);
    let mut rest = first.zip(highest);
    while let Some((from, until)) = rest {
        let page = log.read_blocks(from, until, BLOCKS_BYTES)?;
        let page = page.ok_or(IndexError::BlockMissing(from))?;
        for block in &page.blocks {
            if let Some(effects) = effects.get(&block.header.height) {
                entries.extend(provenances(block, effects));
            }
        }
        let next = page.blocks.last().map_or(from, |block| block.header.height).next();
        // A transferred state leaves a gap of heights in the log.
        rest = effects.range(next..).next().map(|(from, _)| (*from, until));
    }
    // Stable: changes of one key at one revision stay in the order they were made.
    entries.sort_by(|one, two| (&one.key, one.revision).cmp(&(&two.key, two.revision)));
    Ok((split(entries), highest))
}

fn split(entries: Vec<Provenance>) -> Vec<Page> {
    let mut pages: Vec<Page> = Vec::new();
    let mut bytes = usize::MAX;
    for entry in entries {
        let mut writer = Writer::new();
        entry.encode(&mut writer);
        bytes = bytes.saturating_add(writer.len());
        match pages.last_mut() {
            Some(page) if bytes <= PAGE_BYTES_MAX => page.entries.push(entry),
            last => {
                let number = match last.and_then(|page| Some((page.entries.first()?, page.number)))
                {
                    Some((first, number)) if first.key == entry.key => number + 1,
                    _ => 0,
                };
                bytes = writer.len();
                pages.push(Page { entries: vec![entry], number });
            }
        }
    }
    pages
}
