//! The first state of a network that was founded on a snapshot of etcd: read from that very file, whose
//! digest all members signed, until this replica has a checkpoint of its own.

use std::path::Path;
use std::sync::Arc;

use crate::chain::{Genesis, Value, ValueError, ValueRef, ValueSource};
use crate::state::{Import, Imported, KeptChunk, Restore, Snapshotter, State};
use crate::storage::backup::{EtcdSnapshot, ImportError};
use crate::storage::checkpoint::CheckpointWriter;
use crate::storage::disk::Disk;
use crate::storage::disk::os::OsDisk;
use crate::types::{Digest, LeaseId, Revision};

/// A snapshot of etcd, as the first state of a network.
pub struct InitialSnapshot {
    file: EtcdSnapshot,
}

/// What a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitialSummary {
    /// What the genesis names it by.
    pub digest: Digest,
    /// The store's revision.
    pub revision: i64,
    /// Keys that exist.
    pub keys: usize,
    /// Leases.
    pub leases: usize,
}

/// Where the values of a state that is being imported are: by their number in the file.
struct Source<'a> {
    file: &'a EtcdSnapshot,
    places: Vec<(i64, u32)>,
}

impl ValueSource for Source<'_> {
    fn read(&self, at: ValueRef) -> Result<Value, ValueError> {
        let (revision, sub) =
            self.places.get(at.offset as usize).copied().ok_or(ValueError::Erased(at))?;
        self.file.value(revision, sub).map_err(|error| ValueError::Disk(error.to_string()))
    }
}

impl InitialSnapshot {
    /// Opens a file; nothing in it is believed yet.
    ///
    /// # Errors
    /// [`ImportError`].
    pub fn open(path: &Path) -> Result<Self, ImportError> {
        Ok(Self { file: EtcdSnapshot::open(OsDisk::open_file(path)?)? })
    }

    /// What the genesis names it by.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.file.digest()
    }

    /// Reads all of it, as every replica will.
    ///
    /// # Errors
    /// [`ImportError`].
    pub fn check(&self, genesis: &Genesis) -> Result<InitialSummary, ImportError> {
        let (state, _) = self.import(genesis)?;
        Ok(InitialSummary {
            digest: self.digest(),
            revision: state.kv.revision().0,
            keys: state.kv.key_count(),
            leases: state.leases.len(),
        })
    }

    fn import(&self, genesis: &Genesis) -> Result<(State, Source<'_>), ImportError> {
        let unfit = |why: &dyn core::fmt::Display| ImportError::Unfit(why.to_string());
        let compacted = self.file.compacted()?;
        let mut newest = compacted.unwrap_or(0).max(1);
        self.file.scan(&mut |change| {
            newest = newest.max(change.revision);
            Ok(())
        })?;
        let begun = Import::begin(genesis, Revision(newest), compacted.map(Revision));
        let mut import = begun.map_err(|why| unfit(&why))?;
        for (id, ttl_seconds) in self.file.leases()? {
            import.lease(LeaseId(id), ttl_seconds).map_err(|why| unfit(&why))?;
        }
        let mut source = Source { file: &self.file, places: Vec::new() };
        self.file.scan(&mut |change| {
            let revision = Revision(change.revision);
            let many = |_| ImportError::Unfit("it has 2^32 versions or more".to_owned());
            let put = match change.put {
                None => None,
                Some(put) => {
                    let commitment = put.value.commitment();
                    let value = ValueRef {
                        segment: 0,
                        offset: u32::try_from(source.places.len()).map_err(many)?,
                        length: u32::try_from(put.value.bytes.len()).map_err(many)?,
                        check: Value::check(&commitment),
                    };
                    source.places.push((change.revision, change.sub));
                    let lease = LeaseId(put.lease);
                    Some((Revision(put.create), put.version, lease, value, commitment))
                }
            };
            let change = Imported { revision, sub: change.sub, key: change.key, put };
            import.push(&change).map_err(|why| unfit(&why))
        })?;
        let state = import.finish().map_err(|why| unfit(&why))?;
        Ok((state, source))
    }

    /// The state, its values copied into chunk files of the data directory; and those files.
    ///
    /// # Errors
    /// What could not be read or written, as text.
    fn install(
        &self,
        genesis: &Genesis,
        disk: &Arc<dyn Disk>,
    ) -> Result<(State, Vec<u32>), String> {
        let (mut state, source) = self.import(genesis).map_err(|error| error.to_string())?;
        let mut writer =
            CheckpointWriter::begin(disk.clone()).map_err(|error| error.to_string())?;
        let mut snapshotter = Snapshotter::begin(&mut state);
        let mut restore = Restore::new(genesis);
        let mut files = Vec::new();
        loop {
            let chunk =
                snapshotter.next_chunk(&state, &source).map_err(|error| error.to_string())?;
            let Some(bytes) = chunk else { break };
            let place = writer.push(&bytes).map_err(|error| error.to_string())?;
            let kept = KeptChunk { bytes, segment: place.segment(), base: place.base };
            restore.push(&kept).map_err(|error| error.to_string())?;
            files.push(place.file);
        }
        writer.sync_files().map_err(|error| error.to_string())?;
        files.dedup();
        let restored = restore.finish().map_err(|error| error.to_string())?;
        assert_eq!(restored.exec_root(), state.exec_root(), "a state survives its chunks");
        Ok((restored, files))
    }
}

/// The state before the first block, and the chunk files that hold its values.
///
/// # Errors
/// Why there is none, as text.
pub(super) fn initial_state(
    genesis: &Genesis,
    path: Option<&Path>,
    disk: &Arc<dyn Disk>,
) -> Result<(State, Vec<u32>), String> {
    let Some(wanted) = genesis.initial else { return Ok((State::genesis(genesis), Vec::new())) };
    let path = path.ok_or("the network was founded on a snapshot, which lies in --home")?;
    let shown = path.display();
    let snapshot = InitialSnapshot::open(path).map_err(|error| {
        format!(
            "the network was founded on a snapshot of etcd, which a replica without a checkpoint needs \
             as {shown}: {error}"
        )
    })?;
    if snapshot.digest() != wanted {
        return Err(format!(
            "{shown} is not the snapshot that the network was founded on: its digest is {}, the \
             genesis names {wanted}",
            snapshot.digest()
        ));
    }
    let (state, files) = snapshot.install(genesis, disk)?;
    let revision = state.kv.revision().0;
    tracing::info!(
        event = "imported",
        revision,
        keys = state.kv.key_count(),
        "imported a snapshot"
    );
    Ok((state, files))
}
