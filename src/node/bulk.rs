use std::sync::Arc;
use std::sync::mpsc::Receiver;

use bytes::Bytes;

use crate::codec::Encode;
use crate::net::Lane;
use crate::ordering::{Message, PAGE_BYTES_MAX};
use crate::storage::log::{BlockReader, FoundBlock, Placed};
use crate::types::{Height, ReplicaId};

/// What the bulk thread is asked: it reads the log so that the protocol thread does not.
pub(super) enum BulkJob {
    /// Send a peer a page of committed blocks.
    Serve {
        /// Who asked.
        to: ReplicaId,
        /// First height.
        from: Height,
        /// Last height wanted.
        until: Height,
    },
    /// More of the log is durable.
    Advance(Placed),
    /// A segment was pruned.
    Pruned(u32),
    /// Find one committed block.
    Find(Height, tokio::sync::oneshot::Sender<Result<Option<FoundBlock>, String>>),
}

/// Sends frames; what it cannot queue is asked for again.
pub(super) type SendFrame = Arc<dyn Fn(ReplicaId, Bytes, Lane) + Send + Sync>;

/// Serves pages and single blocks until every sender is gone.
pub(super) fn bulk_thread(mut reader: BlockReader, jobs: &Receiver<BulkJob>, send: &SendFrame) {
    for job in jobs {
        match job {
            BulkJob::Advance(end) => reader.advance(end),
            BulkJob::Pruned(segment) => reader.pruned(segment),
            BulkJob::Serve { to, from, until } => {
                match reader.read_blocks(from, until, PAGE_BYTES_MAX) {
                    // Pruned after the core let the question through: the next one gets an answer.
                    Ok(Some(page)) if !page.blocks.iter().all(|block| block.has_values()) => {}
                    Ok(Some(page)) => {
                        let message =
                            Message::Blocks { blocks: page.blocks, certificate: page.certificate };
                        send(to, message.to_bytes(), Lane::Bulk);
                    }
                    Ok(None) => {}
                    Err(error) => tracing::warn!(event = "serve_blocks", peer = to.0, "{error}"),
                }
            }
            BulkJob::Find(height, answer) => {
                drop(answer.send(reader.block(height).map_err(|error| error.to_string())));
            }
        }
    }
}
