//! etcd's Cluster service. Members change by governance, not by these calls.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use crate::api::pb::etcdserverpb as pb;
use crate::api::{Api, identity};
use crate::chain::Ownership;

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
        Err(self.refusal(&request, "althing member add"))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        Err(self.refusal(&request, "althing member remove"))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        Err(self.refusal(&request, "althing member replace"))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        Err(self.refusal(&request, "althing member promote"))
    }
}

impl ClusterService {
    /// Why a member is not changed here: where organisations share a network no single client may.
    fn refusal<T>(&self, request: &Request<T>, command: &str) -> Status {
        if let Err(refused) = identity::admit(&self.0, request) {
            return refused;
        }
        match self.0.handle.genesis().ownership {
            Ownership::Many => Status::permission_denied(format!(
                "etcdserver: permission denied: members of this network change by their \
                 organisations' signatures; see `{command} --help`"
            )),
            Ownership::One => Status::unimplemented(
                "etcdserver: members of a network made by --initial-cluster cannot be changed yet",
            ),
        }
    }
}
