//! etcd's Cluster service. In a network of one owner members change by these calls, as in etcd
//! (`etcdserver/server.go`); where organisations share a network, by their signatures alone.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use crate::api::errors::Refusal;
use crate::api::identity::Caller;
use crate::api::pb::etcdserverpb as pb;
use crate::api::{Api, identity, validate};
use crate::chain::{Author, ConfigAction, ConfigError, Network, Ownership};
use crate::node::{NodeStatus, OwnedError};
use crate::types::ReplicaId;

/// A peer counts as connected once it has been for so long (etcd's HealthInterval).
const CONNECTED_MS: u64 = 5000;
/// So many other changes may get ahead of one.
const STALE_MAX: usize = 16;
/// Percent of the committed blocks that a learner must have executed to be promoted, as in etcd.
const READY_PERCENT: u64 = 90;

/// The service.
pub(super) struct ClusterService(pub(super) Arc<Api>);

#[async_trait]
impl pb::cluster_server::Cluster for ClusterService {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let api = &self.0;
        identity::admit(api, &request)?;
        if request.get_ref().linearizable {
            api.barrier().await?;
        }
        Ok(Response::new(pb::MemberListResponse {
            header: Some(api.names.cluster_header(&api.handle)),
            members: api.names.members(&api.handle.network()),
        }))
    }

    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let author = self.owned(&request, "althing member add").await?;
        let pb::MemberAddRequest { peer_ur_ls, is_learner } = request.into_inner();
        let peer_address = validate::peer_urls(&peer_ur_ls)?;
        self.may_add(is_learner, &peer_address)?;
        let action = ConfigAction::Reserve { peer_address, voting: !is_learner };
        let added = self.change(author, action).await?;
        let (header, members) = self.result();
        let id = added.map(|replica| self.0.names.member(replica));
        let member = members.iter().find(|member| Some(member.id) == id).cloned();
        Ok(Response::new(pb::MemberAddResponse { header, member, members }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        let author = self.owned(&request, "althing member remove").await?;
        let id = request.into_inner().id;
        self.may_remove(id)?;
        let replica = self.replica(id)?;
        let action = ConfigAction::Remove { replica, accept_smaller_f: true };
        self.change(author, action).await?;
        let (header, members) = self.result();
        Ok(Response::new(pb::MemberRemoveResponse { header, members }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let author = self.owned(&request, "althing member replace").await?;
        let pb::MemberUpdateRequest { id, peer_ur_ls } = request.into_inner();
        let replica = self.replica(id)?;
        let peer_address = validate::peer_urls(&peer_ur_ls)?;
        self.change(author, ConfigAction::Move { replica, peer_address }).await?;
        let (header, members) = self.result();
        Ok(Response::new(pb::MemberUpdateResponse { header, members }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let author = self.owned(&request, "althing member promote").await?;
        let replica = self.replica(request.into_inner().id)?;
        self.may_promote(replica)?;
        self.change(author, ConfigAction::Promote { replica }).await?;
        let (header, members) = self.result();
        Ok(Response::new(pb::MemberPromoteResponse { header, members }))
    }
}

impl ClusterService {
    /// In whose name members change here; where organisations share a network no single client may.
    /// Whether this one may is apply's to say, on every replica (protocol.md 22.8).
    async fn owned<T>(&self, request: &Request<T>, command: &str) -> Result<Author, Status> {
        identity::admit(&self.0, request)?;
        match self.0.handle.genesis().ownership {
            Ownership::One => Ok(self.0.author(&Caller::of(request)).await?),
            Ownership::Many => Err(Status::permission_denied(format!(
                "etcdserver: permission denied: members of this network change by their \
                 organisations' signatures; see `{command} --help`"
            ))),
        }
    }

    fn result(&self) -> (Option<pb::ResponseHeader>, Vec<pb::Member>) {
        let api = &self.0;
        let members = api.names.members(&api.handle.network());
        (Some(api.names.cluster_header(&api.handle)), members)
    }

    fn replica(&self, id: u64) -> Result<ReplicaId, Refusal> {
        let found = self.0.names.replica(&self.0.handle.network(), id);
        found.ok_or(Refusal::MemberNotFound)
    }

    /// Orders a change; again, if another one came first.
    async fn change(
        &self,
        author: Author,
        action: ConfigAction,
    ) -> Result<Option<ReplicaId>, Refusal> {
        for _ in 0..STALE_MAX {
            match self.0.handle.change_owned(author.clone(), action.clone()).await {
                Ok(added) => return Ok(added),
                Err(OwnedError::Config(ConfigError::Stale)) => {}
                // As in etcd, who asks for what is so already is answered as if it were done now.
                Err(OwnedError::Config(ConfigError::NoChange)) => return Ok(None),
                Err(OwnedError::Config(error)) => return Err(error.into()),
                Err(OwnedError::Refused(error)) => return Err(error.into()),
                Err(OwnedError::Node(error)) => return Err(error.into()),
            }
        }
        Err(Refusal::Timeout)
    }

    /// etcd's mayAddMember, and its limit of learners, which it looks at behind the URLs
    /// (`membership/cluster.go`, ValidateConfigurationChange).
    fn may_add(&self, learner: bool, peer_address: &str) -> Result<(), Refusal> {
        let (settings, handle) = (&self.0.settings, &self.0.handle);
        let network = handle.network();
        let seats = Seats::of(&network, &handle.status());
        if settings.strict_reconfiguration {
            let after = seats.voters + 1;
            // A network of one may always grow, for that is how a lost one is made whole again.
            let grows = seats.started == 1 && after == 2;
            if !learner && !grows && seats.started < majority(after) {
                return Err(Refusal::MemberNotEnoughStarted);
            }
            if seats.voters > 1 && seats.connected < majority(after) {
                return Err(Refusal::Unhealthy);
            }
        }
        if network.has_peer_url(peer_address) {
            return Err(Refusal::PeerUrlExist);
        }
        if learner && seats.learners >= settings.learners_max {
            return Err(Refusal::TooManyLearners);
        }
        Ok(())
    }

    /// etcd's mayRemoveMember.
    fn may_remove(&self, id: u64) -> Result<(), Refusal> {
        let (settings, handle) = (&self.0.settings, &self.0.handle);
        let network = handle.network();
        let replica = self.0.names.replica(&network, id);
        if !settings.strict_reconfiguration || replica.is_some_and(|id| !votes(&network, id)) {
            return Ok(());
        }
        let status = handle.status();
        let seats = Seats::of(&network, &status);
        let (left, started) = match replica {
            Some(id) => (seats.voters - 1, seats.started - usize::from(!network.awaits(id))),
            None => (seats.voters, seats.started),
        };
        if started < majority(left) {
            return Err(Refusal::MemberNotEnoughStarted);
        }
        // One that is down is no part of the quorum that is there.
        let down = replica != Some(status.own)
            && replica.is_none_or(|id| !status.linked_ms.contains_key(&id));
        if !down && seats.connected.saturating_sub(1) < majority(seats.voters - 1) {
            return Err(Refusal::Unhealthy);
        }
        Ok(())
    }

    /// etcd's mayPromoteMember, which asks of voters too whether they have caught up; that is asked of the last
    /// STATUS, and a learner must be there.
    fn may_promote(&self, replica: ReplicaId) -> Result<(), Refusal> {
        let (settings, handle) = (&self.0.settings, &self.0.handle);
        let (network, status) = (handle.network(), handle.status());
        let voter = votes(&network, replica);
        let executed = match status.core.peers.get(&replica) {
            Some(peer) if peer.up || voter => peer.executed.0,
            _ if replica == status.own => status.core.executed.0,
            _ => return Err(Refusal::LearnerNotReady),
        };
        let behind = executed * 100 < status.core.committed.0 * READY_PERCENT;
        if network.membership.member(replica).is_none() || behind {
            return Err(Refusal::LearnerNotReady);
        }
        let seats = Seats::of(&network, &status);
        if settings.strict_reconfiguration && seats.started + 1 < majority(seats.voters + 1) {
            return Err(Refusal::MemberNotEnoughStarted);
        }
        if voter { Err(Refusal::MemberNotLearner) } else { Ok(()) }
    }
}

fn majority(count: usize) -> usize {
    count / 2 + 1
}

/// Whether a member is a voting one to etcd's clients: it votes, or was added to.
fn votes(network: &Network, id: ReplicaId) -> bool {
    network.membership.voter(id).is_some()
        || network.reserved.get(&id).is_some_and(|reserved| reserved.voting)
}

/// What etcd counts before it lets members change. All but learners are voting members.
struct Seats {
    voters: usize,
    /// Voting members that have ever started.
    started: usize,
    /// Voting members that this one has been connected to for a while, itself included.
    connected: usize,
    learners: usize,
}

impl Seats {
    fn of(network: &Network, status: &NodeStatus) -> Self {
        let reserved = network.reserved.keys().filter(|id| network.awaits(**id));
        let all: Vec<ReplicaId> = network.addresses.keys().chain(reserved).copied().collect();
        let voters: Vec<ReplicaId> = all.iter().copied().filter(|id| votes(network, *id)).collect();
        let connected = |id: &&ReplicaId| {
            let since = status.linked_ms.get(*id);
            **id == status.own || since.is_some_and(|since| *since >= CONNECTED_MS)
        };
        Self {
            voters: voters.len(),
            started: voters.iter().filter(|id| !network.awaits(**id)).count(),
            connected: voters.iter().filter(connected).count(),
            learners: all.len() - voters.len(),
        }
    }
}
