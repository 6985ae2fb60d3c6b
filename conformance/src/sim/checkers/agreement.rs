//! One chain: one block and one root per height on all honest replicas, each block on the one before.

use std::collections::BTreeMap;

use althing::chain::{Block, CheckpointId};
use althing::types::{Digest, Epoch, Height};

/// What the honest replicas executed.
pub struct Agreement {
    blocks: BTreeMap<Height, Digest>,
    epochs: BTreeMap<Height, Epoch>,
    times: BTreeMap<Height, u64>,
    roots: BTreeMap<Height, Digest>,
    checkpoints: BTreeMap<Height, CheckpointId>,
}

impl Agreement {
    /// Before the first block.
    #[must_use]
    pub fn new(genesis_root: Digest) -> Self {
        let blocks = BTreeMap::from([(Height(0), Digest::ZERO)]);
        let roots = BTreeMap::from([(Height(0), genesis_root)]);
        Self {
            blocks,
            epochs: BTreeMap::new(),
            times: BTreeMap::from([(Height(0), 0)]),
            roots,
            checkpoints: BTreeMap::new(),
        }
    }

    /// The highest height anyone executed.
    #[must_use]
    pub fn top(&self) -> Height {
        self.blocks.keys().next_back().copied().unwrap_or_default()
    }

    /// The block at a height, and its epoch.
    #[must_use]
    pub fn block(&self, height: Height) -> Option<(Epoch, Digest)> {
        Some((*self.epochs.get(&height)?, *self.blocks.get(&height)?))
    }

    /// The highest block's time.
    #[must_use]
    pub fn time_ms(&self) -> u64 {
        self.times.values().next_back().copied().unwrap_or(0)
    }

    /// The root after a height, if anyone executed it.
    #[must_use]
    pub fn root(&self, height: Height) -> Option<Digest> {
        self.roots.get(&height).copied()
    }

    /// An honest replica holds a checkpoint, or a certificate of one: byte for byte the same everywhere,
    /// whenever it was begun, swept or moved.
    ///
    /// # Errors
    /// Another one is known at its height.
    pub fn checkpoint(&mut self, id: &CheckpointId) -> Result<(), String> {
        let known = *self.checkpoints.entry(id.height).or_insert(*id);
        if known == *id {
            Ok(())
        } else {
            Err(format!("two checkpoints at {}: {known:?} and {id:?}", id.height))
        }
    }

    /// A replica is about to execute a block; true if it is the first to do so.
    ///
    /// # Errors
    /// What does not fit.
    pub fn executes(&mut self, block: &Block) -> Result<bool, String> {
        let header = &block.header;
        let height = header.height;
        if let Some(other) = self.blocks.get(&height) {
            if *other != block.hash() {
                return Err(format!("two blocks at {height}: {other:?} and {:?}", block.hash()));
            }
            return Ok(false);
        }
        let below = height.minus(1);
        if self.blocks.get(&below) != Some(&header.parent) {
            return Err(format!("block {height} does not stand on the block before it"));
        }
        if self.times.get(&below).is_some_and(|time| header.time_ms.0 < *time) {
            return Err(format!("block {height} goes back in time"));
        }
        if self.roots.get(&header.exec_height) != Some(&header.exec_root) {
            return Err(format!("block {height} carries a wrong root of {}", header.exec_height));
        }
        self.blocks.insert(height, block.hash());
        self.epochs.insert(height, header.epoch);
        self.times.insert(height, header.time_ms.0);
        Ok(true)
    }

    /// A replica executed a block.
    ///
    /// # Errors
    /// Another root than the others'.
    pub fn executed(&mut self, height: Height, root: Digest) -> Result<(), String> {
        let first = *self.roots.entry(height).or_insert(root);
        if first == root {
            return Ok(());
        }
        Err(format!("two roots after {height}: {first:?} and {root:?}"))
    }
}
