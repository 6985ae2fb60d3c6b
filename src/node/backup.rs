//! Snapshots for etcd's tools: of a certified checkpoint if it holds what the caller has to see, else of
//! the state as it runs, which nobody has signed.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use crate::chain::CheckpointCertificate;
use crate::node::Handle;
use crate::state::Snapshotter;
use crate::storage::backup::{BackupError, ChunkFiles, Export, Proof};
use crate::storage::checkpoint::candidates;
use crate::types::{Height, OrgId};

/// How long a checkpoint that was asked for may take to be written here and signed by a quorum.
const CERTIFIED_WITHIN: Duration = Duration::from_secs(60);

/// Between two looks for it.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Values may move under a snapshot of the running state; each time it begins again.
const ATTEMPTS: usize = 3;

/// A snapshot, ready to be written out. While it exists no other is made: each holds a place in memory
/// for every version.
pub struct Backup {
    export: Export,
    certified: bool,
    _turn: OwnedSemaphorePermit,
}

impl Backup {
    /// Bytes of the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.export.bytes()
    }

    /// The store's revision in it.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.export.revision()
    }

    /// Whether it carries a quorum's signatures.
    #[must_use]
    pub fn is_certified(&self) -> bool {
        self.certified
    }

    /// Writes the file, page after page; false from `take` ends it early. Blocks on the disk.
    ///
    /// # Errors
    /// What could not be read, as text.
    pub fn write(&self, take: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), String> {
        let mut sink = |page: &[u8]| if take(page) { Ok(()) } else { Err(BackupError::Stopped) };
        self.export.write(&mut sink).map_err(|error| error.to_string())
    }
}

impl Handle {
    /// Makes a snapshot: of the checkpoint at `height` or a newer one once a quorum has signed it, or,
    /// without a height or if that takes too long, of the state as it is.
    ///
    /// # Errors
    /// What could not be read, as text.
    pub async fn backup(&self, height: Option<Height>) -> Result<Backup, String> {
        let turns = self.inner.backups.clone();
        let turn = turns.acquire_owned().await.map_err(|error| error.to_string())?;
        if let Some(height) = height
            && let Some(export) = self.export_certified(height).await?
        {
            return Ok(Backup { export, certified: true, _turn: turn });
        }
        let handle = self.clone();
        let export = blocking(move || handle.export_running()).await?;
        Ok(Backup { export, certified: false, _turn: turn })
    }

    /// The height of the newest checkpoint that this replica knows a quorum holds.
    #[must_use]
    pub fn certified_height(&self) -> Option<Height> {
        self.inner.certified.borrow().as_ref().map(|certificate| certificate.id.height)
    }

    async fn export_certified(&self, height: Height) -> Result<Option<Export>, String> {
        let mut certified = self.inner.certified.clone();
        let until = Instant::now() + CERTIFIED_WITHIN;
        while Instant::now() < until {
            let newest = certified.borrow_and_update().clone();
            if let Some(certificate) = newest.filter(|newest| newest.id.height >= height) {
                let handle = self.clone();
                let found = blocking(move || handle.export_checkpoint(certificate)).await?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            // It may be signed before it is written here.
            drop(tokio::time::timeout(LOOK_EVERY, certified.changed()).await);
        }
        Ok(None)
    }

    /// None while this replica does not hold the checkpoint, or no more.
    fn export_checkpoint(
        &self,
        certificate: CheckpointCertificate,
    ) -> Result<Option<Export>, BackupError> {
        let disk = self.services().disk;
        let Ok(found) = candidates(disk.as_ref(), &self.genesis().cluster_id()) else {
            return Ok(None);
        };
        let named = |manifest: &crate::chain::Manifest| manifest.id() == certificate.id;
        let Some(one) = found.whole.into_iter().find(|one| named(&one.manifest)) else {
            return Ok(None);
        };
        // Pruned meanwhile: the next look finds a newer one.
        let Ok(files) = ChunkFiles::of(&one, disk.as_ref()) else { return Ok(None) };
        let before =
            |epoch: &crate::chain::EpochProof| epoch.block.header.epoch < certificate.epoch;
        let epochs = self.epochs().into_iter().filter(before).collect();
        let proof = Proof { manifest: one.manifest, certificate, epochs };
        Export::plan(files, self.own_organisation(), Some(proof)).map(Some)
    }

    fn own_organisation(&self) -> OrgId {
        let own = self.read(|shared| shared.state.organisation_of(self.own()));
        // Who has left serves nobody; the files are written whole all the same.
        own.unwrap_or_default()
    }

    fn export_running(&self) -> Result<Export, BackupError> {
        let mut last = BackupError::Value("the state was replaced".to_owned());
        for _ in 0..ATTEMPTS {
            match self.copy_running() {
                Ok(Some(files)) => return Export::plan(files, self.own_organisation(), None),
                Ok(None) => {}
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Copies the state's chunks as they are at this moment; None if another state took its place.
    fn copy_running(&self) -> Result<Option<ChunkFiles>, BackupError> {
        let services = self.services();
        let mut files = ChunkFiles::begin(services.disk.as_ref())?;
        let mut snapshotter = {
            let mut shared = self.inner.shared.write().unwrap_or_else(PoisonError::into_inner);
            Snapshotter::begin(&mut shared.state)
        };
        while let Some(plan) = self.read(|shared| snapshotter.plan_chunk(&shared.state)) {
            let chunk = plan.write(services.values.as_ref());
            files.push(&chunk.map_err(|error| BackupError::Value(error.to_string()))?)?;
        }
        Ok(Arc::ptr_eq(&services.values, &self.services().values).then_some(files))
    }
}

/// Runs what waits for the disk where that holds up nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
