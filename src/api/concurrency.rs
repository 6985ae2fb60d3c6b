//! What the Lock and Election services share: etcd's client/v3/concurrency, which its server runs on
//! itself. Every step is an ordinary request of the same caller to the other services of this replica.

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Status};

use crate::api::errors::Refusal;
use crate::api::identity::Caller;
use crate::api::kv::KvService;
use crate::api::lease::LeaseService;
use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::api::pb::etcdserverpb::kv_server::Kv;
use crate::api::pb::etcdserverpb::lease_server::Lease;
use crate::api::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::api::pb::etcdserverpb::request_op::Request as Operation;
use crate::api::pb::mvccpb;
use crate::api::{Api, identity};
use crate::chain::Range;
use crate::types::Revision;
use crate::watch::KeyRange;

/// The lease that a session without one gets (concurrency.NewSession).
const TTL_SECONDS: i64 = 60;

/// The requests of one caller to this replica.
#[derive(Clone)]
pub(super) struct Session {
    api: Arc<Api>,
    metadata: MetadataMap,
    extensions: Extensions,
}

impl Session {
    /// A caller's message, and the session to do it in.
    ///
    /// # Errors
    /// Those of [`identity::admit`].
    pub(super) fn admit<T>(api: &Arc<Api>, request: Request<T>) -> Result<(Self, T), Status> {
        identity::admit(api, &request)?;
        let (metadata, extensions, message) = request.into_parts();
        Ok((Self { api: Arc::clone(api), metadata, extensions }, message))
    }

    pub(super) fn api(&self) -> &Arc<Api> {
        &self.api
    }

    fn ask<T>(&self, message: T) -> Request<T> {
        Request::from_parts(self.metadata.clone(), self.extensions.clone(), message)
    }

    /// The lease asked for, or a new one.
    pub(super) async fn lease(&self, lease: i64) -> Result<i64, Status> {
        if lease != 0 {
            return Ok(lease);
        }
        let grant = self.ask(pb::LeaseGrantRequest { ttl: TTL_SECONDS, id: 0 });
        let granted = LeaseService(Arc::clone(&self.api)).lease_grant(grant).await;
        Ok(granted.map_err(unmapped)?.into_inner().id)
    }

    pub(super) async fn range(&self, range: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        let found = KvService(Arc::clone(&self.api)).range(self.ask(range)).await;
        Ok(found.map_err(unmapped)?.into_inner())
    }

    pub(super) async fn txn(&self, txn: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
        let done = KvService(Arc::clone(&self.api)).txn(self.ask(txn)).await;
        Ok(done.map_err(unmapped)?.into_inner())
    }

    pub(super) async fn delete(&self, key: Bytes) -> Result<pb::DeleteRangeResponse, Status> {
        let delete = pb::DeleteRangeRequest { key, ..pb::DeleteRangeRequest::default() };
        let done = KvService(Arc::clone(&self.api)).delete_range(self.ask(delete)).await;
        Ok(done.map_err(unmapped)?.into_inner())
    }

    /// Whether the caller may read a range now: he may have lost the right.
    pub(super) async fn may_read(&self, key: &Bytes, range_end: &Bytes) -> Result<(), Status> {
        let author = self.api.author(&Caller::of(&self.ask(()))).await?;
        let (key, range_end) = (key.clone(), range_end.clone());
        let range = Range { key, range_end, ..Range::default() };
        Ok(self.api.permitted(&author, |subject| subject.read(&range), |_| ())?)
    }

    /// Returns when no key under `prefix` is left that was created at or before `created_max`.
    ///
    /// # Errors
    /// A read is refused, the replica stops, or the caller has gone.
    pub(super) async fn wait_deletes(
        &self,
        prefix: &[u8],
        created_max: i64,
        gone: &CancellationToken,
    ) -> Result<(), Status> {
        loop {
            let mut newest = under(prefix, SortOrder::Descend);
            newest.max_create_revision = created_max;
            let found = self.range(newest).await?;
            let Some(last) = found.kvs.into_iter().next() else { return Ok(()) };
            tokio::select! {
                deleted = self.wait_delete(last) => deleted?,
                () = gone.cancelled() => return Err(Refusal::Canceled.into()),
            }
        }
    }

    /// Returns when the key has been deleted, though it may be there again.
    async fn wait_delete(&self, kv: mvccpb::KeyValue) -> Result<(), Status> {
        let range = KeyRange::new(kv.key.clone(), Bytes::new()).expect("a key is a range");
        let registration = self.api.wakes.register();
        registration.insert(0, range);
        loop {
            registration.take();
            let created =
                self.api.handle.read(|shared| shared.state.kv.get(&kv.key)).map(|now| now.create);
            if created != Some(Revision(kv.create_revision)) {
                return Ok(());
            }
            self.api.check_serving().map_err(unmapped)?;
            registration.woken().await;
        }
    }
}

impl Api {
    /// Whether those who wait for an event may still hope for it here.
    ///
    /// # Errors
    /// "server stopped".
    pub(super) fn check_serving(&self) -> Result<(), Status> {
        if self.wakes.is_stopped() || self.handle.is_quarantined() {
            return Err(Refusal::Stopped.into());
        }
        Ok(())
    }
}

/// Runs `work` to its end though the caller may go: it is told by the token, and cleans up.
///
/// # Errors
/// Those of `work`.
pub(super) async fn outliving<T, F>(work: impl FnOnce(CancellationToken) -> F) -> Result<T, Status>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Status>> + Send + 'static,
{
    let gone = CancellationToken::new();
    let guard = gone.clone().drop_guard();
    let done = tokio::spawn(work(gone)).await;
    drop(guard);
    done.unwrap_or_else(|_| Err(Refusal::Stopped.into()))
}

/// etcd hands the errors of its inner client on as they are, and gRPC knows no code for them.
pub(super) fn unmapped(status: Status) -> Status {
    Status::unknown(status.message())
}

/// What the keys of all who want the lock, or the office, of a name begin with.
pub(super) fn prefix_of(name: &[u8]) -> Vec<u8> {
    [name, b"/"].concat()
}

/// The key of a lease under a prefix: Go's `%x` of the number.
pub(super) fn key_of(prefix: &[u8], lease: i64) -> Bytes {
    let sign = if lease < 0 { "-" } else { "" };
    [prefix, format!("{sign}{:x}", lease.unsigned_abs()).as_bytes()].concat().into()
}

/// The first key under `prefix` by creation: the oldest, or the newest.
pub(super) fn under(prefix: &[u8], order: SortOrder) -> pb::RangeRequest {
    pb::RangeRequest {
        key: Bytes::copy_from_slice(prefix),
        range_end: prefix_end(prefix),
        limit: 1,
        sort_order: order.into(),
        sort_target: SortTarget::Create.into(),
        ..pb::RangeRequest::default()
    }
}

/// Behind all keys that begin so. A prefix of a session ends with a slash.
pub(super) fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end.into()
}

/// That a key was created at a revision; 0 for a key that is not there.
pub(super) fn created_at(key: &Bytes, revision: i64) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.clone(),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
    }
}

pub(super) fn put(key: &Bytes, value: Bytes, lease: i64) -> pb::RequestOp {
    let put = pb::PutRequest { key: key.clone(), value, lease, ..pb::PutRequest::default() };
    pb::RequestOp { request: Some(Operation::RequestPut(put)) }
}

pub(super) fn get(key: &Bytes) -> pb::RequestOp {
    first(pb::RangeRequest { key: key.clone(), ..pb::RangeRequest::default() })
}

pub(super) fn first(range: pb::RangeRequest) -> pb::RequestOp {
    pb::RequestOp { request: Some(Operation::RequestRange(range)) }
}

/// What the `at`th operation of a transaction, a range, found first.
pub(super) fn found(response: &pb::TxnResponse, at: usize) -> Option<&mvccpb::KeyValue> {
    use pb::response_op::Response::ResponseRange;
    match response.responses.get(at)?.response.as_ref()? {
        ResponseRange(range) => range.kvs.first(),
        _ => None,
    }
}

/// The revision of a response's header.
pub(super) fn revision_of(header: Option<&pb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}
