//! etcd's Cluster service. Members change by governance, not by these calls.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use crate::api::pb::etcdserverpb as pb;
use crate::api::{Api, identity};

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
}
