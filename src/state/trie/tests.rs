use core::ops::ControlFlow;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::crypto::{Context, hash};
use crate::types::{LeaseId, Revision};

/// The root by its definition, recursively from the sorted leaves.
fn bulk_root(leaves: &[(&[u8], Digest)]) -> Digest {
    let count = (leaves.len() as u64).to_le_bytes();
    if leaves.is_empty() {
        return hash(&Context::STATE_ROOT, &[&count]);
    }
    hash(&Context::STATE_ROOT, &[&count, &subtree(leaves).0])
}

fn subtree(leaves: &[(&[u8], Digest)]) -> Digest {
    if leaves.len() <= 32 {
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
    let bits = |key: &[u8]| {
        let mut bits = Vec::new();
        for byte in key {
            bits.push(true);
            bits.extend((0..8).map(|bit| byte & (0x80 >> bit) != 0));
        }
        bits.push(false);
        bits
    };
    let (first, last) = (bits(leaves[0].0), bits(leaves[leaves.len() - 1].0));
    let fork = first.iter().zip(&last).take_while(|(a, b)| a == b).count();
    let right = leaves.partition_point(|(key, _)| !bits(key)[fork]);
    let (left, right) = leaves.split_at(right);
    hash(&Context::STATE_NODE, &[&subtree(left).0, &subtree(right).0])
}

pub fn leaf(n: i64) -> StateLeaf {
    StateLeaf {
        modified: Revision(n),
        create: Revision(n / 2),
        version: 1,
        lease: LeaseId(0),
        commitment: Digest([n.to_le_bytes()[0]; 32]),
    }
}

#[derive(Default)]
struct Pair {
    trie: Trie<i64>,
    model: BTreeMap<Vec<u8>, (i64, Digest)>,
}

impl Pair {
    fn put(&mut self, key: &[u8], n: i64) {
        let old = self.model.insert(key.to_vec(), (n, leaf(n).hash(key)));
        self.trie.upsert_with(key, |found| {
            assert_eq!(found, old.map(|(meta, _)| meta));
            (n, leaf(n))
        });
    }

    fn remove(&mut self, key: &[u8]) {
        let old = self.model.remove(key).map(|(meta, _)| meta);
        assert_eq!(self.trie.remove(key), old);
    }

    fn compare_root(&mut self) {
        let leaves: Vec<(&[u8], Digest)> =
            self.model.iter().map(|(key, (_, leaf))| (key.as_slice(), *leaf)).collect();
        assert_eq!(self.trie.root(), bulk_root(&leaves), "{} keys", leaves.len());
        self.trie.assert_shape();
    }

    fn compare_span(&self, start: &[u8], end: &[u8]) {
        let span = Span::new(start, end);
        let mut found = Vec::new();
        self.trie.scan(span, &mut |key, meta| {
            found.push((key.to_vec(), *meta));
            ControlFlow::Continue(())
        });
        let expected: Vec<_> = self
            .model
            .iter()
            .filter(|(key, _)| span.holds(key))
            .map(|(key, (meta, _))| (key.clone(), *meta))
            .collect();
        assert_eq!(self.trie.count(span), expected.len());
        assert_eq!(found, expected);
    }
}

impl<M: Copy> Trie<M> {
    /// Counts, boundary rule, bits that grow downwards, chained pages, prefixes.
    fn assert_shape(&self) {
        if self.root == NONE {
            return;
        }
        let mut pages = Vec::new();
        let mut todo = vec![(self.root, NONE, None::<u32>)];
        while let Some((link, parent, bit)) = todo.pop() {
            assert_eq!(self.parent(link), parent);
            if link & PAGE == 0 {
                let inner = self.inner(link);
                assert!(bit.is_none_or(|bit| bit < inner.bit));
                assert!(inner.counts.iter().sum::<u32>() > 32);
                for (kid, count) in inner.kids.iter().zip(inner.counts) {
                    let below = match kid & PAGE {
                        0 => self.inner(*kid).counts.iter().sum::<u32>() as usize,
                        _ => self.page(kid & !PAGE).len(),
                    };
                    assert_eq!(below, count as usize);
                }
                todo.push((inner.kids[1], link, Some(inner.bit)));
                todo.push((inner.kids[0], link, Some(inner.bit)));
            } else {
                let page = self.page(link & !PAGE);
                assert!(page.len() >= 1 && page.len() <= 32 && !page.dirty);
                pages.push(link & !PAGE);
            }
        }
        for pair in pages.windows(2) {
            assert_eq!(self.page(pair[0]).next, pair[1]);
            assert_eq!(self.page(pair[1]).prev, pair[0]);
        }
        assert_eq!(self.page(pages[0]).prev, NONE);
        assert_eq!(self.page(*pages.last().expect("not empty")).next, NONE);
        let keys: usize = pages.iter().map(|page| self.page(*page).len()).sum();
        assert_eq!(keys, self.count);
    }
}

/// Keys that share prefixes, are each other's prefixes, or have nothing in common.
pub fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(0), Just(0xff)], 1..9),
        (0_u32..400).prop_map(|n| format!("/registry/pods/default/pod-{n:05}").into_bytes()),
        (0_u8..100).prop_map(|n| vec![b'x'; usize::from(n) + 1]),
        prop::collection::vec(any::<u8>(), 60..140),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u8>),
    Remove(Vec<u8>),
    RemoveNth(usize),
    Root,
    Span(Vec<u8>, Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => key().prop_map(Step::Put),
        2 => key().prop_map(Step::Remove),
        4 => any::<usize>().prop_map(Step::RemoveNth),
        1 => Just(Step::Root),
        1 => (key(), key()).prop_map(|(start, end)| Step::Span(start, end)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_trie_is_a_sorted_map_whose_root_depends_on_its_keys_alone(
        steps in prop::collection::vec(step(), 1..1200)
    ) {
        let mut pair = Pair::default();
        for (n, step) in (0_i64..).zip(&steps) {
            match step {
                Step::Put(key) => pair.put(key, n),
                Step::Remove(key) => pair.remove(key),
                Step::RemoveNth(n) => {
                    let keys = pair.model.len().max(1);
                    if let Some(key) = pair.model.keys().nth(n % keys).cloned() {
                        pair.remove(&key);
                    }
                }
                Step::Root => pair.compare_root(),
                Step::Span(start, end) => {
                    pair.compare_span(start, end);
                    pair.compare_span(start, &[0]);
                    pair.compare_span(start, &[]);
                }
            }
        }
        pair.compare_root();
        let keys: Vec<_> = pair.model.keys().cloned().collect();
        for (n, key) in keys.iter().enumerate() {
            pair.remove(key);
            if n % 37 == 0 {
                pair.compare_root();
            }
        }
        pair.compare_root();
    }
}

#[test]
fn many_keys_come_and_go() {
    let mut pair = Pair::default();
    let mut random = 1_u64;
    for n in 0..20_000_i64 {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = format!("/registry/{}/{:06}", random >> 62, (random >> 33) % 3_000);
        if random & 0x1_0000 == 0 {
            pair.put(key.as_bytes(), n);
        } else {
            pair.remove(key.as_bytes());
        }
        if n % 500 == 0 {
            pair.compare_root();
        }
    }
}

#[test]
fn the_deepest_chain_of_keys_needs_no_stack() {
    let mut pair = Pair::default();
    for length in 1..=1024 {
        pair.put(&vec![b'a'; length], 1);
        pair.put(&[&vec![b'a'; length - 1][..], b"b"].concat(), 1);
    }
    pair.compare_root();
    pair.compare_span(&[b'a'; 500], &[b'a'; 700]);
}
