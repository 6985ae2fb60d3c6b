//! etcd's Election service (v3election/election.go over concurrency.Election): the oldest key under a
//! name leads, its value is what the leader proclaims, and it goes with its lease.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, async_trait};

use crate::api::Api;
use crate::api::concurrency::{
    Session, created_at, found, get, key_of, outliving, prefix_of, put, revision_of, under,
    unmapped,
};
use crate::api::follow::{Change, Follower};
use crate::api::pb::etcdserverpb as etcd;
use crate::api::pb::etcdserverpb::range_request::SortOrder;
use crate::api::pb::etcdserverpb::request_op::Request as Operation;
use crate::api::pb::mvccpb::KeyValue;
use crate::api::pb::v3electionpb as pb;

/// The service.
pub(super) struct ElectionService(pub(super) Arc<Api>);

type Leaders = Pin<Box<dyn Stream<Item = Result<pb::LeaderResponse, Status>> + Send>>;

#[async_trait]
impl pb::election_server::Election for ElectionService {
    async fn campaign(
        &self,
        request: Request<pb::CampaignRequest>,
    ) -> Result<Response<pb::CampaignResponse>, Status> {
        let (session, message) = Session::admit(&self.0, request)?;
        let response = outliving(|gone| async move { campaign(&session, message, &gone).await });
        Ok(Response::new(response.await?))
    }

    async fn proclaim(
        &self,
        request: Request<pb::ProclaimRequest>,
    ) -> Result<Response<pb::ProclaimResponse>, Status> {
        let (session, pb::ProclaimRequest { leader, value }) = Session::admit(&self.0, request)?;
        let pb::LeaderKey { key, rev, lease, .. } = leader.ok_or_else(no_leader_key)?;
        let lease = session.lease(lease).await?;
        let header = proclaim(&session, (&key, rev), lease, value).await?;
        Ok(Response::new(pb::ProclaimResponse { header }))
    }

    async fn leader(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<pb::LeaderResponse>, Status> {
        let (session, message) = Session::admit(&self.0, request)?;
        let oldest = under(&prefix_of(&message.name), SortOrder::Ascend);
        let etcd::RangeResponse { header, kvs, .. } = session.range(oldest).await?;
        let kv = kvs.into_iter().next().ok_or_else(|| Status::unknown("election: no leader"))?;
        Ok(Response::new(pb::LeaderResponse { header, kv: Some(kv) }))
    }

    async fn observe(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<Leaders>, Status> {
        let (session, message) = Session::admit(&self.0, request)?;
        // One leader waits to be taken, the next is looked for behind it.
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let (gone, prefix) = (sender.clone(), prefix_of(&message.name));
            tokio::select! {
                // As etcd's: whatever goes wrong ends the stream without an error.
                _ended = observe(&session, &prefix, &sender) => {}
                () = gone.closed() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn resign(
        &self,
        request: Request<pb::ResignRequest>,
    ) -> Result<Response<pb::ResignResponse>, Status> {
        let (session, pb::ResignRequest { leader }) = Session::admit(&self.0, request)?;
        let pb::LeaderKey { key, rev, lease, .. } = leader.ok_or_else(no_leader_key)?;
        session.lease(lease).await?;
        let header = resign(&session, &key, rev).await?;
        Ok(Response::new(pb::ResignResponse { header }))
    }
}

fn no_leader_key() -> Status {
    Status::unknown("\"leader\" field must be provided")
}

async fn campaign(
    session: &Session,
    request: pb::CampaignRequest,
    gone: &CancellationToken,
) -> Result<pb::CampaignResponse, Status> {
    let pb::CampaignRequest { name, lease, value } = request;
    let lease = session.lease(lease).await?;
    let prefix = prefix_of(&name);
    let key = key_of(&prefix, lease);
    let entered = session
        .txn(etcd::TxnRequest {
            compare: vec![created_at(&key, 0)],
            success: vec![put(&key, value.clone(), lease)],
            failure: vec![get(&key)],
        })
        .await?;
    let mut rev = revision_of(entered.header.as_ref());
    if let (false, Some(own)) = (entered.succeeded, found(&entered, 0)) {
        rev = own.create_revision;
        if own.value != value
            && let Err(why) = proclaim(session, (&key, rev), lease, value).await
        {
            let _ends_with_its_lease = resign(session, &key, rev).await;
            return Err(why);
        }
    }
    if let Err(why) = session.wait_deletes(&prefix, rev - 1, gone).await {
        if gone.is_cancelled() {
            // Nobody is elected who does not know it. If it cannot be deleted, it ends with its lease.
            let _ends_with_its_lease = resign(session, &key, rev).await;
        }
        return Err(why);
    }
    let leader = Some(pb::LeaderKey { name, key, rev, lease });
    Ok(pb::CampaignResponse { header: entered.header, leader })
}

/// Changes the value of a key created at `rev`.
async fn proclaim(
    session: &Session,
    (key, rev): (&Bytes, i64),
    lease: i64,
    value: Bytes,
) -> Result<Option<etcd::ResponseHeader>, Status> {
    let done = session
        .txn(etcd::TxnRequest {
            compare: vec![created_at(key, rev)],
            success: vec![put(key, value, lease)],
            failure: Vec::new(),
        })
        .await?;
    if !done.succeeded {
        return Err(Status::unknown("election: not leader"));
    }
    Ok(done.header)
}

/// Deletes a key created at `rev`; one that is another's by now stays.
async fn resign(
    session: &Session,
    key: &Bytes,
    rev: i64,
) -> Result<Option<etcd::ResponseHeader>, Status> {
    let delete = etcd::DeleteRangeRequest { key: key.clone(), ..Default::default() };
    let delete = etcd::RequestOp { request: Some(Operation::RequestDeleteRange(delete)) };
    let done = session
        .txn(etcd::TxnRequest {
            compare: vec![created_at(key, rev)],
            success: vec![delete],
            failure: Vec::new(),
        })
        .await?;
    Ok(done.header)
}

/// Sends each leader and all that it proclaims, until the receiver goes.
async fn observe(
    session: &Session,
    prefix: &[u8],
    leaders: &mpsc::Sender<Result<pb::LeaderResponse, Status>>,
) -> Result<(), Status> {
    loop {
        let now = session.range(under(prefix, SortOrder::Ascend)).await?;
        let (header, kv) = match now.kvs.into_iter().next() {
            Some(kv) => (now.header, kv),
            None => first_put(session, prefix, revision_of(now.header.as_ref())).await?,
        };
        let from = revision_of(header.as_ref()) + 1;
        let key = kv.key.clone();
        send(leaders, header, kv).await?;
        let mut changes = Follower::of_key(session, &key, from)?;
        // A leader that is gone is followed by the next.
        while let (header, Change::Put(kv)) = changes.next().await? {
            send(leaders, header, kv).await?;
        }
    }
}

/// The first key put under a prefix from `revision` on, in the header of its own revision.
async fn first_put(
    session: &Session,
    prefix: &[u8],
    revision: i64,
) -> Result<(Option<etcd::ResponseHeader>, KeyValue), Status> {
    let mut changes = Follower::of_prefix(session, prefix, revision)?;
    loop {
        if let (header, Change::Put(kv)) = changes.next().await? {
            let header =
                header.map(|header| etcd::ResponseHeader { revision: kv.mod_revision, ..header });
            return Ok((header, kv));
        }
    }
}

async fn send(
    leaders: &mpsc::Sender<Result<pb::LeaderResponse, Status>>,
    header: Option<etcd::ResponseHeader>,
    kv: KeyValue,
) -> Result<(), Status> {
    let response = pb::LeaderResponse { header, kv: Some(kv) };
    leaders.send(Ok(response)).await.map_err(|_| unmapped(Status::cancelled("nobody reads")))
}
