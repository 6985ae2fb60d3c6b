use core::fmt;
use std::sync::Arc;

use crate::chain::{
    Block, Certificate, CertificateError, CheckpointCertificate, Membership, Network, Phase,
};
use crate::crypto::Scheme;
use crate::types::{ClusterId, Digest, Epoch, Height};

/// Why blocks are not the network's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainError {
    /// The block at this height does not follow the one before it.
    Parent(Height),
    /// The block at this height is of an epoch that no proof leads to, or of other members.
    Epoch(Height),
    /// A value at this height is not the one committed to.
    Value(Height),
    /// The certificate is not of the last block.
    OtherBlock(Height),
    /// The certificate at this height certifies nothing.
    Certificate(Height, CertificateError),
    /// The checkpoint certified at this height is of another block than the chain's.
    Checkpoint(Height),
}

impl fmt::Display for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parent(height) => write!(f, "block {height} does not follow the one before it"),
            Self::Epoch(height) => {
                write!(f, "block {height} is of an epoch or members that no proof leads to")
            }
            Self::Value(height) => {
                write!(f, "a value of block {height} is not the one committed to")
            }
            Self::OtherBlock(height) => {
                write!(f, "the certificate given for block {height} is of another block")
            }
            Self::Certificate(height, error) => {
                write!(f, "the certificate at height {height} does not hold: {error}")
            }
            Self::Checkpoint(height) => {
                write!(f, "the certified checkpoint at height {height} is of another block")
            }
        }
    }
}

impl std::error::Error for ChainError {}

/// What a walk along the chain has found so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChainCount {
    /// Blocks.
    pub blocks: u64,
    /// Of them those whose values are erased.
    pub erased: u64,
    /// Commit certificates.
    pub certificates: u64,
    /// Certificates of checkpoints.
    pub checkpoints: u64,
}

/// Checks blocks in the order of their heights: each follows the one before it, and certificates prove
/// them. Erased values leave headers and commitments, so that nothing else is checked less.
pub struct ChainCheck<'a> {
    cluster_id: ClusterId,
    /// Of every epoch, from the genesis's on.
    networks: &'a [Network],
    scheme: &'a dyn Scheme,
    last: Option<(Height, Digest)>,
    count: ChainCount,
}

impl<'a> ChainCheck<'a> {
    /// Begins with whatever block comes first. `networks` as [`crate::chain::EpochProof::check_all`] gives
    /// them.
    #[must_use]
    pub fn new(cluster_id: ClusterId, networks: &'a [Network], scheme: &'a dyn Scheme) -> Self {
        Self { cluster_id, networks, scheme, last: None, count: ChainCount::default() }
    }

    fn members(&self, epoch: Epoch, height: Height) -> Result<&'a Membership, ChainError> {
        let of_epoch = |network: &&Network| network.membership.epoch == epoch;
        let network = self.networks.iter().find(of_epoch).ok_or(ChainError::Epoch(height))?;
        Ok(&network.membership)
    }

    /// The next blocks, with a certificate of the last one.
    ///
    /// # Errors
    /// The first [`ChainError`].
    pub fn page(
        &mut self,
        blocks: &[Arc<Block>],
        certificate: &Certificate,
    ) -> Result<(), ChainError> {
        for block in blocks {
            self.block(block)?;
        }
        let height = certificate.height;
        let certified = (height, certificate.block_hash);
        if certificate.phase != Phase::Commit || self.last != Some(certified) {
            return Err(ChainError::OtherBlock(height));
        }
        certificate
            .check(&self.cluster_id, self.members(certificate.epoch, height)?, self.scheme)
            .map_err(|error| ChainError::Certificate(height, error))?;
        self.count.certificates += 1;
        Ok(())
    }

    fn block(&mut self, block: &Block) -> Result<(), ChainError> {
        let (height, hash) = (block.header.height, block.header.hash());
        let first = (Height(1), Digest::ZERO);
        let follows = match self.last {
            Some((last, parent)) => (last.next(), parent) == (height, block.header.parent),
            None => height > first.0 || (height, block.header.parent) == first,
        };
        if !follows || block.header.cluster_id != self.cluster_id {
            return Err(ChainError::Parent(height));
        }
        let members = self.members(block.header.epoch, height)?;
        if block.header.config_hash != members.config_hash() {
            return Err(ChainError::Epoch(height));
        }
        let committed = |(slot, value): (&crate::chain::ValueSlot, &crate::chain::Value)| {
            slot.commitment == value.commitment()
        };
        for bundle in block.bundles() {
            if !bundle.values.is_empty()
                && !bundle.slots().iter().zip(&bundle.values).all(committed)
            {
                return Err(ChainError::Value(height));
            }
        }
        self.count.blocks += 1;
        self.count.erased += u64::from(!block.has_values());
        self.last = Some((height, hash));
        Ok(())
    }

    /// A checkpoint's certificate, given when its block was the last.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn checkpoint(&mut self, stable: &CheckpointCertificate) -> Result<(), ChainError> {
        let height = stable.id.height;
        if self.last.is_some_and(|last| last.0 == height && last.1 != stable.id.block_hash) {
            return Err(ChainError::Checkpoint(height));
        }
        let members = self.members(stable.epoch, height)?;
        stable
            .check(&self.cluster_id, members, self.scheme, members.quorum().q())
            .map_err(|error| ChainError::Certificate(height, error))?;
        self.count.checkpoints += 1;
        Ok(())
    }

    /// What was found.
    #[must_use]
    pub fn count(&self) -> ChainCount {
        self.count
    }
}
