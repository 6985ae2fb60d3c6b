use core::fmt;
use std::collections::BTreeMap;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};

use crate::planted::{self, Bug};

/// A signer's public key, 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A signature, 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// How a replica signs and checks: ed25519 in the world, keyed hashes in most simulator seeds
/// (consensus.md 1).
pub trait Scheme: Send + Sync {
    /// The public half of this replica's own key.
    fn public_key(&self) -> PublicKey;

    /// Signs with this replica's own key.
    fn sign(&self, message: &[u8]) -> Signature;

    /// Whether `signature` over `message` is `key`'s.
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool;
}

/// Ed25519 with one replica's secret key, which is wiped when dropped.
pub struct Ed25519 {
    key: SigningKey,
    /// Points of keys that are often checked: to find one costs a seventh of a check.
    points: BTreeMap<PublicKey, VerifyingKey>,
}

impl Ed25519 {
    /// From a secret seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self { key: SigningKey::from_bytes(seed), points: BTreeMap::new() }
    }

    /// The same, ready to check these keys fast. Whatever is accepted or refused stays so.
    #[must_use]
    pub fn with_points(mut self, keys: &[PublicKey]) -> Self {
        let point = |key: &PublicKey| Some((*key, VerifyingKey::from_bytes(&key.0).ok()?));
        self.points.extend(keys.iter().filter_map(point));
        self
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.key.verifying_key().to_bytes())
    }
}

impl Scheme for Ed25519 {
    fn public_key(&self) -> PublicKey {
        Self::public_key(self)
    }

    fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.key.sign(message).to_bytes())
    }

    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        match self.points.get(key) {
            Some(point) => verify_with(point, message, signature),
            None => verify_ed25519(key, message, signature),
        }
    }
}

/// Strict verification, one signature at a time, everywhere: plain or batch verification accepts
/// what another replica may refuse (consensus.md 2).
#[must_use]
pub fn verify_ed25519(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    VerifyingKey::from_bytes(&key.0).is_ok_and(|key| verify_with(&key, message, signature))
}

fn verify_with(key: &VerifyingKey, message: &[u8], signature: &Signature) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
    if planted::is(Bug::LaxVerify) {
        return ed25519_dalek::Verifier::verify(key, message, &signature).is_ok();
    }
    key.verify_strict(message, &signature).is_ok()
}

/// Whether a key must be refused at registration: not a point, or of small order.
#[must_use]
pub fn weak_key(key: &PublicKey) -> bool {
    VerifyingKey::from_bytes(&key.0).map_or(true, |key| key.is_weak())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_verifies_only_for_its_key_and_message() {
        let (one, two) = (Ed25519::from_seed(&[1; 32]), Ed25519::from_seed(&[2; 32]));
        let signature = one.sign(b"message");
        assert!(two.verify(&one.public_key(), b"message", &signature));
        assert!(!two.verify(&one.public_key(), b"massage", &signature));
        assert!(!two.verify(&two.public_key(), b"message", &signature));
    }

    #[test]
    fn known_points_change_no_verdict() {
        let (one, two) = (Ed25519::from_seed(&[1; 32]), Ed25519::from_seed(&[2; 32]));
        let no_point = PublicKey([0xff; 32]);
        let knowing = Ed25519::from_seed(&[3; 32]).with_points(&[one.public_key(), no_point]);
        let signature = one.sign(b"message");
        for key in [one.public_key(), two.public_key(), no_point] {
            for message in [&b"message"[..], b"massage"] {
                let plain = verify_ed25519(&key, message, &signature);
                assert_eq!(knowing.verify(&key, message, &signature), plain);
            }
        }
        assert!(knowing.verify(&one.public_key(), b"message", &signature));
    }

    #[test]
    fn small_order_keys_are_weak_and_sign_nothing() {
        let mut identity = [0; 32];
        identity[0] = 1;
        let key = PublicKey(identity);
        assert!(weak_key(&key));
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!verify_ed25519(&key, b"anything", &Signature(signature)));
    }
}
