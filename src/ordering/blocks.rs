//! Which blocks this replica holds, and how far they are committed and executed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::chain::{Block, BlockHeader, Certificate, Entry, SessionWindow, flags};
use crate::types::{Digest, Epoch, Height, LogPosition, Millis, ReplicaId, View};

/// The end of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tip {
    pub height: Height,
    pub hash: Digest,
    pub time_ms: Millis,
    /// A CONFIG block: nothing stands on it in its epoch.
    pub ends_epoch: bool,
}

impl Tip {
    /// Before the first block.
    pub fn genesis(time_ms: Millis) -> Self {
        Self { height: Height(0), hash: Digest::ZERO, time_ms, ends_epoch: false }
    }

    pub fn of(header: &BlockHeader, hash: Digest) -> Self {
        let ends_epoch = header.flags & flags::CONFIG != 0;
        Self { height: header.height, hash, time_ms: header.time_ms, ends_epoch }
    }
}

/// A block and, once it was appended, where.
#[derive(Clone, Debug)]
pub(super) struct Body {
    pub block: Arc<Block>,
    pub position: Option<LogPosition>,
}

/// Why there is no path between a block and the committed chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPath {
    /// This block is not here.
    Missing(Height, Digest),
    /// It does not extend the committed chain: more than f replicas lie.
    Conflict(Height),
}

/// (epoch, view, height): how certificates are compared.
pub(super) type Rank = (Epoch, View, Height);

pub(super) type Windows = BTreeMap<ReplicaId, SessionWindow>;

/// Bodies by hash, and the heights that order them.
///
/// Invariant: `executed <= executing <= committed`, all bodies in `(executed, committed]` are here and
/// `path` names them.
pub(super) struct Blocks {
    bodies: BTreeMap<Digest, Body>,
    by_height: BTreeMap<Height, Vec<Digest>>,
    /// Committed heights above `executed - keep`.
    pub path: BTreeMap<Height, Digest>,
    /// How many executed blocks stay in memory for peers that ask by hash.
    keep: u64,
    pub executed: Tip,
    /// The last height handed out for execution.
    pub executing: Height,
    /// The highest committed block with all ancestors here.
    pub committed: Tip,
    /// The highest commit certificate by rank; its block may be missing here.
    pub certificate: Option<Certificate>,
    /// Rank of the newest `Committed` record.
    pub logged: Option<Rank>,
    /// The highest prepared certificate by rank, and where it was appended.
    pub prepared: Option<(Certificate, LogPosition)>,
    /// Roots after the last executed heights.
    pub exec_roots: BTreeMap<Height, Digest>,
    /// Every origin's window after `executed`.
    pub windows: Windows,
    pub next_expiry: Option<Millis>,
}

impl Blocks {
    pub fn new(tip: Tip, exec_roots: BTreeMap<Height, Digest>, keep: u64) -> Self {
        Self {
            bodies: BTreeMap::new(),
            by_height: BTreeMap::new(),
            path: BTreeMap::new(),
            keep,
            executed: tip,
            executing: tip.height,
            committed: tip,
            certificate: None,
            logged: None,
            prepared: None,
            exec_roots,
            windows: BTreeMap::new(),
            next_expiry: None,
        }
    }

    pub fn get(&self, hash: &Digest) -> Option<&Body> {
        self.bodies.get(hash)
    }

    /// All blocks above a height, of any view, in ascending order of height.
    pub fn above(&self, height: Height) -> Vec<Arc<Block>> {
        self.by_height
            .range(height.next()..)
            .flat_map(|(_, hashes)| hashes)
            .filter_map(|hash| self.bodies.get(hash))
            .map(|body| Arc::clone(&body.block))
            .collect()
    }

    pub fn insert(&mut self, block: Arc<Block>, position: Option<LogPosition>) {
        let (height, hash) = (block.header.height, block.hash());
        let body = self.bodies.entry(hash).or_insert_with(|| {
            self.by_height.entry(height).or_default().push(hash);
            Body { block, position: None }
        });
        body.position = body.position.or(position);
    }

    /// The committed block at a height, as far as it is kept.
    pub fn committed_at(&self, height: Height) -> Option<&Body> {
        self.bodies.get(self.path.get(&height)?)
    }

    /// The hashes above the committed tip up to the named block, in ascending order; none if the
    /// block is the tip.
    pub fn path_to(&self, height: Height, hash: Digest) -> Result<Vec<(Height, Digest)>, NoPath> {
        let mut path = Vec::new();
        let (mut at, mut next) = (height, hash);
        while at > self.committed.height {
            let body = self.bodies.get(&next).ok_or(NoPath::Missing(at, next))?;
            if body.block.header.height != at {
                return Err(NoPath::Conflict(at));
            }
            path.push((at, next));
            (at, next) = (at.minus(1), body.block.header.parent);
        }
        let known = if at == self.committed.height {
            Some(self.committed.hash)
        } else {
            self.path.get(&at).copied()
        };
        if known.is_some_and(|known| known != next) {
            return Err(NoPath::Conflict(at));
        }
        path.reverse();
        Ok(path)
    }

    /// Moves the committed tip along `path`, whose blocks are all here.
    pub fn commit(&mut self, path: &[(Height, Digest)]) {
        for (height, hash) in path {
            assert_eq!(*height, self.committed.height.next(), "heights commit without a gap");
            let body = self.bodies.get(hash).expect("a committed path holds bodies");
            self.committed = Tip::of(&body.block.header, *hash);
            self.path.insert(*height, *hash);
        }
    }

    /// The windows after the block that ends `path`, which starts above the committed tip.
    pub fn windows_after(&self, path: &[(Height, Digest)]) -> Windows {
        let mut windows = self.windows.clone();
        let committed = self.path.range(self.executed.height.next()..).map(|(_, hash)| hash);
        for hash in committed.chain(path.iter().map(|(_, hash)| hash)) {
            let body = self.bodies.get(hash).expect("a path holds bodies");
            mark(&mut windows, &body.block);
        }
        windows
    }

    /// Takes note that the block at `executed + 1` was executed.
    pub fn executed(&mut self, root: Digest, next_expiry: Option<Millis>, window: u64) {
        let height = self.executed.height.next();
        let body = self.committed_at(height).expect("an executed block is committed").clone();
        mark(&mut self.windows, &body.block);
        self.executed = Tip::of(&body.block.header, body.block.hash());
        self.next_expiry = next_expiry;
        self.exec_roots.insert(height, root);
        self.exec_roots = self.exec_roots.split_off(&height.minus(2 * window));
        let floor = height.minus(self.keep);
        self.path = self.path.split_off(&floor);
        let kept = self.by_height.split_off(&floor);
        for hash in std::mem::replace(&mut self.by_height, kept).into_values().flatten() {
            self.bodies.remove(&hash);
        }
    }
}

/// Uses the sequence numbers of all bundles of a block and counts its REJOINs, as execution will.
pub(super) fn mark(windows: &mut Windows, block: &Block) {
    for entry in &block.entries {
        match entry {
            Entry::Bundle(bundle) => {
                let window = windows.entry(bundle.origin).or_default();
                for seq in bundle.first_seq..bundle.end_seq() {
                    window.mark(bundle.session, seq);
                }
            }
            Entry::Rejoin(rejoin) => {
                let window = windows.entry(rejoin.replica).or_default();
                window.rejoin(&rejoin.nonce, block.header.time_ms);
            }
        }
    }
}
