use core::cmp::Ordering;

use crate::state::trie::bits::{bit_of, crit};
use crate::state::trie::{NONE, PAGE_KEYS_MAX};
use crate::types::Digest;

/// A maximal subtree of at most 32 keys: sorted, its common prefix kept once.
#[derive(Clone, Debug)]
pub struct Page<M> {
    /// The prefix all keys share, then the rest of each.
    bytes: Vec<u8>,
    prefix: u16,
    /// Where each key's rest ends in `bytes`. 33 keys of 1 KiB stay below 64 KiB.
    ends: Vec<u16>,
    pub metas: Vec<M>,
    pub leaves: Vec<Digest>,
    /// The inner node above, [`NONE`] at the root.
    pub parent: u32,
    /// The pages before and behind in key order, [`NONE`] at the ends.
    pub prev: u32,
    pub next: u32,
    /// Whether its hash is out of date; then so are those of all nodes above.
    pub dirty: bool,
    /// Leaf hashes of this page that are still to be computed.
    pub tickets: u16,
}

impl<M> Default for Page<M> {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            prefix: 0,
            ends: Vec::new(),
            metas: Vec::new(),
            leaves: Vec::new(),
            parent: NONE,
            prev: NONE,
            next: NONE,
            dirty: false,
            tickets: 0,
        }
    }
}

impl<M: Copy> Page<M> {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn prefix(&self) -> &[u8] {
        &self.bytes[..usize::from(self.prefix)]
    }

    /// What key `at` has behind the prefix.
    pub fn suffix(&self, at: usize) -> &[u8] {
        let start = if at == 0 { self.prefix } else { self.ends[at - 1] };
        &self.bytes[usize::from(start)..usize::from(self.ends[at])]
    }

    /// Writes key `at` into `key`.
    pub fn key_into(&self, at: usize, key: &mut Vec<u8>) {
        key.clear();
        key.extend_from_slice(self.prefix());
        key.extend_from_slice(self.suffix(at));
    }

    pub fn key(&self, at: usize) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.prefix().len() + self.suffix(at).len());
        self.key_into(at, &mut key);
        key
    }

    /// Brings the page itself into the cache.
    pub fn touch_lengths(&self) -> usize {
        self.bytes.len() + self.ends.len() + self.metas.len() + self.leaves.len()
    }

    /// Brings the keys into the cache.
    pub fn touch_keys(&self) -> usize {
        let ends = self.ends.iter().step_by(32).map(|end| usize::from(*end)).sum::<usize>();
        self.bytes.iter().step_by(64).map(|byte| usize::from(*byte)).sum::<usize>() + ends
    }

    /// Where the key is, or where it belongs.
    pub fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let prefix = self.prefix();
        let head = &key[..prefix.len().min(key.len())];
        match head.cmp(prefix) {
            Ordering::Less => return Err(0),
            Ordering::Greater => return Err(self.len()),
            Ordering::Equal => {}
        }
        let rest = &key[prefix.len()..];
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.suffix(middle).cmp(rest) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }

    /// Where the key first differs from the first key of the page.
    pub fn crit_first(&self, key: &[u8]) -> u32 {
        crit((self.prefix(), self.suffix(0)), key)
    }

    /// Puts a key at `at`, its leaf hash still to come.
    pub fn insert(&mut self, at: usize, key: &[u8], meta: M) {
        grow(&mut self.metas);
        grow(&mut self.leaves);
        grow(&mut self.ends);
        self.metas.insert(at, meta);
        self.leaves.insert(at, Digest::ZERO);
        if self.len() == 0 {
            self.bytes = key.to_vec();
            self.prefix = offset(key.len());
            self.ends.push(self.prefix);
            return;
        }
        if !key.starts_with(self.prefix()) {
            let mut keys: Vec<Vec<u8>> = (0..self.len()).map(|at| self.key(at)).collect();
            keys.insert(at, key.to_vec());
            self.write_keys(&keys);
            return;
        }
        let suffix = &key[usize::from(self.prefix)..];
        let start = if at == 0 { self.prefix } else { self.ends[at - 1] };
        let (old, from) = (self.bytes.len(), usize::from(start));
        if self.bytes.capacity() < old + suffix.len() {
            self.bytes.reserve_exact(suffix.len() + 64);
        }
        self.bytes.extend_from_slice(suffix);
        self.bytes[from..].rotate_right(suffix.len());
        self.ends.insert(at, start);
        for end in &mut self.ends[at..] {
            *end += offset(suffix.len());
        }
    }

    pub fn remove(&mut self, at: usize) -> M {
        let start = if at == 0 { self.prefix } else { self.ends[at - 1] };
        let end = self.ends.remove(at);
        self.bytes.drain(usize::from(start)..usize::from(end));
        for behind in &mut self.ends[at..] {
            *behind -= end - start;
        }
        self.leaves.remove(at);
        self.metas.remove(at)
    }

    /// Writes sorted keys anew with the longest common prefix.
    fn write_keys(&mut self, keys: &[Vec<u8>]) {
        let (Some(first), Some(last)) = (keys.first(), keys.last()) else { return };
        let prefix = first.iter().zip(last).take_while(|(a, b)| a == b).count();
        let length = prefix + keys.iter().map(|key| key.len() - prefix).sum::<usize>();
        self.bytes = Vec::with_capacity(length);
        self.bytes.extend_from_slice(&first[..prefix]);
        self.prefix = offset(prefix);
        self.ends.clear();
        for key in keys {
            self.bytes.extend_from_slice(&key[prefix..]);
            self.ends.push(offset(self.bytes.len()));
        }
    }

    /// Where the keys first part, and the first key behind that fork.
    pub fn fork(&self) -> (u32, usize) {
        let last = self.key(self.len() - 1);
        let bit = self.crit_first(&last);
        let (mut low, mut high) = (0, self.len());
        let mut key = Vec::new();
        while low < high {
            let middle = usize::midpoint(low, high);
            self.key_into(middle, &mut key);
            if bit_of(&key, bit) == 0 { low = middle + 1 } else { high = middle }
        }
        (bit, low)
    }

    /// Moves the keys from `at` on into a new page.
    pub fn split_off(&mut self, at: usize) -> Self {
        let mut right = Self {
            metas: self.metas.split_off(at),
            leaves: self.leaves.split_off(at),
            ..Self::default()
        };
        let keys: Vec<Vec<u8>> = (0..self.len()).map(|at| self.key(at)).collect();
        self.write_keys(&keys[..at]);
        right.write_keys(&keys[at..]);
        right
    }

    /// Takes the keys of the page behind.
    pub fn append(&mut self, right: &mut Self) {
        let mut keys: Vec<Vec<u8>> = (0..self.len()).map(|at| self.key(at)).collect();
        keys.extend((0..right.len()).map(|at| right.key(at)));
        assert!(keys.len() <= PAGE_KEYS_MAX, "a page holds at most 32 keys");
        self.metas.append(&mut right.metas);
        self.leaves.append(&mut right.leaves);
        self.write_keys(&keys);
    }
}

fn offset(length: usize) -> u16 {
    u16::try_from(length).expect("33 keys of at most 1 KiB stay below 64 KiB")
}

/// Room in steps of 8: doubling would waste a third of all memory.
fn grow<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(8);
    }
}
