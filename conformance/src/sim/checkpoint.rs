//! A checkpoint on its way to the disk, in slices between other events, as the node's thread writes it.

use std::sync::Arc;

use althing::chain::{BlockHeader, CheckpointId};
use althing::state::{KeptChunk, Snapshotter, moved_keys};
use althing::storage::checkpoint::{Checkpoint, CheckpointParts, CheckpointWriter, remove_old};
use althing::storage::disk::Disk;
use althing::storage::log::ReplayMark;
use althing::types::{ClusterId, Digest, Height, LogPosition};

use crate::sim::disk::SimDisk;
use crate::sim::machine::Machine;

/// One checkpoint being written.
pub struct Checkpointing {
    /// The log is durable up to here before anything is written, as in the node.
    pub after: Option<LogPosition>,
    snapshotter: Snapshotter,
    writer: Option<CheckpointWriter>,
    header: BlockHeader,
    exec_root: Digest,
    exec_roots: Vec<(Height, Digest)>,
    replay: ReplayMark,
}

impl Checkpointing {
    /// Begins one of the state as it is.
    #[must_use]
    pub fn begin(machine: &mut Machine, header: BlockHeader, replay: ReplayMark) -> Self {
        Self {
            after: None,
            snapshotter: Snapshotter::begin(&mut machine.state),
            writer: None,
            header,
            exec_root: machine.state.exec_root(),
            exec_roots: machine.carried_roots().to_vec(),
            replay,
        }
    }

    /// Writes one chunk, or finishes; what it is once it is on disk and the state refers to it.
    ///
    /// # Errors
    /// The disk, or a value that cannot be read.
    pub fn slice(
        &mut self,
        machine: &mut Machine,
        disk: &SimDisk,
        keeper: (&ClusterId, &mut Vec<u32>, &[Height]),
    ) -> Result<Option<CheckpointId>, String> {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let writer = CheckpointWriter::begin(shared).map_err(|e| e.to_string())?;
                self.writer.insert(writer)
            }
        };
        let chunk = self
            .snapshotter
            .next_chunk(&machine.state, &machine.values)
            .map_err(|error| error.to_string())?;
        if let Some(chunk) = chunk {
            writer.push(&chunk).map_err(|error| error.to_string())?;
            return Ok(None);
        }
        let parts = CheckpointParts {
            cluster_id: *keeper.0,
            header: self.header.clone(),
            exec_root: self.exec_root,
            exec_roots: self.exec_roots.clone(),
            replay: self.replay.clone(),
        };
        let writer = self.writer.take().expect("it was begun");
        let checkpoint = writer.finish(parts).map_err(|error| error.to_string())?;
        relocate(machine, disk, &checkpoint)?;
        let (cluster_id, in_use, stable) = keeper;
        *in_use = checkpoint.files();
        remove_old(disk, cluster_id, (in_use, stable)).map_err(|error| error.to_string())?;
        Ok(Some(checkpoint.manifest.id()))
    }
}

/// As the node's checkpoint thread does it, but at once.
fn relocate(machine: &mut Machine, disk: &SimDisk, written: &Checkpoint) -> Result<(), String> {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    for chunk in written.chunks(&shared) {
        let chunk = chunk.map_err(|error| error.to_string())?;
        let (segment, base) = (chunk.place.segment(), chunk.place.base);
        let kept = KeptChunk { bytes: chunk.bytes, segment, base };
        machine.state.relocate(&moved_keys(&kept).map_err(|error| error.to_string())?);
    }
    Ok(())
}
