//! Whether this replica may speak, and how one whose votes are lost comes back (protocol.md 6.4 to 6.8).

use std::collections::BTreeMap;

use crate::chain::{Certificate, Entry, REJOIN_SHIFT, Record, Rejoin, SessionWindow};
use crate::ordering::blocks::Tip;
use crate::ordering::rejoin::PooledRejoin;
use crate::ordering::shown::{KnownVotes, SeenVotes, Standing};
use crate::ordering::status::Peer;
use crate::ordering::{Alarm, Core, Message, Mode, Output, Recipients};
use crate::planted::{self, Bug};
use crate::types::{Digest, Epoch, Height, LogPosition, ReplicaId, View};

/// Who has not answered is asked again.
const ASK_MS: u64 = 200;
/// Later answers still count, and show a twin: so often all are asked once the replica votes.
const LATER_ASK_MS: u64 = 5000;
/// A REJOIN is sent again until a block with it is committed.
const REJOIN_MS: u64 = 500;
/// So often the operator is told who is waited for.
pub(super) const SAY_MS: u64 = 5000;
/// The first start of a network takes less; then a certificate means that it began long ago.
const BEGIN_MS: u64 = 2000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Too few have said what they hold of this replica: it promises nothing.
    Asking,
    /// It votes.
    Cleared,
    /// Its votes are lost: it promises nothing until a block with its REJOIN is committed.
    Fenced,
}

/// What this replica knows of its own lost votes and others' (protocol.md 6.4).
pub(super) struct Fence {
    /// This process's: in its question and its REJOIN, never read from disk.
    pub nonce: [u8; 32],
    pub stage: Stage,
    /// The log holds nothing a vote could rest on: only the handshake of all lets it begin.
    pub empty: bool,
    /// The first answer of each voter, the weakest standing it had, and its process's nonce.
    pub answers: BTreeMap<ReplicaId, (Standing, [u8; 32])>,
    /// The processes this one began the network with.
    pub began_with: BTreeMap<ReplicaId, [u8; 32]>,
    /// The epoch began and no view of it stands in the log.
    pub unrecorded: bool,
    pub seen: SeenVotes,
    pub known: KnownVotes,
    /// Views from here on were entered by this process alone.
    pub own_views: View,
    /// After a fence: no vote up to this view.
    pub rejoined: Option<(Epoch, View)>,
    /// The record that a ReadIndex answer and a bundle wait for.
    gate: LogPosition,
    /// The height of a committed block with this process's REJOIN.
    nonce_height: Option<Height>,
    /// A commit that did not move the view, because this replica did not vote.
    unfollowed: Option<Certificate>,
    /// An empty log, and a commit certificate came.
    pub proof_since_ms: Option<u64>,
    /// Fenced because it was added and begins, as far as is known here.
    joining: bool,
    pub next_ask_ms: u64,
    next_rejoin_ms: u64,
    pub next_say_ms: u64,
    pub rejoins: BTreeMap<ReplicaId, PooledRejoin>,
}

impl Fence {
    pub fn new(nonce: [u8; 32]) -> Self {
        Self {
            nonce,
            stage: Stage::Asking,
            empty: true,
            answers: BTreeMap::new(),
            began_with: BTreeMap::new(),
            unrecorded: false,
            seen: SeenVotes::default(),
            known: KnownVotes::default(),
            own_views: View(0),
            rejoined: None,
            gate: LogPosition(0),
            nonce_height: None,
            unfollowed: None,
            proof_since_ms: None,
            joining: false,
            next_ask_ms: 0,
            next_rejoin_ms: 0,
            next_say_ms: 0,
            rejoins: BTreeMap::new(),
        }
    }

    pub fn is_cleared(&self) -> bool {
        self.stage == Stage::Cleared
    }

    /// What a promise of this process waits for beyond its own gate.
    pub fn gate(&self) -> LogPosition {
        self.gate
    }

    pub fn is_fenced(&self) -> bool {
        self.stage == Stage::Fenced
    }

    pub fn is_empty(&self) -> bool {
        self.empty
    }

    /// Whether votes in this view are left to others: a lost vote may lie there.
    pub fn abstains(&self, epoch: Epoch, view: View) -> bool {
        let planted = planted::is(Bug::RejoinSameView);
        self.rejoined.is_some_and(|last| (epoch, view) <= last) && !planted
    }

    /// Takes over what the log says: `own_views` is the first view that no earlier process entered.
    pub fn recovered(&mut self, fenced: bool, rejoined: Option<&Certificate>, own_views: View) {
        self.empty = false;
        self.own_views = own_views;
        if fenced && !planted::is(Bug::FenceForgotten) {
            self.stage = Stage::Fenced;
        }
        if let Some(certificate) = rejoined {
            self.rejoined = Some((certificate.epoch, certificate.view));
            self.known.cover(certificate.epoch, certificate.view);
        }
    }
}

impl Core {
    /// At the end of a start: asks, or goes on being fenced.
    pub(super) fn start_fence(&mut self) {
        self.fence.next_say_ms = self.now_ms + SAY_MS;
        if self.fence.is_fenced() {
            return;
        }
        if self.fence.empty && self.log_holds_anything() {
            // The start of a network was cut off behind its first record, or the log lost its start.
            return self.raise_fence("the log holds blocks but no view was entered".to_owned());
        }
        if planted::is(Bug::FenceSkipped) {
            return if self.fence.empty { self.begin(false) } else { self.clear() };
        }
        self.settle_answers();
    }

    /// The fence's timers.
    pub(super) fn run_fence(&mut self) {
        if self.quarantined {
            return;
        }
        match self.fence.stage {
            Stage::Fenced => self.send_rejoin(),
            Stage::Asking => {
                self.ask_votes(ASK_MS);
                let proof = self.fence.proof_since_ms;
                if proof.is_some_and(|since| self.now_ms >= since + BEGIN_MS) {
                    self.raise_fence("the log is empty, and others have committed".to_owned());
                }
                self.say_missing();
            }
            Stage::Cleared => self.ask_votes(LATER_ASK_MS),
        }
    }

    pub(super) fn fence_deadline(&self) -> Option<u64> {
        match self.fence.stage {
            Stage::Fenced if self.fence.nonce_height.is_some() => None,
            Stage::Fenced => Some(self.fence.next_rejoin_ms),
            _ => Some(self.fence.next_ask_ms),
        }
    }

    /// No lost vote was shown: the log is the newest.
    pub(super) fn clear(&mut self) {
        self.fence.stage = Stage::Cleared;
        self.view.since_ms = self.now_ms;
        self.view.progress_ms = self.now_ms;
        let epoch = self.membership.epoch;
        let unfollowed = self.fence.unfollowed.take();
        if let Some(certificate) = unfollowed.filter(|certificate| certificate.epoch == epoch) {
            self.follow_commit(&certificate);
        }
        self.say_that_it_votes();
        self.resume();
    }

    /// Nobody has to wait for the next STATUS to hear of it, nor reads for the next question.
    pub(super) fn say_that_it_votes(&mut self) {
        if self.is_voter() {
            self.status_soon();
            self.vote_on_reads();
        }
    }

    /// What a restarted replica sends first.
    fn resume(&mut self) {
        if let Some((view_change, position)) = self.view.own_view_change.clone() {
            self.send(Recipients::Others, Message::ViewChange(view_change), position);
        } else if self.primary() == self.own && planted::is(Bug::ProposesAgain) {
            self.view.fresh = true;
        } else if self.is_voter() && self.primary() == self.own && !self.view.fresh {
            // R1: never propose again in a view of an earlier process; a PRE-PREPARE of it may have
            // left before its block was durable.
            self.suspect();
        }
        self.vote_checkpoints_again();
        // Those of others that came before this replica could act on them.
        self.after_view_changes();
    }

    /// Keeps a commit for the time when this replica votes. True if it does not vote now.
    pub(super) fn postpone_follow(&mut self, certificate: &Certificate) -> bool {
        let postponed = !self.fence.is_cleared();
        if postponed {
            self.fence.unfollowed = Some(certificate.clone());
        }
        postponed
    }

    /// Own votes are lost: first the record, then the alarm, then no word that others count.
    pub(super) fn raise_fence(&mut self, reason: String) {
        if self.fence.is_fenced() || self.quarantined {
            return;
        }
        self.fence.joining = self.fence.empty && self.is_joining();
        let bytes = reason.clone().into_bytes().into();
        self.fence.gate = self.append(Record::Fenced { reason: bytes });
        self.fence.stage = Stage::Fenced;
        self.fence.empty = false;
        self.fence.nonce_height = None;
        self.fence.next_rejoin_ms = self.now_ms;
        self.view.own_votes.clear();
        self.view.waiting = None;
        self.view.fresh = false;
        self.pool.forget(self.own);
        let lost = Alarm::RollbackDetected { reason };
        let alarm = if self.fence.joining { Alarm::Joining } else { lost };
        self.out.push(Output::Alarm(alarm));
        self.commit_known();
    }

    fn send_rejoin(&mut self) {
        if self.now_ms < self.fence.next_rejoin_ms || self.fence.nonce_height.is_some() {
            return;
        }
        self.fence.next_rejoin_ms = self.now_ms + REJOIN_MS;
        self.counters.signatures += 1;
        let (epoch, scheme) = (self.membership.epoch, self.scheme.as_ref());
        let rejoin = Rejoin::sign(epoch, self.own, self.fence.nonce, &self.cluster_id, scheme);
        let gate = self.fence.gate;
        self.send(Recipients::Others, Message::Rejoin(rejoin), gate);
    }

    /// Looks for this replica's REJOINs among blocks that are now committed.
    pub(super) fn note_own_rejoins(&mut self, path: &[(Height, Digest)]) {
        let mut rejoined = false;
        for (height, hash) in path {
            let body = self.blocks.get(hash).expect("a committed path holds bodies");
            for entry in &body.block.entries {
                if let Entry::Rejoin(rejoin) = entry
                    && rejoin.replica == self.own
                {
                    // A bundle of the session that it opens needs it to be executed after a crash too.
                    self.fence.gate = self.log.end;
                    if rejoin.nonce == self.fence.nonce {
                        self.fence.nonce_height = Some(*height);
                        rejoined = true;
                    }
                }
            }
        }
        if rejoined {
            self.doubt_joining();
        }
    }

    /// A replica that joins has signed nothing; one whose requests were ordered before had a disk.
    fn doubt_joining(&mut self) {
        let window = self.blocks.windows.get(&self.own);
        let spoke = window.is_some_and(|window| {
            window.floor() > 0 || window.session() > window.rejoins() << REJOIN_SHIFT
        });
        if std::mem::take(&mut self.fence.joining) && spoke {
            let reason = "the log is empty, and requests of this replica were ordered before";
            self.out.push(Output::Alarm(Alarm::RollbackDetected { reason: reason.to_owned() }));
        }
    }

    /// Leaves the fence with a commit certificate on a block that holds this process's REJOIN or
    /// descends from it: the COMMITs in it were signed after the own votes were lost.
    pub(super) fn leave_fence(&mut self, certificate: &Certificate) {
        let held = self.fence.nonce_height.is_some_and(|height| certificate.height >= height)
            || planted::is(Bug::FenceWithoutNonce)
            || planted::is(Bug::FenceByHeight) && certificate.height > self.reported_height();
        let newest = certificate.height == self.blocks.committed.height
            && certificate.epoch == self.membership.epoch
            && certificate.view >= self.view.entered;
        if !self.fence.is_fenced() || self.quarantined || !held || !newest {
            return;
        }
        self.fence.gate = self.append(Record::Rejoined(certificate.clone()));
        self.fence.stage = Stage::Cleared;
        self.fence.unfollowed = None;
        self.fence.rejoined = Some((certificate.epoch, certificate.view));
        self.fence.known.cover(certificate.epoch, certificate.view);
        let session = self.committed_rejoins() << REJOIN_SHIFT;
        self.fence.known.session = self.fence.known.session.max(session);
        self.fence.own_views = certificate.view.next();
        self.fence.next_ask_ms = self.now_ms + LATER_ASK_MS;
        self.out.push(Output::Alarm(Alarm::Rejoined { height: certificate.height }));
        if self.is_voter() {
            self.settle_in_view(certificate);
            self.resume();
        }
    }

    /// [`Bug::FenceByHeight`]: the highest height that another replica's last STATUS claims.
    fn reported_height(&self) -> Height {
        let claimed = |peer: &Peer| peer.status.as_ref().map(|(status, _)| status.committed);
        self.peers.values().filter_map(claimed).max().unwrap_or_default()
    }

    /// This replica's REJOINs up to the committed tip.
    pub(super) fn committed_rejoins(&self) -> u64 {
        let windows = self.blocks.windows_after(&[]);
        windows.get(&self.own).map_or(0, SessionWindow::rejoins)
    }

    /// Stands in the certificate's view as in normal mode there, on its block (R4), without a vote.
    fn settle_in_view(&mut self, certificate: &Certificate) {
        let at = (certificate.height, certificate.block_hash);
        if certificate.view > self.view.entered {
            if self.view.pending.is_none_or(|pending| pending <= certificate.view) {
                self.enter(certificate.view, at, &[]);
            }
            self.view.fresh = false;
            return;
        }
        self.view.fresh = false;
        let (epoch, view) = (certificate.epoch, certificate.view);
        let (base_height, base_hash) = at;
        let record = Record::ViewEntered { epoch, view, base_height, base_hash };
        self.view.entered_position = self.append(record);
        self.view.base = at;
        let body = self.blocks.committed_at(at.0).expect("just committed");
        self.view.tip = Tip::of(&body.block.header, at.1);
        self.view.prepare_next = at.0.next();
        self.view.commit_next = at.0.next();
        self.view.windows = self.blocks.windows_after(&[]);
        self.view.chain.clear();
        self.view.chain.insert(at.0, at.1);
        self.view.since_ms = self.now_ms;
        self.view.progress_ms = self.now_ms;
        self.drop_pooled();
    }

    /// Whether this replica may sign bundles: it knows its session once its REJOIN is executed, and what
    /// it has signed does not fill its share of the pool.
    #[must_use]
    pub fn admits_requests(&self) -> bool {
        let executed = self.blocks.executed.height;
        self.fence.is_cleared()
            && !self.quarantined
            && self.has_own_key()
            && self.pool.has_place(self.own)
            && self.fence.nonce_height.is_none_or(|height| executed >= height)
    }

    /// Whether own votes are lost and no REJOIN has ended that.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.fence.is_fenced()
    }

    /// How many REJOINs of this replica are executed here: the upper bits of its session.
    #[must_use]
    pub fn own_rejoins(&self) -> u64 {
        self.blocks.windows.get(&self.own).map_or(0, SessionWindow::rejoins)
    }

    /// What the fence shows of itself, if it keeps this replica from voting.
    pub(super) fn fence_mode(&self) -> Option<Mode> {
        match self.fence.stage {
            Stage::Asking => Some(Mode::Syncing),
            Stage::Cleared => None,
            Stage::Fenced => Some(Mode::Fenced),
        }
    }
}
