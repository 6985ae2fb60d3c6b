//! Signatures that cost a hash: only who holds the secret can make one, everyone can check it.

use std::collections::BTreeMap;
use std::sync::Arc;

use althing::crypto::{PublicKey, Scheme, Signature};

/// The secrets behind all public keys of a run. Kept to this module: a node signs with its own only.
#[derive(Clone, Default)]
pub struct KeyRing {
    secrets: Arc<BTreeMap<PublicKey, [u8; 32]>>,
}

fn public_key(secret: &[u8; 32]) -> PublicKey {
    PublicKey(*blake3::keyed_hash(secret, b"public key").as_bytes())
}

fn mac(secret: &[u8; 32], message: &[u8]) -> Signature {
    let mut out = [0; 64];
    blake3::Hasher::new_keyed(secret).update(message).finalize_xof().fill(&mut out);
    Signature(out)
}

impl KeyRing {
    /// A ring of these secrets, and the public key of each.
    #[must_use]
    pub fn new(secrets: &[[u8; 32]]) -> (Self, Vec<PublicKey>) {
        let keys: Vec<PublicKey> = secrets.iter().map(public_key).collect();
        let secrets = keys.iter().copied().zip(secrets.iter().copied()).collect();
        (Self { secrets: Arc::new(secrets) }, keys)
    }

    /// The scheme of who holds `secret`.
    #[must_use]
    pub fn scheme(&self, secret: [u8; 32]) -> Arc<dyn Scheme> {
        Arc::new(KeyedHash { own: secret, ring: self.clone() })
    }
}

/// Keyed blake3 in place of ed25519.
struct KeyedHash {
    own: [u8; 32],
    ring: KeyRing,
}

impl Scheme for KeyedHash {
    fn public_key(&self) -> PublicKey {
        public_key(&self.own)
    }

    fn sign(&self, message: &[u8]) -> Signature {
        mac(&self.own, message)
    }

    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        self.ring.secrets.get(key).is_some_and(|secret| mac(secret, message) == *signature)
    }
}
