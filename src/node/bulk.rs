use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::codec::Encode;
use crate::net::Lane;
use crate::node::start::CONTROL_FRAME_BYTES;
use crate::ordering::{Message, PAGE_BYTES_MAX};
use crate::storage::checkpoint::{Checkpoint, candidates};
use crate::storage::disk::Disk;
use crate::storage::log::{BlockReader, BlocksPage, FoundBlock, Placed};
use crate::types::{ClusterId, Digest, Height, ReplicaId};

/// Between two looks for a checkpoint that is not known.
const LOOK_EVERY: Duration = Duration::from_millis(500);

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
        /// Sent if the log does not hold them with their values.
        instead: Option<Box<Message>>,
    },
    /// Send a peer a checkpoint's manifest.
    Manifest {
        /// Who asked.
        to: ReplicaId,
        /// Its root.
        root: Digest,
    },
    /// Send a peer a chunk of a checkpoint.
    Chunk {
        /// Who asked.
        to: ReplicaId,
        /// The manifest's root.
        root: Digest,
        /// Which chunk.
        number: u32,
    },
    /// More of the log is durable.
    Advance(Placed),
    /// A segment was pruned.
    Pruned(u32),
    /// A segment was removed.
    Removed(u32),
    /// Find one committed block.
    Find(Height, tokio::sync::oneshot::Sender<Result<Option<FoundBlock>, String>>),
}

/// Sends frames; what it cannot queue is asked for again.
pub(super) type SendFrame = Arc<dyn Fn(ReplicaId, Bytes, Lane) + Send + Sync>;

/// Checkpoints on disk, for peers that fetch one.
pub(super) struct Shelf {
    disk: Arc<dyn Disk>,
    cluster_id: ClusterId,
    held: BTreeMap<Digest, Checkpoint>,
    looked: Option<Instant>,
}

impl Shelf {
    pub(super) fn new(disk: Arc<dyn Disk>, cluster_id: ClusterId) -> Self {
        Self { disk, cluster_id, held: BTreeMap::new(), looked: None }
    }

    /// The checkpoint whose manifest has this root. The directory is looked at for one not known, at
    /// most once in a while, so that nobody keeps this thread busy by asking for nonsense.
    fn find(&mut self, root: Digest) -> Option<&Checkpoint> {
        let recent = self.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY);
        if !self.held.contains_key(&root) && !recent {
            self.looked = Some(Instant::now());
            match candidates(self.disk.as_ref(), &self.cluster_id) {
                Ok(found) => {
                    let named = found.whole.into_iter().map(|one| (one.manifest.root(), one));
                    self.held = named.collect();
                }
                Err(error) => tracing::warn!(event = "serve_checkpoint", "{error}"),
            }
        }
        self.held.get(&root)
    }

    fn manifest(&mut self, root: Digest) -> Message {
        let found = self.find(root);
        let content = found.map(|one| (one.header.clone(), Arc::new(one.manifest.clone())));
        Message::Manifest { root, content }
    }

    fn chunk(&mut self, root: Digest, number: u32) -> Message {
        let disk = self.disk.clone();
        let found = self.find(root).and_then(|one| one.chunk(&disk, number));
        let bytes = match found {
            Some(Ok(bytes)) => Some(bytes),
            Some(Err(error)) => {
                tracing::warn!(event = "serve_checkpoint", "{error}");
                None
            }
            None => None,
        };
        Message::Chunk { root, number, bytes }
    }
}

/// Serves pages, single blocks, manifests and chunks until every sender is gone.
pub(super) fn bulk_thread(
    mut reader: BlockReader,
    mut shelf: Shelf,
    jobs: &Receiver<BulkJob>,
    send: &SendFrame,
) {
    for job in jobs {
        match job {
            BulkJob::Manifest { to, root } => {
                send(to, shelf.manifest(root).to_bytes(), Lane::Bulk);
            }
            BulkJob::Chunk { to, root, number } => {
                send(to, shelf.chunk(root, number).to_bytes(), Lane::Bulk);
            }
            BulkJob::Advance(end) => reader.advance(end),
            BulkJob::Pruned(segment) => reader.pruned(segment),
            BulkJob::Removed(segment) => reader.removed(segment),
            BulkJob::Serve { to, from, until, instead } => {
                let page = match reader.read_blocks(from, until, PAGE_BYTES_MAX) {
                    Ok(page) => page.filter(BlocksPage::has_values),
                    Err(error) => {
                        tracing::warn!(event = "serve_blocks", peer = to.0, "{error}");
                        continue;
                    }
                };
                let blocks = page.map(|BlocksPage { blocks, certificate }| Message::Blocks {
                    blocks,
                    certificate,
                });
                if let Some(message) = blocks.or(instead.map(|message| *message)) {
                    send(to, message.to_bytes(), Lane::Bulk);
                }
            }
            BulkJob::Find(height, answer) => {
                drop(answer.send(reader.block(height).map_err(|error| error.to_string())));
            }
        }
    }
}

/// A single request may fill a proposal larger than the control lane takes: late is better than never.
pub(super) fn lane_of(message: &Message, frame: &Bytes) -> Lane {
    let bulk = message.is_bulk() || frame.len() > CONTROL_FRAME_BYTES;
    if bulk { Lane::Bulk } else { Lane::Control }
}
