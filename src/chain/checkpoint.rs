use crate::chain::{CertificateError, Membership};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::crypto::{Context, Scheme, Signature, SignedKind, hash, signed_bytes};
use crate::types::{ClusterId, Digest, Epoch, Height, ReplicaId};

const SIGNERS_MAX: usize = 128;

/// What a checkpoint is: the state after one block, and the bytes that hold it (protocol.md 16).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckpointId {
    /// The state is as of this block.
    pub height: Height,
    /// Its hash.
    pub block_hash: Digest,
    /// The state's root after it.
    pub exec_root: Digest,
    /// Hash of the manifest that names the chunks.
    pub manifest_root: Digest,
}

impl CheckpointId {
    fn signed_bytes(
        &self,
        cluster_id: &ClusterId,
        epoch: Epoch,
    ) -> [u8; crate::crypto::SIGNED_BYTES] {
        let digest = hash(&Context::CHECKPOINT, &[&self.to_bytes()]);
        signed_bytes(SignedKind::Checkpoint, cluster_id, epoch, &digest)
    }
}

impl Encode for CheckpointId {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.height.0);
        writer.digest(&self.block_hash);
        writer.digest(&self.exec_root);
        writer.digest(&self.manifest_root);
    }
}

impl Decode for CheckpointId {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            height: Height(reader.u64("checkpoint height")?),
            block_hash: reader.digest("checkpoint block")?,
            exec_root: reader.digest("checkpoint root")?,
            manifest_root: reader.digest("checkpoint manifest")?,
        })
    }
}

/// A replica holds this checkpoint durably and found this state at its height.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointVote {
    /// The epoch of the signer's key.
    pub epoch: Epoch,
    /// Who.
    pub replica: ReplicaId,
    /// What.
    pub id: CheckpointId,
    /// Over epoch and id.
    pub signature: Signature,
}

impl CheckpointVote {
    /// Signs a vote.
    #[must_use]
    pub fn sign(
        epoch: Epoch,
        replica: ReplicaId,
        id: CheckpointId,
        cluster_id: &ClusterId,
        scheme: &dyn Scheme,
    ) -> Self {
        let signature = scheme.sign(&id.signed_bytes(cluster_id, epoch));
        Self { epoch, replica, id, signature }
    }

    /// Whether the named replica votes in `membership`, of the same epoch, and signed it.
    #[must_use]
    pub fn verify(
        &self,
        cluster_id: &ClusterId,
        membership: &Membership,
        scheme: &dyn Scheme,
    ) -> bool {
        self.epoch == membership.epoch
            && membership.voter(self.replica).is_some_and(|member| {
                let message = self.id.signed_bytes(cluster_id, self.epoch);
                scheme.verify(&member.key, &message, &self.signature)
            })
    }
}

impl Encode for CheckpointVote {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.epoch.0);
        writer.u16(self.replica.0);
        self.id.encode(writer);
        writer.raw(&self.signature.0);
    }
}

impl Decode for CheckpointVote {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            epoch: Epoch(reader.u64("checkpoint epoch")?),
            replica: ReplicaId(reader.u16("checkpoint replica")?),
            id: CheckpointId::decode(reader)?,
            signature: Signature(reader.array("checkpoint signature")?),
        })
    }
}

/// Voters' signatures under one checkpoint: f + 1 make it true, a quorum makes it stable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointCertificate {
    /// The epoch of the signers' keys.
    pub epoch: Epoch,
    /// What they hold.
    pub id: CheckpointId,
    /// In ascending order of replica.
    pub signatures: Vec<(ReplicaId, Signature)>,
}

impl CheckpointCertificate {
    /// Whether at least `threshold` voters of `membership` signed, and nobody else is named.
    ///
    /// # Errors
    /// The first [`CertificateError`] found.
    pub fn check(
        &self,
        cluster_id: &ClusterId,
        membership: &Membership,
        scheme: &dyn Scheme,
        threshold: usize,
    ) -> Result<(), CertificateError> {
        if self.epoch != membership.epoch {
            return Err(CertificateError::Epoch);
        }
        if self.signatures.len() < threshold {
            return Err(CertificateError::TooFew);
        }
        if !self.signatures.is_sorted_by(|(one, _), (two, _)| one < two) {
            return Err(CertificateError::Order);
        }
        let message = self.id.signed_bytes(cluster_id, self.epoch);
        for (replica, signature) in &self.signatures {
            let signed = membership
                .voter(*replica)
                .is_some_and(|member| scheme.verify(&member.key, &message, signature));
            if !signed {
                return Err(CertificateError::Signature(*replica));
            }
        }
        Ok(())
    }
}

impl Encode for CheckpointCertificate {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.epoch.0);
        self.id.encode(writer);
        writer.length(self.signatures.len());
        for (replica, signature) in &self.signatures {
            writer.u16(replica.0);
            writer.raw(&signature.0);
        }
    }
}

impl Decode for CheckpointCertificate {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let epoch = Epoch(reader.u64("checkpoint epoch")?);
        let id = CheckpointId::decode(reader)?;
        let mut signatures = Vec::new();
        for _ in 0..reader.length(SIGNERS_MAX, "checkpoint signers")? {
            let replica = ReplicaId(reader.u16("checkpoint signer")?);
            signatures.push((replica, Signature(reader.array("checkpoint signature")?)));
        }
        Ok(Self { epoch, id, signatures })
    }
}
