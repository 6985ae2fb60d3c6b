//! A key as a bit string (state.md 4.1): per byte a presence bit 1 and eight bits, most significant
//! first; after the last byte a presence bit 0. Its order is bytewise order, and no key is another's
//! prefix. A position is `byte << 4 | bit`, bit 0 being the presence bit.

/// The first position at which two keys differ, the first being given in two parts; `u32::MAX` for
/// equal keys.
pub fn crit(one: (&[u8], &[u8]), two: &[u8]) -> u32 {
    let (prefix, suffix) = one;
    let head = same(prefix, two);
    if head < prefix.len() {
        return differ(head, prefix.get(head), two.get(head));
    }
    let tail = same(suffix, &two[head..]);
    differ(head + tail, suffix.get(tail), two.get(head + tail))
}

fn same(one: &[u8], two: &[u8]) -> usize {
    one.iter().zip(two).take_while(|(a, b)| a == b).count()
}

fn differ(at: usize, one: Option<&u8>, two: Option<&u8>) -> u32 {
    let byte = u32::try_from(at).expect("keys are at most 1 KiB") << 4;
    match (one, two) {
        (Some(a), Some(b)) => byte | (1 + (a ^ b).leading_zeros()),
        (None, None) => u32::MAX,
        _ => byte,
    }
}

/// The bit at a position; 0 behind the end.
pub fn bit_of(key: &[u8], position: u32) -> usize {
    let Some(byte) = key.get((position >> 4) as usize) else { return 0 };
    match position & 15 {
        0 => 1,
        bit => usize::from(byte >> (8 - bit) & 1),
    }
}
