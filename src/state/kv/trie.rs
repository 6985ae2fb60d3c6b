//! The index, for now over a `BTreeMap` (the page trie of state.md 4 takes its place): same root, same
//! answers.

use core::ops::ControlFlow;
use std::collections::BTreeMap;

use crate::chain::StateLeaf;
use crate::crypto::{Context, hash};
use crate::state::kv::Span;
use crate::types::Digest;

const PAGE_KEYS_MAX: usize = 32;

/// Keys in bytewise order, each with a `M` and a leaf hash; counts and an authenticated root.
#[derive(Clone, Debug)]
pub struct Trie<M> {
    map: BTreeMap<Box<[u8]>, (M, Digest)>,
}

impl<M> Default for Trie<M> {
    fn default() -> Self {
        Self { map: BTreeMap::new() }
    }
}

impl<M: Copy> Trie<M> {
    /// How many keys.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    pub fn get(&self, key: &[u8]) -> Option<M> {
        self.map.get(key).map(|(meta, _)| *meta)
    }

    /// For what the leaf hash does not cover.
    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut M> {
        self.map.get_mut(key).map(|(meta, _)| meta)
    }

    /// Inserts or overwrites with what `make` says of the old meta.
    pub fn upsert_with(&mut self, key: &[u8], make: impl FnOnce(Option<M>) -> (M, StateLeaf)) {
        let (meta, leaf) = make(self.get(key));
        let digest = hash(&Context::STATE_LEAF, &[&leaf.message(key)]);
        self.map.insert(key.into(), (meta, digest));
    }

    pub fn remove(&mut self, key: &[u8]) -> Option<M> {
        self.map.remove(key).map(|(meta, _)| meta)
    }

    /// Calls `visit` with the keys of `span` in order until it breaks.
    pub fn scan(&self, span: Span<'_>, visit: &mut dyn FnMut(&[u8], &M) -> ControlFlow<()>) {
        for (key, (meta, _)) in self.map.range::<[u8], _>((
            core::ops::Bound::Included(span.start()),
            core::ops::Bound::Unbounded,
        )) {
            if span.ends_before(key) || visit(key, meta).is_break() {
                return;
            }
        }
    }

    /// How many keys `span` holds.
    pub fn count(&self, span: Span<'_>) -> usize {
        let mut count = 0;
        self.scan(span, &mut |_, _| {
            count += 1;
            ControlFlow::Continue(())
        });
        count
    }

    /// The authenticated root.
    pub fn root(&mut self) -> Digest {
        let leaves: Vec<(&[u8], Digest)> =
            self.map.iter().map(|(key, (_, leaf))| (&**key, *leaf)).collect();
        bulk_root(&leaves)
    }
}

/// The root by its definition, recursively from the sorted leaves.
pub fn bulk_root(leaves: &[(&[u8], Digest)]) -> Digest {
    let count = (leaves.len() as u64).to_le_bytes();
    if leaves.is_empty() {
        return hash(&Context::STATE_ROOT, &[&count]);
    }
    hash(&Context::STATE_ROOT, &[&count, &subtree(leaves).0])
}

fn subtree(leaves: &[(&[u8], Digest)]) -> Digest {
    if leaves.len() <= PAGE_KEYS_MAX {
        let mut level: Vec<Digest> = leaves.iter().map(|(_, leaf)| *leaf).collect();
        while level.len() > 1 {
            level = level
                .chunks(2)
                .map(|pair| match pair {
                    [left, right] => hash(&Context::STATE_PAGE, &[&left.0, &right.0]),
                    odd => odd[0],
                })
                .collect();
        }
        return level[0];
    }
    let bit = crit(leaves[0].0, leaves[leaves.len() - 1].0);
    let right = leaves.partition_point(|(key, _)| !bit_of(key, bit));
    let (left, right) = leaves.split_at(right);
    hash(&Context::STATE_NODE, &[&subtree(left).0, &subtree(right).0])
}

/// The first position at which two different keys' bit strings differ (state.md 4.1).
fn crit(one: &[u8], two: &[u8]) -> u32 {
    let same = one.iter().zip(two).take_while(|(a, b)| a == b).count();
    let at = u32::try_from(same).expect("keys are at most 1 KiB") << 4;
    match (one.get(same), two.get(same)) {
        (Some(a), Some(b)) => at | (1 + (a ^ b).leading_zeros()),
        _ => at,
    }
}

fn bit_of(key: &[u8], position: u32) -> bool {
    let Some(byte) = key.get((position >> 4) as usize) else { return false };
    match position & 15 {
        0 => true,
        bit => byte & (0x80 >> (bit - 1)) != 0,
    }
}
