//! STATUS, what is known of peers, and healing: whoever is behind is shown what it lacks
//! (protocol.md 8).

use crate::ordering::Alarm;
use crate::ordering::{Core, CoreStatus, Message, Mode, Output, PeerView, Recipients, Status};
use crate::types::{Epoch, Height, LogPosition, Millis, ReplicaId, View};

pub(super) const STATUS_MS: u64 = 200;
/// A STATUS that follows another so soon was delayed on its way, or tells nothing.
const SOONEST_MS: u64 = 20;
/// What was heard longer ago says nothing about now.
pub(super) const RECENT_MS: u64 = 1000;
/// At most one repair per peer in this time.
const HEAL_MS: u64 = 150;
/// So long a peer that sent something untrue is not asked.
const BAN_MS: u64 = 60_000;

/// One other member.
#[derive(Default)]
pub(super) struct Peer {
    pub up: bool,
    pub heard_ms: Option<u64>,
    /// Its last STATUS and when it came.
    pub status: Option<(Status, u64)>,
    healed_ms: Option<u64>,
    pub banned_until_ms: u64,
    /// The highest height it showed a certificate for, in answer to a doubt.
    pub proven: Height,
    /// A height it claimed and was asked to prove, and when.
    pub doubted: Option<(Height, u64)>,
}

impl Core {
    pub(super) fn heard(&mut self, peer: ReplicaId) {
        let now = self.now_ms;
        self.peers.entry(peer).or_default().heard_ms = Some(now);
    }

    pub(super) fn on_peer_up(&mut self, peer: ReplicaId) {
        self.peers.entry(peer).or_default().up = true;
        if self.started {
            self.tell(peer, Message::Status(self.own_status()));
            if self.membership.voter(peer).is_some() && !self.quarantined {
                self.ask_vote(peer);
            }
            let speaks = self.fence.is_cleared();
            if let Some((view_change, position)) =
                self.view.own_view_change.clone().filter(|_| speaks)
            {
                let message = Message::ViewChange(view_change);
                self.send(Recipients::One(peer), message, position);
            }
            self.tell_proofs(peer);
        }
    }

    pub(super) fn on_peer_down(&mut self, peer: ReplicaId) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.up = false;
        }
        self.transfer_peer_down(peer);
    }

    pub(super) fn own_status(&self) -> Status {
        Status {
            epoch: self.membership.epoch,
            view: self.view.highest(),
            mode: self.mode(),
            unix_ms: self.unix_now().unwrap_or_default(),
            committed: self.blocks.committed.height,
            executed: self.blocks.executed.height,
            stable: self.checkpoints.stable_height(),
        }
    }

    /// Every 200 ms: tell all where this replica is; repeat what got stuck.
    pub(super) fn send_status(&mut self) {
        if self.now_ms < self.next_status_ms {
            return;
        }
        self.next_status_ms = self.now_ms + STATUS_MS;
        self.send(Recipients::Others, Message::Status(self.own_status()), LogPosition(0));
        self.watch_clock();
        self.watch_pace();
        self.repeat_checkpoint_votes();
        if self.now_ms >= self.view.progress_ms + STATUS_MS {
            self.repeat_votes();
        }
    }

    /// The next STATUS goes out as soon as it is not taken for a repetition.
    pub(super) fn status_soon(&mut self) {
        let last = self.next_status_ms.saturating_sub(STATUS_MS);
        self.next_status_ms = self.next_status_ms.min(self.now_ms.max(last + SOONEST_MS));
    }

    pub(super) fn on_status(&mut self, peer: ReplicaId, status: Status) {
        let now = self.now_ms;
        let Some(known) = self.peers.get_mut(&peer) else { return };
        let last = known.status.replace((status, now));
        if last.is_some_and(|(_, at)| now < at + SOONEST_MS) {
            self.waste(peer);
        }
        let votes = |status: &Status| status.mode == Mode::Normal;
        if votes(&status) && !last.is_some_and(|(last, _)| votes(&last)) {
            self.ask_peer_again(peer);
        }
        if status.mode == Mode::Fenced && peer == self.primary() && self.is_normal() {
            // It proposes nothing until others have committed its REJOIN.
            return self.suspect();
        }
        let Some(known) = self.peers.get_mut(&peer) else { return };
        let healed = known.healed_ms.is_some_and(|healed| now < healed + HEAL_MS);
        if self.quarantined {
            return;
        }
        if status.epoch > self.membership.epoch {
            return self.look_ahead(peer, status.epoch);
        }
        if healed {
            return;
        }
        let behind = status.epoch < self.membership.epoch;
        let helped = if behind { self.heal_epoch(peer, &status) } else { self.heal(peer, &status) };
        if helped && let Some(known) = self.peers.get_mut(&peer) {
            known.healed_ms = Some(now);
        }
    }

    fn heal(&mut self, peer: ReplicaId, status: &Status) -> bool {
        let mut healed = false;
        let (view, committed) = (self.view.entered, self.blocks.committed.height);
        let asks = status.mode == Mode::ViewChange;
        if status.view < view || status.view == view && asks {
            self.show_view(peer);
            healed = true;
        }
        if status.committed < committed
            && let Some(certificate) = self.certificate_here().cloned()
        {
            self.tell(peer, Message::Certificate(certificate));
            healed = true;
        }
        healed |= self.show_stable(peer, status.stable);
        healed
    }

    /// Tells the operator and stops asking a peer that sent something untrue.
    pub(super) fn ban(&mut self, peer: ReplicaId, what: &'static str) {
        self.waste(peer);
        self.peers.entry(peer).or_default().banned_until_ms = self.now_ms + BAN_MS;
        self.out.push(Output::Alarm(Alarm::BadPeer { peer, what }));
    }

    pub(super) fn is_banned(&self, peer: ReplicaId) -> bool {
        self.peers.get(&peer).is_some_and(|peer| self.now_ms < peer.banned_until_ms)
    }

    /// How many voters, the own replica among them, were heard within `ms`.
    pub(super) fn voters_heard_within(&self, ms: u64) -> usize {
        let heard = |id: &ReplicaId| self.peers.get(id).and_then(|peer| peer.heard_ms);
        let voters = self.membership.voters().map(|member| member.id);
        let recent = |id: &ReplicaId| heard(id).is_some_and(|at| self.now_ms <= at + ms);
        voters.filter(|id| *id == self.own || recent(id)).count()
    }

    /// The views of voters whose recent STATUS is normal.
    pub(super) fn normal_views(&self) -> Vec<View> {
        self.recent_voters()
            .filter(|(status, _)| {
                status.mode == Mode::Normal && status.epoch == self.membership.epoch
            })
            .map(|(status, _)| status.view)
            .collect()
    }

    pub(super) fn recent_voters(&self) -> impl Iterator<Item = (Status, u64)> {
        self.peers
            .iter()
            .filter(|(id, _)| self.membership.voter(**id).is_some())
            .filter_map(|(_, peer)| peer.status)
            .filter(|(_, at)| self.now_ms <= *at + RECENT_MS)
    }

    /// Keeps `quorum_since_ms`.
    pub(super) fn watch_quorum(&mut self) {
        let heard = self.voters_heard_within(RECENT_MS);
        if heard < self.quorum.q() {
            self.quorum_since_ms = None;
        } else if self.quorum_since_ms.is_none() {
            self.quorum_since_ms = Some(self.now_ms);
        }
    }

    /// The median of what a quorum's clocks say now: no single clock, the own included, accuses a
    /// primary of letting leases pass.
    pub(super) fn median_unix(&self) -> Option<Millis> {
        let mut clocks: Vec<u64> = self
            .recent_voters()
            // 0: it has not read its clock yet.
            .filter(|(status, _)| status.unix_ms > Millis(0))
            .map(|(status, at)| status.unix_ms.0.saturating_add(self.now_ms - at))
            .collect();
        clocks.extend(self.unix_now().map(|own| own.0));
        clocks.sort_unstable();
        let enough = clocks.len() >= self.quorum.q();
        enough.then(|| Millis(clocks[(clocks.len() - 1) / 2]))
    }

    /// Tells the operator, once each time, that the own clock is further than D from the median.
    fn watch_clock(&mut self) {
        let (Some(own), Some(median)) = (self.unix_now(), self.median_unix()) else { return };
        let ahead_ms = own.0.cast_signed().saturating_sub(median.0.cast_signed());
        let bound = self.membership.parameters.time_bound_ms;
        let off = ahead_ms.unsigned_abs() > bound;
        // Half the bound to come back, so that a clock at the edge is told of once.
        if off && !self.clock_is_off {
            self.out.push(Output::Alarm(Alarm::ClockSkew { ahead_ms }));
        }
        self.clock_is_off = off || self.clock_is_off && ahead_ms.unsigned_abs() > bound / 2;
    }

    /// The part of [`Core::status`] whose change is news at once.
    #[must_use]
    pub fn place(&self) -> (Epoch, View, Mode) {
        (self.membership.epoch, self.view.highest(), self.mode())
    }

    /// What this replica is doing.
    #[must_use]
    pub fn status(&self) -> CoreStatus {
        let leading = self.leading_view();
        let peers = self.peers.iter().map(|(id, peer)| {
            let status = peer.status.map(|(status, _)| status);
            let age_ms = peer.heard_ms.map(|heard| self.now_ms.saturating_sub(heard));
            let view = PeerView {
                view: status.map_or(View(0), |status| status.view),
                mode: status.map_or(Mode::Syncing, |status| status.mode),
                committed: status.map_or(Height(0), |status| status.committed),
                executed: status.map_or(Height(0), |status| status.executed),
                age_ms,
                up: peer.up,
            };
            (*id, view)
        });
        let executed = self.blocks.executed.height;
        CoreStatus {
            epoch: self.membership.epoch,
            view: self.view.highest(),
            mode: self.mode(),
            primary: leading.map(|view| self.membership.primary(view)),
            next_primary: leading.map(|view| self.membership.primary(view.next())),
            has_leader: leading.is_some(),
            committed: self.blocks.committed.height,
            executed,
            exec_root: self.blocks.exec_roots.get(&executed).copied().unwrap_or_default(),
            stable_checkpoint: self.checkpoints.stable_height(),
            pool_bundles: self.pool.count,
            pool_bytes: self.pool.bytes,
            transfer: self.transfer.progress(),
            peers: peers.collect(),
            counters: self.counters,
        }
    }
}
