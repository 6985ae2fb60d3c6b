//! Hashes with a context per type, signatures with a domain per kind, salted commitments.
//!
//! Every hash is blake3 keyed with the padded name of what it is over, so that no two types of thing
//! can share a digest. What is signed is never a body but a fixed 105 bytes that name the kind, the
//! network, the epoch and the body's digest (consensus.md 2).

mod context;
mod many;
mod scheme;
mod signed;

pub use context::Context;
pub use many::{hash_many, hash_many_64};
pub use scheme::{Ed25519, PublicKey, Scheme, Signature, verify_ed25519, weak_key};
pub use signed::{SIGNED_BYTES, SignedKind, signed_bytes};

use crate::types::Digest;

/// The keyed hash over `parts`, one after the other. Callers make the split unambiguous by fixed
/// widths or lengths.
#[must_use]
pub fn hash(context: &Context, parts: &[&[u8]]) -> Digest {
    if let [only] = parts {
        return Digest(*blake3::keyed_hash(context.key(), only).as_bytes());
    }
    let mut hasher = blake3::Hasher::new_keyed(context.key());
    for part in parts {
        hasher.update(part);
    }
    Digest(*hasher.finalize().as_bytes())
}

/// The merkle root over `leaves`: binary by position, an odd last one moves up; no leaf is the hash
/// of nothing, and the count is hashed in last, so that no list is a prefix of another.
#[must_use]
pub fn merkle_root(context: &Context, leaves: &[Digest]) -> Digest {
    let count = (leaves.len() as u64).to_le_bytes();
    let mut level = leaves.to_vec();
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => hash(context, &[&left.0, &right.0]),
                [odd] => *odd,
                _ => unreachable!("chunks(2) yields one or two"),
            })
            .collect();
    }
    let top = level.first().copied().unwrap_or(Digest::ZERO);
    hash(context, &[&count, &top.0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_part_equal_bytes() {
        assert_ne!(hash(&Context::VALUE, &[b"x"]), hash(&Context::BUNDLE, &[b"x"]));
        assert_eq!(hash(&Context::VALUE, &[b"x", b"y"]), hash(&Context::VALUE, &[b"xy"]));
    }

    #[test]
    fn merkle_roots_differ_by_count_and_order() {
        let leaf = |n: u8| Digest([n; 32]);
        let root = |leaves: &[Digest]| merkle_root(&Context::BODY, leaves);
        assert_ne!(root(&[leaf(1), leaf(2)]), root(&[leaf(2), leaf(1)]));
        assert_ne!(root(&[leaf(1)]), root(&[leaf(1), leaf(1)]));
        assert_ne!(root(&[]), root(&[Digest::ZERO]));
    }
}
