use crate::crypto::Context;
use crate::types::Digest;

/// Keyed hashes of many messages of exactly 64 bytes, for the inner nodes and pairs of a trie.
///
/// `blake3::platform::Platform::hash_many` hashes up to 16 at once (state.md 4.9); it is `doc(hidden)`,
/// so the crate is pinned and a test compares it with the ordinary keyed hash.
pub fn hash_many_64(context: &Context, messages: &[[u8; 64]], out: &mut Vec<Digest>) {
    const KEYED_HASH: u8 = 1 << 4;
    const CHUNK_START: u8 = 1 << 0;
    const CHUNK_END: u8 = 1 << 1;
    const ROOT: u8 = 1 << 3;
    let platform = blake3::platform::Platform::detect();
    let mut key = [0_u32; 8];
    for (word, bytes) in key.iter_mut().zip(context.key().chunks_exact(4)) {
        *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    for group in messages.chunks(blake3::platform::MAX_SIMD_DEGREE) {
        let inputs: Vec<&[u8; 64]> = group.iter().collect();
        let mut digests = [0_u8; 32 * blake3::platform::MAX_SIMD_DEGREE];
        platform.hash_many::<64>(
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

    #[test]
    fn many_hashes_equal_single_ones() {
        let messages: Vec<[u8; 64]> = (0..37).map(|n| [n; 64]).collect();
        let mut many = Vec::new();
        hash_many_64(&Context::STATE_NODE, &messages, &mut many);
        let single: Vec<Digest> = messages
            .iter()
            .map(|message| crate::crypto::hash(&Context::STATE_NODE, &[message]))
            .collect();
        assert_eq!(many, single);
    }
}
