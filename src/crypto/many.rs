use crate::crypto::Context;
use crate::types::Digest;

/// As [`hash_many`], for the inner nodes and pairs of a trie.
pub fn hash_many_64(context: &Context, messages: &[[u8; 64]], out: &mut Vec<Digest>) {
    hash_many(context, messages, out);
}

/// Appends the keyed hashes of many messages of one length, a multiple of 64 up to 1,024 bytes.
///
/// `blake3::platform::Platform::hash_many` hashes up to 16 at once (state.md 4.9); it is `doc(hidden)`,
/// so the crate is pinned and a test compares it with the ordinary keyed hash.
pub fn hash_many<const N: usize>(context: &Context, messages: &[[u8; N]], out: &mut Vec<Digest>) {
    const KEYED_HASH: u8 = 1 << 4;
    const CHUNK_START: u8 = 1 << 0;
    const CHUNK_END: u8 = 1 << 1;
    const ROOT: u8 = 1 << 3;
    const { assert!(N > 0 && N <= 1024 && N.is_multiple_of(64), "whole blocks of one chunk") };
    let platform = blake3::platform::Platform::detect();
    let mut key = [0_u32; 8];
    for (word, bytes) in key.iter_mut().zip(context.key().chunks_exact(4)) {
        *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    for group in messages.chunks(blake3::platform::MAX_SIMD_DEGREE) {
        let inputs: Vec<&[u8; N]> = group.iter().collect();
        let mut digests = [0_u8; 32 * blake3::platform::MAX_SIMD_DEGREE];
        platform.hash_many::<N>(
            &inputs,
            &key,
            0,
            blake3::IncrementCounter::No,
            KEYED_HASH,
            CHUNK_START,
            CHUNK_END | ROOT,
            &mut digests,
        );
        for digest in digests.chunks_exact(32).take(group.len()) {
            let mut bytes = [0; 32];
            bytes.copy_from_slice(digest);
            out.push(Digest(bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare<const N: usize>() {
        let messages: Vec<[u8; N]> = (0..37).map(|n| [n; N]).collect();
        let mut many = Vec::new();
        hash_many(&Context::STATE_NODE, &messages, &mut many);
        let single: Vec<Digest> = messages
            .iter()
            .map(|message| crate::crypto::hash(&Context::STATE_NODE, &[message]))
            .collect();
        assert_eq!(many, single, "{N} bytes");
    }

    #[test]
    fn many_hashes_equal_single_ones() {
        compare::<64>();
        compare::<128>();
        compare::<192>();
        compare::<1024>();
    }
}
