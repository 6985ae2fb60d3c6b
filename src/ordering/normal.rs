//! The normal case: propose, accept, vote, commit, execute (protocol.md 4 and 5).

use std::sync::Arc;

use crate::chain::{
    Block, BlockHeader, BlockParts, Bundle, Entry, Phase, Record, Vote, check, flags,
};
use crate::ordering::blocks::{Tip, mark};
use crate::ordering::core::Proposal;
use crate::ordering::{Core, Message, Recipients};
use crate::planted::{self, Bug};
use crate::types::{Digest, Height, LogPosition, Millis, ReplicaId, View};

/// Most bytes of a block that holds more than one bundle.
const BLOCK_BYTES_TARGET: usize = 1 << 20;
/// This much waiting fills a block although others are in flight (protocol.md 5.2).
const POOL_BYTES_EAGER: usize = 32 << 10;
/// So long a bundle waits at most while others are in flight.
const POOL_WAIT_MS: u64 = 1;
/// Without a block for so long the lease clock is carried forward.
pub(super) const TICK_MS: u64 = 1000;

/// What to do with a proposal now.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Accept,
    /// Not yet decidable here; it stays.
    Early,
    /// Bytes or chain decide: its primary is wrong.
    Faulty(&'static str),
    /// Its root is not the own: one of the two has diverged.
    OtherRoot,
}

impl Core {
    pub(super) fn on_pre_prepare(&mut self, peer: ReplicaId, block: Arc<Block>, prepare: Vote) {
        let header = &block.header;
        let (view, height, hash) = (header.view, header.height, block.hash());
        let newest = self.view.highest().next();
        let in_reach = view >= self.view.entered
            && view <= newest
            && height > self.blocks.committed.height
            && height <= self.blocks.executed.height.plus(2 * self.window);
        let from_primary = peer == self.membership.primary(view)
            && header.proposer == peer
            && prepare.signed.replica == peer;
        let one_block = (prepare.phase, prepare.epoch, prepare.view)
            == (Phase::Prepare, self.membership.epoch, view)
            && (prepare.signed.from_height, prepare.signed.hashes.as_slice()) == (height, &[hash]);
        if !from_primary || self.are_votes_refused(peer) {
            return self.waste(peer);
        }
        if !one_block {
            return;
        }
        if planted::is(Bug::TwoBlocksPerHeight) {
            self.prepare_a_second_block(view, height, hash);
        }
        let prepare = Arc::new(prepare);
        if !self.note_vote(&prepare) {
            return self.refuse_votes(peer);
        }
        self.fence.seen.note_vote(&prepare, &self.membership);
        if !in_reach || header.epoch != self.membership.epoch {
            return;
        }
        self.file_vote(&prepare, false);
        self.proposals.entry((view, height)).or_insert(Proposal { block, prepare });
        self.evaluate(&[(view, height)]);
    }

    /// [`Bug::TwoBlocksPerHeight`]: a vote for another block than the one accepted.
    fn prepare_a_second_block(&mut self, view: View, height: Height, hash: Digest) {
        let other = self.view.chain.get(&height).is_some_and(|accepted| *accepted != hash);
        if other && view == self.view.entered && self.is_normal() {
            let vote = self.sign_vote(Phase::Prepare, height, vec![hash]);
            self.send(Recipients::Others, Message::Votes(vec![vote]), self.log.durable);
        }
    }

    /// Accepts what its turn has come for, in chain order.
    pub(super) fn accept_proposals(&mut self) {
        while self.is_normal() {
            let key = (self.view.entered, self.view.tip.height.next());
            let Some(proposal) = self.proposals.get(&key) else { return };
            let (block, prepare) = (Arc::clone(&proposal.block), Arc::clone(&proposal.prepare));
            match self.judge(&block, &prepare) {
                Verdict::Early => return,
                Verdict::Accept => {
                    self.proposals.remove(&key);
                    self.accept(&block);
                    self.file_vote(&prepare, true);
                    self.evaluate(&[key]);
                }
                Verdict::Faulty(_) => {
                    self.proposals.remove(&key);
                    self.counters.refused_proposals += 1;
                    self.suspect();
                }
                Verdict::OtherRoot => {
                    self.counters.refused_proposals += 1;
                    self.view.refused_roots.insert((key.0, key.1, block.hash()));
                    self.suspect();
                    self.evaluate(&[key]);
                }
            }
        }
    }

    /// The conditions of protocol.md 4.1, cheapest first.
    fn judge(&mut self, block: &Arc<Block>, prepare: &Vote) -> Verdict {
        let header = &block.header;
        let executed = self.blocks.executed.height;
        if header.height > executed.plus(self.window) {
            return Verdict::Early;
        }
        let time_is_early = self.unix_now().is_none_or(|now| {
            header.time_ms > self.view.tip.time_ms && header.time_ms > now.plus(self.time_bound())
        });
        if time_is_early {
            return Verdict::Early;
        }
        let empty = block.entries.is_empty();
        if empty && executed < self.view.tip.height {
            return Verdict::Early;
        }
        if self.ends_here(&self.view.tip) {
            return Verdict::Faulty("a block on top of its epoch's last");
        }
        let change = block.bundles().any(|bundle| bundle.config_change().is_some());
        if change && self.is_change_early() {
            return Verdict::Early;
        }
        let flags = match (empty, change && self.judge_change(block).is_ok()) {
            (true, _) => flags::TICK,
            (false, true) => flags::CONFIG,
            (false, false) => 0,
        };
        let expected = self.header_after(self.view.tip, header.time_ms, flags);
        let expected = BlockHeader {
            body_root: header.body_root,
            skeleton_len: header.skeleton_len,
            values_len: header.values_len,
            n_ops: header.n_ops,
            exec_root: header.exec_root,
            ..expected
        };
        if *header != expected {
            return Verdict::Faulty("a header field is not what the chain demands");
        }
        if header.time_ms < self.view.tip.time_ms {
            return Verdict::Faulty("block time falls");
        }
        if empty && !self.tick_is_due(header.time_ms) {
            return Verdict::Faulty("an empty block that no lease needs");
        }
        if self.blocks.exec_roots.get(&header.exec_height) != Some(&header.exec_root) {
            return Verdict::OtherRoot;
        }
        if !self.verify_vote(prepare) {
            self.counters.bad_signatures += 1;
            return Verdict::Faulty("the primary did not sign its proposal");
        }
        self.judge_entries(block)
    }

    fn judge_entries(&mut self, block: &Arc<Block>) -> Verdict {
        if block.encoded().len() > BLOCK_BYTES_TARGET && block.entries.len() > 1 {
            return Verdict::Faulty("a block above 1 MiB with more than one entry");
        }
        let change = block.bundles().any(|bundle| bundle.config_change().is_some());
        if change && block.entries.len() > 1 {
            return Verdict::Faulty("a change of members or parameters that is not alone");
        }
        if !block.has_values() {
            return Verdict::Faulty("a proposal without values");
        }
        if block.bundles().filter(|bundle| bundle.proof().is_some()).count() > 1 {
            return Verdict::Faulty("more than one proof in a block");
        }
        let mut windows = self.view.windows.clone();
        for entry in &block.entries {
            let bundle = match entry {
                Entry::Bundle(bundle) => bundle,
                Entry::Rejoin(rejoin) => {
                    let window = windows.entry(rejoin.replica).or_default();
                    if !self.rejoin_holds(rejoin, window, block.header.time_ms) {
                        return Verdict::Faulty("a REJOIN that no correct primary proposes");
                    }
                    window.rejoin(&rejoin.nonce, block.header.time_ms);
                    continue;
                }
            };
            let window = windows.entry(bundle.origin).or_default();
            let ops = bundle.skeletons.len() as u64;
            if !window.admits(bundle.session, bundle.first_seq, ops) {
                return Verdict::Faulty("a bundle outside its origin's window");
            }
            for seq in bundle.first_seq..bundle.end_seq() {
                window.mark(bundle.session, seq);
            }
            if !self.pool.holds(bundle) && !self.check_bundle(bundle) {
                return Verdict::Faulty("a bundle that no correct primary proposes");
            }
        }
        Verdict::Accept
    }

    pub(super) fn check_bundle(&mut self, bundle: &Bundle) -> bool {
        self.counters.verifications += bundle.signatures();
        let checked = check::bundle(bundle, &self.membership, &self.trust());
        if checked.is_ok() {
            self.note_bundle(bundle);
            self.note_proof(bundle);
        }
        checked.is_ok()
    }

    /// D, doubled per failed view so that bad clocks slow the network down but never stop it.
    fn time_bound(&self) -> u64 {
        self.membership.parameters.time_bound_ms << self.view.failures.min(4)
    }

    /// Whether leases want a block at this time. Both sides ask with the parent executed, so that it
    /// follows from the chain alone.
    fn tick_is_due(&self, time: Millis) -> bool {
        assert_eq!(self.blocks.executed.height, self.view.tip.height, "the parent is executed");
        self.blocks
            .next_expiry
            .is_some_and(|expiry| time >= expiry || time >= self.view.tip.time_ms.plus(TICK_MS))
    }

    /// A header on `parent`, body fields empty.
    fn header_after(&self, parent: Tip, time_ms: Millis, flags: u16) -> BlockHeader {
        let height = parent.height.next();
        let exec_height = height.minus(self.window).max(self.epochs.start.0);
        let exec_root = self.blocks.exec_roots.get(&exec_height).copied().unwrap_or_default();
        BlockHeader {
            flags,
            cluster_id: self.cluster_id,
            epoch: self.membership.epoch,
            height,
            view: self.view.entered,
            proposer: self.primary(),
            time_ms,
            parent: parent.hash,
            body_root: Digest::ZERO,
            skeleton_len: 0,
            values_len: 0,
            n_ops: 0,
            exec_height,
            exec_root,
            config_hash: self.config_hash,
        }
    }

    /// Puts a block on top of the own chain and into the log.
    fn accept(&mut self, block: &Arc<Block>) {
        let (height, hash) = (block.header.height, block.hash());
        if self.view.tip.height == self.blocks.committed.height {
            self.view.progress_ms = self.now_ms;
        }
        self.log_block(block);
        self.view.chain.insert(height, hash);
        self.view.tip = Tip::of(&block.header, hash);
        mark(&mut self.view.windows, block);
        for bundle in block.bundles() {
            let key = (bundle.session, bundle.first_seq);
            self.note_wait(bundle.origin, key);
            self.pool.remove(bundle.origin, key, self.now_ms);
            self.fence.seen.note_bundle(bundle);
        }
        self.drop_used_rejoins();
    }

    /// Appends a block unless it is in the log.
    pub(super) fn log_block(&mut self, block: &Arc<Block>) -> LogPosition {
        let hash = block.hash();
        if let Some(position) = self.blocks.get(&hash).and_then(|body| body.position) {
            return position;
        }
        let position = self.append(Record::Block(Arc::clone(block)));
        self.blocks.insert(Arc::clone(block), Some(position));
        position
    }

    /// Proposes while there is something to order and room in the window; no batch timer
    /// (protocol.md 5.2).
    pub(super) fn propose(&mut self) {
        while self.may_propose() {
            let tip = self.view.tip;
            let Some(now) = self.unix_now() else { return };
            let time_ms = now.max(tip.time_ms);
            let in_flight = tip.height > self.blocks.committed.height;
            let wanted = if in_flight { self.pool_is_ripe() } else { self.pool.count > 0 };
            let mut entries = self.due_rejoins(time_ms);
            let wanted = wanted && entries.is_empty();
            if wanted && self.pool.next_change(&self.view.windows).is_some() {
                if self.is_change_early() {
                    return;
                }
                self.propose_change(time_ms);
                continue;
            }
            if wanted {
                let mut windows = self.view.windows.clone();
                let bundles = self.pool.take(&mut windows, BLOCK_BYTES_TARGET - 1024, self.now_ms);
                entries.extend(bundles.into_iter().map(Entry::Bundle));
            }
            let tick = entries.is_empty();
            if tick {
                let idle = !in_flight && self.blocks.executed.height == tip.height;
                if !idle || !self.tick_is_due(time_ms) {
                    return;
                }
            }
            let flags = if tick { flags::TICK } else { 0 };
            let header = self.header_after(tip, time_ms, flags);
            self.send_proposal(Arc::new(BlockParts::new(entries).into_block(header)));
        }
    }

    /// Proposes the change that waits, alone in its block; the CONFIG flag says whether it is made.
    fn propose_change(&mut self, time_ms: Millis) {
        let Some((origin, key)) = self.pool.next_change(&self.view.windows) else { return };
        let bundle = self.pool.remove(origin, key, self.now_ms).expect("just found");
        let entries = vec![Entry::Bundle(bundle)];
        let header = self.header_after(self.view.tip, time_ms, 0);
        let mut block = BlockParts::new(entries.clone()).into_block(header);
        if self.judge_change(&block).is_ok() {
            let header = BlockHeader { flags: flags::CONFIG, ..block.header };
            block = BlockParts::new(entries).into_block(header);
        }
        self.send_proposal(Arc::new(block));
    }

    fn may_propose(&self) -> bool {
        let tip = self.view.tip.height;
        self.is_normal()
            && (self.is_voter() || planted::is(Bug::LeadsWithoutKey))
            && !self.ends_here(&self.view.tip)
            && self.primary() == self.own
            && self.view.fresh
            && !self.view.leaving
            && tip >= self.blocks.committed.height
            && tip < self.blocks.executed.height.plus(self.window)
            && tip < self.blocks.committed.height.plus(self.window)
    }

    fn pool_is_ripe(&self) -> bool {
        self.pool.bytes >= POOL_BYTES_EAGER
            || self.pool.oldest_ms().is_some_and(|oldest| self.now_ms >= oldest + POOL_WAIT_MS)
    }

    /// When [`Core::propose`] would do something that it does not do now.
    pub(super) fn propose_deadline(&self) -> Option<u64> {
        if !self.may_propose() {
            return None;
        }
        let tip = self.view.tip;
        if self.is_change_early() && self.pool.next_change(&self.view.windows).is_some() {
            // Executing the parent is what it waits for.
            return None;
        }
        if self.pool.count > 0 {
            return self.pool.oldest_ms().map(|oldest| oldest + POOL_WAIT_MS);
        }
        if tip.height > self.blocks.executed.height {
            return None;
        }
        let due = self.blocks.next_expiry?.min(tip.time_ms.plus(TICK_MS));
        let now = self.unix_now()?;
        Some(self.now_ms + due.0.saturating_sub(now.0))
    }

    /// A primary's own PREPARE counts before its block is durable; its PRE-PREPARE waits for
    /// `ViewEntered` alone (R1, protocol.md 6.1).
    fn send_proposal(&mut self, block: Arc<Block>) {
        let (height, hash) = (block.header.height, block.hash());
        self.counters.proposals += 1;
        self.accept(&block);
        let prepare = self.sign_vote(Phase::Prepare, height, vec![hash]);
        let mut gate = self.view.entered_position.max(self.fence.gate());
        if self.blocks.committed.height == Height(0) {
            // The first blocks of a network: who restarts with none of them never voted (6.6).
            gate = gate.max(self.log.end);
        }
        if planted::is(Bug::UngatedProposal) {
            gate = LogPosition(0);
        }
        let message = Message::PrePrepare { block, prepare: prepare.clone() };
        self.send(Recipients::Voters, message, gate);
        self.view.own_votes.push(prepare.clone());
        self.file_vote(&Arc::new(prepare), true);
        self.evaluate(&[(self.view.entered, height)]);
    }
}
