use core::fmt;

use crate::chain::{
    CertificateError, CheckpointCertificate, EpochError, EpochProof, Genesis, Manifest, Network,
};
use crate::crypto::Ed25519;
use crate::types::{ClusterId, Epoch};
use crate::verify::epochs;

/// Why a snapshot's certificate says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotError {
    /// It is another network's.
    Network {
        /// The snapshot's.
        found: ClusterId,
        /// The genesis's.
        own: ClusterId,
    },
    /// A proof of an epoch's end does not hold.
    Epochs(EpochError),
    /// It was signed in an epoch that no proof leads to.
    Epoch(Epoch),
    /// The signatures are not those of a quorum.
    Certificate(CertificateError),
    /// The list of chunks is not the one that was signed.
    Manifest,
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network { found, own } => {
                write!(f, "the snapshot is of network {found}, the genesis of {own}")
            }
            Self::Epochs(error) => write!(f, "an epoch proof in it does not hold: {error}"),
            Self::Epoch(epoch) => {
                write!(f, "it was signed in epoch {epoch}, to which no proof in it leads")
            }
            Self::Certificate(error) => write!(f, "its certificate does not hold: {error}"),
            Self::Manifest => f.write_str("its list of chunks is not the one the replicas signed"),
        }
    }
}

impl std::error::Error for SnapshotError {}

/// Whether a quorum of the network that grew from `genesis` signed this list of chunks; the network at that
/// time. What the chunks say is not looked at.
///
/// # Errors
/// [`SnapshotError`].
pub fn snapshot(
    genesis: &Genesis,
    proofs: &[EpochProof],
    manifest: &Manifest,
    certificate: &CheckpointCertificate,
) -> Result<Network, SnapshotError> {
    let own = genesis.cluster_id();
    let found = manifest.cluster_id;
    if found != own {
        return Err(SnapshotError::Network { found, own });
    }
    let networks = epochs(genesis, proofs).map_err(SnapshotError::Epochs)?;
    let at = usize::try_from(certificate.epoch.0).unwrap_or(usize::MAX);
    let network = networks.into_iter().nth(at).ok_or(SnapshotError::Epoch(certificate.epoch))?;
    let quorum = network.membership.quorum().q();
    // Checking needs a scheme and no secret: whose key it is does not matter.
    let scheme = Ed25519::from_seed(&[0; 32]);
    certificate
        .check(&own, &network.membership, &scheme, quorum)
        .map_err(SnapshotError::Certificate)?;
    if manifest.id() == certificate.id { Ok(network) } else { Err(SnapshotError::Manifest) }
}
