//! Bundles that no block of the current chain holds yet (protocol.md 9).

use std::collections::BTreeMap;

use crate::chain::{Bundle, SESSION_WINDOW, SessionWindow};
use crate::ordering::blocks::Windows;
use crate::types::{ReplicaId, View};

/// Most bytes of one origin's bundles: its window's worth.
const ORIGIN_BYTES_MAX: usize = 8 << 20;
/// Most bundles of one origin: a correct one has five that no block holds, and five of each session
/// before.
const ORIGIN_BUNDLES_MAX: usize = 256;

/// (session, first_seq).
pub(super) type BundleKey = (u64, u64);

pub(super) struct Pooled {
    pub bundle: Bundle,
    /// When it came, for the rule without a batch timer.
    pub since_ms: u64,
    /// The view whose primary it was passed to.
    pub passed_in: Option<View>,
    /// When its origin sent it to all.
    pub broadcast_ms: Option<u64>,
}

/// What one origin waits for.
#[derive(Default)]
pub(super) struct Origin {
    pub bundles: BTreeMap<BundleKey, Pooled>,
    bytes: usize,
    /// Since when the oldest bundle is the oldest: `T_req` runs for it alone.
    pub oldest_since_ms: u64,
}

/// Bundles by origin.
#[derive(Default)]
pub(super) struct Pool {
    pub origins: BTreeMap<ReplicaId, Origin>,
    pub bytes: usize,
    pub count: usize,
    /// When late bundles were last looked for.
    pub guarded_ms: u64,
    /// The origin served last: a block starts with the next one.
    cursor: ReplicaId,
}

/// Bytes a bundle takes in a block.
pub(super) fn size(bundle: &Bundle) -> usize {
    bundle.content().len() + bundle.values_len() + 69
}

impl Pool {
    pub fn holds(&self, bundle: &Bundle) -> bool {
        self.get(bundle.origin, (bundle.session, bundle.first_seq))
            .is_some_and(|pooled| pooled.bundle == *bundle)
    }

    pub fn get(&self, origin: ReplicaId, key: BundleKey) -> Option<&Pooled> {
        self.origins.get(&origin)?.bundles.get(&key)
    }

    /// Whether its origin has room for a bundle: asked before its signature is checked.
    pub fn has_room(&self, bundle: &Bundle) -> bool {
        let bytes = self.origins.get(&bundle.origin).map_or(0, |origin| origin.bytes);
        bytes + size(bundle) <= ORIGIN_BYTES_MAX && self.has_place(bundle.origin)
    }

    /// Whether an origin may have one bundle more.
    pub fn has_place(&self, id: ReplicaId) -> bool {
        self.origins.get(&id).is_none_or(|origin| origin.bundles.len() < ORIGIN_BUNDLES_MAX)
    }

    /// Adds a checked bundle; false if it is there or its origin has no room.
    pub fn add(&mut self, bundle: Bundle, now_ms: u64) -> bool {
        let bytes = size(&bundle);
        let key = (bundle.session, bundle.first_seq);
        if self.get(bundle.origin, key).is_some() || !self.has_room(&bundle) {
            return false;
        }
        let origin = self.origins.entry(bundle.origin).or_default();
        if origin.bundles.first_key_value().is_none_or(|(oldest, _)| key < *oldest) {
            origin.oldest_since_ms = now_ms;
        }
        let pooled = Pooled { bundle, since_ms: now_ms, passed_in: None, broadcast_ms: None };
        origin.bundles.insert(key, pooled);
        origin.bytes += bytes;
        self.bytes += bytes;
        self.count += 1;
        true
    }

    pub fn remove(&mut self, id: ReplicaId, key: BundleKey, now_ms: u64) -> Option<Bundle> {
        let origin = self.origins.get_mut(&id)?;
        let oldest = origin.bundles.first_key_value().is_some_and(|(first, _)| *first == key);
        let pooled = origin.bundles.remove(&key)?;
        if oldest {
            origin.oldest_since_ms = now_ms;
        }
        let bytes = size(&pooled.bundle);
        origin.bytes -= bytes;
        self.bytes -= bytes;
        self.count -= 1;
        if origin.bundles.is_empty() {
            self.origins.remove(&id);
        }
        Some(pooled.bundle)
    }

    /// Forgets all bundles of an origin.
    pub fn forget(&mut self, id: ReplicaId) {
        let keys: Vec<BundleKey> = self
            .origins
            .get(&id)
            .map_or_else(Vec::new, |all| all.bundles.keys().copied().collect());
        for key in keys {
            self.remove(id, key, 0);
        }
    }

    /// Forgets the bundles of these origins that `windows` admit no more.
    pub fn drop_used(&mut self, ids: &[ReplicaId], windows: &Windows, now_ms: u64) {
        for id in ids {
            let (Some(origin), Some(window)) = (self.origins.get(id), windows.get(id)) else {
                continue;
            };
            let used = |bundle: &Bundle| {
                let ops = bundle.skeletons.len() as u64;
                bundle.session < window.session()
                    || bundle.session == window.session()
                        && !window.admits(bundle.session, bundle.first_seq, ops)
                        && bundle.end_seq() <= window.floor().saturating_add(SESSION_WINDOW)
            };
            let keys: Vec<BundleKey> = origin
                .bundles
                .iter()
                .filter(|(_, pooled)| used(&pooled.bundle))
                .map(|(key, _)| *key)
                .collect();
            for key in keys {
                self.remove(*id, key, now_ms);
            }
        }
    }

    /// Takes admissible bundles out, round-robin by origin, each origin's in order, up to
    /// `bytes_max` or one bundle if that alone is larger; marks them in `windows`.
    pub fn take(&mut self, windows: &mut Windows, bytes_max: usize, now_ms: u64) -> Vec<Bundle> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        let mut ids: Vec<ReplicaId> = self.origins.keys().copied().collect();
        let start = ids.partition_point(|id| *id <= self.cursor);
        ids.rotate_left(start);
        let mut proofs = 0;
        while !ids.is_empty() {
            ids.retain(|id| {
                let Some(key) = self.next_of(*id, windows) else { return false };
                let fits = self.get(*id, key).is_some_and(|pooled| {
                    pooled.bundle.config_change().is_none()
                        && (proofs == 0 || pooled.bundle.proof().is_none())
                        && (taken.is_empty() || bytes + size(&pooled.bundle) <= bytes_max)
                });
                if !fits {
                    return false;
                }
                let bundle = self.remove(*id, key, now_ms).expect("just found");
                bytes += size(&bundle);
                proofs += usize::from(bundle.proof().is_some());
                let window = windows.entry(*id).or_default();
                for seq in bundle.first_seq..bundle.end_seq() {
                    window.mark(bundle.session, seq);
                }
                self.cursor = *id;
                taken.push(bundle);
                true
            });
        }
        taken
    }

    /// A change of members or parameters that is some origin's turn: it goes alone, before the rest.
    pub fn next_change(&self, windows: &Windows) -> Option<(ReplicaId, BundleKey)> {
        self.origins.keys().find_map(|id| {
            let key = self.next_of(*id, windows)?;
            let change = self.get(*id, key)?.bundle.config_change().is_some();
            change.then_some((*id, key))
        })
    }

    fn next_of(&self, id: ReplicaId, windows: &Windows) -> Option<BundleKey> {
        let origin = self.origins.get(&id)?;
        let fresh = SessionWindow::default();
        let window = windows.get(&id).unwrap_or(&fresh);
        let admitted = |bundle: &Bundle| {
            window.admits(bundle.session, bundle.first_seq, bundle.skeletons.len() as u64)
        };
        origin.bundles.iter().find(|(_, pooled)| admitted(&pooled.bundle)).map(|(key, _)| *key)
    }

    /// When the longest waiting of the origins' first bundles came.
    pub fn oldest_ms(&self) -> Option<u64> {
        self.origins
            .values()
            .filter_map(|origin| origin.bundles.first_key_value())
            .map(|(_, pooled)| pooled.since_ms)
            .min()
    }

    /// A new view: every request timer starts again.
    pub fn restart_timers(&mut self, now_ms: u64) {
        for origin in self.origins.values_mut() {
            origin.oldest_since_ms = now_ms;
            for pooled in origin.bundles.values_mut() {
                pooled.passed_in = None;
                pooled.broadcast_ms = None;
                pooled.since_ms = now_ms;
            }
        }
    }
}
