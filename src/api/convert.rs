//! Althing's words to etcd's and back. The only module that says term, index, leader and member
//! where the rest says view, height, primary and replica (layout.md 3).

mod reply;
mod request;

pub(super) use reply::{Replies, ResolveError, event_bytes, put_of, range_response};
pub(super) use request::{delete_op, is_read_only, is_serializable, put_op, range_of, txn_op};

use crate::api::pb::etcdserverpb::{
    AlarmMember, AlarmType, DowngradeInfo, Member, ResponseHeader, StatusResponse,
};
use crate::chain::{AlarmKind, Network, peer_urls};
use crate::node::{Handle, NodeStatus, STORAGE_VERSION};
use crate::types::{ClusterId, Epoch, ReplicaId, Revision, View};

/// The release whose behaviour this server shows. kube-apiserver decides by it what it may ask for
/// (etcd-surface.md 1.3).
pub const ETCD_VERSION: &str = "3.7.3";

/// [`ETCD_VERSION`] without its patch.
pub(super) fn minor_version() -> &'static str {
    ETCD_VERSION.rsplit_once('.').map_or(ETCD_VERSION, |(minor, _patch)| minor)
}

/// etcd's 64-bit cluster id: the first bytes of the genesis hash.
pub fn cluster_id(network: &ClusterId) -> u64 {
    word(network, 0)
}

/// etcd's 64-bit member id. Distinct within a network, because the step is odd, and never 0, which
/// etcd reads as nobody.
pub fn member_id(network: &ClusterId, replica: ReplicaId) -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let id = word(network, 8).wrapping_add(STEP.wrapping_mul(u64::from(replica.0) + 1));
    id.max(1)
}

fn word(digest: &ClusterId, at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest.0[at..at + 8]);
    u64::from_be_bytes(bytes)
}

/// A number that grows with every view of every epoch and is never 0.
fn term(epoch: Epoch, view: View) -> u64 {
    (epoch.0 << 32).saturating_add(view.0).saturating_add(1)
}

/// The parts of every header and status that do not change while the process runs.
#[derive(Clone)]
pub(super) struct Names {
    network: ClusterId,
    cluster_id: u64,
    member_id: u64,
}

impl Names {
    /// This replica's member id.
    pub(super) fn own(&self) -> u64 {
        self.member_id
    }

    pub(super) fn new(handle: &Handle) -> Self {
        let network = handle.genesis().cluster_id();
        let member_id = member_id(&network, handle.own());
        Self { network, cluster_id: cluster_id(&network), member_id }
    }

    /// The header of a reply at `revision`.
    pub(super) fn header(&self, handle: &Handle, revision: Revision) -> ResponseHeader {
        let (epoch, view) = handle.view();
        ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.member_id,
            revision: revision.0,
            raft_term: term(epoch, view),
        }
    }

    /// etcd's Status of this replica; `alarms` as the state holds them.
    pub(super) fn status(
        &self,
        header: ResponseHeader,
        status: &NodeStatus,
        network: &Network,
        alarms: &[(u64, AlarmKind)],
    ) -> StatusResponse {
        let leader = status.core.primary.filter(|_| status.core.has_leader);
        // Never 0, as a file's size is not: `etcdctl endpoint status` divides by it.
        let bytes = i64::try_from(status.logical_bytes).unwrap_or(i64::MAX).max(1);
        let mut errors = Vec::new();
        if leader.is_none() {
            errors.push("etcdserver: no leader".to_owned());
        }
        for alarm in alarms {
            let AlarmMember { member_id, alarm } = alarm_member(*alarm);
            let kind = AlarmType::try_from(alarm).unwrap_or_default().as_str_name();
            // Go's text form of the message, which etcd puts here.
            errors.push(format!("memberID:{member_id} alarm:{kind}"));
        }
        errors.extend(status.quarantined.iter().map(|why| format!("quarantined: {why}")));
        StatusResponse {
            header: Some(header),
            version: ETCD_VERSION.to_owned(),
            db_size: bytes,
            leader: leader.map_or(0, |replica| member_id(&self.network, replica)),
            raft_index: status.core.committed.0,
            raft_term: header.raft_term,
            raft_applied_index: status.core.executed.0,
            errors,
            db_size_in_use: bytes,
            is_learner: network.is_learner(status.own),
            storage_version: STORAGE_VERSION.to_owned(),
            db_size_quota: i64::try_from(network.membership.parameters.quota_bytes)
                .unwrap_or(i64::MAX),
            downgrade_info: Some(DowngradeInfo::default()),
        }
    }

    /// The header of the Cluster service: it carries no revision.
    pub(super) fn cluster_header(&self, handle: &Handle) -> ResponseHeader {
        self.header(handle, Revision(0))
    }

    /// Whether this replica is the leader.
    pub(super) fn is_leader(&self, handle: &Handle) -> bool {
        handle.has_leader() && handle.status().core.primary == Some(handle.own())
    }

    /// The members as this replica's state names them.
    pub(super) fn members(&self, network: &Network) -> Vec<Member> {
        let members = network.membership.members.iter();
        let known = members.filter_map(|one| Some((one, network.addresses.get(&one.id)?)));
        let member = known.map(|(member, address)| Member {
            id: member_id(&self.network, member.id),
            name: address.name.clone(),
            peer_ur_ls: peer_urls(&address.peer_address),
            client_ur_ls: address.client_urls.clone(),
            is_learner: network.is_learner(member.id),
        });
        let unstarted = network.reserved.iter().filter(|(id, _)| network.awaits(**id));
        let unstarted = unstarted.map(|(id, reserved)| Member {
            id: member_id(&self.network, *id),
            name: String::new(),
            peer_ur_ls: peer_urls(&reserved.peer_address),
            client_ur_ls: Vec::new(),
            is_learner: !reserved.voting,
        });
        let mut all: Vec<Member> = member.chain(unstarted).collect();
        all.sort_by_key(|member| member.id);
        all
    }

    /// A replica's member id.
    pub(super) fn member(&self, replica: ReplicaId) -> u64 {
        member_id(&self.network, replica)
    }

    /// The replica with this member id, started or not.
    pub(super) fn replica(&self, network: &Network, id: u64) -> Option<ReplicaId> {
        let ids = network.addresses.keys().chain(network.reserved.keys());
        ids.copied().find(|replica| member_id(&self.network, *replica) == id)
    }
}

/// One raised alarm.
pub(super) fn alarm_member((member_id, kind): (u64, AlarmKind)) -> AlarmMember {
    let alarm = match kind {
        AlarmKind::Any => AlarmType::None,
        AlarmKind::NoSpace => AlarmType::Nospace,
        AlarmKind::Corrupt => AlarmType::Corrupt,
    };
    AlarmMember { member_id, alarm: alarm.into() }
}

/// The alarm a request names; None for one that etcd does not know.
pub(super) fn alarm_kind(alarm: i32) -> Option<AlarmKind> {
    Some(match AlarmType::try_from(alarm).ok()? {
        AlarmType::None => AlarmKind::Any,
        AlarmType::Nospace => AlarmKind::NoSpace,
        AlarmType::Corrupt => AlarmKind::Corrupt,
    })
}
