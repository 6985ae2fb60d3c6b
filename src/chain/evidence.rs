use crate::chain::{Membership, Vote};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::crypto::Scheme;
use crate::types::{ClusterId, ReplicaId};

/// Proof, from signed bytes alone, that a replica broke the protocol (consensus.md 14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Two votes of one phase, epoch and view for different blocks at one height.
    DoubleVote(Box<(Vote, Vote)>),
}

impl Evidence {
    /// Two votes as evidence, if they contradict each other.
    #[must_use]
    pub fn double_vote(one: &Vote, two: &Vote) -> Option<Self> {
        let same_round = (one.phase, one.epoch, one.view) == (two.phase, two.epoch, two.view)
            && one.signed.replica == two.signed.replica;
        let contradict = one.signed.hashes.iter().zip(0_u64..).any(|(hash, at)| {
            let height = one.signed.from_height.plus(at);
            two.signed.hash_at(height).is_some_and(|other| other != *hash)
        });
        (same_round && contradict).then(|| Self::DoubleVote(Box::new((one.clone(), two.clone()))))
    }

    /// Who it accuses.
    #[must_use]
    pub fn accused(&self) -> ReplicaId {
        match self {
            Self::DoubleVote(votes) => votes.0.signed.replica,
        }
    }

    /// Whether it proves what it says.
    #[must_use]
    pub fn verify(
        &self,
        cluster_id: &ClusterId,
        membership: &Membership,
        scheme: &dyn Scheme,
    ) -> bool {
        match self {
            Self::DoubleVote(votes) => {
                let (one, two) = votes.as_ref();
                Self::double_vote(one, two).is_some()
                    && one.verify(cluster_id, membership, scheme)
                    && two.verify(cluster_id, membership, scheme)
            }
        }
    }
}

impl Encode for Evidence {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::DoubleVote(votes) => {
                writer.u8(1);
                votes.0.encode(writer);
                votes.1.encode(writer);
            }
        }
    }
}

impl Decode for Evidence {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        match reader.u8("evidence kind")? {
            1 => {
                let (one, two) = (Vote::decode(reader)?, Vote::decode(reader)?);
                Ok(Self::DoubleVote(Box::new((one, two))))
            }
            _ => Err(DecodeError::Invalid("evidence kind")),
        }
    }
}
