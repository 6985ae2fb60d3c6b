//! Paths from leaves to the root, for proofs.

use bytes::Bytes;

use crate::chain::{PathLeaf, PathStep, StateFinding, StateLeaf, StatePath};
use crate::crypto::{Context, hash};
use crate::state::trie::page::Page;
use crate::state::trie::{NONE, PAGE, Place, Trie};
use crate::types::Digest;

impl<M: Copy> Trie<M> {
    /// What the trie shows of a key; `leaf_of` completes a leaf, for the trie keeps only hashes.
    ///
    /// # Errors
    /// Those of `leaf_of`.
    pub fn prove<E>(
        &self,
        key: &[u8],
        leaf_of: impl Fn(&M) -> Result<StateLeaf, E>,
    ) -> Result<StateFinding, E> {
        assert!(self.is_fresh(), "proofs are made between blocks, when all hashes are computed");
        if self.root == NONE {
            return Ok(StateFinding::Empty);
        }
        let (place, _) = self.seek(key);
        let leaf_at = |place: Place, path: StatePath| {
            let page = self.page(place.page);
            let key = page.key(place.index);
            let leaf = leaf_of(&page.metas[place.index])?;
            Ok(PathLeaf { key: Bytes::from(key), leaf, path })
        };
        let right = self.normal(place);
        if let Some(right) = right
            && self.page(right.page).key(right.index) == key
        {
            return Ok(StateFinding::Present(leaf_at(right, self.path(right))?));
        }
        Ok(match (self.before(place), right) {
            (Some(last), None) => StateFinding::Behind(leaf_at(last, self.path(last))?),
            (None, Some(first)) => StateFinding::Before(leaf_at(first, self.path(first))?),
            (Some(left), Some(right)) => {
                let fork = self.fork(left, right);
                StateFinding::Between {
                    left: leaf_at(left, fork.left)?,
                    right: leaf_at(right, fork.right)?,
                    in_page: fork.in_page,
                    shared: fork.shared,
                }
            }
            (None, None) => StateFinding::Empty,
        })
    }

    /// The key at or behind a place.
    fn normal(&self, place: Place) -> Option<Place> {
        if place.index < self.page(place.page).len() {
            return Some(place);
        }
        let next = self.page(place.page).next;
        (next != NONE).then_some(Place { page: next, index: 0 })
    }

    /// The key before a place.
    fn before(&self, place: Place) -> Option<Place> {
        if place.index > 0 {
            return Some(Place { index: place.index - 1, ..place });
        }
        let prev = self.page(place.page).prev;
        (prev != NONE).then(|| Place { page: prev, index: self.page(prev).len() - 1 })
    }

    fn path(&self, place: Place) -> StatePath {
        let levels = levels(self.page(place.page));
        StatePath {
            page: page_steps(&levels, place.index),
            nodes: self.node_steps(PAGE | place.page, NONE),
        }
    }

    /// The steps from a node up to, not including, the one into `until`.
    fn node_steps(&self, link: u32, until: u32) -> Vec<PathStep> {
        let mut link = link;
        let mut steps = Vec::new();
        loop {
            let parent = self.parent(link);
            if parent == until {
                return steps;
            }
            let side = self.side(parent, link);
            let sibling = self.hashes[parent as usize][1 - side];
            steps.push(PathStep { from_right: side == 1, sibling });
            link = parent;
        }
    }

    fn fork(&self, left: Place, right: Place) -> Fork {
        if left.page == right.page {
            let levels = levels(self.page(left.page));
            let (mut low, mut high, mut height) = (left.index, right.index, 0);
            while low / 2 != high / 2 {
                (low, high, height) = (low / 2, high / 2, height + 1);
            }
            let below = |index| StatePath {
                page: page_steps(&levels[..=height], index),
                nodes: Vec::new(),
            };
            return Fork {
                left: below(left.index),
                right: below(right.index),
                in_page: true,
                shared: StatePath {
                    page: page_steps(&levels[height + 1..], low / 2),
                    nodes: self.node_steps(PAGE | left.page, NONE),
                },
            };
        }
        let mut above = Vec::new();
        let mut link = PAGE | left.page;
        while link != NONE {
            above.push(link);
            link = self.parent(link);
        }
        let mut meet = PAGE | right.page;
        while !above.contains(&meet) {
            meet = self.parent(meet);
        }
        let below = |place: Place| {
            let levels = levels(self.page(place.page));
            StatePath {
                page: page_steps(&levels, place.index),
                nodes: self.node_steps(PAGE | place.page, meet),
            }
        };
        Fork {
            left: below(left),
            right: below(right),
            in_page: false,
            shared: StatePath { page: Vec::new(), nodes: self.node_steps(meet, NONE) },
        }
    }
}

struct Fork {
    left: StatePath,
    right: StatePath,
    in_page: bool,
    shared: StatePath,
}

/// All levels of a page's tree, the leaves first.
fn levels<M>(page: &Page<M>) -> Vec<Vec<Digest>> {
    let mut levels = vec![page.leaves.clone()];
    while let Some(below) = levels.last().filter(|below| below.len() > 1) {
        let level = below
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => hash(&Context::STATE_PAGE, &[&left.0, &right.0]),
                odd => odd[0],
            })
            .collect();
        levels.push(level);
    }
    levels
}

/// The steps of a path through these levels, from `index` of the first; into the last one's parent
/// level there is none, so the topmost level given yields no step.
fn page_steps(levels: &[Vec<Digest>], index: usize) -> Vec<PathStep> {
    let mut steps = Vec::new();
    let mut at = index;
    for level in levels.iter().take(levels.len().saturating_sub(1)) {
        // An odd last one moves up without a step.
        if let Some(sibling) = level.get(at ^ 1) {
            steps.push(PathStep { from_right: at % 2 == 1, sibling: *sibling });
        }
        at /= 2;
    }
    steps
}
