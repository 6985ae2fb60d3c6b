//! Maintenance.Snapshot: a file in etcd's own format as a stream of blobs, its SHA-256 the last of them
//! (etcd's `server/etcdserver/api/v3rpc/maintenance.go`).

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use crate::api::Api;
use crate::api::identity::{self, Caller};
use crate::api::pb::etcdserverpb as pb;
use crate::apply::Reply;
use crate::chain::Op;
use crate::node::{Backup, STORAGE_VERSION};

/// etcd's snapshotSendBufferSize.
const BLOB_BYTES: usize = 32 << 10;

/// Blobs made before the client takes them.
const BLOBS_AHEAD: usize = 8;

/// A caller that sets this header wants a file that carries its proof, even if it is a minute old.
const CERTIFIED_HEADER: &str = "althing-certified";

/// The stream's items.
pub(super) type Blobs = Pin<Box<dyn Stream<Item = Result<pb::SnapshotResponse, Status>> + Send>>;

/// What the caller has to see is ordered first: a checkpoint of it, if a minute has passed since the one
/// before, else the state as it then is.
pub(super) async fn snapshot(
    api: &Arc<Api>,
    request: Request<pb::SnapshotRequest>,
) -> Result<Blobs, Status> {
    identity::admit(api, &request)?;
    let author = api.author(&Caller::of(&request)).await?;
    let any_certified = request.metadata().contains_key(CERTIFIED_HEADER);
    let height = match api.order(author, Op::CheckpointNow, Vec::new()).await? {
        Reply::Checkpoint { height, current, .. } => (current || any_certified).then_some(height),
        other => {
            Api::revision_of(other)?;
            return Err(Status::internal("the reply is of another kind"));
        }
    };
    let backup = api.handle.backup(height).await.map_err(Status::unavailable)?;
    if any_certified && !backup.is_certified() {
        let why =
            "no quorum has signed a checkpoint in time; try again, or use etcdctl snapshot save";
        return Err(Status::unavailable(why));
    }
    tracing::info!(
        event = "snapshot",
        bytes = backup.bytes(),
        revision = backup.revision(),
        certified = backup.is_certified(),
        "a client takes a snapshot"
    );
    let (blobs, stream) = mpsc::channel(BLOBS_AHEAD);
    drop(tokio::task::spawn_blocking(move || send(&backup, &blobs)));
    Ok(Box::pin(ReceiverStream::new(stream)))
}

type Sender = mpsc::Sender<Result<pb::SnapshotResponse, Status>>;

fn send(backup: &Backup, blobs: &Sender) {
    let (mut hash, mut sent, mut rest) = (Sha256::new(), 0_u64, Vec::new());
    let total = backup.bytes();
    let mut blob = |bytes: Bytes, sent: &mut u64| {
        hash.update(&bytes);
        *sent += bytes.len() as u64;
        let remaining_bytes = total - *sent;
        blobs.blocking_send(Ok(response(bytes, remaining_bytes))).is_ok()
    };
    let written = backup.write(&mut |page| {
        rest.extend_from_slice(page);
        let mut full = Bytes::from(core::mem::take(&mut rest));
        while full.len() >= BLOB_BYTES {
            if !blob(full.split_to(BLOB_BYTES), &mut sent) {
                return false;
            }
        }
        rest.extend_from_slice(&full);
        true
    });
    let done = match written {
        Ok(()) if rest.is_empty() || blob(rest.into(), &mut sent) => {
            Ok(response(Bytes::copy_from_slice(&hash.finalize()), 0))
        }
        Ok(()) => return,
        Err(why) => {
            tracing::warn!(event = "snapshot", "a snapshot ends early: {why}");
            Err(Status::data_loss(why))
        }
    };
    // A client that went away needs no end.
    drop(blobs.blocking_send(done));
}

fn response(blob: Bytes, remaining_bytes: u64) -> pb::SnapshotResponse {
    let version = STORAGE_VERSION.to_owned();
    pb::SnapshotResponse { header: None, remaining_bytes, blob, version }
}
