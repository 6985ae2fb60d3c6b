//! bbolt files, the format of etcd's backend and snapshots (go.etcd.io/bbolt v1.5: `internal/common`):
//! a writer that streams pages in the order of their numbers, and a reader that believes nothing.
//!
//! Integers are little-endian. A page is its number u64, kind u16, count u16 and how many further pages
//! it takes u32; then elements; then the keys and values they point at, counted from the element.

mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use reader::{Cursor, Database, DatabaseError};
pub use writer::{DatabaseWriter, Layout};

/// Of the files that are written; those that are read say theirs.
pub const PAGE_BYTES: usize = 4096;

const HEADER_BYTES: usize = 16;
const LEAF_ELEMENT_BYTES: usize = 16;
const BRANCH_ELEMENT_BYTES: usize = 16;

const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const FREELIST: u16 = 0x10;

/// Set in a leaf element that holds a bucket.
const BUCKET_FLAG: u32 = 1;
/// A bucket's root page u64 and sequence u64; behind them its only page, if the root is 0.
const BUCKET_BYTES: usize = 16;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// Of the meta behind its page header; the checksum is over what stands in front of it.
const META_BYTES: usize = 64;
const META_CHECKED_BYTES: usize = 56;

/// 64-bit FNV-1a.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
