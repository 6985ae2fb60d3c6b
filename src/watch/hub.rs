use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

/// The keys a watcher wants, normalised from etcd's key and range_end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyRange {
    /// One key.
    One(Bytes),
    /// From the first to before the second.
    Between(Bytes, Bytes),
    /// From it on.
    From(Bytes),
}

impl KeyRange {
    /// etcd's reading: no key is the smallest one, no end is one key, "\0" is no end at all. None
    /// if nothing can lie in it.
    #[must_use]
    pub fn new(key: Bytes, range_end: Bytes) -> Option<Self> {
        let key = if key.is_empty() { Bytes::from_static(&[0]) } else { key };
        match range_end.as_ref() {
            [] => Some(Self::One(key)),
            [0] => Some(Self::From(key)),
            _ if key < range_end => Some(Self::Between(key, range_end)),
            _ => None,
        }
    }

    /// Whether it holds `key`.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => one == key,
            Self::Between(start, end) => start.as_ref() <= key && key < end.as_ref(),
            Self::From(start) => start.as_ref() <= key,
        }
    }

    /// Its first key and etcd's range_end for it.
    #[must_use]
    pub fn bounds(&self) -> (&Bytes, Bytes) {
        match self {
            Self::One(key) => (key, Bytes::new()),
            Self::Between(start, end) => (start, end.clone()),
            Self::From(start) => (start, Bytes::from_static(&[0])),
        }
    }

    /// The longest prefix that every key in it has.
    fn common_prefix(&self) -> Bytes {
        match self {
            Self::One(key) => key.clone(),
            Self::From(_) => Bytes::new(),
            Self::Between(start, end) => {
                let shared = start.iter().zip(end.iter()).take_while(|(a, b)| a == b).count();
                // All keys with prefix p: the end is p with its last byte raised by one.
                let is_prefix_range = end.len() == shared + 1
                    && start
                        .get(shared)
                        .is_some_and(|byte| byte.checked_add(1) == Some(end[shared]));
                start.slice(..shared + usize::from(is_prefix_range))
            }
        }
    }
}

/// Who wants which key: an index of ranges by the prefix their keys share.
///
/// A key is looked for under each of its own prefixes whose length occurs, so a lookup costs a few
/// map accesses whatever the number of watchers.
#[derive(Debug)]
pub struct Hub<T> {
    prefixes: BTreeMap<Bytes, BTreeMap<KeyRange, BTreeSet<T>>>,
    /// How many entries of `prefixes` have this length.
    lengths: BTreeMap<usize, usize>,
}

impl<T> Default for Hub<T> {
    fn default() -> Self {
        Self { prefixes: BTreeMap::new(), lengths: BTreeMap::new() }
    }
}

impl<T: Ord + Copy> Hub<T> {
    /// Adds one who wants `range`.
    pub fn insert(&mut self, range: KeyRange, who: T) {
        let prefix = range.common_prefix();
        let ranges = self.prefixes.entry(prefix.clone()).or_insert_with(|| {
            *self.lengths.entry(prefix.len()).or_default() += 1;
            BTreeMap::new()
        });
        ranges.entry(range).or_default().insert(who);
    }

    /// Takes back one [`Hub::insert`].
    pub fn remove(&mut self, range: &KeyRange, who: T) {
        let prefix = range.common_prefix();
        let Some(ranges) = self.prefixes.get_mut(&prefix) else { return };
        if let Some(wanting) = ranges.get_mut(range) {
            wanting.remove(&who);
            if wanting.is_empty() {
                ranges.remove(range);
            }
        }
        if ranges.is_empty() {
            self.prefixes.remove(&prefix);
            if let Some(count) = self.lengths.get_mut(&prefix.len()) {
                *count -= 1;
            }
            self.lengths.retain(|_, count| *count > 0);
        }
    }

    /// Calls `found` with everyone who wants `key`, with one who has several ranges several times.
    pub fn wanting(&self, key: &[u8], mut found: impl FnMut(T)) {
        for (&length, _) in self.lengths.range(..=key.len()) {
            let Some(ranges) = self.prefixes.get(&key[..length]) else { continue };
            for (range, wanting) in ranges {
                if range.contains(key) {
                    wanting.iter().for_each(|who| found(*who));
                }
            }
        }
    }

    /// Whether nobody wants anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        let byte = prop::sample::select(&[0u8, 1, 0x61, 0x62, 0xfe, 0xff][..]);
        prop::collection::vec(byte, 1..4).prop_map(Bytes::from)
    }

    fn range() -> impl Strategy<Value = Option<KeyRange>> {
        let end = prop_oneof![Just(Bytes::new()), Just(Bytes::from_static(&[0])), bytes()];
        (bytes(), end).prop_map(|(key, end)| KeyRange::new(key, end))
    }

    proptest! {
        #[test]
        fn the_index_finds_whom_looking_at_every_range_finds(
            ranges in prop::collection::vec((range(), any::<bool>()), 0..20),
            keys in prop::collection::vec(bytes(), 1..20),
        ) {
            let mut hub = Hub::default();
            let ranges: Vec<_> =
                ranges.into_iter().filter_map(|(range, stays)| Some((range?, stays))).collect();
            for (who, (range, _)) in ranges.iter().enumerate() {
                hub.insert(range.clone(), who);
            }
            for (who, (range, _)) in ranges.iter().enumerate().filter(|(_, (_, stays))| !stays) {
                hub.remove(range, who);
            }
            for key in keys {
                let mut found = BTreeSet::new();
                hub.wanting(&key, |who| assert!(found.insert(who), "found twice"));
                let all = ranges.iter().enumerate();
                let wanting = all.filter(|(_, (range, stays))| *stays && range.contains(&key));
                prop_assert_eq!(found, wanting.map(|(who, _)| who).collect::<BTreeSet<_>>());
            }
            prop_assert_eq!(hub.is_empty(), ranges.iter().all(|(_, stays)| !stays));
        }
    }
}
