//! From an empty log or a recovered one to a running core (protocol.md 6.3). Whether the log is the
//! newest this replica ever had is the fence's question.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::chain::{Block, Certificate, EpochProof, REJOIN_SHIFT, Record};
use crate::codec::Decode;
use crate::ordering::blocks::{Blocks, NoPath, Tip};
use crate::ordering::catch_up::CatchUp;
use crate::ordering::checkpoints::Checkpoints;
use crate::ordering::core::Log;
use crate::ordering::epochs::Epochs;
use crate::ordering::feed::Feed;
use crate::ordering::fence::Fence;
use crate::ordering::pace::Pace;
use crate::ordering::pool::Pool;
use crate::ordering::reads::Reads;
use crate::ordering::transfer::Transfer;
use crate::ordering::view::ViewState;
use crate::ordering::votes::Votes;
use crate::ordering::witness::Witness;
use crate::ordering::{Core, CoreConfig, Counters, Message, Recovery};
use crate::types::{Digest, Height, LogPosition, View};

impl Core {
    /// A core at the end of the log that `config.recovery` describes. Its first step emits what a
    /// start needs; give it a tick and the wall clock first.
    #[must_use]
    pub fn new(config: CoreConfig) -> Self {
        let CoreConfig { cluster_id, own, network, epochs, scheme, start_nonce, .. } = config;
        let membership = network.membership.clone();
        let known = EpochProof::memberships(&config.first, &epochs, &cluster_id, scheme.as_ref());
        let epochs = Epochs::new(network, epochs, known);
        let window = u64::from(membership.parameters.window);
        let genesis = Tip::genesis(config.genesis_ms);
        let header = config.recovery.as_ref().and_then(|recovery| recovery.tip.as_ref());
        let tip = header.map_or(genesis, |header| Tip::of(header, header.hash()));
        let mut exec_roots: BTreeMap<Height, Digest> = BTreeMap::new();
        if tip.height == Height(0) {
            exec_roots.insert(Height(0), config.genesis_root);
        }
        let blocks = Blocks::new(tip, exec_roots, 4 * window);
        let base = epochs.start;
        let mut core = Self {
            cluster_id,
            own,
            config_hash: membership.config_hash(),
            quorum: membership.quorum(),
            membership,
            epochs,
            scheme,
            window,
            now_ms: 0,
            wall: None,
            log: Log { end: LogPosition(0), durable: LogPosition(0) },
            blocks,
            votes: Votes::default(),
            view: ViewState::new(View(0), base, tip, BTreeMap::new()),
            proposals: BTreeMap::new(),
            pool: Pool::default(),
            reads: Reads::new(start_nonce),
            catch_up: CatchUp::default(),
            feed: Feed::default(),
            fence: Fence::new(start_nonce),
            transfer: Transfer::default(),
            checkpoints: Checkpoints::default(),
            peers: BTreeMap::new(),
            witness: Witness::default(),
            accounts: BTreeMap::new(),
            quorum_since_ms: None,
            next_status_ms: 0,
            pace: Pace::default(),
            clock_is_off: false,
            started: false,
            quarantined: false,
            halted: false,
            counters: Counters::default(),
            out: Vec::new(),
        };
        if let Some(recovery) = config.recovery {
            core.recover(recovery);
        }
        core
    }

    fn recover(&mut self, recovery: Recovery) {
        self.log = Log { end: recovery.log_end, durable: recovery.log_end };
        self.quarantined = recovery.quarantined;
        self.fence.seen = recovery.seen;
        self.fence.known.session = recovery.session_counter;
        self.blocks.exec_roots.extend(recovery.exec_roots);
        self.blocks.windows = recovery.windows;
        self.blocks.next_expiry = recovery.next_expiry;
        self.epochs.administrators = recovery.administrators;
        self.checkpoints.recover(recovery.stable, recovery.checkpoints);
        for block in recovery.blocks {
            self.blocks.insert(block, Some(LogPosition(0)));
        }
        self.blocks.prepared = recovery.prepared.map(|certificate| (certificate, LogPosition(0)));
        if let Some(committed) = recovery.committed {
            self.recover_committed(committed);
        }
        let epoch = self.membership.epoch;
        let entered = recovery.entered.filter(|(of, ..)| *of == epoch);
        let fenced = recovery.fenced;
        let Some((_, view, base_height, base_hash)) = entered else {
            let windows = self.blocks.windows_after(&[]);
            let (base, tip) = (self.epochs.start, self.blocks.committed);
            self.view = ViewState::new(View(0), base, tip, windows);
            self.view.chain.insert(base.0, base.1);
            self.view.mark = base.0;
            self.view.fresh = !fenced;
            self.fence.unrecorded = true;
            if fenced || recovery.entered.is_some() || recovery.rejoined.is_some() {
                // Nothing was promised in this epoch yet.
                self.recover_known(Height(0));
                self.fence.recovered(fenced, recovery.rejoined.as_ref(), View(0));
            }
            return;
        };
        let windows = self.blocks.windows_after(&[]);
        let tip = self.blocks.committed;
        self.view = ViewState::new(view, (base_height, base_hash), tip, windows);
        // It stands in the log: durable.
        self.view.entered_position = LogPosition(0);
        self.recover_chain();
        let asked = recovery.view_change.filter(|(of, asked, _)| *of == epoch && *asked > view);
        if let Some((_, asked, bytes)) = asked
            && let Ok(Message::ViewChange(view_change)) = Message::from_bytes(bytes)
        {
            self.view.pending = Some(asked);
            self.view.failures = 1;
            self.view.view_changes.insert(self.own, Arc::clone(&view_change));
            self.view.own_view_change = Some((view_change, LogPosition(0)));
        }
        // Before the first block everything is as if this process had entered (protocol.md 6.6).
        self.view.fresh = self.view.pending.is_none()
            && view == View(0)
            && self.view.tip.height == Height(0)
            && self.blocks.prepared.is_none()
            && self.blocks.certificate.is_none()
            && self.blocks.above(Height(0)).is_empty()
            && !fenced
            && recovery.rejoined.is_none();
        let own_views = if self.view.fresh { view } else { view.next() };
        self.recover_known(Height(u64::MAX));
        self.fence.recovered(fenced, recovery.rejoined.as_ref(), own_views);
    }

    /// The newest own vote of each kind that the log justifies: votes leave after their records, so a
    /// newer one is proof that records are gone.
    ///
    /// R1: proposals leave before their block is durable, in views that are: up to `proposed`.
    fn recover_known(&mut self, proposed: Height) {
        let (epoch, view) = (self.membership.epoch, self.view.entered);
        let rank = |certificate: Option<&Certificate>| certificate.map(Certificate::rank);
        let prepared = rank(self.blocks.prepared.as_ref().map(|(certificate, _)| certificate));
        let committed = rank(self.blocks.certificate.as_ref());
        let above = self.blocks.above(self.blocks.committed.height);
        let of_view = above.iter().filter(|block| block.header.view == view);
        let blocks = of_view.map(|block| block.header.height).max().unwrap_or_default();
        let accepted = blocks.max(self.view.base.0).max(self.blocks.committed.height);
        let rejoins = self.committed_rejoins();
        let known = &mut self.fence.known;
        known.commit = prepared.max(committed).unwrap_or_default();
        known.prepare = (epoch, view, accepted);
        known.proposal = (epoch, view, proposed);
        known.asked = (epoch, self.view.highest());
        known.session |= rejoins << REJOIN_SHIFT;
    }

    /// What was committed is executed again from where the state stands.
    fn recover_committed(&mut self, committed: Certificate) {
        match self.blocks.path_to(committed.height, committed.block_hash) {
            Ok(path) => self.blocks.commit(&path),
            Err(NoPath::Missing(..)) => {}
            Err(NoPath::Conflict(height)) => {
                self.halt(format!("the log's commit certificate contradicts height {height}"));
            }
        }
        self.blocks.logged = Some(committed.rank());
        self.blocks.certificate = Some(committed);
    }

    /// Rebuilds the chain of the view from the log, hence the votes that may have been sent: a block
    /// accepted in the view is the only one of that view at its height, unless another one was
    /// caught up. Then it is not told which had the vote, and none is given again.
    fn recover_chain(&mut self) {
        let (base_height, base_hash) = self.view.base;
        let mut of_view: BTreeMap<Height, Vec<Arc<Block>>> = BTreeMap::new();
        for block in self.blocks.above(base_height) {
            if block.header.view == self.view.entered && block.header.epoch == self.membership.epoch
            {
                of_view.entry(block.header.height).or_default().push(block);
            }
        }
        self.view.chain.insert(base_height, base_hash);
        let path = self.blocks.path_to(base_height, base_hash).unwrap_or_default();
        if let Some((_, hash)) = path.last()
            && let Some(body) = self.blocks.get(hash)
        {
            self.view.tip = Tip::of(&body.block.header, *hash);
        }
        let mut chain: Vec<(Height, Digest)> = path;
        let mut unclear = false;
        // What was accepted lay within W of what is committed in the log before it; blocks above came
        // in a page whose certificate was lost with the end of the log.
        let window = self.blocks.committed.height.plus(self.window);
        for (height, blocks) in &of_view {
            let next = self.view.tip.height.next();
            let child = blocks.iter().find(|block| block.header.parent == self.view.tip.hash);
            if *height <= self.blocks.committed.height {
                unclear |= blocks.len() > 1;
                continue;
            }
            match child {
                Some(block)
                    if blocks.len() == 1 && *height == next && *height <= window && !unclear =>
                {
                    self.view.tip = Tip::of(&block.header, block.hash());
                    self.view.chain.insert(*height, block.hash());
                    chain.push((*height, block.hash()));
                }
                _ => unclear = true,
            }
        }
        self.view.windows = self.blocks.windows_after(&chain);
        let certified = self.blocks.committed.height;
        if certified > base_height {
            self.view.chain.insert(certified, self.blocks.committed.hash);
        }
        let start = self.epochs.start.0;
        let first = if base_height == start { start.next() } else { base_height };
        let highest = of_view.keys().next_back().copied().unwrap_or(base_height);
        self.view.prepare_next = if unclear { highest.next() } else { first };
        self.view.commit_next = first;
        // A certificate of an older view is not above this view's base, or was dropped by it.
        let prepared = self.prepared_here();
        let of_view = prepared.filter(|certificate| certificate.view == self.view.entered);
        let prepared = of_view.map_or(base_height, |certificate| certificate.height);
        self.view.mark = prepared.max(certified).max(base_height);
    }

    /// The first step's outputs.
    pub(super) fn start(&mut self) {
        self.next_status_ms = self.now_ms;
        self.view.since_ms = self.now_ms;
        self.view.progress_ms = self.now_ms;
        let members: BTreeSet<_> = self.membership.members.iter().map(|member| member.id).collect();
        for id in members.into_iter().filter(|id| *id != self.own) {
            self.peers.entry(id).or_default();
        }
        self.announce_epoch();
        if self.quarantined {
            return;
        }
        if self.fence.unrecorded
            && let Some(proof) = self.epochs.proofs.last().cloned()
        {
            // A crash may have come between the CONFIG block's execution and these records.
            self.append(Record::EpochStart(proof));
            if !self.fence.is_empty() && !self.fence.is_fenced() {
                self.view.entered_position = self.record_first_view();
            }
        }
        self.start_fence();
    }
}
