//! etcd's KV service.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, async_trait};

use crate::api::convert::{
    Replies, delete_op, is_read_only, is_serializable, put_op, range_of, range_response, txn_op,
};
use crate::api::errors::Refusal;
use crate::api::holding::{Held, bytes_of};
use crate::api::identity::Caller;
use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::etcdserverpb::kv_server::Kv;
use crate::api::{Api, identity, range_stream, validate};
use crate::apply::{Reply, read_txn};
use crate::chain::{Author, Op, Parameters, Range, Value, ValueError};
use crate::node::Shared;
use crate::types::Revision;

/// The service.
pub(super) struct KvService(pub(super) Arc<Api>);

type Chunks = Pin<Box<dyn Stream<Item = Result<pb::RangeStreamResponse, Status>> + Send>>;

/// Tries to resolve a range whose values move or go while it is read.
const RANGE_TRIES: usize = 3;

impl Api {
    /// A range at this replica's state, without waiting for anyone, and the memory it takes.
    pub(super) fn range(
        &self,
        author: &Author,
        range: &Range,
    ) -> Result<(Revision, pb::RangeResponse, Held), Status> {
        let values = self.handle.values();
        let mut tries = 0;
        loop {
            tries += 1;
            let read = |shared: &Shared| {
                let kv = &shared.state.kv;
                (kv.revision(), kv.range(range))
            };
            let (revision, result) = self.permitted(author, |subject| subject.read(range), read)?;
            let result = result.map_err(Refusal::from)?;
            let held = self.budget.take(bytes_of(&result.kvs))?;
            match range_response(range, result, values.as_ref()) {
                Ok(response) => return Ok((revision, response, held)),
                // Compaction and pruning came between the two: the state knows a newer place now.
                Err(ValueError::Erased(_) | ValueError::Rotten(_)) if tries < RANGE_TRIES => {}
                Err(error) => return Err(self.unreadable(error).into()),
            }
        }
    }

    /// A transaction that only reads, at this replica's state.
    fn read_txn(&self, author: &Author, request: pb::TxnRequest) -> Result<Reply, Refusal> {
        let (op, operands) = txn_op(request)?;
        let Op::Txn(txn) = &op else { return Err(Refusal::KeyNotFound) };
        let operands: Vec<Value> =
            operands.into_iter().map(|bytes| Value { salt: [0; 16], bytes }).collect();
        let values = self.handle.values();
        let read = |shared: &Shared| read_txn(&shared.state, txn, &operands, values.as_ref());
        self.permitted(author, |subject| subject.may(&op), read)?.map_err(Refusal::from)
    }

    /// etcd's `--max-request-bytes`, and Althing's cap on keys.
    fn check_size(&self, request: &impl Message) -> Result<(), Refusal> {
        if request.encoded_len() > self.request_bytes_max() {
            return Err(Refusal::RequestTooLarge);
        }
        Ok(())
    }
}

fn check_key(key: &Bytes) -> Result<(), Refusal> {
    if key.len() > Parameters::KEY_BYTES_MAX { Err(Refusal::RequestTooLarge) } else { Ok(()) }
}

/// The cap on keys for every put of a transaction.
fn check_keys(request: &pb::TxnRequest) -> Result<(), Refusal> {
    use pb::request_op::Request;
    request.success.iter().chain(&request.failure).try_for_each(|op| match &op.request {
        Some(Request::RequestPut(put)) => check_key(&put.key),
        Some(Request::RequestTxn(nested)) => check_keys(nested),
        _ => Ok(()),
    })
}

#[async_trait]
impl Kv for KvService {
    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let api = &self.0;
        if !request.get_ref().serializable && api.handle.is_learner() {
            return Err(Refusal::NotSupportedForLearner.into());
        }
        identity::admit(api, &request)?;
        let caller = Caller::of(&request);
        let request = request.into_inner();
        validate::range(&request)?;
        if !request.serializable {
            api.barrier().await?;
        }
        let author = api.author(&caller).await?;
        let (revision, mut response, held) = api.range(&author, &range_of(request))?;
        response.header = Some(api.header(revision));
        Ok(held.with(response))
    }

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Chunks>, Status> {
        identity::admit(&self.0, &request)?;
        let caller = Caller::of(&request);
        let request = request.into_inner();
        validate::range(&request)?;
        range_stream::check(&request)?;
        if !request.serializable {
            self.0.barrier().await?;
        }
        let author = self.0.author(&caller).await?;
        let chunks = range_stream::Chunks::new(Arc::clone(&self.0), author, range_of(request));
        // Each chunk takes its own share.
        Ok(Held::default().with(Box::pin(chunks)))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let api = &self.0;
        identity::admit(api, &request)?;
        validate::put(request.get_ref())?;
        check_key(&request.get_ref().key)?;
        let author = api.author(&Caller::of(&request)).await?;
        api.check_size(request.get_ref())?;
        let (op, values) = put_op(request.into_inner());
        let reply = api.order(author, op, values).await?;
        let held = api.budget.take_for(&reply).await?;
        let values = api.handle.values();
        let (revision, mut response) = Replies { values: values.as_ref() }.put(reply)?;
        response.header = Some(api.header(revision));
        Ok(held.with(response))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let api = &self.0;
        identity::admit(api, &request)?;
        validate::delete_range(request.get_ref())?;
        let author = api.author(&Caller::of(&request)).await?;
        api.check_size(request.get_ref())?;
        let delete = delete_op(request.into_inner());
        let reply = api.order(author, delete, Vec::new()).await?;
        let held = api.budget.take_for(&reply).await?;
        let values = api.handle.values();
        let (revision, mut response) = Replies { values: values.as_ref() }.delete_range(reply)?;
        response.header = Some(api.header(revision));
        Ok(held.with(response))
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let api = &self.0;
        identity::admit(api, &request)?;
        validate::txn(request.get_ref(), api.txn_operations_max())?;
        check_keys(request.get_ref())?;
        let caller = Caller::of(&request);
        let reply = if is_read_only(request.get_ref()) {
            if !is_serializable(request.get_ref()) {
                api.barrier().await?;
            }
            let author = api.author(&caller).await?;
            api.check_size(request.get_ref())?;
            api.read_txn(&author, request.into_inner())?
        } else {
            let author = api.author(&caller).await?;
            api.check_size(request.get_ref())?;
            let (op, values) = txn_op(request.into_inner())?;
            api.order(author, op, values).await?
        };
        let held = api.budget.take_for(&reply).await?;
        let values = api.handle.values();
        let (revision, mut response) = Replies { values: values.as_ref() }.txn(reply)?;
        response.header = Some(api.header(revision));
        Ok(held.with(response))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let api = &self.0;
        identity::admit(api, &request)?;
        let revision = Revision(request.get_ref().revision);
        let author = api.author(&Caller::of(&request)).await?;
        let reply = api.order(author, Op::Compact { revision }, Vec::new()).await?;
        let revision = Api::revision_of(reply)?;
        Ok(Response::new(pb::CompactionResponse { header: Some(api.header(revision)) }))
    }
}
