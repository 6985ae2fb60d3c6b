use core::fmt;
use std::sync::Arc;

use crate::chain::transition::is_late;
use crate::chain::{
    Block, Certificate, CertificateError, ConfigChange, ConfigError, Entry, Genesis, Membership,
    Network, Op, Phase, flags,
};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::crypto::Scheme;
use crate::types::{ClusterId, Epoch, Height};

/// How one epoch became the next: its CONFIG block and the old epoch's commit certificate of it.
/// The list of them, checked from genesis on, is what joiners and auditors trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochProof {
    /// The last block of its epoch.
    pub block: Arc<Block>,
    /// By the members of that epoch.
    pub certificate: Certificate,
}

/// Why an epoch proof proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochError {
    /// Its block is not of the epoch it should end.
    Epoch(Epoch),
    /// Its block is no CONFIG block of these members.
    NotConfig(Height),
    /// The certificate is of another block, or no commit certificate.
    OtherBlock(Height),
    /// The certificate does not hold.
    Certificate(Height, CertificateError),
    /// The change in it does not hold.
    Change(Height, ConfigError),
}

impl fmt::Display for EpochError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Epoch(epoch) => write!(f, "the proof of the end of epoch {epoch} is missing"),
            Self::NotConfig(at) => write!(f, "block {at} is no CONFIG block of its epoch"),
            Self::OtherBlock(at) => {
                write!(f, "the certificate is not a commit certificate of block {at}")
            }
            Self::Certificate(at, error) => write!(f, "block {at}: {error}"),
            Self::Change(at, error) => write!(f, "the change in block {at} does not hold: {error}"),
        }
    }
}

impl std::error::Error for EpochError {}

impl Block {
    /// The change this block orders, alone; whether it is made is the header's CONFIG flag's to say.
    #[must_use]
    pub fn config_change(&self) -> Option<&ConfigChange> {
        let [Entry::Bundle(bundle)] = self.entries.as_slice() else { return None };
        bundle.config_change()
    }

    /// Whether this is the last block of its epoch.
    #[must_use]
    pub fn ends_epoch(&self) -> bool {
        self.header.flags & flags::CONFIG != 0
    }
}

impl Network {
    /// The next epoch's network if this block's change is one that a correct voter accepts.
    ///
    /// # Errors
    /// Why not: the block is then an ordinary one and its op answers this.
    pub fn after(
        &self,
        block: &Block,
        cluster_id: &ClusterId,
        scheme: &dyn Scheme,
    ) -> Result<Self, ConfigError> {
        let change = block.config_change().ok_or(ConfigError::NotAccepted)?;
        if block.bundles().any(|bundle| is_late(bundle.not_after_ms, &block.header)) {
            return Err(ConfigError::Expired);
        }
        let next = self.change(change, &block.header)?;
        if !change.replica_signatures_hold(self, cluster_id, scheme) {
            return Err(ConfigError::ReplicaSignature);
        }
        Ok(next)
    }
}

impl EpochProof {
    /// The network it leads to from `network`.
    ///
    /// # Errors
    /// The first [`EpochError`].
    pub fn check(
        &self,
        network: &Network,
        cluster_id: &ClusterId,
        scheme: &dyn Scheme,
    ) -> Result<Network, EpochError> {
        let (membership, header) = (&network.membership, &self.block.header);
        let at = header.height;
        if header.epoch != membership.epoch {
            return Err(EpochError::Epoch(membership.epoch));
        }
        let of_network =
            header.cluster_id == *cluster_id && header.config_hash == membership.config_hash();
        if !self.block.ends_epoch() || !of_network {
            return Err(EpochError::NotConfig(at));
        }
        let certificate = &self.certificate;
        let same = (certificate.height, certificate.block_hash) == (at, self.block.hash());
        if certificate.phase != Phase::Commit || !same {
            return Err(EpochError::OtherBlock(at));
        }
        certificate
            .check(cluster_id, membership, scheme)
            .map_err(|error| EpochError::Certificate(at, error))?;
        network
            .after(&self.block, cluster_id, scheme)
            .map_err(|error| EpochError::Change(at, error))
    }

    /// The members of every epoch, from the first on. The proofs have been checked, before they were
    /// logged: what does not follow ends the list.
    #[must_use]
    pub fn memberships(
        first: &Network,
        proofs: &[Self],
        cluster_id: &ClusterId,
        scheme: &dyn Scheme,
    ) -> Vec<Membership> {
        let next = |network: &mut Network, proof: &Self| {
            *network = network.after(&proof.block, cluster_id, scheme).ok()?;
            Some(network.membership.clone())
        };
        let later = proofs.iter().scan(first.clone(), next);
        core::iter::once(first.membership.clone()).chain(later).collect()
    }

    /// The network of every epoch, from the genesis's on.
    ///
    /// # Errors
    /// The first [`EpochError`].
    pub fn check_all(
        genesis: &Genesis,
        proofs: &[Self],
        scheme: &dyn Scheme,
    ) -> Result<Vec<Network>, EpochError> {
        let cluster_id = genesis.cluster_id();
        let mut networks = vec![Network::of(genesis)];
        for proof in proofs {
            let last = networks.last().expect("the first is the genesis's");
            networks.push(proof.check(last, &cluster_id, scheme)?);
        }
        Ok(networks)
    }
}

impl crate::chain::Bundle {
    /// The change this bundle carries, alone.
    #[must_use]
    pub fn config_change(&self) -> Option<&ConfigChange> {
        match self.skeletons.as_slice() {
            [only] => match &only.op {
                Op::Config(change) => Some(change),
                _ => None,
            },
            _ => None,
        }
    }
}

impl Encode for EpochProof {
    fn encode(&self, writer: &mut Writer) {
        self.block.encode(writer);
        self.certificate.encode(writer);
    }
}

impl Decode for EpochProof {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let block = Arc::new(Block::decode(reader)?);
        Ok(Self { block, certificate: Certificate::decode(reader)? })
    }
}
