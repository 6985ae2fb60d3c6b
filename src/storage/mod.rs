//! What a replica keeps on disk: the write-ahead log, checkpoints, and behind them an index.
//!
//! Only this module touches the data directory, and only through [`disk::Disk`]. It orders nothing and
//! interprets nothing: records go in, the same records come out, or an error that names the place.
//! Every byte is described in `docs/storage-format.md`.

pub mod backup;
pub mod bbolt;
pub mod disk;
pub mod evidence;
pub mod identity;
pub mod log;
pub mod checkpoint;
pub mod transfer;
pub mod values;
#[cfg(feature = "server")]
#[allow(clippy::disallowed_methods, reason = "a damaged index is deleted")]
pub mod index;
#[cfg(test)]
mod testing;
