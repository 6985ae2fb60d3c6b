//! Hashes, kept back until the block ends and then computed many at once (state.md 4.5).

use crate::chain::StateLeaf;
use crate::crypto::{Context, hash, hash_many, hash_many_64};
use crate::state::trie::{NONE, PAGE, Trie};
use crate::types::Digest;

/// [`Inner::waits`](super::Inner) of a node that is not being hashed.
pub const UNQUEUED: u8 = u8::MAX;

/// Leaf hashes still to be computed, by the length of what they are over. Later ones win.
#[derive(Clone, Debug, Default)]
pub struct Tickets {
    short: Vec<[u8; 128]>,
    short_places: Vec<(u32, u16)>,
    long: Vec<[u8; 192]>,
    long_places: Vec<(u32, u16)>,
}

impl<M: Copy> Trie<M> {
    /// Sets the leaf of a key and marks all above it.
    pub(super) fn set_leaf(&mut self, page: u32, index: usize, key: &[u8], leaf: &StateLeaf) {
        self.mark(page);
        let place = (page, u16::try_from(index).expect("a page holds at most 32 keys"));
        match leaf.message_length(key) {
            128 => {
                let mut message = [0; 128];
                leaf.write_message(key, &mut message);
                self.tickets.short.push(message);
                self.tickets.short_places.push(place);
            }
            192 => {
                let mut message = [0; 192];
                leaf.write_message(key, &mut message);
                self.tickets.long.push(message);
                self.tickets.long_places.push(place);
            }
            length => {
                let mut message = vec![0; length];
                leaf.write_message(key, &mut message);
                self.page_mut(page).leaves[index] = hash(&Context::STATE_LEAF, &[&message]);
                return;
            }
        }
        self.page_mut(page).tickets += 1;
    }

    /// Before places in a page change: computes what is still due, if it is this page's.
    pub(super) fn settle_tickets(&mut self, page: u32) {
        if self.page(page).tickets > 0 {
            self.flush_tickets();
        }
    }

    fn flush_tickets(&mut self) {
        let Tickets { short, short_places, long, long_places } = &mut self.tickets;
        let mut leaves = Vec::with_capacity(short.len() + long.len());
        hash_many(&Context::STATE_LEAF, short, &mut leaves);
        hash_many(&Context::STATE_LEAF, long, &mut leaves);
        for ((page, index), leaf) in short_places.drain(..).chain(long_places.drain(..)).zip(leaves)
        {
            let page = &mut self.pages[page as usize];
            page.leaves[usize::from(index)] = leaf;
            page.tickets = 0;
        }
        short.clear();
        long.clear();
    }

    /// Marks a page and all above it.
    pub(super) fn mark(&mut self, page: u32) {
        let at = self.page_mut(page);
        if at.dirty {
            return;
        }
        at.dirty = true;
        let parent = at.parent;
        self.dirty_pages.push(page);
        if parent != NONE {
            self.mark_inner(parent);
        }
    }

    pub(super) fn mark_inner(&mut self, inner: u32) {
        let mut at = inner;
        while at != NONE && !self.inner(at).dirty {
            self.inner_mut(at).dirty = true;
            self.dirty_inners.push(at);
            at = self.inner(at).parent;
        }
    }

    /// The hash last computed for a node.
    pub(super) fn slot(&self, link: u32) -> Digest {
        let parent = self.parent(link);
        if parent == NONE {
            return self.top;
        }
        self.hashes[parent as usize][self.side(parent, link)]
    }

    pub(super) fn set_slot(&mut self, link: u32, digest: Digest) {
        let parent = self.parent(link);
        if parent == NONE {
            self.top = digest;
        } else {
            let side = self.side(parent, link);
            self.hashes[parent as usize][side] = digest;
        }
    }

    /// The authenticated root.
    pub fn root(&mut self) -> Digest {
        self.refresh();
        let count = (self.len() as u64).to_le_bytes();
        if self.len() == 0 {
            return hash(&Context::STATE_ROOT, &[&count]);
        }
        hash(&Context::STATE_ROOT, &[&count, &self.top.0])
    }

    /// Brings every hash up to date.
    fn refresh(&mut self) {
        self.flush_tickets();
        self.refresh_pages();
        self.refresh_inners();
    }

    /// All marked pages, level by level together.
    fn refresh_pages(&mut self) {
        let mut listed = core::mem::take(&mut self.dirty_pages);
        // A page that was freed, or freed and listed again, shows it by its mark.
        listed.retain(|page| core::mem::take(&mut self.pages[*page as usize].dirty));
        let mut messages = Vec::with_capacity(listed.len() * 16);
        for page in &listed {
            let pairs = self.page(*page).leaves.chunks_exact(2);
            messages.extend(pairs.map(|pair| joined(pair[0], pair[1])));
        }
        let mut hashed = Vec::with_capacity(messages.len());
        hash_many_64(&Context::STATE_PAGE, &messages, &mut hashed);
        // Per page: how many its level has, the odd last one being kept apart.
        let mut levels: Vec<(usize, Option<Digest>)> = Vec::with_capacity(listed.len());
        for page in &listed {
            let leaves = &self.page(*page).leaves;
            let odd = if leaves.len() % 2 == 1 { leaves.last().copied() } else { None };
            levels.push((leaves.len() / 2, odd));
        }
        let mut above = Vec::with_capacity(hashed.len() / 2 + listed.len());
        while levels.iter().any(|(pairs, odd)| pairs + usize::from(odd.is_some()) > 1) {
            messages.clear();
            let mut at = 0;
            // Whole digests of the level, the odd one behind them, paired by position.
            for (pairs, odd) in &mut levels {
                let level = &hashed[at..at + *pairs];
                at += *pairs;
                messages.extend(level.chunks_exact(2).map(|pair| joined(pair[0], pair[1])));
                let last = if *pairs % 2 == 1 { level.last().copied() } else { None };
                let joins = usize::from(last.is_some() && odd.is_some());
                if let (Some(left), Some(right)) = (last, *odd) {
                    messages.push(joined(left, right));
                    *odd = None;
                } else if last.is_some() {
                    *odd = last;
                }
                *pairs = *pairs / 2 + joins;
            }
            above.clear();
            hash_many_64(&Context::STATE_PAGE, &messages, &mut above);
            core::mem::swap(&mut hashed, &mut above);
        }
        let mut tops = hashed.into_iter();
        for (page, (_, odd)) in listed.into_iter().zip(levels) {
            let top = odd.or_else(|| tops.next()).expect("a page holds a key");
            self.set_slot(PAGE | page, top);
        }
    }

    /// All marked inner nodes, in waves: a node once both its kids are done.
    fn refresh_inners(&mut self) {
        let mut listed = core::mem::take(&mut self.dirty_inners);
        listed.retain(|at| {
            let inner = &mut self.inners[*at as usize];
            let fresh = inner.dirty && inner.waits == UNQUEUED;
            if fresh {
                inner.waits = 0;
            }
            fresh
        });
        for at in &listed {
            let parent = self.inner(*at).parent;
            if parent != NONE {
                self.inner_mut(parent).waits += 1;
            }
        }
        let mut wave = listed;
        wave.retain(|at| self.inners[*at as usize].waits == 0);
        let mut messages = Vec::new();
        let mut hashed = Vec::new();
        while !wave.is_empty() {
            messages.clear();
            hashed.clear();
            messages.extend(wave.iter().map(|at| {
                let [left, right] = self.hashes[*at as usize];
                joined(left, right)
            }));
            hash_many_64(&Context::STATE_NODE, &messages, &mut hashed);
            let mut next = Vec::new();
            for (at, digest) in wave.iter().zip(&hashed) {
                self.set_slot(*at, *digest);
                let inner = self.inner_mut(*at);
                inner.dirty = false;
                inner.waits = UNQUEUED;
                let parent = inner.parent;
                if parent != NONE {
                    let above = self.inner_mut(parent);
                    above.waits -= 1;
                    if above.waits == 0 {
                        next.push(parent);
                    }
                }
            }
            wave = next;
        }
    }

    /// Whether every hash is up to date.
    pub(super) fn is_fresh(&self) -> bool {
        self.dirty_pages.is_empty() && self.dirty_inners.is_empty()
    }
}

fn joined(left: Digest, right: Digest) -> [u8; 64] {
    let mut message = [0; 64];
    message[..32].copy_from_slice(&left.0);
    message[32..].copy_from_slice(&right.0);
    message
}
