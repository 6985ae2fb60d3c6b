//! A checkpoint of the others on its way: chunks gather here until all are there.

/// The directory of a state transfer below the data directory.
pub const TRANSFER_DIRECTORY: &str = "transfer";
