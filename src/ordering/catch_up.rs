//! Fetching what others have: pages of committed blocks, and single bodies (protocol.md 11).

use std::sync::Arc;

use crate::chain::{Block, Certificate, Phase};
use crate::ordering::blocks::NoPath;
use crate::ordering::{Core, Message, Output, message::PAGE_BLOCKS_MAX};
use crate::planted::{self, Bug};
use crate::types::{Digest, Height, ReplicaId};

/// A proposal may still be under way when its certificate comes.
const GRACE_MS: u64 = 30;
/// Then another peer is asked.
const ANSWER_MS: u64 = 1000;

/// What is asked for now. Only a certificate sets a target: a claimed height moves nothing.
#[derive(Default)]
pub(super) struct CatchUp {
    /// Since when blocks below the certificate are missing.
    missing_since_ms: Option<u64>,
    page: Option<Asked>,
    /// A certificate below the target, of which the lowest blocks did not fit into a page.
    through: Option<Certificate>,
    body: Option<(Digest, Asked)>,
    /// Rotates over the peers that can answer.
    turn: usize,
}

struct Asked {
    peer: ReplicaId,
    until_ms: u64,
}

/// Whether a block holds all values, each the one committed to.
pub(super) fn body_is_whole(block: &Block) -> bool {
    block.has_values()
        && block.bundles().all(|bundle| {
            let slots = bundle.slots();
            slots.len() == bundle.values.len()
                && slots
                    .iter()
                    .zip(&bundle.values)
                    .all(|(slot, value)| slot.commitment == value.commitment())
        })
}

impl Core {
    /// Asks for what is missing, if nobody has been asked or the one asked is late.
    pub(super) fn fetch_missing(&mut self) {
        if self.quarantined || self.has_left() {
            return;
        }
        self.fetch_page();
        self.fetch_body();
    }

    /// Whether this peer was asked for the page that is wanted now.
    pub(super) fn page_asked_of(&self, peer: ReplicaId) -> bool {
        self.catch_up.page.as_ref().is_some_and(|asked| asked.peer == peer)
    }

    fn fetch_page(&mut self) {
        if !self.transfer.is_idle() {
            self.catch_up.page = None;
            return;
        }
        let committed = self.blocks.committed.height;
        let target = self.blocks.certificate.as_ref().filter(|cert| cert.height > committed);
        let Some(target) = target else {
            self.catch_up.missing_since_ms = None;
            self.catch_up.page = None;
            return;
        };
        let signers = signers(target);
        let (until, _) = self.missing_of_page().unwrap_or((target.height, Digest::ZERO));
        if committed > self.blocks.executed.height.plus(4 * self.window) {
            // Bodies stay in memory until they are executed: one page at a time.
            return;
        }
        let since = *self.catch_up.missing_since_ms.get_or_insert(self.now_ms);
        if self.now_ms < since + GRACE_MS {
            return;
        }
        if self.catch_up.page.as_ref().is_some_and(|asked| self.now_ms < asked.until_ms) {
            return;
        }
        let Some(peer) = self.next_holder(&signers) else { return };
        self.catch_up.page = Some(Asked { peer, until_ms: self.now_ms + ANSWER_MS });
        self.tell(peer, Message::GetBlocks { from: committed.next(), until });
        self.missed_feed();
    }

    /// The base of a view that could begin: bodies above what is certified as committed.
    fn fetch_body(&mut self) {
        let Some(waiting) = &self.view.waiting else {
            self.catch_up.body = None;
            return;
        };
        let Err(NoPath::Missing(height, hash)) =
            self.blocks.path_to(waiting.base.0, waiting.base.1)
        else {
            self.catch_up.body = None;
            return;
        };
        let certified = self.blocks.certificate.as_ref().map(|cert| cert.height);
        if certified.is_some_and(|certified| height <= certified) {
            return;
        }
        let asked = self.catch_up.body.as_ref();
        if asked.is_some_and(|(of, asked)| *of == hash && self.now_ms < asked.until_ms) {
            return;
        }
        let holders = waiting.holders.clone();
        let Some(peer) = self.next_holder(&holders) else { return };
        let until_ms = self.now_ms + ANSWER_MS / 4;
        self.catch_up.body = Some((hash, Asked { peer, until_ms }));
        self.tell(peer, Message::GetBody { hash });
    }

    /// Signers take turns; one that lied or is not connected is passed over while others are left. Of
    /// the signers of an epoch long ago only liars may be left: everybody is asked.
    fn next_holder(&mut self, signers: &[ReplicaId]) -> Option<ReplicaId> {
        let up = self.peers.iter().filter(|(_, peer)| peer.up).map(|(id, _)| *id);
        let linked: Vec<ReplicaId> = up.filter(|id| !self.is_banned(*id)).collect();
        let wanted = |id: &ReplicaId| signers.contains(id) || self.is_epochs_behind();
        let mut candidates: Vec<ReplicaId> = linked.iter().copied().filter(wanted).collect();
        if candidates.is_empty() {
            candidates = linked;
        }
        if candidates.is_empty() {
            candidates = signers.iter().copied().filter(|id| *id != self.own).collect();
        }
        self.catch_up.turn = self.catch_up.turn.wrapping_add(1);
        candidates.get(self.catch_up.turn.checked_rem(candidates.len())?).copied()
    }

    pub(super) fn catch_up_deadline(&self) -> Option<u64> {
        let grace = self.catch_up.missing_since_ms.map(|since| since + GRACE_MS);
        let page = self.catch_up.page.as_ref().map(|asked| asked.until_ms);
        let body = self.catch_up.body.as_ref().map(|(_, asked)| asked.until_ms);
        [grace, page, body].into_iter().flatten().filter(|at| *at > self.now_ms).min()
    }

    /// A certificate shown by a peer, as healing or as the proof of a height it claimed.
    pub(super) fn on_certificate(&mut self, peer: ReplicaId, certificate: Certificate) {
        let known = self.blocks.certificate.as_ref().map(Certificate::rank);
        if certificate.epoch != self.membership.epoch {
            // Of an epoch before: nothing new. Of a later one: not to be judged before it is reached.
            return;
        }
        let newer = known.is_none_or(|known| certificate.rank() > known);
        let doubted = self.peers.get(&peer).is_some_and(|peer| peer.doubted.is_some());
        let commits = certificate.phase == Phase::Commit;
        let useful = commits && (newer || self.contradicts(&certificate)) || doubted;
        let cost = certificate.signatures.len() as u64;
        if !useful || !self.may_verify(peer, cost) {
            return;
        }
        if !self.certificate_holds(&certificate) {
            self.counters.bad_signatures += 1;
            return self.ban(peer, "a certificate that certifies nothing");
        }
        self.proved(peer, certificate.height);
        self.fence.seen.note_certificate(&certificate, &self.membership);
        if certificate.phase == Phase::Commit {
            self.adopt_commit(certificate);
        }
    }

    pub(super) fn on_get_blocks(&mut self, peer: ReplicaId, from: Height, until: Height) {
        // Who left may see its last epoch's blocks to the end, and no more (protocol.md 20.6).
        let member = self.membership.member(peer).is_some();
        let end = if member { self.blocks.committed.height } else { self.epochs.start.0 };
        let until = until.min(end).min(from.plus(PAGE_BLOCKS_MAX as u64 - 1));
        if from <= until && from > Height(0) {
            let instead = self.instead_of(from);
            self.out.push(Output::ServeBlocks { to: peer, from, until, instead });
        }
    }

    /// A page proves itself: its last header is certified and every other is an ancestor.
    pub(super) fn on_blocks(
        &mut self,
        peer: ReplicaId,
        blocks: Vec<Arc<Block>>,
        certificate: Certificate,
    ) {
        let asked = self.page_asked_of(peer);
        if !asked && !self.is_feeder(peer) {
            if !self.was_feeder(peer) {
                self.waste(peer);
            }
            return;
        }
        let last = blocks.last().map(|block| (block.header.height, block.hash()));
        let committed = self.blocks.committed;
        if last.is_some_and(|(height, _)| height <= committed.height) {
            return;
        }
        // Or what an earlier process of this replica asked for, which held more.
        let is_part =
            blocks.first().is_some_and(|block| block.header.height > committed.height.next());
        let joins = asked && last.is_some() && last == self.missing_of_page();
        let is_wide = certificate.height > self.reach_of_page() && !planted::is(Bug::WidePage);
        if is_wide || is_part && !asked {
            if !asked {
                self.ask_for_gap(peer);
            }
            return;
        }
        if asked {
            self.catch_up.page = None;
        }
        if certificate.epoch != self.membership.epoch
            || !asked && !self.may_take_fed(peer, &certificate)
        {
            return;
        }
        let is_whole = last == Some((certificate.height, certificate.block_hash));
        if !joins && !is_whole {
            // A part of what an earlier process of this replica lacked.
            return self.waste(peer);
        }
        let proved =
            joins || certificate.phase == Phase::Commit && self.certificate_holds(&certificate);
        if !proved || !is_linked(&blocks) || !blocks.iter().all(|block| body_is_whole(block)) {
            return self.ban(peer, "a page of blocks that does not prove itself");
        }
        if self.waits_to_begin() {
            return;
        }
        let goal = self.goal_of_page().cloned();
        for block in blocks {
            if block.header.height > committed.height {
                self.counters.caught_up_blocks += 1;
                self.counters.fed_blocks += u64::from(!asked);
                self.blocks.insert(block, None);
            }
        }
        if joins {
            // A newer certificate is no goal before the blocks below this one are there.
            self.catch_up.through = goal;
            return self.commit_joined();
        }
        self.fence.seen.note_certificate(&certificate, &self.membership);
        if is_part {
            self.catch_up.through = Some(certificate);
            return self.commit_joined();
        }
        self.commit_page(&certificate);
        if self.blocks.committed.height < certificate.height {
            self.ban(peer, "a page of blocks that does not join the own chain");
        } else if !asked {
            self.was_fed();
        }
    }

    fn commit_page(&mut self, certificate: &Certificate) {
        let known = self.blocks.certificate.as_ref().map(Certificate::rank);
        if known.is_none_or(|known| certificate.rank() > known) {
            self.adopt_commit(certificate.clone());
        } else if self.commit_through(certificate) {
            self.commit_known();
        }
    }

    /// More of what a certificate proves is here: perhaps all.
    fn commit_joined(&mut self) {
        match self.goal_of_page().cloned() {
            Some(goal) if self.missing_of_page().is_none() => self.commit_page(&goal),
            _ => {}
        }
    }

    /// The highest that one certificate may commit next: what it proves waits in memory until it is whole.
    fn reach_of_page(&self) -> Height {
        self.blocks.committed.height.plus(PAGE_BLOCKS_MAX as u64)
    }

    /// What proves the next page.
    fn goal_of_page(&self) -> Option<&Certificate> {
        let (committed, reach) = (self.blocks.committed.height, self.reach_of_page());
        let above = |goal: &&Certificate| goal.height > committed && goal.height <= reach;
        let through = self.catch_up.through.as_ref().filter(above);
        through.or(self.blocks.certificate.as_ref().filter(above))
    }

    /// The highest block below that which is not here.
    fn missing_of_page(&self) -> Option<(Height, Digest)> {
        let goal = self.goal_of_page()?;
        match self.blocks.path_to(goal.height, goal.block_hash) {
            Err(NoPath::Missing(height, hash)) => Some((height, hash)),
            _ => None,
        }
    }

    /// Whether there is room for more blocks before execution, and the check of their certificate may be
    /// paid for.
    fn may_take_fed(&mut self, peer: ReplicaId, certificate: &Certificate) -> bool {
        let waiting = self.blocks.executed.height.plus(4 * self.window);
        self.blocks.committed.height <= waiting
            && self.may_verify(peer, certificate.signatures.len() as u64)
    }

    pub(super) fn on_get_body(&mut self, peer: ReplicaId, hash: &Digest) {
        let held = self.blocks.get(hash).map(|body| Arc::clone(&body.block));
        let block = held.or_else(|| {
            let proposals = self.proposals.values().map(|proposal| &proposal.block);
            proposals.into_iter().find(|block| block.hash() == *hash).cloned()
        });
        if let Some(block) = block {
            self.tell(peer, Message::Body(block));
        }
    }

    pub(super) fn on_body(&mut self, peer: ReplicaId, block: Arc<Block>) {
        let wanted = self.catch_up.body.as_ref().is_some_and(|(hash, _)| *hash == block.hash());
        if !wanted {
            return self.waste(peer);
        }
        if !body_is_whole(&block) {
            return self.ban(peer, "a block whose values are not the ones committed to");
        }
        self.catch_up.body = None;
        self.blocks.insert(block, None);
        self.try_enter();
    }
}

fn is_linked(blocks: &[Arc<Block>]) -> bool {
    blocks.windows(2).all(|pair| {
        pair[1].header.parent == pair[0].hash()
            && pair[1].header.height == pair[0].header.height.next()
    })
}

fn signers(certificate: &Certificate) -> Vec<ReplicaId> {
    certificate.signatures.iter().map(|signed| signed.replica).collect()
}
