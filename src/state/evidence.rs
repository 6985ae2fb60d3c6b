//! Who is proven to have broken the protocol: one list for all replicas (protocol.md 13.7).

use std::collections::BTreeMap;

use crate::chain::{EVIDENCE_OP_BYTES_MAX, Evidence, EvidenceKind, Membership};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::planted::{self, Bug};
use crate::types::{Digest, Height, Millis, ReplicaId};

/// Proofs against one replica that are written down: more tell nothing new.
const PROOFS_PER_ACCUSED: usize = 8;
/// Proofs in all. Ids of replicas are never used twice, and members are added by governance alone.
const PROOFS_MAX: usize = 4096;
/// So long each replica leaves a proof to those whose turn to order it comes first.
const TURN_MS: u64 = 2_000;

/// A proof that was ordered. The proof itself stands in its block, and in a file of every replica that
/// had a part in accepting it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Whom it proves guilty.
    pub accused: ReplicaId,
    /// Of what.
    pub kind: EvidenceKind,
    /// The replica that had it ordered.
    pub reporter: ReplicaId,
    /// The block it stands in.
    pub height: Height,
    /// That block's time.
    pub time_ms: Millis,
}

/// All proofs that were ordered, by digest. None is ever taken out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proofs {
    known: BTreeMap<Digest, Proof>,
}

impl Proofs {
    /// All of them, by digest.
    pub fn list(&self) -> impl Iterator<Item = (&Digest, &Proof)> {
        self.known.iter()
    }

    /// The one with this digest.
    #[must_use]
    pub fn get(&self, digest: &Digest) -> Option<&Proof> {
        self.known.get(digest)
    }

    /// Whether a proof belongs on the list and is not there. Nobody orders any other.
    #[must_use]
    pub fn lacks(&self, evidence: &Evidence) -> bool {
        let Some(accused) = evidence.ordered_against() else { return false };
        self.has_room(accused)
            && evidence.to_bytes().len() <= EVIDENCE_OP_BYTES_MAX
            && !self.known.contains_key(&evidence.digest())
    }

    fn has_room(&self, accused: ReplicaId) -> bool {
        let against = self.known.values().filter(|proof| proof.accused == accused).count();
        against < PROOFS_PER_ACCUSED && self.known.len() < PROOFS_MAX
    }

    /// Writes a proof down; false if it is there already, or there are enough.
    pub(crate) fn record(&mut self, digest: Digest, proof: Proof) -> bool {
        let known = self.known.contains_key(&digest) && !planted::is(Bug::ProofTwice);
        let news = !known && self.has_room(proof.accused);
        if news {
            self.known.insert(digest, proof);
        }
        news
    }
}

/// How long a replica waits, from the time it learns of a proof, before it has it ordered, so that only
/// one does: the voters take turns in an order that the proof's digest begins.
#[must_use]
pub fn report_after_ms(digest: &Digest, own: ReplicaId, membership: &Membership) -> u64 {
    let mut voters: Vec<ReplicaId> = membership.voters().map(|member| member.id).collect();
    voters.sort_unstable();
    let count = voters.len().max(1);
    let place = voters.iter().position(|id| *id == own);
    // Who does not vote comes after all who do.
    let turn = place.map_or(count, |place| (place + usize::from(digest.0[0])) % count);
    turn as u64 * TURN_MS
}

impl Encode for Proofs {
    fn encode(&self, writer: &mut Writer) {
        writer.length(self.known.len());
        for (digest, proof) in &self.known {
            writer.digest(digest);
            writer.u16(proof.accused.0);
            writer.u8(proof.kind as u8);
            writer.u16(proof.reporter.0);
            writer.u64(proof.height.0);
            writer.u64(proof.time_ms.0);
        }
    }
}

impl Decode for Proofs {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let mut known: BTreeMap<Digest, Proof> = BTreeMap::new();
        for _ in 0..reader.length(PROOFS_MAX, "proofs")? {
            let digest = reader.digest("proof")?;
            if known.last_key_value().is_some_and(|(last, _)| *last >= digest) {
                return Err(DecodeError::Invalid("proof order"));
            }
            let accused = ReplicaId(reader.u16("proof accused")?);
            let kind = EvidenceKind::numbered(reader.u8("proof kind")?);
            let proof = Proof {
                accused,
                kind: kind.ok_or(DecodeError::Invalid("proof kind"))?,
                reporter: ReplicaId(reader.u16("proof reporter")?),
                height: Height(reader.u64("proof height")?),
                time_ms: Millis(reader.u64("proof time")?),
            };
            known.insert(digest, proof);
        }
        Ok(Self { known })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof(accused: u16) -> Proof {
        Proof {
            accused: ReplicaId(accused),
            kind: EvidenceKind::DoubleVote,
            reporter: ReplicaId(0),
            height: Height(7),
            time_ms: Millis(9),
        }
    }

    #[test]
    fn a_proof_is_written_down_once_and_a_liar_cannot_fill_the_list() {
        let mut proofs = Proofs::default();
        assert!(proofs.record(Digest([0; 32]), proof(1)));
        assert!(!proofs.record(Digest([0; 32]), proof(1)));
        let taken = (1..100).filter(|n| proofs.record(Digest([*n; 32]), proof(1))).count();
        assert_eq!(taken + 1, PROOFS_PER_ACCUSED);
        assert!(proofs.record(Digest([100; 32]), proof(2)), "there is room for another's");
        let bytes = proofs.to_bytes();
        assert_eq!(Proofs::from_bytes(bytes), Ok(proofs));
    }
}
