//! Why a genesis, or a file on the way to it, is refused.

use std::path::PathBuf;

use crate::crypto::PublicKey;
use crate::types::ClusterId;

/// What is wrong with a genesis, a public file or a signature file.
#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    /// The system refused.
    #[error("{0} cannot be read: {1}")]
    Unreadable(PathBuf, std::io::Error),
    /// Far larger than any genesis.
    #[error("{0} is larger than 4 MiB and cannot be a genesis")]
    TooLarge(PathBuf),
    /// Not the JSON that was expected.
    #[error("this is not a {what}: {why}")]
    Form {
        /// Which kind of file.
        what: &'static str,
        /// Where and why.
        why: serde_json::Error,
    },
    /// A later version of the file.
    #[error("this {what} has version {version}; this program reads version 1")]
    Version {
        /// Which kind of file.
        what: &'static str,
        /// Its version.
        version: u16,
    },
    /// Not hexadecimal.
    #[error("{0} is not the right number of lower-case hexadecimal digits")]
    Hex(String),
    /// Edited after it was assembled, or damaged.
    #[error(
        "the genesis says its cluster id is {stated}, but its content hashes to {computed}: it was \
         changed after it was assembled; take the file everyone else has, or assemble again"
    )]
    Id {
        /// In the file.
        stated: ClusterId,
        /// Of the content.
        computed: ClusterId,
    },
    /// Members that did not agree yet.
    #[error("the genesis is not signed by {}; each runs `althing genesis sign`, then anyone runs \
             `althing genesis seal`", .0.join(", "))]
    Unsigned(Vec<String>),
    /// A signature that is none.
    #[error("the signature of {0} is not that of its key over this genesis; let {0} sign again")]
    BadSignature(String),
    /// A signature for another genesis.
    #[error("the signature of {name} is for network {signed}, this genesis is {id}")]
    OtherNetwork {
        /// Who signed.
        name: String,
        /// What was signed.
        signed: ClusterId,
        /// This one.
        id: ClusterId,
    },
    /// A signature of nobody here.
    #[error("{0} is not a member of this genesis")]
    NoMember(String),
    /// This replica is not in it.
    #[error(
        "network {id} has no member with this replica's key {key}; its members are {members}: \
             wrong --home, or wrong genesis"
    )]
    LacksKey {
        /// Of the home.
        key: PublicKey,
        /// The network.
        id: ClusterId,
        /// name (key) of each.
        members: String,
    },
    /// A key anyone can sign for.
    #[error(
        "the {what} of {name} is weak: not a point of the curve or of small order; {name} \
             must make another"
    )]
    WeakKey {
        /// Whose.
        name: String,
        /// Replica or governance key.
        what: &'static str,
    },
    /// Twice the same where each needs its own.
    #[error("{0} appears twice; every member needs its own")]
    Duplicate(String),
    /// Something else out of bounds.
    #[error("{0}")]
    Invalid(String),
}
