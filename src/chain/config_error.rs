use core::fmt;

use crate::types::{OrgId, ReplicaId};

/// Why a change is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// It was made for another epoch.
    Stale,
    /// Block time is past its end.
    Expired,
    /// Organisations with this many votes agreed.
    TooFewVotes {
        /// Their voting replicas.
        weight: usize,
        /// How many are needed.
        needed: usize,
    },
    /// A vote's organisation is unknown, votes twice, or did not sign with a governance key.
    BadVote(OrgId),
    /// A key rotation without a vote of the replica's own organisation.
    NotTheOwner,
    /// No such member.
    UnknownReplica(ReplicaId),
    /// The replica votes already.
    Votes(ReplicaId),
    /// The replica does not vote.
    VotesNot(ReplicaId),
    /// An observer is never promoted.
    Observer(ReplicaId),
    /// A name, key, URL or address that a member has, or that is not well formed.
    Taken(&'static str),
    /// A new organisation without governance keys, or a known one with other ones.
    GovernanceKeys,
    /// No attestation, or one that is not of this epoch, or too old.
    Attestation,
    /// An organisation would hold more than max(1, f) voting replicas.
    Cap {
        /// Which.
        organisation: OrgId,
        /// max(1, f) after the change.
        limit: usize,
    },
    /// Fewer faults would be tolerated than before.
    SmallerF,
    /// Nobody would vote.
    NoVoter,
    /// More members than a network has.
    TooManyMembers,
    /// A parameter out of bounds.
    Parameter(&'static str),
    /// Only a network of one owner changes so.
    Governed,
    /// Who asks is no user with the role root, which a network of one owner asks for.
    NoAdministrator,
    /// What a new member says of itself is not its key's word, or is about another network.
    Hello,
    /// Everything is as asked for already.
    NoChange,
    /// A possession or attestation that the replica's key did not sign.
    ReplicaSignature,
    /// The block that ordered it is not a CONFIG block though nothing here is wrong.
    NotAccepted,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale => f.write_str(
                "the proposal was made for another epoch: members or parameters have changed \
                 since; make it again from the current ones and have it signed again",
            ),
            Self::Expired => f.write_str("the proposal has expired; make it again"),
            Self::TooFewVotes { weight, needed } => write!(
                f,
                "organisations with {weight} voting replicas signed, {needed} are needed; have \
                 more organisations sign"
            ),
            Self::BadVote(id) => write!(
                f,
                "the signature of organisation {id} is not one of its governance keys over this \
                 proposal; let it sign again"
            ),
            Self::NotTheOwner => f.write_str(
                "a replica's key changes only with a signature of its own organisation's \
                 governance key",
            ),
            Self::UnknownReplica(id) => write!(f, "replica {id} is not a member"),
            Self::Votes(id) => write!(f, "replica {id} votes already"),
            Self::VotesNot(id) => write!(f, "replica {id} does not vote"),
            Self::Observer(id) => {
                write!(f, "replica {id} is an observer, which is never promoted")
            }
            Self::Taken(what) => write!(f, "the {what} is in use or not well formed"),
            Self::GovernanceKeys => f.write_str(
                "a new organisation needs 1 to 16 governance keys, a known one keeps its own",
            ),
            Self::Attestation => f.write_str(
                "the learner's attestation is missing, of another epoch, too old or untrue; submit \
                 the promotion through the learner itself, once it has caught up",
            ),
            Self::Cap { organisation, limit } => write!(
                f,
                "organisation {organisation} would hold more than {limit} voting replicas, the \
                 most one organisation may hold"
            ),
            Self::SmallerF => f.write_str(
                "fewer faulty replicas would be tolerated than now; replace the replica, or \
                 propose it with --accept-smaller-f",
            ),
            Self::NoVoter => f.write_str("no voting replica would be left"),
            Self::TooManyMembers => f.write_str("a network has at most 128 members"),
            Self::Parameter(what) => write!(f, "the parameter {what} is out of bounds"),
            Self::Governed => f.write_str(
                "members of this network change by their organisations' signatures alone",
            ),
            Self::NoAdministrator => {
                f.write_str("only a user with the role root changes the members of this network")
            }
            Self::Hello => f.write_str(
                "what the new member says of itself is not signed by its key for this network",
            ),
            Self::NoChange => f.write_str("this changes nothing"),
            Self::ReplicaSignature => f.write_str(
                "the new key's proof of possession or the learner's attestation is not its \
                 signature",
            ),
            Self::NotAccepted => f.write_str("the change came too late in its block; submit again"),
        }
    }
}

impl std::error::Error for ConfigError {}
