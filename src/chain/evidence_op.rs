//! Evidence as an op: what of it may be ordered, so that all replicas hold one list (protocol.md 13.7).

use bytes::Bytes;

use crate::chain::{Bundle, Evidence, Op};
use crate::codec::Decode;
use crate::types::ReplicaId;

/// Longest proof that is ordered; a longer one stays with who found it and those it was told.
pub const EVIDENCE_OP_BYTES_MAX: usize = 256 << 10;
/// Fewest bytes of a proof per signature in it: a signature and what names its signer.
const BYTES_PER_SIGNATURE: u64 = 66;

/// What a proof shows, with the number it is encoded by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum EvidenceKind {
    /// See [`Evidence::DoubleVote`].
    DoubleVote = 1,
    /// See [`Evidence::Amnesia`].
    Amnesia = 2,
    /// See [`Evidence::FalseNewView`].
    FalseNewView = 3,
    /// See [`Evidence::DoubleCheckpoint`].
    DoubleCheckpoint = 4,
    /// See [`Evidence::DoubleBundle`].
    DoubleBundle = 5,
    /// See [`Evidence::Fork`].
    Fork = 6,
}

impl EvidenceKind {
    /// The kind with this number.
    #[must_use]
    pub fn numbered(number: u8) -> Option<Self> {
        [
            Self::DoubleVote,
            Self::Amnesia,
            Self::FalseNewView,
            Self::DoubleCheckpoint,
            Self::DoubleBundle,
            Self::Fork,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == number)
    }

    /// In a word, for lists and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DoubleVote => "double-vote",
            Self::Amnesia => "amnesia",
            Self::FalseNewView => "false-new-view",
            Self::DoubleCheckpoint => "double-checkpoint",
            Self::DoubleBundle => "double-bundle",
            Self::Fork => "fork",
        }
    }
}

impl Evidence {
    /// The one it accuses, if it may be ordered. A fork may not: behind one there is no history that all
    /// share.
    #[must_use]
    pub fn ordered_against(&self) -> Option<ReplicaId> {
        match (self.kind(), self.accused().as_slice()) {
            (EvidenceKind::Fork, _) => None,
            (_, [accused]) => Some(*accused),
            _ => None,
        }
    }

    /// Reads the proof of an op and whom it accuses; None if it is none that may be ordered.
    #[must_use]
    pub fn of_op(proof: &Bytes) -> Option<(Self, ReplicaId)> {
        let evidence = Self::from_bytes(proof.clone()).ok()?;
        let accused = evidence.ordered_against()?;
        Some((evidence, accused))
    }
}

impl Bundle {
    /// The proof this bundle carries, alone.
    #[must_use]
    pub fn proof(&self) -> Option<&Bytes> {
        match self.skeletons.as_slice() {
            [only] => match &only.op {
                Op::Evidence { proof } => Some(proof),
                _ => None,
            },
            _ => None,
        }
    }

    /// Signatures that checking it takes, at most.
    #[must_use]
    pub fn signatures(&self) -> u64 {
        1 + self.proof().map_or(0, |proof| proof.len() as u64 / BYTES_PER_SIGNATURE)
    }
}
