//! etcd 3.7's RangeStream: one range in chunks, pinned to the revision it began at.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use prost::Message;
use tokio_stream::Stream;
use tonic::Status;

use crate::api::Api;
use crate::api::holding::Held;
use crate::api::pb::etcdserverpb as pb;
use crate::chain::{Author, Range};
use crate::types::Revision;

/// Keys of the first chunk (etcd's initialStreamChunkLimit).
const FIRST_CHUNK_KEYS: i64 = 10;

/// What RangeStream cannot do, after the checks of Range (etcd's checkRangeStreamRequest).
pub(super) fn check(request: &pb::RangeRequest) -> Result<(), Status> {
    use pb::range_request::{SortOrder, SortTarget};
    let by_key = request.sort_target() == SortTarget::Key;
    let default_order = request.sort_order() == SortOrder::None
        || (by_key && request.sort_order() == SortOrder::Ascend);
    if !default_order {
        return Err(Status::unimplemented("RangeStream does not support custom sort orders"));
    }
    let filters = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if filters.iter().any(|filter| *filter != 0) {
        return Err(Status::unimplemented("RangeStream does not support revision filters"));
    }
    Ok(())
}

/// The chunks, each read when the client has taken the one before: nothing is held between them but
/// the key to go on from.
pub(super) struct Chunks {
    api: Arc<Api>,
    /// Asked at every chunk: a stream ends when users or roles change.
    author: Author,
    range: Range,
    /// Keys still wanted.
    left: i64,
    /// Keys sent.
    sent: i64,
    /// The store's revision when the stream began.
    began: Option<Revision>,
    /// Of the chunk that the client is taking.
    held: Held,
    done: bool,
}

impl Chunks {
    pub(super) fn new(api: Arc<Api>, author: Author, mut range: Range) -> Self {
        let left = if range.limit > 0 { range.limit } else { i64::MAX };
        range.limit = FIRST_CHUNK_KEYS.min(left);
        Self { api, author, range, left, sent: 0, began: None, held: Held::default(), done: false }
    }

    fn next(&mut self) -> Result<pb::RangeResponse, Status> {
        // The client has taken the chunk before.
        self.held = Held::default();
        let (current, mut response, held) = self.api.range(&self.author, &self.range)?;
        self.held = held;
        let began = *self.began.get_or_insert(current);
        if self.range.revision <= 0 {
            self.range.revision = began.0;
        }
        if self.range.count_only {
            self.done = true;
            response.header = Some(self.api.header(began));
            return Ok(response);
        }
        let keys = i64::try_from(response.kvs.len()).unwrap_or(i64::MAX);
        self.left -= keys;
        self.sent += keys;
        self.done = !response.more || self.left <= 0;
        if response.more {
            let last = response.kvs.last().ok_or_else(|| Status::internal("an empty chunk"))?;
            self.range.key = [&last.key[..], &[0]].concat().into();
        }
        if self.done {
            response.header = Some(self.api.header(began));
            response.count = self.sent + if response.more { self.remaining()? } else { 0 };
        } else {
            self.range.limit = self.next_limit(response.encoded_len()).min(self.left);
            (response.more, response.count) = (false, 0);
        }
        Ok(response)
    }

    /// Keys behind the last one sent. A page ordered by something else than keys does not end with its
    /// greatest key, and etcd goes on, and counts, from the one it ends with.
    fn remaining(&self) -> Result<i64, Status> {
        let behind = Range { count_only: true, limit: 0, ..self.range.clone() };
        Ok(self.api.range(&self.author, &behind)?.1.count)
    }

    /// Towards chunks of `--max-request-bytes`, by doubling and halving, never none.
    fn next_limit(&self, bytes: usize) -> i64 {
        let target = self.api.request_bytes_max();
        let limit = self.range.limit;
        if bytes < target / 2 {
            limit.saturating_mul(2)
        } else if bytes > target * 2 {
            (limit / 2).max(1)
        } else {
            limit
        }
    }
}

impl Stream for Chunks {
    type Item = Result<pb::RangeStreamResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        let chunk = self.next();
        self.done |= chunk.is_err();
        let message = |response| pb::RangeStreamResponse { range_response: Some(response) };
        Poll::Ready(Some(chunk.map(message)))
    }
}
