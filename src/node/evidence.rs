//! Keeps proofs of misbehaviour as files, and hands them out.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use crate::chain::{Evidence, EvidenceFile, EvidenceKind};
use crate::codec::{Decode, Encode};
use crate::node::members::SharedEpochs;
use crate::observe;
use crate::storage::disk::Disk;
use crate::storage::evidence::{evidence_names, keep_evidence, read_evidence};
use crate::types::{ClusterId, Digest, ReplicaId};

/// A proof this replica keeps.
#[derive(Clone, Debug)]
pub struct KeptEvidence {
    /// Names it.
    pub digest: Digest,
    /// Whom it proves guilty.
    pub accused: Vec<ReplicaId>,
    /// Of what.
    pub kind: EvidenceKind,
}

/// Where found proofs go, and where they are read. It outlives a state that is replaced.
#[derive(Clone)]
pub(super) struct EvidenceKeeper {
    pub(super) store: Arc<EvidenceStore>,
    pub(super) found: Sender<Arc<Evidence>>,
}

/// The proofs on disk, and what they say.
pub(super) struct EvidenceStore {
    disk: Arc<dyn Disk>,
    cluster_id: ClusterId,
    epochs: SharedEpochs,
    /// By digest in hexadecimal.
    known: RwLock<BTreeMap<String, KeptEvidence>>,
}

impl EvidenceStore {
    /// Reads what earlier runs left. A file that cannot be read is named and left alone.
    pub(super) fn open(disk: Arc<dyn Disk>, cluster_id: ClusterId, epochs: SharedEpochs) -> Self {
        let store = Self { disk, cluster_id, epochs, known: RwLock::default() };
        let names = evidence_names(store.disk.as_ref()).unwrap_or_else(|error| {
            tracing::warn!(event = "evidence_unreadable", "{error}");
            Vec::new()
        });
        for name in names {
            let read = read_evidence(store.disk.as_ref(), &name).map_err(|error| error.to_string());
            let file = read.and_then(|bytes| {
                EvidenceFile::from_bytes(bytes).map_err(|error| error.to_string())
            });
            match file {
                Ok(file) => store.note(name, &file.evidence),
                Err(error) => tracing::warn!(event = "evidence_unreadable", name, "{error}"),
            }
        }
        store
    }

    fn note(&self, name: String, evidence: &Evidence) {
        let (accused, kind) = (evidence.accused(), evidence.kind());
        let kept = KeptEvidence { digest: evidence.digest(), accused, kind };
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(name, kept);
    }

    /// Writes what the protocol thread finds until it is gone.
    pub(super) fn run(&self, found: &Receiver<Arc<Evidence>>) {
        for evidence in found {
            self.keep(&evidence);
        }
    }

    fn keep(&self, evidence: &Evidence) {
        let name = evidence.digest().to_string();
        let epochs = self.epochs.read().unwrap_or_else(PoisonError::into_inner).clone();
        let file = EvidenceFile::new(self.cluster_id, &epochs, evidence);
        let accused: Vec<u16> = evidence.accused().iter().map(|id| id.0).collect();
        match keep_evidence(self.disk.as_ref(), &name, &file.to_bytes()) {
            Ok(true) => {
                tracing::error!(
                    event = "evidence",
                    ?accused,
                    kind = evidence.kind().name(),
                    proof = name,
                    "replicas provably broke the protocol; see /evidence"
                );
                observe::evidence();
                self.note(name, evidence);
            }
            Ok(false) => {}
            Err(error) => tracing::error!(
                event = "evidence",
                ?accused,
                kind = evidence.kind().name(),
                proof = name,
                "replicas provably broke the protocol; the proof could not be written: {error}"
            ),
        }
    }

    /// All proofs, by name.
    pub(super) fn list(&self) -> BTreeMap<String, KeptEvidence> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A proof's file.
    pub(super) fn read(&self, name: &str) -> Result<Bytes, String> {
        read_evidence(self.disk.as_ref(), name).map_err(|error| error.to_string())
    }
}
