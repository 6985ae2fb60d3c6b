//! The block feed: a replica without a vote picks a voter, which sends it every block as it commits
//! (protocol.md 11.4). What is fed proves itself like any page; who feeds is trusted with nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::chain::{BLOCK_BYTES_MAX, Block, Certificate};
use crate::ordering::budget::PAGE_COSTS;
use crate::ordering::message::PAGE_BLOCKS_MAX;
use crate::ordering::{Core, Message};
use crate::types::{Height, ReplicaId};

/// A follower says so often that it is there.
const FOLLOW_MS: u64 = 300;
/// After so long without a word of it a follower is fed no more.
const FORGET_MS: u64 = 1500;
/// Blocks that commit closer together share a page, and the check of one certificate.
const PAGE_MS: u64 = 5;
/// So often a gap is asked for.
const GAP_MS: u64 = 20;
/// Pages a follower had to ask others for since its feeder last brought a block; then another voter
/// is picked.
const STRIKES_MAX: u32 = 3;

/// One that is fed here.
struct Follower {
    until_ms: u64,
    /// The first height it was not sent.
    next: Height,
    fed_ms: u64,
}

/// Whom this replica is fed by.
struct Feeder {
    peer: ReplicaId,
    strikes: u32,
}

/// Both ends of the feed.
#[derive(Default)]
pub(super) struct Feed {
    /// Members without a vote.
    followers: BTreeMap<ReplicaId, Follower>,
    feeder: Option<Feeder>,
    /// The feeder before this one, which goes on until it forgets.
    before: Option<ReplicaId>,
    /// Rotates over the voters when a feeder disappoints.
    turn: usize,
    next_ask_ms: u64,
    next_gap_ms: u64,
}

impl Core {
    /// A member without a vote wants to be sent blocks from a height on; 0: to be sent on.
    pub(super) fn on_follow(&mut self, peer: ReplicaId, from: Height) {
        let follows = self.membership.member(peer).is_some_and(|member| !member.voting);
        if !follows || !self.is_voter() {
            return self.waste(peer);
        }
        let now = self.now_ms;
        let known = self.feed.followers.get(&peer).filter(|known| now < known.until_ms);
        let known = known.map(|known| (known.next, known.fed_ms));
        let (next, fed_ms) = match known {
            Some(known) if from == Height(0) => known,
            // What is sent again costs what a page costs.
            Some((next, _)) if from < next && !self.may_serve(peer, PAGE_COSTS) => return,
            Some((_, fed_ms)) => (from, fed_ms),
            None if from == Height(0) => (self.blocks.committed.height.next(), 0),
            None => (from, 0),
        };
        let follower = Follower { until_ms: now + FORGET_MS, next, fed_ms };
        self.feed.followers.insert(peer, follower);
    }

    /// Sends followers what has committed.
    pub(super) fn feed_followers(&mut self) {
        let (now, committed) = (self.now_ms, self.blocks.committed.height);
        self.feed.followers.retain(|_, follower| now < follower.until_ms);
        let due: Vec<(ReplicaId, Height)> = self
            .feed
            .followers
            .iter_mut()
            .filter(|(_, follower)| follower.next <= committed && now >= follower.due_ms())
            .map(|(peer, follower)| {
                follower.fed_ms = now;
                (*peer, follower.next)
            })
            .collect();
        for (peer, next) in due {
            let (until, certificate) = self.end_of_feed(next);
            if let Some(follower) = self.feed.followers.get_mut(&peer) {
                follower.next = until.next();
            }
            let Some(certificate) = certificate else { continue };
            match self.blocks_between(next, until) {
                Some(blocks) => self.tell(peer, Message::Blocks { blocks, certificate }),
                // It asks for pages, which are read from disk.
                None => self.tell(peer, Message::Certificate(certificate)),
            }
        }
    }

    /// Where a page that begins at `next` ends: no page crosses an epoch (protocol.md 20.6).
    fn end_of_feed(&self, next: Height) -> (Height, Option<Certificate>) {
        let start = self.epochs.start.0;
        if next <= start {
            return (start, self.epochs.proofs.last().map(|proof| proof.certificate.clone()));
        }
        let tip = self.blocks.committed;
        let known = [self.blocks.certificate.as_ref(), self.witness.committed.as_ref()];
        let certificate = known.into_iter().flatten().find(|cert| cert.block_hash == tip.hash);
        (tip.height, certificate.cloned())
    }

    /// Committed blocks, if all are in memory and fit into a message.
    fn blocks_between(&self, from: Height, until: Height) -> Option<Vec<Arc<Block>>> {
        let mut blocks = Vec::new();
        let (mut at, mut bytes) = (from, 0);
        while at <= until {
            let block = &self.blocks.committed_at(at)?.block;
            bytes += block.encoded().len();
            let is_full = bytes > BLOCK_BYTES_MAX || blocks.len() == PAGE_BLOCKS_MAX;
            if is_full || !block.has_values() {
                return None;
            }
            blocks.push(Arc::clone(block));
            at = at.next();
        }
        Some(blocks)
    }

    fn is_follower(&self) -> bool {
        let member = self.membership.member(self.own);
        member.is_some_and(|member| !member.voting) && !self.quarantined && self.transfer.is_idle()
    }

    pub(super) fn is_feeder(&self, peer: ReplicaId) -> bool {
        self.feed.feeder.as_ref().is_some_and(|feeder| feeder.peer == peer)
    }

    pub(super) fn was_feeder(&self, peer: ReplicaId) -> bool {
        self.feed.before == Some(peer)
    }

    fn drop_feeder(&mut self) {
        let dropped = self.feed.feeder.take().map(|feeder| feeder.peer);
        self.feed.before = dropped.or(self.feed.before);
        self.feed.next_ask_ms = self.now_ms;
    }

    /// Picks a feeder, and says again that this replica follows.
    pub(super) fn follow_feed(&mut self) {
        if !self.is_follower() {
            return self.drop_feeder();
        }
        let gone = |feeder: &Feeder| self.is_banned(feeder.peer) || !self.is_linked(feeder.peer);
        if self.feed.feeder.as_ref().is_some_and(gone) {
            self.drop_feeder();
        }
        if self.now_ms < self.feed.next_ask_ms {
            return;
        }
        self.feed.next_ask_ms = self.now_ms + FOLLOW_MS;
        let from = match &self.feed.feeder {
            Some(_) => Height(0),
            None => {
                self.feed.feeder = self.pick_feeder().map(|peer| Feeder { peer, strikes: 0 });
                self.blocks.committed.height.next()
            }
        };
        if let Some(feeder) = &self.feed.feeder {
            let peer = feeder.peer;
            self.tell(peer, Message::Follow { from });
        }
    }

    fn is_linked(&self, peer: ReplicaId) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.up)
    }

    /// Voters of the own organisation come first, then the others in the order of ids behind the own.
    fn pick_feeder(&self) -> Option<ReplicaId> {
        let organisation = self.membership.member(self.own)?.organisation;
        let usable = |id: ReplicaId| self.is_linked(id) && !self.is_banned(id);
        let voters = self.membership.voters().filter(|voter| usable(voter.id));
        let mut voters: Vec<(bool, u16, ReplicaId)> = voters
            .map(|voter| {
                let distance = voter.id.0.wrapping_sub(self.own.0);
                (voter.organisation != organisation, distance, voter.id)
            })
            .collect();
        voters.sort_unstable();
        let at = self.feed.turn.checked_rem(voters.len())?;
        voters.get(at).map(|(.., id)| *id)
    }

    /// A page begins above the own tip: one before it was lost.
    pub(super) fn ask_for_gap(&mut self, peer: ReplicaId) {
        if self.now_ms >= self.feed.next_gap_ms {
            self.feed.next_gap_ms = self.now_ms + GAP_MS;
            let from = self.blocks.committed.height.next();
            self.tell(peer, Message::Follow { from });
        }
    }

    /// A fed page brought blocks.
    pub(super) fn was_fed(&mut self) {
        if let Some(feeder) = &mut self.feed.feeder {
            feeder.strikes = 0;
        }
    }

    /// Another had to be asked for a page.
    pub(super) fn missed_feed(&mut self) {
        let Some(feeder) = &mut self.feed.feeder else { return };
        feeder.strikes += 1;
        if feeder.strikes >= STRIKES_MAX {
            self.feed.turn = self.feed.turn.wrapping_add(1);
            self.drop_feeder();
        }
    }

    /// Who follows, and whom, is a matter of the epoch.
    pub(super) fn restart_feed(&mut self) {
        let fed = |id: &ReplicaId| self.membership.member(*id).is_some_and(|one| !one.voting);
        self.feed.followers.retain(|id, _| fed(id));
        self.drop_feeder();
    }

    pub(super) fn feed_deadline(&self) -> Option<u64> {
        let committed = self.blocks.committed.height;
        let waiting = self.feed.followers.values().filter(|one| one.next <= committed);
        let asks = self.is_follower().then_some(self.feed.next_ask_ms);
        waiting.map(Follower::due_ms).chain(asks).min()
    }
}

impl Follower {
    fn due_ms(&self) -> u64 {
        self.fed_ms + PAGE_MS
    }
}
