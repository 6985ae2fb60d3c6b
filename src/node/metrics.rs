use std::collections::BTreeMap;

use crate::chain::{Membership, Network};
use crate::node::NodeStatus;
use crate::observe::table;
use crate::observe::{Counter, Gauge, Histogram, counter, gauge, histogram};
use crate::types::{ReplicaId, Revision};

/// Handles of what the protocol thread counts, taken once.
pub(super) struct Meters {
    has_leader: Gauge,
    is_leader: Gauge,
    leader_changes: Counter,
    pending: Gauge,
    committed: [Gauge; 2],
    executed: [Gauge; 2],
    quota: Gauge,
    db_size: [Gauge; 2],
    epoch: Gauge,
    view: Gauge,
    margin: Gauge,
    peers: BTreeMap<ReplicaId, Gauge>,
    names: BTreeMap<ReplicaId, String>,
    signatures: Counter,
    verifications: Counter,
    syncs: Counter,
    log_bytes: Counter,
    view_changes: Counter,
    proposed: Counter,
    caught_up: Counter,
    keys: [Gauge; 2],
    revision: [Gauge; 2],
    compact_revision: Gauge,
    is_learner: Gauge,
    puts: Counter,
    deletes: Counter,
    checkpoint: Gauge,
    quarantined: Gauge,
    fenced: Gauge,
    block_ops: Histogram,
    membership: Membership,
    quota_bytes: u64,
    own: ReplicaId,
}

impl Meters {
    pub(super) fn new(network: &Network, own: ReplicaId) -> Self {
        Self {
            has_leader: gauge(&table::SERVER_HAS_LEADER, &[]),
            is_leader: gauge(&table::SERVER_IS_LEADER, &[]),
            leader_changes: counter(&table::SERVER_LEADER_CHANGES, &[]),
            pending: gauge(&table::SERVER_PROPOSALS_PENDING, &[]),
            committed: [
                gauge(&table::SERVER_PROPOSALS_COMMITTED, &[]),
                gauge(&table::COMMITTED_HEIGHT, &[]),
            ],
            executed: [
                gauge(&table::SERVER_PROPOSALS_APPLIED, &[]),
                gauge(&table::EXECUTED_HEIGHT, &[]),
            ],
            quota: gauge(&table::SERVER_QUOTA_BYTES, &[]),
            db_size: [gauge(&table::DB_SIZE, &[]), gauge(&table::DB_SIZE_IN_USE, &[])],
            epoch: gauge(&table::EPOCH, &[]),
            view: gauge(&table::VIEW, &[]),
            margin: gauge(&table::QUORUM_MARGIN, &[]),
            peers: peer_gauges(network, own),
            signatures: counter(&table::SIGNATURES, &[]),
            verifications: counter(&table::VERIFICATIONS, &[]),
            syncs: counter(&table::DISK_SYNCS, &[]),
            log_bytes: counter(&table::LOG_WRITTEN_BYTES, &[]),
            view_changes: counter(&table::VIEW_CHANGES, &[]),
            proposed: counter(&table::BLOCKS_PROPOSED, &[]),
            caught_up: counter(&table::BLOCKS_CAUGHT_UP, &[]),
            keys: [gauge(&table::KEYS, &[]), gauge(&table::MVCC_KEYS, &[])],
            revision: [gauge(&table::REVISION, &[]), gauge(&table::MVCC_REVISION, &[])],
            compact_revision: gauge(&table::MVCC_COMPACT_REVISION, &[]),
            is_learner: gauge(&table::SERVER_IS_LEARNER, &[]),
            puts: counter(&table::MVCC_PUTS, &[]),
            deletes: counter(&table::MVCC_DELETES, &[]),
            checkpoint: gauge(&table::CHECKPOINT_HEIGHT, &[]),
            quarantined: gauge(&table::QUARANTINED, &[]),
            fenced: gauge(&table::FENCED, &[]),
            names: names(network),
            block_ops: histogram(&table::BLOCK_OPS, &[]),
            membership: network.membership.clone(),
            quota_bytes: network.membership.parameters.quota_bytes,
            own,
        }
    }

    /// What operators call a replica.
    pub(super) fn name_of(&self, id: ReplicaId) -> String {
        self.names.get(&id).cloned().unwrap_or_else(|| format!("replica {id}"))
    }

    /// An epoch begins.
    pub(super) fn follow(&mut self, network: &Network) {
        for gauge in self.peers.values() {
            gauge.set(0.0);
        }
        self.peers = peer_gauges(network, self.own);
        self.names = names(network);
        self.membership = network.membership.clone();
        self.quota_bytes = network.membership.parameters.quota_bytes;
    }

    pub(super) fn block(&self, n_ops: u32) {
        self.block_ops.record(f64::from(n_ops));
    }

    pub(super) fn publish(&self, status: &NodeStatus) {
        let core = &status.core;
        let flag = |yes: bool| if yes { 1.0 } else { 0.0 };
        let leads = core.has_leader && core.primary == Some(self.own);
        self.has_leader.set(flag(core.has_leader));
        self.is_leader.set(flag(leads));
        self.leader_changes.absolute(core.counters.view_changes);
        self.pending.set(number(status.pending));
        self.committed.iter().for_each(|gauge| gauge.set(number(core.committed.0)));
        self.executed.iter().for_each(|gauge| gauge.set(number(core.executed.0)));
        self.quota.set(number(self.quota_bytes));
        self.db_size.iter().for_each(|gauge| gauge.set(number(status.logical_bytes)));
        self.epoch.set(number(core.epoch.0));
        self.view.set(number(core.view.0));
        let margin = core.quorum_margin(self.own, &self.membership);
        self.margin.set(f64::from(i32::try_from(margin).unwrap_or(i32::MAX)));
        for (id, gauge) in &self.peers {
            gauge.set(flag(core.peers.get(id).is_some_and(|peer| peer.up)));
        }
        self.signatures.absolute(core.counters.signatures);
        self.verifications.absolute(core.counters.verifications);
        self.syncs.absolute(status.syncs);
        self.log_bytes.absolute(status.log_bytes);
        self.view_changes.absolute(core.counters.view_changes);
        self.proposed.absolute(core.counters.proposals);
        self.caught_up.absolute(core.counters.caught_up_blocks);
        let revision = |revision: Revision| number(u64::try_from(revision.0).unwrap_or(0));
        self.keys.iter().for_each(|gauge| gauge.set(number(status.keys)));
        self.revision.iter().for_each(|gauge| gauge.set(revision(status.revision)));
        self.compact_revision.set(revision(status.compact_revision));
        self.is_learner.set(flag(self.membership.voters().all(|voter| voter.id != self.own)));
        self.puts.absolute(status.puts);
        self.deletes.absolute(status.deletes);
        self.checkpoint.set(number(status.checkpoint.0));
        self.quarantined.set(flag(status.quarantined.is_some()));
        self.fenced.set(flag(status.fenced.is_some()));
    }
}

fn names(network: &Network) -> BTreeMap<ReplicaId, String> {
    network.addresses.iter().map(|(id, address)| (*id, address.name.clone())).collect()
}

fn peer_gauges(network: &Network, own: ReplicaId) -> BTreeMap<ReplicaId, Gauge> {
    let others = network.addresses.iter().filter(|(id, _)| **id != own);
    others.map(|(id, address)| (*id, gauge(&table::PEER_UP, &[&address.name]))).collect()
}

/// Prometheus counts in floats: exact up to 2^53, which no count here reaches.
#[expect(clippy::cast_precision_loss, reason = "what is above 2^53 is only shown")]
fn number(count: u64) -> f64 {
    count as f64
}
