//! etcd's Lock service (v3lock/lock.go over concurrency.Mutex): the oldest key under a name holds its
//! lock, and goes with its lease.

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, async_trait};

use crate::api::Api;
use crate::api::concurrency::{
    Session, created_at, first, found, get, key_of, outliving, prefix_of, put, revision_of, under,
};
use crate::api::pb::etcdserverpb as etcd;
use crate::api::pb::etcdserverpb::range_request::SortOrder;
use crate::api::pb::v3lockpb as pb;

/// The service.
pub(super) struct LockService(pub(super) Arc<Api>);

#[async_trait]
impl pb::lock_server::Lock for LockService {
    async fn lock(
        &self,
        request: Request<pb::LockRequest>,
    ) -> Result<Response<pb::LockResponse>, Status> {
        let (session, message) = Session::admit(&self.0, request)?;
        let response = outliving(|gone| async move { lock(&session, message, &gone).await });
        Ok(Response::new(response.await?))
    }

    async fn unlock(
        &self,
        request: Request<pb::UnlockRequest>,
    ) -> Result<Response<pb::UnlockResponse>, Status> {
        let (session, message) = Session::admit(&self.0, request)?;
        let header = session.delete(message.key).await?.header;
        Ok(Response::new(pb::UnlockResponse { header }))
    }
}

async fn lock(
    session: &Session,
    request: pb::LockRequest,
    gone: &CancellationToken,
) -> Result<pb::LockResponse, Status> {
    let lease = session.lease(request.lease).await?;
    let prefix = prefix_of(&request.name);
    let key = key_of(&prefix, lease);
    let oldest = || first(under(&prefix, SortOrder::Ascend));
    let taken = session
        .txn(etcd::TxnRequest {
            compare: vec![created_at(&key, 0)],
            success: vec![put(&key, Bytes::new(), lease), oldest()],
            failure: vec![get(&key), oldest()],
        })
        .await?;
    let own = match taken.succeeded {
        true => revision_of(taken.header.as_ref()),
        false => found(&taken, 0).map_or(0, |kv| kv.create_revision),
    };
    if found(&taken, 1).is_none_or(|oldest| oldest.create_revision == own) {
        return Ok(pb::LockResponse { header: taken.header, key });
    }
    let held = async {
        session.wait_deletes(&prefix, own - 1, gone).await?;
        let key = key.clone();
        session.range(etcd::RangeRequest { key, ..etcd::RangeRequest::default() }).await
    };
    match held.await {
        Ok(own) if own.kvs.is_empty() => Err(Status::unknown("mutex: session is expired")),
        Ok(own) => Ok(pb::LockResponse { header: own.header, key }),
        Err(why) => {
            // Whoever waits behind this key must not wait for a caller that has gone. If it cannot be
            // deleted now, it ends with its lease.
            let _ends_with_its_lease = session.delete(key).await;
            Err(why)
        }
    }
}
