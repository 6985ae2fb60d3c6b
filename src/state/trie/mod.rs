//! A crit-bit trie over key bits whose maximal subtrees of at most 32 keys are sorted pages: index,
//! Merkle tree and counter at once (state.md 4).
//!
//! Its shape, hence its root, depends on the set of keys alone: an inner node exists exactly if more
//! than 32 keys lie below it. All walks are loops: keys may make chains 9,000 levels deep.

mod bits;
mod page;
mod proof;
mod root;
#[cfg(test)]
mod tests;

use core::hint::black_box;
use core::ops::ControlFlow;

use crate::chain::StateLeaf;
use crate::state::Span;
use crate::state::trie::bits::bit_of;
use crate::state::trie::page::Page;
use crate::state::trie::root::Tickets;
use crate::types::Digest;

/// A protocol constant: the root depends on it.
pub const PAGE_KEYS_MAX: usize = 32;

/// No node.
const NONE: u32 = u32::MAX;
/// The bit of a link that says "page".
const PAGE: u32 = 1 << 31;

/// An inner node. Its bit is where the keys below it first part, so bits grow downwards.
#[derive(Clone, Copy, Debug)]
struct Inner {
    bit: u32,
    parent: u32,
    kids: [u32; 2],
    counts: [u32; 2],
    /// Whether its hash is out of date; then so are those of all nodes above.
    dirty: bool,
    /// While the root is computed: kids whose hashes are still to come; [`root::UNQUEUED`] else.
    waits: u8,
}

/// Keys in bytewise order, each with an `M` and a leaf hash; counts and an authenticated root.
#[derive(Clone, Debug)]
pub struct Trie<M> {
    pages: Vec<Page<M>>,
    inners: Vec<Inner>,
    /// Both kids' hashes of each inner node: exactly what its own hash is over.
    hashes: Vec<[Digest; 2]>,
    free_pages: Vec<u32>,
    free_inners: Vec<u32>,
    root: u32,
    /// The topmost node's hash.
    top: Digest,
    count: usize,
    tickets: Tickets,
    dirty_pages: Vec<u32>,
    dirty_inners: Vec<u32>,
}

impl<M> Default for Trie<M> {
    fn default() -> Self {
        Self {
            pages: Vec::new(),
            inners: Vec::new(),
            hashes: Vec::new(),
            free_pages: Vec::new(),
            free_inners: Vec::new(),
            root: NONE,
            top: Digest::ZERO,
            count: 0,
            tickets: Tickets::default(),
            dirty_pages: Vec::new(),
            dirty_inners: Vec::new(),
        }
    }
}

/// A place among the keys: before key `index` of `page`.
#[derive(Clone, Copy)]
struct Place {
    page: u32,
    index: usize,
}

impl<M: Copy> Trie<M> {
    /// How many keys.
    pub fn len(&self) -> usize {
        self.count
    }

    fn page(&self, at: u32) -> &Page<M> {
        &self.pages[at as usize]
    }

    fn page_mut(&mut self, at: u32) -> &mut Page<M> {
        &mut self.pages[at as usize]
    }

    fn inner(&self, at: u32) -> &Inner {
        &self.inners[at as usize]
    }

    fn inner_mut(&mut self, at: u32) -> &mut Inner {
        &mut self.inners[at as usize]
    }

    /// The one page the key may be in; the trie is not empty.
    fn page_for(&self, key: &[u8]) -> u32 {
        let mut link = self.root;
        while link & PAGE == 0 {
            let inner = self.inner(link);
            link = inner.kids[bit_of(key, inner.bit)];
        }
        link & !PAGE
    }

    pub fn get(&self, key: &[u8]) -> Option<M> {
        if self.root == NONE {
            return None;
        }
        let page = self.page(self.page_for(key));
        page.find(key).ok().map(|at| page.metas[at])
    }

    /// Changes a key's meta and nothing that its leaf says.
    pub fn change_meta(&mut self, key: &[u8], change: impl FnOnce(&mut M)) {
        if self.root == NONE {
            return;
        }
        let at = self.page_for(key);
        if let Ok(index) = self.page(at).find(key) {
            change(&mut self.page_mut(at).metas[index]);
        }
    }

    /// Reads what upserts of these keys are going to read, 16 walks in step, so that their cache misses
    /// overlap (state.md 4.5). It changes nothing.
    pub fn warm(&self, keys: &[&[u8]]) {
        if self.root == NONE {
            return;
        }
        for group in keys.chunks(16) {
            let mut links = [self.root; 16];
            let links = &mut links[..group.len()];
            let mut walking = true;
            while walking {
                walking = false;
                for (link, key) in links.iter_mut().zip(group) {
                    if *link & PAGE == 0 {
                        let inner = self.inner(*link);
                        *link = inner.kids[bit_of(key, inner.bit)];
                        walking = true;
                    }
                }
            }
            let pages = || links.iter().map(|link| self.page(*link & !PAGE));
            black_box(pages().map(Page::touch_lengths).sum::<usize>());
            black_box(pages().map(Page::touch_keys).sum::<usize>());
            for (page, key) in pages().zip(group) {
                if let Ok(at) = page.find(key) {
                    black_box(page.metas[at]);
                }
            }
        }
    }

    /// Inserts or overwrites with what `make` says of the old meta.
    pub fn upsert_with(&mut self, key: &[u8], make: impl FnOnce(Option<M>) -> (M, StateLeaf)) {
        if self.root == NONE {
            let (meta, leaf) = make(None);
            let mut page = Page::default();
            page.insert(0, key, meta);
            let at = self.new_page(page);
            self.root = PAGE | at;
            self.count = 1;
            self.set_leaf(at, 0, key, &leaf);
            return;
        }
        let at = self.page_for(key);
        match self.page(at).find(key) {
            Ok(index) => {
                let (meta, leaf) = make(Some(self.page(at).metas[index]));
                self.page_mut(at).metas[index] = meta;
                self.set_leaf(at, index, key, &leaf);
            }
            Err(index) => {
                let (meta, leaf) = make(None);
                let (at, index) = self.insert(Place { page: at, index }, key, meta);
                self.set_leaf(at, index, key, &leaf);
            }
        }
    }

    /// The topmost node from `page` up whose keys all part from the new one at `bit`.
    fn parting(&self, page: u32, bit: u32) -> u32 {
        let mut link = PAGE | page;
        loop {
            let parent = self.parent(link);
            if parent == NONE || self.inner(parent).bit < bit {
                return link;
            }
            link = parent;
        }
    }

    fn insert(&mut self, place: Place, key: &[u8], meta: M) -> (u32, usize) {
        let bit = self.page(place.page).crit_first(key);
        let link = self.parting(place.page, bit);
        self.count += 1;
        if link & PAGE == 0 {
            return (self.insert_beside(link, bit, key, meta), 0);
        }
        self.settle_tickets(place.page);
        self.page_mut(place.page).insert(place.index, key, meta);
        self.add_above(link, 1);
        if self.page(place.page).len() <= PAGE_KEYS_MAX {
            return (place.page, place.index);
        }
        self.split(place)
    }

    /// A page with this key alone beside an inner node, under a new one.
    fn insert_beside(&mut self, link: u32, bit: u32, key: &[u8], meta: M) -> u32 {
        let mut page = Page::default();
        page.insert(0, key, meta);
        let at = self.new_page(page);
        let side = bit_of(key, bit);
        let edge = self.edge(link, side);
        self.chain(at, edge, side);
        self.add_above(link, 1);
        let below = self.inner(link).counts.iter().sum();
        let (kids, counts) = if side == 0 {
            ([PAGE | at, link], [1, below])
        } else {
            ([link, PAGE | at], [below, 1])
        };
        let old = self.slot(link);
        let inner = self.replace(link, Inner::new(bit, kids, counts));
        self.hashes[inner as usize][1 - side] = old;
        at
    }

    /// Parts a page of 33 keys; where the key at `place` is now.
    fn split(&mut self, place: Place) -> (u32, usize) {
        let (bit, fork) = self.page(place.page).fork();
        let right = self.page_mut(place.page).split_off(fork);
        let counts = [fork, right.len()].map(|n| u32::try_from(n).expect("at most 33"));
        let right = self.new_page(right);
        self.chain(right, place.page, 1);
        let kids = [PAGE | place.page, PAGE | right];
        self.replace(PAGE | place.page, Inner::new(bit, kids, counts));
        self.mark(place.page);
        self.mark(right);
        if place.index < fork { (place.page, place.index) } else { (right, place.index - fork) }
    }

    /// Puts a new inner node where `link`, one of its kids, was; everything above it is marked.
    fn replace(&mut self, link: u32, inner: Inner) -> u32 {
        let parent = self.parent(link);
        let at = match self.free_inners.pop() {
            Some(at) => {
                *self.inner_mut(at) = inner;
                self.hashes[at as usize] = [Digest::ZERO; 2];
                at
            }
            None => {
                self.inners.push(inner);
                self.hashes.push([Digest::ZERO; 2]);
                u32::try_from(self.inners.len() - 1).expect("fewer than 2^31 nodes")
            }
        };
        self.relink(parent, link, at);
        self.inner_mut(at).parent = parent;
        for kid in inner.kids {
            self.set_parent(kid, at);
        }
        self.mark_inner(at);
        at
    }

    /// Makes `parent`, or the root, point to `new` where it pointed to `old`.
    fn relink(&mut self, parent: u32, old: u32, new: u32) {
        if parent == NONE {
            self.root = new;
            return;
        }
        let side = self.side(parent, old);
        self.inner_mut(parent).kids[side] = new;
    }

    pub fn remove(&mut self, key: &[u8]) -> Option<M> {
        if self.root == NONE {
            return None;
        }
        let at = self.page_for(key);
        let index = self.page(at).find(key).ok()?;
        self.settle_tickets(at);
        self.mark(at);
        let meta = self.page_mut(at).remove(index);
        self.count -= 1;
        self.add_above(PAGE | at, -1);
        let parent = self.page(at).parent;
        if parent == NONE {
            if self.page(at).len() == 0 {
                self.free_page(at);
                self.root = NONE;
            }
        } else if self.page(at).len() == 0 {
            let side = self.side(parent, PAGE | at);
            self.lift(parent, 1 - side);
            self.free_page(at);
        } else if self.inner(parent).counts.iter().sum::<u32>() as usize <= PAGE_KEYS_MAX {
            self.join(parent);
        }
        Some(meta)
    }

    /// Lets the kid at `side` take its parent's place.
    fn lift(&mut self, inner: u32, side: usize) {
        let kid = self.inner(inner).kids[side];
        let above = self.inner(inner).parent;
        let digest = self.hashes[inner as usize][side];
        self.relink(above, inner, kid);
        self.set_parent(kid, above);
        self.set_slot(kid, digest);
        self.inner_mut(inner).dirty = false;
        self.free_inners.push(inner);
    }

    /// Joins both kids of a node that fell to 32 keys: they are pages, having fewer each.
    fn join(&mut self, inner: u32) {
        let [left, right] = self.inner(inner).kids.map(|kid| {
            assert!(kid & PAGE != 0, "a node of at most 31 keys is a page");
            kid & !PAGE
        });
        self.settle_tickets(left);
        self.settle_tickets(right);
        let mut moved = core::mem::take(self.page_mut(right));
        let next = moved.next;
        self.page_mut(left).append(&mut moved);
        self.page_mut(left).next = next;
        if next != NONE {
            self.page_mut(next).prev = left;
        }
        self.free_pages.push(right);
        self.lift(inner, 0);
        self.mark(left);
    }

    fn new_page(&mut self, page: Page<M>) -> u32 {
        match self.free_pages.pop() {
            Some(at) => {
                *self.page_mut(at) = page;
                at
            }
            None => {
                self.pages.push(page);
                u32::try_from(self.pages.len() - 1).expect("fewer than 2^31 pages")
            }
        }
    }

    /// Frees an empty page: its neighbours close up.
    fn free_page(&mut self, at: u32) {
        let Page { prev, next, .. } = core::mem::take(self.page_mut(at));
        if prev != NONE {
            self.page_mut(prev).next = next;
        }
        if next != NONE {
            self.page_mut(next).prev = prev;
        }
        self.free_pages.push(at);
    }

    /// Puts a new page behind (`side` 1) or before (0) another in key order.
    fn chain(&mut self, new: u32, beside: u32, side: usize) {
        let (prev, next) = if side == 1 {
            (beside, self.page(beside).next)
        } else {
            (self.page(beside).prev, beside)
        };
        self.page_mut(new).prev = prev;
        self.page_mut(new).next = next;
        if prev != NONE {
            self.page_mut(prev).next = new;
        }
        if next != NONE {
            self.page_mut(next).prev = new;
        }
    }

    /// The first (`side` 0) or last (1) page below a node.
    fn edge(&self, link: u32, side: usize) -> u32 {
        let mut link = link;
        while link & PAGE == 0 {
            link = self.inner(link).kids[side];
        }
        link & !PAGE
    }

    fn parent(&self, link: u32) -> u32 {
        if link & PAGE == 0 { self.inner(link).parent } else { self.page(link & !PAGE).parent }
    }

    fn set_parent(&mut self, link: u32, parent: u32) {
        if link & PAGE == 0 {
            self.inner_mut(link).parent = parent;
        } else {
            self.page_mut(link & !PAGE).parent = parent;
        }
    }

    /// Which kid of `parent` the node is.
    fn side(&self, parent: u32, link: u32) -> usize {
        let kids = self.inner(parent).kids;
        debug_assert!(kids.contains(&link), "a node is its parent's kid");
        usize::from(kids[1] == link)
    }

    /// Changes the counts of all nodes above.
    fn add_above(&mut self, link: u32, change: i32) {
        let mut link = link;
        loop {
            let parent = self.parent(link);
            if parent == NONE {
                return;
            }
            let side = self.side(parent, link);
            let count = &mut self.inner_mut(parent).counts[side];
            *count = count.checked_add_signed(change).expect("counts follow the keys");
            link = parent;
        }
    }

    /// The place of the first key at or above `key`, and how many keys lie below it.
    fn seek(&self, key: &[u8]) -> (Place, usize) {
        let at = self.page_for(key);
        let (mut link, index) = match self.page(at).find(key) {
            Ok(index) => (PAGE | at, Some(index)),
            Err(index) => {
                let link = self.parting(at, self.page(at).crit_first(key));
                (link, (link & PAGE != 0).then_some(index))
            }
        };
        let (mut rank, place) = match index {
            Some(index) => (index, Place { page: at, index }),
            None => self.seek_beside(link, key),
        };
        loop {
            let parent = self.parent(link);
            if parent == NONE {
                return (place, rank);
            }
            let inner = self.inner(parent);
            if inner.kids[1] == link {
                rank += inner.counts[0] as usize;
            }
            link = parent;
        }
    }

    /// As [`Trie::seek`] for a key that lies before or behind all keys of an inner node.
    fn seek_beside(&self, link: u32, key: &[u8]) -> (usize, Place) {
        let first = self.edge(link, 0);
        if *key < *self.page(first).key(0) {
            return (0, Place { page: first, index: 0 });
        }
        let last = self.edge(link, 1);
        let count = self.inner(link).counts.iter().sum::<u32>() as usize;
        (count, Place { page: last, index: self.page(last).len() })
    }

    /// Calls `visit` with the keys of `span` in order until it breaks.
    pub fn scan(&self, span: Span<'_>, visit: &mut dyn FnMut(&[u8], &M) -> ControlFlow<()>) {
        if self.root == NONE {
            return;
        }
        let (Place { mut page, mut index }, _) = self.seek(span.start());
        let mut key = Vec::new();
        while page != NONE {
            let at = self.page(page);
            while index < at.len() {
                at.key_into(index, &mut key);
                if span.ends_before(&key) || visit(&key, &at.metas[index]).is_break() {
                    return;
                }
                index += 1;
            }
            page = at.next;
            index = 0;
        }
    }

    /// How many keys `span` holds.
    pub fn count(&self, span: Span<'_>) -> usize {
        if self.root == NONE {
            return 0;
        }
        match span {
            Span::One(key) => usize::from(self.get(key).is_some()),
            Span::From(start) => self.count - self.seek(start).1,
            Span::Until(start, end) if start < end => self.seek(end).1 - self.seek(start).1,
            Span::Until(..) => 0,
        }
    }
}

impl Inner {
    fn new(bit: u32, kids: [u32; 2], counts: [u32; 2]) -> Self {
        Self { bit, parent: NONE, kids, counts, dirty: false, waits: root::UNQUEUED }
    }
}
