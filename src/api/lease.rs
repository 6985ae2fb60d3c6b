//! etcd's Lease service. Time passes by ordered blocks alone: a lease expires when a block says so.

use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::api::errors::Refusal;
use crate::api::identity::Caller;
use crate::api::pb::etcdserverpb as pb;
use crate::api::{Api, identity};
use crate::apply::permission::{Need, Subject};
use crate::apply::{OpError, Reply};
use crate::chain::{Author, Op};
use crate::node::Shared;
use crate::state::{Access, TTL_SECONDS_MAX};
use crate::types::LeaseId;

const MILLIS_PER_SECOND: u64 = 1000;

/// Ids tried when the server picks one: a collision of 63 random bits is a bug long before.
const ID_TRIES: usize = 3;

/// The service.
pub(super) struct LeaseService(pub(super) Arc<Api>);

type KeepAlives = Pin<Box<dyn Stream<Item = Result<pb::LeaseKeepAliveResponse, Status>> + Send>>;

impl Api {
    async fn propose_lease(&self, author: Author, op: Op) -> Result<Reply, Status> {
        Ok(self.order(author, op, Vec::new()).await?)
    }

    async fn grant(&self, author: Author, id: i64, ttl_seconds: i64) -> Result<Reply, Status> {
        let op = Op::LeaseGrant { id: LeaseId(id), ttl_seconds };
        self.propose_lease(author, op).await
    }

    /// A grant under an id that this replica picks before it is ordered, the same on all replicas.
    async fn grant_any(&self, author: Author, ttl_seconds: i64) -> Result<Reply, Status> {
        let mut tries = 0;
        loop {
            tries += 1;
            let reply = self.grant(author.clone(), random_id()?, ttl_seconds).await?;
            let taken = matches!(reply, Reply::Error { error: OpError::LeaseExists, .. });
            if !taken || tries >= ID_TRIES {
                return Ok(reply);
            }
        }
    }

    /// One renewal. The header is taken before it: at its revision the lease was still there.
    async fn keep_alive(
        &self,
        caller: &Caller,
        request: pb::LeaseKeepAliveRequest,
    ) -> Result<pb::LeaseKeepAliveResponse, Status> {
        let id = LeaseId(request.id);
        let author = self.author_with(caller, Need::User).await?;
        let header = Some(self.header_now());
        let gone = pb::LeaseKeepAliveResponse { header, id: request.id, ttl: 0 };
        if !self.knows(id) {
            // Perhaps this replica lags; nothing is ordered for a lease that is not there.
            self.barrier().await?;
            if !self.knows(id) {
                return Ok(gone);
            }
        }
        match self.propose_lease(author, Op::LeaseKeepAlive { id }).await? {
            Reply::LeaseKeepAlive { ttl_seconds, .. } => {
                Ok(pb::LeaseKeepAliveResponse { ttl: ttl_seconds, ..gone })
            }
            Reply::Error { error: OpError::LeaseNotFound, .. } => Ok(gone),
            other => Err(Api::revision_of(other).err().unwrap_or_else(other_kind)),
        }
    }

    fn knows(&self, id: LeaseId) -> bool {
        self.handle.read(|shared| shared.state.leases.get(id).is_some())
    }
}

fn other_kind() -> Status {
    Status::internal("the reply is of another kind than the request")
}

/// A positive 63-bit number.
fn random_id() -> Result<i64, Status> {
    let random = getrandom::u64().map_err(|_| Status::internal("no random source"))?;
    Ok(i64::try_from(random >> 1).unwrap_or(i64::MAX).max(1))
}

#[async_trait]
impl pb::lease_server::Lease for LeaseService {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let api = &self.0;
        identity::admit(api, &request)?;
        let author = api.author(&Caller::of(&request)).await?;
        let pb::LeaseGrantRequest { ttl, id } = request.into_inner();
        if ttl > TTL_SECONDS_MAX {
            return Err(Refusal::LeaseTtlTooLarge.into());
        }
        let reply = match id {
            0 => api.grant_any(author, ttl).await?,
            _ => api.grant(author, id, ttl).await?,
        };
        match reply {
            Reply::LeaseGrant { revision, id, ttl_seconds } => {
                Ok(Response::new(pb::LeaseGrantResponse {
                    header: Some(api.header(revision)),
                    id: id.0,
                    ttl: ttl_seconds,
                    error: String::new(),
                }))
            }
            other => Err(Api::revision_of(other).err().unwrap_or_else(other_kind)),
        }
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let api = &self.0;
        identity::admit(api, &request)?;
        let author = api.author(&Caller::of(&request)).await?;
        let op = Op::LeaseRevoke { id: LeaseId(request.get_ref().id) };
        let reply = api.propose_lease(author, op).await?;
        let revision = Api::revision_of(reply)?;
        Ok(Response::new(pb::LeaseRevokeResponse { header: Some(api.header(revision)) }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<KeepAlives>, Status> {
        identity::admit(&self.0, &request)?;
        // A token is looked up at each renewal: it is used, and may have ended.
        let caller = Caller::of(&request);
        let api = Arc::clone(&self.0);
        let renewals = request.into_inner().then(move |renewal| {
            let (api, caller) = (Arc::clone(&api), caller.clone());
            async move { api.keep_alive(&caller, renewal?).await }
        });
        Ok(Response::new(Box::pin(renewals)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let api = &self.0;
        identity::admit(api, &request)?;
        let author = api.author(&Caller::of(&request)).await?;
        let pb::LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        api.barrier().await?;
        let header = Some(api.header_now());
        let check = |subject: &Subject<'_>| match keys {
            true => subject.lease(LeaseId(id), Access::Read),
            false => Ok(()),
        };
        let read = |shared: &Shared| {
            let leases = &shared.state.leases;
            let lease = leases.get(LeaseId(id))?;
            let attached = if keys { lease.keys.iter().cloned().collect() } else { Vec::new() };
            let left = leases.remaining(LeaseId(id))?.0 / MILLIS_PER_SECOND;
            Some((i64::try_from(left).unwrap_or(i64::MAX), lease.ttl_seconds, attached))
        };
        Ok(Response::new(match api.permitted(&author, check, read)? {
            Some((ttl, granted_ttl, keys)) => {
                pb::LeaseTimeToLiveResponse { header, id, ttl, granted_ttl, keys }
            }
            None => pb::LeaseTimeToLiveResponse {
                header,
                id,
                ttl: -1,
                ..pb::LeaseTimeToLiveResponse::default()
            },
        }))
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let api = &self.0;
        identity::admit(api, &request)?;
        let author = api.author(&Caller::of(&request)).await?;
        let read =
            |shared: &Shared| shared.state.leases.list().map(|lease| lease.id).collect::<Vec<_>>();
        let ids = api.permitted(&author, |subject| subject.all_leases(), read)?;
        let leases = ids.into_iter().map(|id| pb::LeaseStatus { id: id.0 }).collect();
        Ok(Response::new(pb::LeaseLeasesResponse { header: Some(api.header_now()), leases }))
    }
}
