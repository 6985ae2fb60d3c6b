//! Votes and certificates checked by code of its own: the formats are written out again here from the
//! protocol's pages, and nothing of `althing::chain`'s checks is called.

use althing::chain::{Certificate, Phase, VoteSignature};
use althing::crypto::{PublicKey, Scheme};
use althing::types::{Digest, Epoch, View};
use std::sync::Arc;

use crate::sim::checkers::members::{Epochs, Roster};

/// Knows the members' keys and checks what they signed.
pub struct Verifier {
    cluster_id: Digest,
    /// Who belongs to which epoch.
    pub epochs: Epochs,
    scheme: Arc<dyn Scheme>,
}

fn keyed(name: &str, bytes: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    key[..name.len()].copy_from_slice(name.as_bytes());
    *blake3::keyed_hash(&key, bytes).as_bytes()
}

/// Two quorums share f + 1 of n: the least q with 2q - n > f.
#[must_use]
pub fn quorum(n: usize) -> usize {
    let f = (n - 1) / 3;
    (1..=n).find(|q| 2 * q > n + f).expect("n itself is one")
}

impl Verifier {
    /// For the members of epoch 0, by id from 0, and whoever joins.
    #[must_use]
    pub fn new(cluster_id: Digest, keys: &[PublicKey], scheme: Arc<dyn Scheme>) -> Self {
        Self { cluster_id, epochs: Epochs::new(Roster::first(keys)), scheme }
    }

    /// Votes that decide in an epoch; none in one that has not begun.
    #[must_use]
    pub fn quorum(&self, epoch: Epoch) -> Option<usize> {
        Some(quorum(self.epochs.of(epoch)?.n()))
    }

    /// Whether the replica named in `signed` votes in this epoch and signed it in this round.
    #[must_use]
    pub fn signed(&self, round: (Phase, Epoch, View), signed: &VoteSignature) -> bool {
        let seat = self.epochs.of(round.1).and_then(|roster| roster.seats.get(&signed.replica));
        let Some(seat) = seat.filter(|seat| seat.voting) else { return false };
        let mut body = vec![if round.0 == Phase::Prepare { 1 } else { 2 }];
        body.extend(round.2.0.to_le_bytes());
        body.extend(signed.from_height.0.to_le_bytes());
        body.extend(u32::try_from(signed.hashes.len()).unwrap_or(u32::MAX).to_le_bytes());
        signed.hashes.iter().for_each(|hash| body.extend(hash.0));
        let mut message = b"althing v1 signed".to_vec();
        message.resize(32, 0);
        message.extend(self.cluster_id.0);
        message.extend(round.1.0.to_le_bytes());
        message.push(1);
        message.extend(keyed("althing v1 vote", &body));
        self.scheme.verify(&seat.key, &message, &signed.signature)
    }

    /// Why a certificate proves nothing; none if it does.
    #[must_use]
    pub fn refuse(&self, certificate: &Certificate) -> Option<String> {
        let round = (certificate.phase, certificate.epoch, certificate.view);
        let mut signers = Vec::new();
        for signed in &certificate.signatures {
            let above = certificate.height.0.checked_sub(signed.from_height.0);
            let hash = above.and_then(|at| signed.hashes.get(usize::try_from(at).ok()?));
            if hash != Some(&certificate.block_hash) {
                return Some(format!("{} voted for another block", signed.replica));
            }
            if !self.signed(round, signed) {
                return Some(format!("{} did not sign", signed.replica));
            }
            if !signers.contains(&signed.replica) {
                signers.push(signed.replica);
            }
        }
        let Some(enough) = self.quorum(certificate.epoch) else {
            return Some(format!("epoch {} has not begun", certificate.epoch));
        };
        (signers.len() < enough).then(|| format!("{} signers, {enough} needed", signers.len()))
    }
}
