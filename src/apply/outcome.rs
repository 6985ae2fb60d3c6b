use bytes::Bytes;

use crate::apply::Reply;
use crate::chain::{Administrators, Effects, Network};
use crate::state::Event;
use crate::types::{Digest, Millis, OrgId, Revision};

/// What executing a block yields. Data, revision and events become visible together.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// For the log, and the root for later headers.
    pub effects: Effects,
    /// (session, sequence number, reply) of the ops this replica admitted; none for a skipped duplicate.
    pub replies: Vec<(u64, u64, Reply)>,
    /// Tokens given out.
    pub logins: Vec<Login>,
    /// Puts done, which metrics count.
    pub puts: u64,
    /// Deletes asked for.
    pub deletes: u64,
    /// In order of (revision, sub-revision).
    pub events: Vec<Event>,
    /// The store's revision behind the block.
    pub revision: Revision,
    /// When the next lease expires, in block time.
    pub next_expiry: Option<Millis>,
    /// The network of the epoch that begins behind this block, if it ends one.
    pub network: Option<Network>,
    /// Who may change members behind this block.
    pub administrators: Administrators,
    /// Whether every replica makes a checkpoint of the state behind this block.
    pub checkpoint_wanted: bool,
}

/// A user showed his password to a replica of his organisation and got a simple token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Whose replicas honour it.
    pub organisation: OrgId,
    /// Whom it stands for.
    pub user: Bytes,
    /// Digest of its secret part.
    pub token: Digest,
    /// The auth revision at which it was given.
    pub auth_revision: u64,
}
