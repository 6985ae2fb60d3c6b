//! etcd's Maintenance service.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use crate::api::convert::{alarm_kind, alarm_member, minor_version};
use crate::api::errors::Refusal;
use crate::api::identity::Caller;
use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::etcdserverpb::alarm_request::AlarmAction as Wanted;
use crate::api::pb::etcdserverpb::downgrade_request::DowngradeAction as Asked;
use crate::api::{Api, identity, member_id, snapshot};
use crate::apply::Reply;
use crate::chain::{AlarmAction, AlarmKind, Op};
use crate::types::Revision;

/// `X.Y.Z`, or `X.Y` (etcd's convertToClusterVersion).
fn is_version(text: &str) -> bool {
    let (text, build) = text.split_once('+').map_or((text, None), |(text, b)| (text, Some(b)));
    let (text, before) = text.split_once('-').map_or((text, None), |(text, b)| (text, Some(b)));
    let named = |identifier: Option<&str>| {
        let word = |word: &str| {
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        identifier.is_none_or(|identifier| identifier.is_empty() || identifier.split('.').all(word))
    };
    let numbers: Vec<_> = text.split('.').map(str::parse::<i64>).collect();
    let least = if build.or(before).is_some() { 3 } else { 2 };
    (least..=3).contains(&numbers.len())
        && numbers.iter().all(Result::is_ok)
        && named(build)
        && named(before)
}

/// The service.
pub(super) struct MaintenanceService(pub(super) Arc<Api>);

#[async_trait]
impl pb::maintenance_server::Maintenance for MaintenanceService {
    /// Answers in quarantine too: this is where an operator learns of it.
    async fn status(
        &self,
        _: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let api = &self.0;
        let alarms = api.alarms();
        let status = api.handle.status();
        let network = api.handle.network();
        Ok(Response::new(api.names.status(api.header_now(), &status, &network, &alarms)))
    }

    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        let api = &self.0;
        let caller = Caller::of(&request);
        let pb::AlarmRequest { action, member_id, alarm } = request.into_inner();
        let unknown = || Status::invalid_argument("etcdserver: unknown alarm");
        let wanted = alarm_kind(alarm).ok_or_else(unknown)?;
        let action = match Wanted::try_from(action).map_err(|_| unknown())? {
            Wanted::Get => {
                // etcd orders it. Quarantine is told of by a replica that orders nothing.
                if !api.handle.is_quarantined() {
                    api.barrier().await?;
                }
                let alarms = api.alarms().into_iter();
                let alarms = alarms.filter(|(_, kind)| [*kind, AlarmKind::Any].contains(&wanted));
                return Ok(Response::new(pb::AlarmResponse {
                    header: Some(api.header_now()),
                    alarms: alarms.map(alarm_member).collect(),
                }));
            }
            Wanted::Activate => AlarmAction::Activate,
            Wanted::Deactivate => AlarmAction::Deactivate,
        };
        let author = api.author(&caller).await?;
        let op = Op::Alarm { action, member: member_id, kind: wanted };
        let reply = api.order(author, op, Vec::new()).await?;
        match reply {
            Reply::Alarm { revision, alarms } => Ok(Response::new(pb::AlarmResponse {
                header: Some(api.header(revision)),
                alarms: alarms.into_iter().map(alarm_member).collect(),
            })),
            other => Err(Api::revision_of(other)
                .err()
                .unwrap_or_else(|| Status::internal("the reply is of another kind"))),
        }
    }

    /// etcd gives space back; here a checkpoint of all replicas does, for it lets what lies behind the
    /// one before it be erased. Like etcd's, the answer has no header.
    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        identity::admit(&self.0, &request)?;
        let author = self.0.author(&Caller::of(&request)).await?;
        Api::revision_of(self.0.order(author, Op::CheckpointNow, Vec::new()).await?)?;
        Ok(Response::new(pb::DefragmentResponse::default()))
    }

    async fn snapshot(
        &self,
        request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<snapshot::Blobs>, Status> {
        Ok(Response::new(snapshot::snapshot(&self.0, request).await?))
    }

    async fn hash(
        &self,
        request: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        identity::admit(&self.0, &request)?;
        Ok(Response::new(self.0.hash()))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        identity::admit(&self.0, &request)?;
        let revision = Revision(request.get_ref().revision);
        Ok(Response::new(self.0.hash_kv(revision).await?))
    }

    /// There is no release before this one whose files a downgrade could write, so every target is
    /// refused as one that cannot be reached.
    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        let api = &self.0;
        identity::admit(api, &request)?;
        let pb::DowngradeRequest { action, version } = request.get_ref();
        match Asked::try_from(*action) {
            Ok(Asked::Validate | Asked::Enable) if is_version(version) => {
                Err(Refusal::InvalidDowngradeTargetVersion.into())
            }
            Ok(Asked::Validate | Asked::Enable) => Err(Refusal::WrongDowngradeVersionFormat.into()),
            // As etcd's, which answers so whether or not there was one to cancel.
            Ok(Asked::Cancel) => Ok(Response::new(pb::DowngradeResponse {
                header: Some(api.header_now()),
                version: minor_version().to_owned(),
            })),
            Err(_) => Err(Status::unknown("etcdserver: unknown method")),
        }
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let api = &self.0;
        identity::admit(api, &request)?;
        if !api.names.is_leader(&api.handle) {
            return Err(Refusal::NotLeader.into());
        }
        let target = request.into_inner().target_id;
        let status = api.handle.status().core;
        let (own, next) = (api.handle.own(), status.next_primary);
        let id = |replica| member_id(&api.handle.genesis().cluster_id(), replica);
        if target == id(own) {
            // etcd answers without a header.
            return Ok(Response::new(pb::MoveLeaderResponse::default()));
        }
        if next.is_none_or(|next| target != id(next)) {
            // Views pass the lead on in a fixed order: nobody but the next in turn can take it over.
            return Err(Refusal::BadLeaderTransferee.into());
        }
        api.handle.hand_over().await.map_err(Refusal::from)?;
        Ok(Response::new(pb::MoveLeaderResponse::default()))
    }
}
