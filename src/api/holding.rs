//! Bytes of answers that clients have not taken yet: bounded for the process (faults.md C7). A client that
//! asks for much and reads nothing holds a share of the bound, not memory without end.

use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::apply::Reply;
use crate::state::KeyValue;

/// Most bytes that wait; one answer alone may have more.
const BYTES_MAX: u64 = 512 << 20;

const UNIT_BYTES: u64 = 1 << 10;

/// What every stream may hold besides: less than its own state costs.
const UNCOUNTED_BYTES: u64 = 4 << 10;

/// Given to the transport at a time: it keeps what it has been given until the client's window opens.
const PIECE_BYTES: usize = 64 << 10;

/// What has been ordered cannot be refused any more: its answer waits for room, less than its client does.
const PATIENCE: Duration = Duration::from_secs(5);

/// Beside key and value.
const KEY_VALUE_BYTES: u64 = 32;

const REFUSAL: &str = "etcdserver: too many bytes of answers wait for their clients";

/// The bound.
pub(super) struct Budget {
    units: Arc<Semaphore>,
    units_max: u32,
}

/// An answer's share, free again when all copies are gone. As an extension of a response it is kept until
/// the client has taken the last byte.
#[derive(Clone, Default)]
pub(super) struct Held {
    _share: Option<Arc<OwnedSemaphorePermit>>,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self::of(BYTES_MAX)
    }

    fn of(bytes_max: u64) -> Self {
        let units_max = u32::try_from(bytes_max / UNIT_BYTES).unwrap_or(u32::MAX);
        Self { units: Arc::new(Semaphore::new(units_max as usize)), units_max }
    }

    fn units(&self, bytes: u64) -> u32 {
        if bytes <= UNCOUNTED_BYTES {
            return 0;
        }
        u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX).min(self.units_max)
    }

    /// A share for an answer that has yet to be made.
    ///
    /// # Errors
    /// ResourceExhausted.
    pub(super) fn take(&self, bytes: u64) -> Result<Held, Status> {
        match self.units(bytes) {
            0 => Ok(Held::default()),
            units => match Arc::clone(&self.units).try_acquire_many_owned(units) {
                Ok(permit) => Ok(Held { _share: Some(Arc::new(permit)) }),
                Err(_) => Err(Status::resource_exhausted(REFUSAL)),
            },
        }
    }

    /// A share for the answer to what was done.
    ///
    /// # Errors
    /// ResourceExhausted.
    pub(super) async fn take_for(&self, reply: &Reply) -> Result<Held, Status> {
        self.wait_for(reply_bytes(reply)).await
    }

    /// The same for an answer of so many bytes.
    ///
    /// # Errors
    /// ResourceExhausted.
    pub(super) async fn wait_for(&self, bytes: u64) -> Result<Held, Status> {
        let units = self.units(bytes);
        if units == 0 {
            return Ok(Held::default());
        }
        let permit = Arc::clone(&self.units).acquire_many_owned(units);
        match tokio::time::timeout(PATIENCE, permit).await {
            Ok(Ok(permit)) => Ok(Held { _share: Some(Arc::new(permit)) }),
            _ => Err(Status::resource_exhausted(REFUSAL)),
        }
    }
}

impl Held {
    /// Keeps the share until the client has the answer.
    pub(super) fn with<T>(self, answer: T) -> tonic::Response<T> {
        let mut response = tonic::Response::new(answer);
        response.extensions_mut().insert(self);
        response
    }
}

/// What these are when their values have been read.
pub(super) fn bytes_of(kvs: &[KeyValue]) -> u64 {
    let bytes = |kv: &KeyValue| kv.key.len() as u64 + u64::from(kv.value.length);
    kvs.iter().map(|kv| bytes(kv) + KEY_VALUE_BYTES).sum()
}

fn reply_bytes(reply: &Reply) -> u64 {
    match reply {
        Reply::Put { prev, .. } => bytes_of(prev.as_slice()),
        Reply::DeleteRange { prev, .. } => bytes_of(prev),
        Reply::Range { result, .. } => bytes_of(&result.kvs),
        Reply::Txn { responses, .. } => responses.iter().map(reply_bytes).sum(),
        _ => 0,
    }
}

/// Gives a response with a share to the transport piece by piece.
pub(super) async fn in_pieces(mut response: Response) -> Response {
    let Some(held) = response.extensions_mut().remove::<Held>() else { return response };
    response.map(|body| Body::new(Pieces { body, rest: Bytes::new(), _held: held }))
}

struct Pieces {
    body: Body,
    rest: Bytes,
    _held: Held,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            let polled = Pin::new(&mut self.body).poll_frame(context);
            let Poll::Ready(Some(Ok(frame))) = polled else { return polled };
            match frame.into_data() {
                Ok(data) if data.len() > PIECE_BYTES => self.rest = data,
                Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Err(frame) => return Poll::Ready(Some(Ok(frame))),
            }
        }
        let length = self.rest.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[test]
    fn an_answer_too_large_is_given_out_alone_and_small_ones_always() {
        let budget = Budget::of(1 << 20);
        let whole = budget.take(5 << 20).expect("nothing else waits");
        assert!(budget.take(8 << 10).is_err());
        assert!(budget.take(UNCOUNTED_BYTES).is_ok());
        drop(whole);
        let (one, two) = (budget.take(512 << 10), budget.take(512 << 10));
        assert!(one.is_ok() && two.is_ok() && budget.take(512 << 10).is_err());
    }

    #[test]
    fn a_share_is_kept_until_the_last_piece_is_taken() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let budget = Budget::of(1 << 20);
            let bytes: Vec<u8> = (0..=255).cycle().take(200_000).collect();
            let mut response = Response::new(Body::from(bytes.clone()));
            response.extensions_mut().insert(budget.take(1 << 20).expect("room"));
            let mut body = in_pieces(response).await.into_body();
            let mut found = Vec::new();
            while let Some(frame) = body.frame().await {
                let piece = frame.expect("a frame").into_data().expect("data");
                assert!(piece.len() <= PIECE_BYTES && budget.take(1 << 20).is_err());
                found.extend_from_slice(&piece);
            }
            assert_eq!(found, bytes);
            drop(body);
            assert!(budget.take(1 << 20).is_ok());
        });
    }
}
