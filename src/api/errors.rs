//! What etcd's clients match on: the code and the exact text of every refusal.

use tonic::{Code, Status};

use crate::api::convert::ResolveError;
use crate::apply::OpError;
use crate::chain::check::BundleError;
use crate::chain::{ConfigError, ValueError};
use crate::node::NodeError;
use crate::state::{AuthError, RangeError};

/// A refusal as etcd words it. `api/v3rpc/rpctypes/error.go` of etcd 3.7 is the list; clients
/// compare the whole text, so a letter changed here breaks them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Key is not provided.
    EmptyKey,
    /// Key not found.
    KeyNotFound,
    /// Value is provided.
    ValueProvided,
    /// Lease is provided.
    LeaseProvided,
    /// Too many operations in txn request.
    TooManyOperations,
    /// Duplicate key given in txn request.
    DuplicateKey,
    /// Invalid client api version.
    InvalidClientApiVersion,
    /// Invalid sort option.
    InvalidSortOption,
    /// Mvcc: required revision has been compacted.
    Compacted,
    /// Mvcc: required revision is a future revision.
    FutureRevision,
    /// Mvcc: database space exceeded.
    NoSpace,
    /// Requested lease not found.
    LeaseNotFound,
    /// Lease already exists.
    LeaseExist,
    /// Too large lease TTL.
    LeaseTtlTooLarge,
    /// Watch canceled.
    WatchCanceled,
    /// Member ID already exist.
    MemberExist,
    /// Peer URLs already exists.
    PeerUrlExist,
    /// Re-configuration failed due to not enough started members.
    MemberNotEnoughStarted,
    /// Given member URLs are invalid.
    MemberBadUrls,
    /// Member not found.
    MemberNotFound,
    /// Can only promote a learner member.
    MemberNotLearner,
    /// Can only promote a learner member which is in sync with leader.
    LearnerNotReady,
    /// Too many learner members in cluster.
    TooManyLearners,
    /// Cluster ID mismatch.
    ClusterIdMismatch,
    /// Request is too large.
    RequestTooLarge,
    /// Too many requests.
    TooManyRequests,
    /// Root user does not exist.
    RootUserNotExist,
    /// Root user does not have root role.
    RootRoleNotExist,
    /// User name already exists.
    UserAlreadyExist,
    /// User name is empty.
    UserEmpty,
    /// User name not found.
    UserNotFound,
    /// Role name already exists.
    RoleAlreadyExist,
    /// Role name not found.
    RoleNotFound,
    /// A password for a user without one: etcd forgot to map this error.
    NoPasswordUser,
    /// Role name is empty.
    RoleEmpty,
    /// Authentication failed, invalid user ID or password.
    AuthFailed,
    /// Permission not given.
    PermissionNotGiven,
    /// Permission denied.
    PermissionDenied,
    /// Role is not granted to the user.
    RoleNotGranted,
    /// Permission is not granted to the role.
    PermissionNotGranted,
    /// Authentication is not enabled.
    AuthNotEnabled,
    /// Invalid auth token.
    InvalidAuthToken,
    /// Invalid auth management.
    InvalidAuthManagement,
    /// Revision of auth store is old.
    AuthOldRevision,
    /// No leader.
    NoLeader,
    /// Not leader.
    NotLeader,
    /// Leader changed.
    LeaderChanged,
    /// Not capable.
    NotCapable,
    /// Server stopped.
    Stopped,
    /// Request timed out.
    Timeout,
    /// Request timed out, possibly due to previous leader failure.
    TimeoutLeaderFailed,
    /// Request timed out, possibly due to connection lost.
    TimeoutConnectionLost,
    /// Request timed out, waiting for the applied index took too long.
    TimeoutWaitApplied,
    /// Unhealthy cluster.
    Unhealthy,
    /// Corrupt cluster.
    Corrupt,
    /// Rpc not supported for learner.
    NotSupportedForLearner,
    /// Bad leader transferee.
    BadLeaderTransferee,
    /// Wrong downgrade target version format.
    WrongDowngradeVersionFormat,
    /// Invalid downgrade target version.
    InvalidDowngradeTargetVersion,
    /// Cluster version not found during downgrade.
    ClusterVersionUnavailable,
    /// Cluster has a downgrade job in progress.
    DowngradeInProcess,
    /// No inflight downgrade job.
    NoInflightDowngrade,
    /// Request canceled.
    Canceled,
    /// Context deadline exceeded.
    DeadlineExceeded,
}

impl Refusal {
    /// The gRPC code, and the text without its prefix "etcdserver: ".
    ///
    /// `TooManyRequests` and `MemberNotEnoughStarted` go out as `Unknown`: etcd's
    /// `v3rpc/util.go` maps both to an error type that carries no gRPC status.
    #[allow(clippy::too_many_lines, reason = "one row for each refusal")]
    fn row(self) -> (Code, &'static str) {
        match self {
            Self::EmptyKey => (Code::InvalidArgument, "key is not provided"),
            Self::KeyNotFound => (Code::InvalidArgument, "key not found"),
            Self::ValueProvided => (Code::InvalidArgument, "value is provided"),
            Self::LeaseProvided => (Code::InvalidArgument, "lease is provided"),
            Self::TooManyOperations => {
                (Code::InvalidArgument, "too many operations in txn request")
            }
            Self::DuplicateKey => (Code::InvalidArgument, "duplicate key given in txn request"),
            Self::InvalidClientApiVersion => (Code::InvalidArgument, "invalid client api version"),
            Self::InvalidSortOption => (Code::InvalidArgument, "invalid sort option"),
            Self::Compacted => (Code::OutOfRange, "mvcc: required revision has been compacted"),
            Self::FutureRevision => {
                (Code::OutOfRange, "mvcc: required revision is a future revision")
            }
            Self::NoSpace => (Code::ResourceExhausted, "mvcc: database space exceeded"),
            Self::LeaseNotFound => (Code::NotFound, "requested lease not found"),
            Self::LeaseExist => (Code::FailedPrecondition, "lease already exists"),
            Self::LeaseTtlTooLarge => (Code::OutOfRange, "too large lease TTL"),
            Self::WatchCanceled => (Code::Cancelled, "watch canceled"),
            Self::MemberExist => (Code::FailedPrecondition, "member ID already exist"),
            Self::PeerUrlExist => (Code::FailedPrecondition, "Peer URLs already exists"),
            Self::MemberNotEnoughStarted => {
                (Code::Unknown, "re-configuration failed due to not enough started members")
            }
            Self::MemberBadUrls => (Code::InvalidArgument, "given member URLs are invalid"),
            Self::MemberNotFound => (Code::NotFound, "member not found"),
            Self::MemberNotLearner => {
                (Code::FailedPrecondition, "can only promote a learner member")
            }
            Self::LearnerNotReady => (
                Code::FailedPrecondition,
                "can only promote a learner member which is in sync with leader",
            ),
            Self::TooManyLearners => {
                (Code::FailedPrecondition, "too many learner members in cluster")
            }
            Self::ClusterIdMismatch => (Code::FailedPrecondition, "cluster ID mismatch"),
            Self::RequestTooLarge => (Code::InvalidArgument, "request is too large"),
            Self::TooManyRequests => (Code::Unknown, "too many requests"),
            Self::RootUserNotExist => (Code::FailedPrecondition, "root user does not exist"),
            Self::RootRoleNotExist => {
                (Code::FailedPrecondition, "root user does not have root role")
            }
            Self::UserAlreadyExist => (Code::FailedPrecondition, "user name already exists"),
            Self::UserEmpty => (Code::InvalidArgument, "user name is empty"),
            Self::UserNotFound => (Code::FailedPrecondition, "user name not found"),
            Self::RoleAlreadyExist => (Code::FailedPrecondition, "role name already exists"),
            Self::RoleNotFound => (Code::FailedPrecondition, "role name not found"),
            Self::RoleEmpty => (Code::InvalidArgument, "role name is empty"),
            Self::AuthFailed => {
                (Code::InvalidArgument, "authentication failed, invalid user ID or password")
            }
            Self::NoPasswordUser => (
                Code::Unknown,
                "auth: authentication failed, password was given for no password user",
            ),
            Self::PermissionNotGiven => (Code::InvalidArgument, "permission not given"),
            Self::PermissionDenied => (Code::PermissionDenied, "permission denied"),
            Self::RoleNotGranted => (Code::FailedPrecondition, "role is not granted to the user"),
            Self::PermissionNotGranted => {
                (Code::FailedPrecondition, "permission is not granted to the role")
            }
            Self::AuthNotEnabled => (Code::FailedPrecondition, "authentication is not enabled"),
            Self::InvalidAuthToken => (Code::Unauthenticated, "invalid auth token"),
            Self::InvalidAuthManagement => (Code::InvalidArgument, "invalid auth management"),
            Self::AuthOldRevision => (Code::InvalidArgument, "revision of auth store is old"),
            Self::NoLeader => (Code::Unavailable, "no leader"),
            Self::NotLeader => (Code::FailedPrecondition, "not leader"),
            Self::LeaderChanged => (Code::Unavailable, "leader changed"),
            Self::NotCapable => (Code::FailedPrecondition, "not capable"),
            Self::Stopped => (Code::Unavailable, "server stopped"),
            Self::Timeout => (Code::Unavailable, "request timed out"),
            Self::TimeoutLeaderFailed => {
                (Code::Unavailable, "request timed out, possibly due to previous leader failure")
            }
            Self::TimeoutConnectionLost => {
                (Code::Unavailable, "request timed out, possibly due to connection lost")
            }
            Self::TimeoutWaitApplied => (
                Code::Unavailable,
                "request timed out, waiting for the applied index took too long",
            ),
            Self::Unhealthy => (Code::Unavailable, "unhealthy cluster"),
            Self::Corrupt => (Code::DataLoss, "corrupt cluster"),
            Self::NotSupportedForLearner => {
                (Code::FailedPrecondition, "rpc not supported for learner")
            }
            Self::BadLeaderTransferee => (Code::FailedPrecondition, "bad leader transferee"),
            Self::WrongDowngradeVersionFormat => {
                (Code::InvalidArgument, "wrong downgrade target version format")
            }
            Self::InvalidDowngradeTargetVersion => {
                (Code::InvalidArgument, "invalid downgrade target version")
            }
            Self::ClusterVersionUnavailable => {
                (Code::FailedPrecondition, "cluster version not found during downgrade")
            }
            Self::DowngradeInProcess => {
                (Code::FailedPrecondition, "cluster has a downgrade job in progress")
            }
            Self::NoInflightDowngrade => (Code::FailedPrecondition, "no inflight downgrade job"),
            Self::Canceled => (Code::Cancelled, "request canceled"),
            Self::DeadlineExceeded => (Code::DeadlineExceeded, "context deadline exceeded"),
        }
    }

    /// The text clients see, for example "etcdserver: key is not provided".
    pub fn text(self) -> String {
        match self {
            Self::NoPasswordUser => self.row().1.to_owned(),
            _ => format!("etcdserver: {}", self.row().1),
        }
    }

    /// The text in the cancel reason of a watch refused for want of permission: Go prints a gRPC
    /// error with its code in front (etcd `v3rpc/watch.go`).
    pub fn go_text(self) -> String {
        format!("rpc error: code = {:?} desc = {}", self.row().0, self.text())
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Status::new(refusal.row().0, refusal.text())
    }
}

impl From<NodeError> for Refusal {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::NoLeader => Self::NoLeader,
            NodeError::Timeout => Self::Timeout,
            NodeError::TimeoutLeaderFail => Self::TimeoutLeaderFailed,
            NodeError::Stopped => Self::Stopped,
            NodeError::TooManyRequests => Self::TooManyRequests,
            NodeError::TooLarge => Self::RequestTooLarge,
            NodeError::Corrupt => Self::Corrupt,
            // The front looked at the same limits, perhaps of the epoch before.
            NodeError::Refused(BundleError::Key) => Self::EmptyKey,
            NodeError::Refused(_) => Self::TooManyOperations,
        }
    }
}

impl From<RangeError> for Refusal {
    fn from(error: RangeError) -> Self {
        match error {
            RangeError::Compacted => Self::Compacted,
            RangeError::Future => Self::FutureRevision,
        }
    }
}

impl From<OpError> for Refusal {
    fn from(error: OpError) -> Self {
        match error {
            OpError::Compacted => Self::Compacted,
            OpError::FutureRevision => Self::FutureRevision,
            OpError::KeyNotFound => Self::KeyNotFound,
            OpError::LeaseNotFound => Self::LeaseNotFound,
            OpError::LeaseExists => Self::LeaseExist,
            OpError::LeaseTtlTooLarge => Self::LeaseTtlTooLarge,
            OpError::NoSpace => Self::NoSpace,
            OpError::Corrupt => Self::Corrupt,
            OpError::TimedOut => Self::Timeout,
            OpError::Config(error) => error.into(),
            OpError::Auth(error) => error.into(),
            // No request that passed `validate` is; a front that sends one gets what etcd says of
            // an operation without content.
            OpError::Malformed => Self::KeyNotFound,
        }
    }
}

impl From<ConfigError> for Refusal {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::UnknownReplica(_) => Self::MemberNotFound,
            ConfigError::Votes(_) => Self::MemberNotLearner,
            ConfigError::Taken("peer address") => Self::PeerUrlExist,
            ConfigError::Taken(_) => Self::MemberExist,
            ConfigError::NoVoter => Self::MemberNotEnoughStarted,
            ConfigError::Attestation => Self::LearnerNotReady,
            ConfigError::Expired | ConfigError::NotAccepted => Self::Timeout,
            // Only what one owner's members ask for reaches them here.
            ConfigError::Stale
            | ConfigError::TooFewVotes { .. }
            | ConfigError::BadVote(_)
            | ConfigError::NotTheOwner
            | ConfigError::VotesNot(_)
            | ConfigError::Observer(_)
            | ConfigError::GovernanceKeys
            | ConfigError::Cap { .. }
            | ConfigError::SmallerF
            | ConfigError::TooManyMembers
            | ConfigError::Parameter(_)
            | ConfigError::Governed
            | ConfigError::NoAdministrator
            | ConfigError::Hello
            | ConfigError::NoChange
            | ConfigError::ReplicaSignature => Self::PermissionDenied,
        }
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::RootUserNotExist => Self::RootUserNotExist,
            AuthError::RootRoleNotExist => Self::RootRoleNotExist,
            AuthError::UserAlreadyExist => Self::UserAlreadyExist,
            AuthError::UserEmpty => Self::UserEmpty,
            AuthError::UserNotFound => Self::UserNotFound,
            AuthError::RoleAlreadyExist => Self::RoleAlreadyExist,
            AuthError::RoleNotFound => Self::RoleNotFound,
            AuthError::RoleEmpty => Self::RoleEmpty,
            AuthError::AuthFailed => Self::AuthFailed,
            AuthError::NoPasswordUser => Self::NoPasswordUser,
            AuthError::PermissionNotGiven => Self::PermissionNotGiven,
            AuthError::PermissionDenied => Self::PermissionDenied,
            AuthError::RoleNotGranted => Self::RoleNotGranted,
            AuthError::PermissionNotGranted => Self::PermissionNotGranted,
            AuthError::AuthNotEnabled => Self::AuthNotEnabled,
            AuthError::InvalidManagement => Self::InvalidAuthManagement,
            AuthError::OldRevision => Self::AuthOldRevision,
            AuthError::Full => Self::NoSpace,
        }
    }
}

impl From<ValueError> for Refusal {
    fn from(error: ValueError) -> Self {
        match error {
            ValueError::Erased(_) => Self::Compacted,
            ValueError::Rotten(_) | ValueError::Disk(_) => Self::Corrupt,
        }
    }
}

impl From<ResolveError> for Status {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::Refused(error) => Refusal::from(error).into(),
            ResolveError::Value(error) => Refusal::from(error).into(),
            ResolveError::OtherKind => {
                Self::internal("the reply is of another kind than the request")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_codes_are_those_of_etcd() {
        let status = Status::from(Refusal::Compacted);
        assert_eq!(status.code(), Code::OutOfRange);
        assert_eq!(status.message(), "etcdserver: mvcc: required revision has been compacted");
        assert_eq!(
            Refusal::PermissionDenied.go_text(),
            "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
        );
        assert_eq!(Status::from(Refusal::TooManyRequests).code(), Code::Unknown);
    }
}
