use core::fmt;

use crate::chain::Membership;
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::crypto::{Context, PublicKey, Scheme, Signature, SignedKind, hash, signed_bytes};
use crate::planted::{self, Bug};
use crate::types::{ClusterId, Digest, Epoch, Height, ReplicaId, View};

/// Longest range one vote covers; W never exceeds it.
const VOTE_RANGE_MAX: usize = 64;
const SIGNERS_MAX: usize = 128;

/// PBFT's two voting phases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// "This is the view's block at this height."
    Prepare = 1,
    /// "A quorum prepared it."
    Commit = 2,
}

/// A signed range vote: one signature covers consecutive heights (consensus.md 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vote {
    /// PREPARE or COMMIT.
    pub phase: Phase,
    /// The epoch voted in.
    pub epoch: Epoch,
    /// The view voted in.
    pub view: View,
    /// Who, from which height, for which blocks.
    pub signed: VoteSignature,
}

/// A voter's part of a vote or certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoteSignature {
    /// The voter.
    pub replica: ReplicaId,
    /// Height of `hashes[0]`.
    pub from_height: Height,
    /// Block hashes at consecutive heights, 1 to W of them.
    pub hashes: Vec<Digest>,
    /// Over all of it.
    pub signature: Signature,
}

impl VoteSignature {
    /// The hash voted for at `height`, if the range covers it.
    #[must_use]
    pub fn hash_at(&self, height: Height) -> Option<Digest> {
        let at = height.0.checked_sub(self.from_height.0)?;
        self.hashes.get(usize::try_from(at).ok()?).copied()
    }
}

impl Vote {
    /// Signs a vote.
    #[must_use]
    pub fn sign(
        round: (Phase, Epoch, View),
        voter: ReplicaId,
        range: (Height, Vec<Digest>),
        cluster_id: &ClusterId,
        scheme: &dyn Scheme,
    ) -> Self {
        let (phase, epoch, view) = round;
        let (from_height, hashes) = range;
        assert!(
            !hashes.is_empty() && hashes.len() <= VOTE_RANGE_MAX,
            "a vote covers 1 to 64 blocks"
        );
        let digest = vote_digest(phase, view, from_height, &hashes);
        let message = signed_bytes(SignedKind::Vote, cluster_id, epoch, &digest);
        let signature = scheme.sign(&message);
        let signed = VoteSignature { replica: voter, from_height, hashes, signature };
        Self { phase, epoch, view, signed }
    }

    /// Whether the named voter is a voting member and signed it.
    #[must_use]
    pub fn verify(
        &self,
        cluster_id: &ClusterId,
        membership: &Membership,
        scheme: &dyn Scheme,
    ) -> bool {
        verify_signed(
            (self.phase, self.epoch, self.view),
            &self.signed,
            cluster_id,
            membership,
            scheme,
        )
    }

    /// Whether `key` signed it, whatever the epoch and membership: for a replica's own votes.
    #[must_use]
    pub fn signed_by(&self, key: &PublicKey, cluster_id: &ClusterId, scheme: &dyn Scheme) -> bool {
        let signed = &self.signed;
        let digest = vote_digest(self.phase, self.view, signed.from_height, &signed.hashes);
        let message = signed_bytes(SignedKind::Vote, cluster_id, self.epoch, &digest);
        scheme.verify(key, &message, &signed.signature)
    }

    /// The highest place it promises something for.
    #[must_use]
    pub fn rank(&self) -> (Epoch, View, Height) {
        let last = self.signed.hashes.len() as u64 - 1;
        (self.epoch, self.view, self.signed.from_height.plus(last))
    }
}

/// Whether what was signed in `epoch` may count among these members.
fn is_of(epoch: Epoch, membership: &Membership) -> bool {
    let later = epoch > membership.epoch && planted::is(Bug::LaterEpochCertificate);
    epoch == membership.epoch || later
}

fn verify_signed(
    round: (Phase, Epoch, View),
    signed: &VoteSignature,
    cluster_id: &ClusterId,
    membership: &Membership,
    scheme: &dyn Scheme,
) -> bool {
    let (phase, epoch, view) = round;
    let Some(member) = membership.voter(signed.replica) else { return false };
    let digest = vote_digest(phase, view, signed.from_height, &signed.hashes);
    let message = signed_bytes(SignedKind::Vote, cluster_id, epoch, &digest);
    is_of(epoch, membership) && scheme.verify(&member.key, &message, &signed.signature)
}

fn vote_digest(phase: Phase, view: View, from_height: Height, hashes: &[Digest]) -> Digest {
    let mut writer = Writer::with_capacity(32 + 32 * hashes.len());
    writer.u8(phase as u8);
    writer.u64(view.0);
    encode_range(from_height, hashes, &mut writer);
    hash(&Context::VOTE, &[writer.as_slice()])
}

fn encode_range(from_height: Height, hashes: &[Digest], writer: &mut Writer) {
    writer.u64(from_height.0);
    writer.length(hashes.len());
    hashes.iter().for_each(|hash| writer.digest(hash));
}

impl Encode for VoteSignature {
    fn encode(&self, writer: &mut Writer) {
        writer.u16(self.replica.0);
        encode_range(self.from_height, &self.hashes, writer);
        writer.raw(&self.signature.0);
    }
}

impl Decode for VoteSignature {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let replica = ReplicaId(reader.u16("vote replica")?);
        let from_height = Height(reader.u64("vote height")?);
        let count = reader.length(VOTE_RANGE_MAX, "vote range")?;
        if count == 0 || from_height.0 == 0 || from_height.0.checked_add(count as u64).is_none() {
            return Err(DecodeError::Invalid("vote range"));
        }
        let mut hashes = Vec::with_capacity(count);
        for _ in 0..count {
            hashes.push(reader.digest("vote hash")?);
        }
        let signature = Signature(reader.array("vote signature")?);
        Ok(Self { replica, from_height, hashes, signature })
    }
}

fn decode_phase(reader: &mut Reader) -> Result<Phase, DecodeError> {
    match reader.u8("vote phase")? {
        1 => Ok(Phase::Prepare),
        2 => Ok(Phase::Commit),
        _ => Err(DecodeError::Invalid("vote phase")),
    }
}

impl Encode for Vote {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(self.phase as u8);
        writer.u64(self.epoch.0);
        writer.u64(self.view.0);
        self.signed.encode(writer);
    }
}

impl Decode for Vote {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            phase: decode_phase(reader)?,
            epoch: Epoch(reader.u64("vote epoch")?),
            view: View(reader.u64("vote view")?),
            signed: VoteSignature::decode(reader)?,
        })
    }
}

/// At least q signatures that a block is prepared or committed in a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Prepared or committed.
    pub phase: Phase,
    /// The epoch voted in.
    pub epoch: Epoch,
    /// The view voted in; not below the block's own.
    pub view: View,
    /// The block's height.
    pub height: Height,
    /// The block.
    pub block_hash: Digest,
    /// In ascending order of replica, each range covering `height` with `block_hash`.
    pub signatures: Vec<VoteSignature>,
}

/// Why a certificate certifies nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateError {
    /// It is of another epoch than the membership it was checked against.
    Epoch,
    /// Fewer than q signatures.
    TooFew,
    /// Signers out of order: a duplicate, or not canonical.
    Order,
    /// This signer's range does not cover the height with the block.
    OtherBlock(ReplicaId),
    /// This signer is no voting member or did not sign.
    Signature(ReplicaId),
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Epoch => write!(f, "the certificate is of another epoch"),
            Self::TooFew => write!(f, "the certificate has fewer signatures than a quorum"),
            Self::Order => {
                write!(f, "the certificate's signers are not in strictly ascending order")
            }
            Self::OtherBlock(id) => write!(f, "replica {id} voted for another block or height"),
            Self::Signature(id) => write!(f, "replica {id} did not sign this or may not vote"),
        }
    }
}

impl std::error::Error for CertificateError {}

impl Certificate {
    /// Its rank: certificates are compared by (epoch, view, height) and by nothing else
    /// (consensus.md 5.4).
    #[must_use]
    pub fn rank(&self) -> (Epoch, View, Height) {
        if planted::is(Bug::RankWithoutEpoch) {
            return (Epoch(0), self.view, self.height);
        }
        (self.epoch, self.view, self.height)
    }

    /// Whether it certifies its block under `membership`.
    ///
    /// # Errors
    /// The first [`CertificateError`] found.
    pub fn check(
        &self,
        cluster_id: &ClusterId,
        membership: &Membership,
        scheme: &dyn Scheme,
    ) -> Result<(), CertificateError> {
        if !is_of(self.epoch, membership) {
            return Err(CertificateError::Epoch);
        }
        if self.signatures.len() < membership.quorum().q() {
            return Err(CertificateError::TooFew);
        }
        let double = planted::is(Bug::DuplicateSigner);
        let ordered = |one: ReplicaId, two: ReplicaId| one < two || double && one == two;
        if !self.signatures.is_sorted_by(|one, two| ordered(one.replica, two.replica)) {
            return Err(CertificateError::Order);
        }
        for signed in &self.signatures {
            if signed.hash_at(self.height) != Some(self.block_hash) {
                return Err(CertificateError::OtherBlock(signed.replica));
            }
            let round = (self.phase, self.epoch, self.view);
            if !verify_signed(round, signed, cluster_id, membership, scheme) {
                return Err(CertificateError::Signature(signed.replica));
            }
        }
        Ok(())
    }
}

impl Encode for Certificate {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(self.phase as u8);
        writer.u64(self.epoch.0);
        writer.u64(self.view.0);
        writer.u64(self.height.0);
        writer.digest(&self.block_hash);
        writer.length(self.signatures.len());
        self.signatures.iter().for_each(|signed| signed.encode(writer));
    }
}

impl Decode for Certificate {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let phase = decode_phase(reader)?;
        let epoch = Epoch(reader.u64("certificate epoch")?);
        let view = View(reader.u64("certificate view")?);
        let height = Height(reader.u64("certificate height")?);
        let block_hash = reader.digest("certificate block")?;
        let mut signatures = Vec::new();
        for _ in 0..reader.length(SIGNERS_MAX, "certificate signers")? {
            signatures.push(VoteSignature::decode(reader)?);
        }
        Ok(Self { phase, epoch, view, height, block_hash, signatures })
    }
}
