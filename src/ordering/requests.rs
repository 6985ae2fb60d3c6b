//! Requests on their way to a primary, and the timers that guard them (protocol.md 9).

use crate::chain::{Bundle, check};
use crate::ordering::pool::BundleKey;
use crate::ordering::status::RECENT_MS;
use crate::ordering::{Core, Message, Recipients};
use crate::types::{LogPosition, ReplicaId, View};

/// An unproposed bundle is sent to all after this long, and again after as long as `T_req`.
const FORWARD_MS: u64 = 300;

/// Late bundles are looked for this often, not in every step: a flooding origin fills its share of the
/// pool, and looking through it then costs more than all else.
const GUARD_MS: u64 = 25;

impl Core {
    pub(super) fn on_submit(&mut self, bundle: Bundle) {
        assert_eq!(bundle.origin, self.own, "a replica submits its own bundles");
        let key = (bundle.session, bundle.first_seq);
        let shape = check::unsigned_bundle(&bundle, &self.membership);
        assert_eq!(shape, Ok(()), "admission signs what may be proposed (protocol.md 9.1)");
        let proved = check::proof(&bundle, &self.trust()).is_ok();
        if self.quarantined || !self.fence.is_cleared() || !proved {
            return;
        }
        self.fence.known.session = self.fence.known.session.max(bundle.session);
        if self.pool.add(bundle, self.now_ms) {
            self.pass(self.own, key);
        }
    }

    /// A bundle of another origin, from it or relayed. Whoever holds one guards it.
    pub(super) fn on_bundle(&mut self, peer: ReplicaId, bundle: Bundle) {
        let (origin, key) = (bundle.origin, (bundle.session, bundle.first_seq));
        self.note_second_content(peer, &bundle);
        let ops = bundle.skeletons.len() as u64;
        let admitted = self
            .view
            .windows
            .get(&origin)
            .is_none_or(|window| window.admits(bundle.session, bundle.first_seq, ops));
        let room = self.pool.get(origin, key).is_none() && self.pool.has_room(&bundle);
        if origin == self.own || !admitted || !room {
            // Where blocks are late, correct peers pass on what others have passed on already.
            if origin == peer {
                self.waste(peer);
            }
            return;
        }
        if !self.may_verify(peer, bundle.signatures()) {
            return;
        }
        if !self.check_bundle(&bundle) {
            self.counters.bad_signatures += 1;
            return self.waste(peer);
        }
        self.fence.seen.note_bundle(&bundle);
        if self.pool.add(bundle, self.now_ms) {
            self.pass(origin, key);
        }
    }

    /// Passes a bundle on to the primary, once per view.
    fn pass(&mut self, origin: ReplicaId, key: BundleKey) {
        let view = self.serving_view();
        let primary = self.membership.primary(view);
        if primary == self.own {
            return;
        }
        let pooled = self.pool.origins.get_mut(&origin).and_then(|all| all.bundles.get_mut(&key));
        let Some(pooled) = pooled else { return };
        if pooled.passed_in == Some(view) {
            return;
        }
        pooled.passed_in = Some(view);
        let message = Message::Bundle(pooled.bundle.clone());
        let gate = if origin == self.own { self.fence.gate() } else { LogPosition(0) };
        self.send(Recipients::One(primary), message, gate);
    }

    /// In a new view the origin tells the new primary at once; what others hold follows when its
    /// origin seems unable to.
    pub(super) fn pass_own_bundles(&mut self) {
        self.pass_bundles(self.own, None);
    }

    fn pass_bundles(&mut self, origin: ReplicaId, waited_since: Option<u64>) {
        let Some(all) = self.pool.origins.get(&origin) else { return };
        let keys: Vec<BundleKey> = all
            .bundles
            .iter()
            .filter(|(_, pooled)| waited_since.is_none_or(|since| pooled.since_ms <= since))
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            self.pass(origin, key);
        }
    }

    /// Tells everyone about own bundles that no block holds after `T_fwd`, and relays those of
    /// others.
    pub(super) fn guard_requests(&mut self) {
        if self.pool.count == 0 || self.now_ms < self.pool.guarded_ms + GUARD_MS {
            return;
        }
        self.pool.guarded_ms = self.now_ms;
        let late = self.now_ms.saturating_sub(FORWARD_MS);
        let again = self.now_ms.saturating_sub(self.view_timeout_ms());
        let ids: Vec<ReplicaId> = self.pool.origins.keys().copied().collect();
        for id in ids {
            if id != self.own {
                self.pass_bundles(id, Some(late));
                continue;
            }
            let now = self.now_ms;
            let Some(origin) = self.pool.origins.get_mut(&id) else { continue };
            let mut messages = Vec::new();
            for pooled in origin.bundles.values_mut() {
                let due = match pooled.broadcast_ms {
                    None => pooled.since_ms <= late,
                    Some(last) => last <= again,
                };
                if due {
                    pooled.broadcast_ms = Some(now);
                    messages.push(Message::Bundle(pooled.bundle.clone()));
                }
            }
            let gate = self.fence.gate();
            for message in messages {
                self.send(Recipients::Voters, message, gate);
            }
        }
    }

    /// When [`Core::guard_requests`] next has something to do.
    pub(super) fn guard_deadline(&self) -> Option<u64> {
        let repeat = self.view_timeout_ms();
        let origin = |id: &ReplicaId, key: &BundleKey| self.pool.get(*id, *key);
        self.pool
            .origins
            .iter()
            .filter_map(|(id, all)| {
                let first = all.bundles.keys().next()?;
                let pooled = origin(id, first)?;
                match (pooled.broadcast_ms, pooled.passed_in) {
                    (None, _) if *id == self.own => Some(pooled.since_ms + FORWARD_MS),
                    (Some(last), _) => Some(last + repeat),
                    (None, None) => Some(pooled.since_ms + FORWARD_MS),
                    (None, Some(_)) => None,
                }
            })
            .min()
            .map(|at| at.max(self.pool.guarded_ms + GUARD_MS))
    }

    /// When the primary will have left some origin's oldest bundle unproposed for `T_req`.
    pub(super) fn request_deadline(&self) -> Option<u64> {
        if !self.is_normal() || self.primary() == self.own {
            return None;
        }
        let since = self.quorum_since_ms?;
        self.pool
            .origins
            .iter()
            .map(|(id, origin)| {
                let grace = if *id == self.own { FORWARD_MS } else { 0 };
                origin.oldest_since_ms.max(since) + grace + self.view_timeout_ms()
            })
            .min()
    }

    /// Forgets bundles that the own chain holds.
    pub(super) fn drop_pooled(&mut self) {
        let ids: Vec<ReplicaId> = self.pool.origins.keys().copied().collect();
        self.pool.drop_used(&ids, &self.view.windows, self.now_ms);
        self.drop_used_rejoins();
    }

    /// The view whose primary what waits is passed to. STATUS may lag behind a NEW-VIEW that was just
    /// entered; a replica in a view change may have left a view that the others are in.
    pub(super) fn serving_view(&self) -> View {
        let entered = self.view.entered;
        self.leading_view().map_or(entered, |leading| leading.max(entered))
    }

    /// The view that a quorum is in, as far as STATUS tells; the own mode counts for one. A quorum that
    /// asked for the view just entered is in no older one, though its STATUS still says so (9.4).
    pub(super) fn leading_view(&self) -> Option<View> {
        let takes_part = self.is_voter() && self.is_normal();
        let mut views: Vec<View> = self.normal_views();
        views.extend(takes_part.then_some(self.view.entered));
        views.sort_unstable();
        let told = views.windows(self.quorum.q()).rev().find(|views| views.first() == views.last());
        let recent = self.now_ms <= self.view.since_ms + RECENT_MS;
        let just_entered = takes_part && self.view.new_view.is_some() && recent;
        told.map(|views| views[0]).max(just_entered.then_some(self.view.entered))
    }
}
