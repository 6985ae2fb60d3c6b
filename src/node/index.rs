//! The provenance index, behind the commit path: filled once per sealed segment, the unsealed tail from
//! memory. Nothing a vote depends on is here; a damaged index is deleted and built again.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::chain::{Block, Effects};
use crate::node::NodeError;
use crate::storage::index::{Index, IndexError, Provenance};
use crate::storage::log::{BlockReader, Placed};
use crate::types::ClusterId;

/// What the index thread is told and asked.
pub(super) enum IndexJob {
    /// A block was executed; its effects lie in this segment.
    Executed(u32, Arc<Block>, Effects),
    /// Every byte in front of this place is durable; segments below its own are sealed.
    Durable(Placed),
    /// A segment was pruned.
    Pruned(u32),
    /// A segment was removed.
    Removed(u32),
    /// The last changes of a key.
    History(Bytes, usize, oneshot::Sender<Result<Vec<Provenance>, String>>),
}

/// Asks the index thread.
#[derive(Clone)]
pub(super) struct IndexReader(pub(super) Sender<IndexJob>);

impl IndexReader {
    pub(super) async fn history(
        &self,
        key: Bytes,
        limit: usize,
    ) -> Result<Vec<Provenance>, String> {
        let (answer, found) = oneshot::channel();
        let stopped = || NodeError::Stopped.to_string();
        self.0.send(IndexJob::History(key, limit, answer)).map_err(|_| stopped())?;
        found.await.map_err(|_| stopped())?
    }
}

/// Keeps the index until every sender is gone. Whatever goes wrong here stays here.
pub(super) fn index_thread(
    data_directory: &Path,
    cluster_id: ClusterId,
    mut reader: BlockReader,
    end: Placed,
    jobs: &Receiver<IndexJob>,
) {
    let mut sealed = end.segment - 1;
    let mut index = match Index::open(data_directory, cluster_id, sealed) {
        Ok(index) => Some(index),
        Err(error) => {
            tracing::error!(event = "index", "there is no provenance index: {error}");
            None
        }
    };
    index = index.and_then(|index| catch_up(index, &mut reader, sealed));
    for job in jobs {
        match job {
            IndexJob::Executed(segment, block, effects) => {
                if let Some(index) = &mut index {
                    index.note(segment, &block, &effects);
                }
            }
            IndexJob::Durable(end) => {
                reader.advance(end);
                if end.segment > sealed + 1 {
                    sealed = end.segment - 1;
                    index = index.and_then(|index| catch_up(index, &mut reader, sealed));
                }
            }
            IndexJob::Pruned(segment) => reader.pruned(segment),
            IndexJob::Removed(segment) => reader.removed(segment),
            IndexJob::History(key, limit, answer) => {
                let found = match &index {
                    Some(index) => index.history(&key, limit).map_err(|error| error.to_string()),
                    None => Err("there is no provenance index; see the log".to_owned()),
                };
                drop(answer.send(found));
            }
        }
    }
}

/// Indexes every sealed segment that is not indexed yet; an index that turns out damaged is built
/// again once.
fn catch_up(mut index: Index, reader: &mut BlockReader, sealed: u32) -> Option<Index> {
    let mut rebuilt = false;
    // Of segments older than the retention nothing is left to index.
    let first = reader.first_segment().ok().flatten().unwrap_or(1);
    while index.indexed().last_segment < sealed {
        let next = match index.indexed().last_segment {
            0 => first,
            last => last + 1,
        };
        if next > sealed {
            break;
        }
        match index.index_segment(reader, next) {
            Ok(_) => {}
            Err(error) if !rebuilt && error.is_damage() => {
                tracing::warn!(event = "index", "the provenance index is built again: {error}");
                rebuilt = true;
                index = match index.rebuild() {
                    Ok(index) => index,
                    Err(error) => return gone(&error),
                };
            }
            Err(error) => return gone(&error),
        }
    }
    Some(index)
}

fn gone(error: &IndexError) -> Option<Index> {
    tracing::error!(event = "index", "the provenance index ends here: {error}");
    None
}
