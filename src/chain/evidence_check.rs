//! What makes a NEW-VIEW false, as far as bytes alone decide. Narrower than what makes a replica
//! refuse one: what may be sound for somebody else accuses nobody.

use core::fmt;

use crate::chain::{Certificate, Membership, NewView, Phase, Trust, ViewChange};
use crate::types::ReplicaId;

/// Why a signed NEW-VIEW is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewViewFault {
    /// Fewer VIEW-CHANGEs than a quorum.
    TooFew,
    /// Its VIEW-CHANGEs are not in strictly ascending order of replica.
    Order,
    /// This replica's VIEW-CHANGE is for another view or epoch.
    OtherView(ReplicaId),
    /// This replica does not vote or did not sign its VIEW-CHANGE.
    Signature(ReplicaId),
    /// A certificate in this replica's VIEW-CHANGE certifies nothing, or cannot stand there.
    Certificate(ReplicaId),
}

impl fmt::Display for NewViewFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFew => write!(f, "it holds fewer VIEW-CHANGEs than a quorum"),
            Self::Order => write!(f, "it counts a VIEW-CHANGE twice or holds them out of order"),
            Self::OtherView(id) => {
                write!(f, "the VIEW-CHANGE of replica {id} in it is for another view")
            }
            Self::Signature(id) => {
                write!(f, "replica {id} did not sign the VIEW-CHANGE in it that bears its name")
            }
            Self::Certificate(id) => {
                write!(f, "the VIEW-CHANGE of replica {id} in it quotes a false certificate")
            }
        }
    }
}

/// The first fault of a NEW-VIEW; None if it is sound or could be.
pub(super) fn new_view_fault(
    new_view: &NewView,
    membership: &Membership,
    trust: &Trust<'_>,
) -> Option<NewViewFault> {
    let all = &new_view.view_changes;
    if all.len() < membership.quorum().q() {
        return Some(NewViewFault::TooFew);
    }
    if !all.is_sorted_by(|one, two| one.replica < two.replica) {
        return Some(NewViewFault::Order);
    }
    all.iter().find_map(|view_change| {
        let replica = view_change.replica;
        if (view_change.epoch, view_change.view) != (new_view.epoch, new_view.view) {
            return Some(NewViewFault::OtherView(replica));
        }
        if !view_change.verify(trust.cluster_id, membership, trust.scheme) {
            return Some(NewViewFault::Signature(replica));
        }
        let prepared = view_change.prepared.as_ref().map(|cert| (cert, Phase::Prepare));
        let committed = view_change.committed.as_ref().map(|cert| (cert, Phase::Commit));
        [prepared, committed]
            .into_iter()
            .flatten()
            .any(|(certificate, phase)| !may_be_quoted(certificate, phase, view_change, trust))
            .then_some(NewViewFault::Certificate(replica))
    })
}

/// A certificate of an epoch whose members are not known here is given the benefit of the doubt.
fn may_be_quoted(
    certificate: &Certificate,
    phase: Phase,
    by: &ViewChange,
    trust: &Trust<'_>,
) -> bool {
    let below = (certificate.epoch, certificate.view) < (by.epoch, by.view);
    let holds = trust.members(certificate.epoch).is_none_or(|membership| {
        certificate.check(trust.cluster_id, membership, trust.scheme).is_ok()
    });
    certificate.phase == phase && below && holds
}
