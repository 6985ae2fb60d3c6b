use core::fmt;

use crate::chain::{
    EpochError, EpochProof, Evidence, EvidenceError, EvidenceFile, Genesis, Membership, Phase,
    Trust,
};
use crate::codec::{Decode, DecodeError};
use crate::crypto::Scheme;
use crate::types::{ClusterId, ReplicaId};

/// What a proof of misbehaviour shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whom it proves guilty; nobody in a fork across views.
    pub guilty: Vec<ReplicaId>,
    /// A set of which more than f are guilty.
    pub suspects: Vec<ReplicaId>,
    /// The kind, in a word.
    pub kind: &'static str,
    /// What happened, in a sentence.
    pub what: String,
}

/// Why a file proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingError {
    /// It is no evidence file of a version known here.
    Format(DecodeError),
    /// It is of this other network.
    Network(ClusterId),
    /// It does not lead from the genesis to the epoch it speaks of.
    Epochs(EpochError),
    /// It is well-formed and proves nothing.
    Evidence(EvidenceError),
}

impl fmt::Display for FindingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format(error) => write!(f, "this is no whole evidence file: {error}"),
            Self::Network(id) => {
                write!(f, "this is evidence of network {id}, not of the trusted genesis")
            }
            Self::Epochs(error) => write!(f, "its members cannot be known: {error}"),
            Self::Evidence(error) => write!(f, "this proves nothing: {error}"),
        }
    }
}

impl std::error::Error for FindingError {}

/// Checks an evidence file against nothing but the genesis.
///
/// # Errors
/// [`FindingError`]; nobody is accused then.
pub fn evidence(
    bytes: bytes::Bytes,
    genesis: &Genesis,
    scheme: &dyn Scheme,
) -> Result<Finding, FindingError> {
    let file = EvidenceFile::from_bytes(bytes).map_err(FindingError::Format)?;
    let cluster_id = genesis.cluster_id();
    if file.cluster_id != cluster_id {
        return Err(FindingError::Network(file.cluster_id));
    }
    let networks =
        EpochProof::check_all(genesis, &file.epochs, scheme).map_err(FindingError::Epochs)?;
    let memberships: Vec<Membership> =
        networks.into_iter().map(|network| network.membership).collect();
    let trust = &Trust { cluster_id: &cluster_id, memberships: &memberships, scheme };
    file.evidence.verify(trust).map_err(FindingError::Evidence)?;
    Ok(Finding {
        guilty: file.evidence.accused(),
        suspects: file.evidence.suspects(),
        kind: file.evidence.kind().name(),
        what: what(&file.evidence, trust),
    })
}

fn what(evidence: &Evidence, trust: &Trust<'_>) -> String {
    match evidence {
        Evidence::DoubleVote(votes) => {
            let (one, two) = votes.as_ref();
            let name = if one.phase == Phase::Prepare { "PREPAREs" } else { "COMMITs" };
            let from = one.signed.from_height.max(two.signed.from_height);
            let height = (from.0..)
                .map(crate::types::Height)
                .find(|height| one.signed.hash_at(*height) != two.signed.hash_at(*height))
                .unwrap_or(from);
            let hash = |vote: &crate::chain::Vote| vote.signed.hash_at(height).unwrap_or_default();
            format!(
                "it signed two {name} for height {height} in view {}: one for block {}, one for block {}",
                one.view,
                hash(one),
                hash(two)
            )
        }
        Evidence::Amnesia(both) => {
            let (commit, view_change) = both.as_ref();
            let last = commit.signed.hashes.len().saturating_sub(1) as u64;
            format!(
                "it signed a COMMIT for height {} in view {}, and a VIEW-CHANGE for view {} in which \
                 no certificate ranks as high",
                commit.signed.from_height.plus(last),
                commit.view,
                view_change.view
            )
        }
        Evidence::FalseNewView(both) => {
            let fault = evidence.new_view_fault(trust);
            let fault = fault.map_or_else(String::new, |fault| fault.to_string());
            format!(
                "as primary it signed a NEW-VIEW for view {} that is none: {fault}",
                both.1.view
            )
        }
        Evidence::DoubleCheckpoint(votes) => {
            let (one, two) = votes.as_ref();
            format!(
                "it signed two CHECKPOINTs for height {}: one with root {}, one with root {}",
                one.id.height, one.id.exec_root, two.id.exec_root
            )
        }
        Evidence::DoubleBundle(bundles) => {
            let (one, two) = bundles.as_ref();
            format!(
                "it signed two contents for sequence number {} of its session {:x}: bundles {} and {}",
                one.first_seq.max(two.first_seq),
                one.session,
                one.digest(),
                two.digest()
            )
        }
        Evidence::Fork(fork) => format!(
            "two blocks are committed of which neither descends from the other: {} at height {} in \
             view {}, {} at height {} in view {}",
            fork.low.block_hash,
            fork.low.height,
            fork.low.view,
            fork.high.block_hash,
            fork.high.height,
            fork.high.view
        ),
    }
}
