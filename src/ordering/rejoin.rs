//! REJOINs of others on their way into a block (protocol.md 6.7).

use crate::chain::{Entry, Rejoin, SessionWindow};
use crate::ordering::{Core, Message};
use crate::types::{Millis, ReplicaId, View};

/// A REJOIN that no block of the own chain holds yet.
pub(super) struct PooledRejoin {
    rejoin: Rejoin,
    /// Since when a primary could have put it into a block.
    since_ms: u64,
    /// The view whose primary it was passed to.
    passed_in: Option<View>,
}

impl Core {
    /// From its author, or relayed. One is kept per replica, and only its author replaces it.
    pub(super) fn on_rejoin(&mut self, peer: ReplicaId, rejoin: Rejoin) {
        let author = rejoin.replica;
        let wanted = author != self.own
            && rejoin.epoch == self.membership.epoch
            && !self.rejoin_window(author).is_some_and(|window| window.knows_nonce(&rejoin.nonce));
        let Some(member) = self.membership.member(author).filter(|_| wanted) else { return };
        let kept = self.fence.rejoins.get(&author).map(|kept| kept.rejoin.nonce);
        if kept.is_none_or(|kept| kept != rejoin.nonce && peer == author) {
            let key = member.key;
            if !self.may_verify_seldom(peer, 1) {
                return;
            }
            self.counters.verifications += 1;
            if !rejoin.verify(&self.cluster_id, &key, self.scheme.as_ref()) {
                self.counters.bad_signatures += 1;
                return self.waste(peer);
            }
            let pooled = PooledRejoin { rejoin, since_ms: self.now_ms, passed_in: None };
            self.fence.rejoins.insert(author, pooled);
        }
        self.pass_rejoin(author);
    }

    fn pass_rejoin(&mut self, author: ReplicaId) {
        let view = self.serving_view();
        let primary = self.membership.primary(view);
        let Some(pooled) = self.fence.rejoins.get_mut(&author) else { return };
        if primary != self.own && primary != author && pooled.passed_in != Some(view) {
            pooled.passed_in = Some(view);
            let message = Message::Rejoin(pooled.rejoin.clone());
            self.tell(primary, message);
        }
    }

    fn rejoin_window(&self, author: ReplicaId) -> Option<&SessionWindow> {
        self.view.windows.get(&author)
    }

    fn admits_rejoin(&self, rejoin: &Rejoin, time_ms: Millis) -> bool {
        rejoin.epoch == self.membership.epoch
            && self
                .rejoin_window(rejoin.replica)
                .is_none_or(|window| window.admits_rejoin(&rejoin.nonce, time_ms))
    }

    /// What a block of this time may hold. REJOINs get a block of their own, so that its size is no
    /// question.
    pub(super) fn due_rejoins(&self, time_ms: Millis) -> Vec<Entry> {
        self.fence
            .rejoins
            .values()
            .filter(|pooled| self.admits_rejoin(&pooled.rejoin, time_ms))
            .map(|pooled| Entry::Rejoin(pooled.rejoin.clone()))
            .collect()
    }

    /// Member, epoch of the block, nonce and rest by the chain's windows, and the signature last.
    pub(super) fn rejoin_holds(
        &mut self,
        rejoin: &Rejoin,
        window: &SessionWindow,
        at: Millis,
    ) -> bool {
        let Some(member) = self.membership.member(rejoin.replica) else { return false };
        if rejoin.epoch != self.membership.epoch || !window.admits_rejoin(&rejoin.nonce, at) {
            return false;
        }
        let pooled = self.fence.rejoins.get(&rejoin.replica);
        if pooled.is_some_and(|pooled| pooled.rejoin == *rejoin) {
            return true;
        }
        self.counters.verifications += 1;
        rejoin.verify(&self.cluster_id, &member.key, self.scheme.as_ref())
    }

    /// Forgets REJOINs that the own chain holds: if their block is dropped, their author sends again.
    pub(super) fn drop_used_rejoins(&mut self) {
        let windows = &self.view.windows;
        self.fence.rejoins.retain(|author, pooled| {
            !windows.get(author).is_some_and(|window| window.knows_nonce(&pooled.rejoin.nonce))
        });
    }

    /// A new view: its primary gets as long as the one before.
    pub(super) fn restart_rejoin_timers(&mut self) {
        let now = self.now_ms;
        self.fence.rejoins.values_mut().for_each(|pooled| {
            pooled.since_ms = now;
            pooled.passed_in = None;
        });
    }

    /// One that no primary may take yet accuses nobody.
    pub(super) fn rest_rejoins(&mut self) {
        let Some(unix) = self.unix_now() else { return };
        let resting: Vec<ReplicaId> = self
            .fence
            .rejoins
            .iter()
            .filter(|(_, pooled)| !self.admits_rejoin(&pooled.rejoin, unix))
            .map(|(author, _)| *author)
            .collect();
        for author in resting {
            if let Some(pooled) = self.fence.rejoins.get_mut(&author) {
                pooled.since_ms = self.now_ms;
            }
        }
    }

    /// When the primary will have left a REJOIN out for `T_req`.
    pub(super) fn rejoin_deadline(&self) -> Option<u64> {
        if !self.is_normal() || self.primary() == self.own {
            return None;
        }
        let since = self.quorum_since_ms?;
        let oldest = self.fence.rejoins.values().map(|pooled| pooled.since_ms).min()?;
        Some(oldest.max(since) + self.view_timeout_ms())
    }
}
