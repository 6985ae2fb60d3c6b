//! etcd's Auth service. Authentication cannot be enabled yet: what needs it answers Unimplemented.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use crate::api::errors::Refusal;
use crate::api::pb::etcdserverpb as pb;
use crate::api::{Api, identity};

/// The revision of etcd's auth store before anything was changed in it.
const FRESH_AUTH_REVISION: u64 = 1;

/// The service.
pub(super) struct AuthService(pub(super) Arc<Api>);

#[async_trait]
impl pb::auth_server::Auth for AuthService {
    async fn auth_status(
        &self,
        request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        identity::admit(&self.0, &request)?;
        Ok(Response::new(pb::AuthStatusResponse {
            header: Some(self.0.header_now()),
            enabled: false,
            auth_revision: FRESH_AUTH_REVISION,
        }))
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        identity::admit(&self.0, &request)?;
        Err(Refusal::AuthNotEnabled.into())
    }
}
