//! From what the disk holds to a state and a core that go on where the process stopped
//! (protocol.md 6): newest checkpoint, committed blocks above it executed again, every vote ever sent
//! known again. Blocks are executed as their certificates are read, so that a long log is never held.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::chain::{
    Block, BlockHeader, Certificate, CheckpointCertificate, Effects, Entry, EpochProof, Network,
    Record, Value, ValueRef, ValueSource, carry_root,
};
use crate::ordering::{Recovery, SeenVotes};
use crate::planted::{self, Bug};
use crate::state::State;
use crate::storage::log::Placed;
use crate::types::{Digest, Epoch, Height, LogPosition, ReplicaId, View};

/// Reads the log's records in order and executes what was committed.
pub(super) struct Replay<'a> {
    own: ReplicaId,
    state: State,
    values: &'a dyn ValueSource,
    base: Height,
    tip: Option<BlockHeader>,
    exec_roots: Vec<(Height, Digest)>,
    entered: Option<(Epoch, View, Height, Digest)>,
    view_change: Option<(Epoch, View, Bytes)>,
    prepared: Option<Certificate>,
    committed: Option<Certificate>,
    /// Not known to be committed, by hash.
    blocks: BTreeMap<Digest, (Placed, Arc<Block>)>,
    /// Committed, their effects not read yet, with the root that executing them here gave.
    executed: BTreeMap<Height, (Arc<Block>, Option<Digest>)>,
    /// What was executed in the newest segment: the index knows it from memory alone.
    tail: Vec<(u32, Arc<Block>, Effects)>,
    /// Certificates of checkpoints.
    stable: BTreeMap<Height, CheckpointCertificate>,
    session: u64,
    replayed: u64,
    /// How every epoch before the state's ended.
    epochs: Vec<EpochProof>,
    quarantined: Option<String>,
    fenced: Option<String>,
    rejoined: Option<Certificate>,
    seen: SeenVotes,
    failed: Option<String>,
}

/// A state after replay, and what the core must know.
pub(super) struct Replayed {
    pub(super) state: State,
    pub(super) recovery: Recovery,
    /// Where the blocks above the tip lie.
    pub(super) placed: BTreeMap<(Height, Digest), Placed>,
    /// What was executed in the newest segment of the log.
    pub(super) tail: Vec<(u32, Arc<Block>, Effects)>,
    /// Heights of the checkpoints a quorum is known to hold.
    pub(super) stable: Vec<Height>,
    /// Blocks executed again.
    pub(super) replayed: u64,
    /// How every epoch before the state's ended.
    pub(super) epochs: Vec<EpochProof>,
    /// Members and parameters where the state stands.
    pub(super) network: Network,
    pub(super) quarantined: Option<String>,
    /// Why the votes of this replica are lost, while it has not rejoined.
    pub(super) fenced: Option<String>,
}

/// Where the replay starts: genesis, or a checkpoint's header and the roots up to it.
pub(super) struct Base {
    pub(super) state: State,
    pub(super) header: Option<BlockHeader>,
    pub(super) exec_roots: Vec<(Height, Digest)>,
}

impl<'a> Replay<'a> {
    pub(super) fn new(base: Base, values: &'a dyn ValueSource, own: ReplicaId) -> Self {
        Self {
            own,
            base: base.header.as_ref().map_or(Height(0), |header| header.height),
            state: base.state,
            values,
            tip: base.header,
            exec_roots: base.exec_roots,
            entered: None,
            view_change: None,
            prepared: None,
            committed: None,
            blocks: BTreeMap::new(),
            executed: BTreeMap::new(),
            tail: Vec::new(),
            stable: BTreeMap::new(),
            session: 0,
            replayed: 0,
            epochs: Vec::new(),
            quarantined: None,
            fenced: None,
            rejoined: None,
            seen: SeenVotes::default(),
            failed: None,
        }
    }

    /// The highest session counter read so far.
    pub(super) fn session(&self) -> u64 {
        self.session
    }

    /// Takes note of one record; call it in the order of the log.
    pub(super) fn note(&mut self, placed: Placed, record: Record) {
        match record {
            Record::ViewEntered { epoch, view, base_height, base_hash } => {
                self.entered = Some((epoch, view, base_height, base_hash));
            }
            Record::ViewChangeSent { epoch, view, message } => {
                self.view_change = Some((epoch, view, message));
            }
            Record::Block(block) => {
                block.bundles().for_each(|bundle| self.seen.note_bundle(bundle));
                self.blocks.insert(block.hash(), (placed, block));
            }
            Record::Prepared(certificate) => {
                self.seen.note_certificate(&certificate, self.state.membership());
                keep_newest(&mut self.prepared, certificate);
            }
            Record::Committed(certificate) => {
                self.seen.note_certificate(&certificate, self.state.membership());
                self.execute_through(&certificate);
                keep_newest(&mut self.committed, certificate);
            }
            Record::EpochStart(proof) => self.end_of_epoch(proof),
            Record::Effects(effects) => self.compare(placed.segment, effects),
            Record::CheckpointStable(certificate) => {
                self.stable.insert(certificate.id.height, certificate);
            }
            Record::Session { counter } => self.session = self.session.max(counter),
            Record::Quarantined { reason } => {
                self.quarantined = Some(String::from_utf8_lossy(&reason).into_owned());
            }
            Record::Fenced { reason } => {
                self.fenced = Some(String::from_utf8_lossy(&reason).into_owned());
            }
            Record::Rejoined(certificate) => {
                self.fenced = None;
                self.rejoined = Some(certificate);
            }
        }
    }

    /// Executes the certified block and its ancestors that are not executed yet. A certificate whose
    /// chain is not held waits for one that is.
    fn execute_through(&mut self, certificate: &Certificate) {
        let tip_hash = self.tip.as_ref().map_or(Digest::ZERO, BlockHeader::hash);
        let mut chain = Vec::new();
        let mut hash = certificate.block_hash;
        while hash != tip_hash {
            let Some((placed, block)) = self.blocks.get(&hash) else { break };
            hash = block.header.parent;
            chain.push((*placed, block.clone()));
        }
        let below_base = chain.first().is_some_and(|(_, block)| block.header.height <= self.base);
        if hash != tip_hash && !below_base {
            return;
        }
        for (placed, block) in chain.into_iter().rev() {
            let height = block.header.height;
            let root = (height > self.base).then(|| self.execute(&block, placed)).flatten();
            if block.ends_epoch() && block.hash() == certificate.block_hash {
                let (block, certificate) = (block.clone(), certificate.clone());
                self.end_of_epoch(EpochProof { block, certificate });
            }
            self.executed.insert(height, (block, root));
            self.blocks.retain(|_, (_, other)| other.header.height > height);
        }
    }

    /// Keeps the first proof of each epoch's end; they come in order.
    fn end_of_epoch(&mut self, proof: EpochProof) {
        if proof.block.header.epoch.0 == self.epochs.len() as u64 {
            self.epochs.push(proof);
        }
    }

    fn execute(&mut self, block: &Arc<Block>, placed: Placed) -> Option<Digest> {
        if self.failed.is_some() {
            return None;
        }
        let refs = value_refs(block, placed);
        match crate::apply::execute(&mut self.state, block, &refs, self.values, self.own) {
            Ok(outcome) => {
                let root = outcome.effects.exec_root;
                let window = self.state.membership().parameters.window;
                let at = (block.header.height, root);
                let begins_epoch = block.ends_epoch() && !planted::is(Bug::RootsOfReplay);
                carry_root(&mut self.exec_roots, at, window, begins_epoch);
                self.tip = Some(block.header.clone());
                self.replayed += 1;
                Some(root)
            }
            Err(error) => {
                let height = block.header.height;
                self.failed = Some(format!("block {height} cannot be executed again: {error}"));
                None
            }
        }
    }

    /// What this replica found when it executed the block first must be what it finds now.
    fn compare(&mut self, segment: u32, effects: Effects) {
        self.tail.retain(|(of, ..)| *of == segment);
        let Some((block, root)) = self.executed.remove(&effects.height) else { return };
        if root.is_some_and(|root| root != effects.exec_root) {
            self.quarantined.get_or_insert(format!(
                "executing block {} again gave another root than the log holds; \
                 run `althing replica repair`",
                effects.height
            ));
        }
        self.executed = self.executed.split_off(&effects.height);
        self.tail.push((segment, block, effects));
    }

    /// Hands everything over; `log_end` is the last record's position.
    ///
    /// # Errors
    /// A value that execution needed could not be read.
    pub(super) fn finish(mut self, log_end: LogPosition) -> Result<Replayed, String> {
        if let Some(why) = self.failed {
            return Err(why);
        }
        let epoch = self.state.membership().epoch;
        // Later ones are of a state that was to be fetched.
        self.epochs.truncate(usize::try_from(epoch.0).unwrap_or(usize::MAX));
        if self.epochs.len() as u64 != epoch.0 {
            let known = self.epochs.len();
            return Err(format!(
                "the state is of epoch {epoch}, but the log proves the end of {known} epochs; run \
                 `althing replica repair`"
            ));
        }
        let executed = self.tip.as_ref().map_or(Height(0), |header| header.height);
        let above = || self.blocks.iter().filter(|(_, (_, block))| block.header.height > executed);
        let placed = above()
            .map(|(hash, (placed, block))| ((block.header.height, *hash), *placed))
            .collect();
        let blocks = above().map(|(_, (_, block))| block.clone()).collect();
        let recovery = Recovery {
            entered: self.entered,
            view_change: self.view_change,
            prepared: self.prepared,
            committed: self.committed,
            blocks,
            tip: self.tip,
            exec_roots: self.exec_roots,
            windows: self.state.sessions.windows().clone(),
            next_expiry: self.state.next_expiry(),
            administrators: self.state.administrators(),
            stable: self.stable.values().next_back().cloned(),
            checkpoints: Vec::new(),
            quarantined: self.quarantined.is_some(),
            fenced: self.fenced.is_some(),
            rejoined: self.rejoined,
            session_counter: self.session,
            seen: self.seen,
            log_end,
        };
        Ok(Replayed {
            recovery,
            placed,
            tail: self.tail,
            stable: self.stable.into_keys().collect(),
            replayed: self.replayed,
            epochs: self.epochs,
            network: self.state.network().clone(),
            state: self.state,
            quarantined: self.quarantined,
            fenced: self.fenced,
        })
    }
}

fn keep_newest(kept: &mut Option<Certificate>, certificate: Certificate) {
    if kept.as_ref().is_none_or(|kept| kept.rank() <= certificate.rank()) {
        *kept = Some(certificate);
    }
}

/// Where this replica keeps a block's values, entry by entry in slot order.
pub(super) fn value_refs(block: &Block, placed: Placed) -> Vec<Vec<ValueRef>> {
    // The record's tag byte stands before the encoded block.
    let start = placed.offset + 1;
    let refs_of = |(entry, offsets): (&Entry, Vec<u32>)| match entry {
        Entry::Bundle(bundle) => bundle
            .values
            .iter()
            .zip(bundle.slots())
            .zip(offsets)
            .map(|((value, slot), offset)| ValueRef {
                segment: placed.segment,
                offset: start + offset,
                length: u32::try_from(value.bytes.len()).expect("a value is at most a few MiB"),
                check: Value::check(&slot.commitment),
            })
            .collect(),
        Entry::Rejoin(_) => Vec::new(),
    };
    block.entries.iter().zip(block.value_offsets()).map(refs_of).collect()
}
