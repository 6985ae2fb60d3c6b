use crate::chain::{AlarmKind, ConfigError, Range};
use crate::state::{AuthError, CompactError, GrantError, KeyValue, RangeError, RangeResult};
use crate::types::{Epoch, Height, LeaseId, ReplicaId, Revision};

/// What an executed op answers its client. Values are references, resolved by the replica that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// PutResponse.
    Put {
        /// The new revision.
        revision: Revision,
        /// The version before, if asked for and there was one.
        prev: Option<KeyValue>,
    },
    /// DeleteRangeResponse.
    DeleteRange {
        /// The new revision, or the current one if nothing was deleted.
        revision: Revision,
        /// How many.
        deleted: i64,
        /// What they were, if asked for, in key order.
        prev: Vec<KeyValue>,
    },
    /// RangeResponse, inside a transaction.
    Range {
        /// The store's, with what the transaction has changed so far.
        revision: Revision,
        /// What was asked; [`crate::state::finish_range`] needs it.
        request: Range,
        /// What was found.
        result: RangeResult,
    },
    /// TxnResponse.
    Txn {
        /// The new revision, or the current one if nothing changed; 0 for a nested transaction, whose
        /// header etcd leaves empty (txn/txn.go, newTxnResp).
        revision: Revision,
        /// Whether all compares held.
        succeeded: bool,
        /// One per op of the chosen branch.
        responses: Vec<Reply>,
    },
    /// CompactionResponse.
    Compact {
        /// The store's revision.
        revision: Revision,
    },
    /// LeaseGrantResponse.
    LeaseGrant {
        /// The store's revision.
        revision: Revision,
        /// As granted.
        id: LeaseId,
        /// Not below the minimum.
        ttl_seconds: i64,
    },
    /// LeaseRevokeResponse.
    LeaseRevoke {
        /// The new revision, or the current one if no key was attached.
        revision: Revision,
    },
    /// LeaseKeepAliveResponse.
    LeaseKeepAlive {
        /// The store's revision.
        revision: Revision,
        /// Echoed.
        id: LeaseId,
        /// As granted; 0 if the lease is unknown or due.
        ttl_seconds: i64,
    },
    /// AlarmResponse to an activation or deactivation.
    Alarm {
        /// The store's revision.
        revision: Revision,
        /// The alarms it touched, by (member, kind); member 0 is the network.
        alarms: Vec<(u64, AlarmKind)>,
    },
    /// A checkpoint is made at this block, or was within the last minute.
    Checkpoint {
        /// The store's revision.
        revision: Revision,
        /// The checkpoint's height.
        height: Height,
        /// Whether it holds all keys, leases and users that are there now.
        current: bool,
    },
    /// Members or parameters have changed: the next epoch begins.
    Config {
        /// The store's revision.
        revision: Revision,
        /// The epoch that begins.
        epoch: Epoch,
        /// The replica that was added, if one was.
        added: Option<ReplicaId>,
    },
    /// Users or roles of the submitting organisation have changed, or one of its users got a token.
    Auth {
        /// The store's revision.
        revision: Revision,
        /// The auth revision behind it.
        auth_revision: u64,
        /// Of the block that did it.
        height: Height,
    },
    /// A proof that a replica lied is on the list.
    Evidence {
        /// The store's revision.
        revision: Revision,
        /// False if it was there already, or there are enough against that replica.
        news: bool,
    },
    /// The op did nothing.
    Error {
        /// The store's revision.
        revision: Revision,
        /// Why.
        error: OpError,
    },
}

/// Why an op did nothing: the user's errors, each of which `api` maps to etcd's string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpError {
    /// A revision below the compact revision, or a compaction at or below it.
    Compacted,
    /// A revision above the store's.
    FutureRevision,
    /// `ignore_value` or `ignore_lease` on an absent key.
    KeyNotFound,
    /// No such lease.
    LeaseNotFound,
    /// The lease id is in use.
    LeaseExists,
    /// A time to live above etcd's largest.
    LeaseTtlTooLarge,
    /// The quota is used up, or was and its alarm stands.
    NoSpace,
    /// The CORRUPT alarm stands.
    Corrupt,
    /// The block's time is past the request's `not_after`.
    TimedOut,
    /// The change of members or parameters is not made.
    Config(ConfigError),
    /// Users or roles do not allow it.
    Auth(AuthError),
    /// An op that no honest front sends: it does not belong where it stands.
    Malformed,
}

impl core::fmt::Display for OpError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Config(error) => return error.fmt(f),
            Self::Auth(error) => return error.fmt(f),
            Self::Compacted => "the revision has been compacted",
            Self::FutureRevision => "the revision is a future revision",
            Self::KeyNotFound => "the key was not found",
            Self::LeaseNotFound => "the lease was not found",
            Self::LeaseExists => "the lease id is in use",
            Self::LeaseTtlTooLarge => "the lease's time to live is too large",
            Self::NoSpace => "the quota is used up",
            Self::Corrupt => "the CORRUPT alarm stands",
            Self::TimedOut => "the request was ordered after its deadline",
            Self::Malformed => "the op does not belong where it stands",
        })
    }
}

impl std::error::Error for OpError {}

impl From<RangeError> for OpError {
    fn from(error: RangeError) -> Self {
        match error {
            RangeError::Compacted => Self::Compacted,
            RangeError::Future => Self::FutureRevision,
        }
    }
}

impl From<CompactError> for OpError {
    fn from(error: CompactError) -> Self {
        match error {
            CompactError::Compacted => Self::Compacted,
            CompactError::Future => Self::FutureRevision,
        }
    }
}

impl From<AuthError> for OpError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Full => Self::NoSpace,
            error => Self::Auth(error),
        }
    }
}

impl From<ConfigError> for OpError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<GrantError> for OpError {
    fn from(error: GrantError) -> Self {
        match error {
            GrantError::Exists => Self::LeaseExists,
            GrantError::TtlTooLarge => Self::LeaseTtlTooLarge,
            GrantError::NoId => Self::LeaseNotFound,
        }
    }
}
