//! The one table of what an op needs of who asks for it, default deny (etcd: etcdserver/apply/auth.go).
//!
//! The subject is (submitting organisation, claimed user): a bundle's signature proves the organisation,
//! and its replica can claim no user but that organisation's (trust.md 3.9). Every replica decides by the
//! users and roles in force when the op is applied; the front that answers a read asks the same function.

use crate::chain::{AuthOp, Author, Compare, DeleteRange, Op, Put, Range, Txn};
use crate::planted::{self, Bug};
use crate::state::{Access, AuthError, AuthStore, Span, State};
use crate::types::{LeaseId, OrgId};

/// What a request needs besides rights to keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: it tells nothing, proves itself, or its keys are checked one by one.
    Nothing,
    /// Any user.
    User,
    /// A user with the role root.
    Root,
}

/// Who asks, by the users and roles in force.
pub struct Subject<'a> {
    state: &'a State,
    store: &'a AuthStore,
    author: &'a Author,
}

impl<'a> Subject<'a> {
    /// The author of something that a replica of this organisation submitted.
    #[must_use]
    pub fn new(state: &'a State, organisation: OrgId, author: &'a Author) -> Self {
        let mut store = state.auth.store(organisation);
        if planted::is(Bug::UserWithoutOrganisation) {
            let knows = |store: &&AuthStore| store.users.contains_key(&author.user);
            store = state.auth.stores().map(|(_, store)| store).find(knows).unwrap_or(store);
        }
        Self { state, store, author }
    }

    /// Whether a need is met.
    ///
    /// # Errors
    /// etcd's, of IsAdminPermitted and requireAuthInfo.
    pub fn meets(&self, need: Need) -> Result<(), AuthError> {
        match need {
            Need::Nothing => Ok(()),
            Need::User => self.store.check_user(self.author.auth_revision),
            Need::Root => self.store.check_root(&self.author.user),
        }
    }

    /// Whether the op may be done: all of it, both branches of a transaction and what is nested in them,
    /// before anything is.
    ///
    /// # Errors
    /// etcd's.
    pub fn may(&self, op: &Op) -> Result<(), AuthError> {
        if !self.store.enabled {
            return Ok(());
        }
        self.meets(need(op))?;
        match op {
            Op::Put(put) => self.put(put),
            Op::DeleteRange(delete) => self.delete(delete),
            Op::Range(range) => self.read(range),
            Op::Txn(txn) => self.txn(txn),
            Op::LeaseRevoke { id } | Op::LeaseKeepAlive { id } => self.lease(*id, Access::Write),
            Op::Config(change) if change.needs_administrator(self.state.network()) => {
                self.meets(Need::Root)
            }
            _ => Ok(()),
        }
    }

    /// Whether all keys of a lease may be seen or changed; root may for a lease without keys too, which
    /// makes no difference.
    ///
    /// # Errors
    /// etcd's.
    pub fn lease(&self, id: LeaseId, access: Access) -> Result<(), AuthError> {
        let Some(lease) = self.state.leases.get(id) else { return Ok(()) };
        if self.store.check_root(&self.author.user).is_ok() {
            return Ok(());
        }
        lease.keys.iter().try_for_each(|key| self.keys(Span::One(key), access))
    }

    /// Whether all leases may be listed: by who may read all keys that have one.
    ///
    /// # Errors
    /// etcd's.
    pub fn all_leases(&self) -> Result<(), AuthError> {
        if !self.store.enabled {
            return Ok(());
        }
        self.state.leases.list().try_for_each(|lease| self.lease(lease.id, Access::Read))
    }

    fn keys(&self, span: Span<'_>, access: Access) -> Result<(), AuthError> {
        let who = (&self.author.user[..], self.author.auth_revision);
        self.store.check_keys(who, span, access)
    }

    /// A lease whose keys this user may not write is one he may not revoke, so he attaches no key to it
    /// (CVE-2026-44283).
    fn put(&self, put: &Put) -> Result<(), AuthError> {
        self.keys(Span::One(&put.key), Access::Write)?;
        self.lease(put.lease, Access::Write)?;
        if put.prev_kv { self.keys(Span::One(&put.key), Access::Read) } else { Ok(()) }
    }

    fn delete(&self, delete: &DeleteRange) -> Result<(), AuthError> {
        let span = span(&delete.key, &delete.range_end);
        self.keys(span, Access::Write)?;
        if delete.prev_kv { self.keys(span, Access::Read) } else { Ok(()) }
    }

    /// Also what a watch asks for.
    ///
    /// # Errors
    /// etcd's.
    pub fn read(&self, range: &Range) -> Result<(), AuthError> {
        self.keys(span(&range.key, &range.range_end), Access::Read)
    }

    fn txn(&self, txn: &Txn) -> Result<(), AuthError> {
        let compared =
            |compare: &Compare| self.keys(span(&compare.key, &compare.range_end), Access::Read);
        txn.compares.iter().try_for_each(compared)?;
        txn.success.iter().chain(&txn.failure).try_for_each(|op| match op {
            Op::Txn(_) if planted::is(Bug::NestedUnchecked) => Ok(()),
            op => self.may(op),
        })
    }
}

/// A range is normalised here and nowhere else before it is checked: `\0` at its end means all keys
/// (GHSA-xg4h-6gfc-h4m8).
fn span<'a>(key: &'a [u8], range_end: &'a [u8]) -> Span<'a> {
    if planted::is(Bug::RangeEndRewritten) && range_end == [0] {
        return Span::One(key);
    }
    Span::new(key, range_end)
}

/// The table. An op that is added must be entered here before it compiles.
#[must_use]
pub fn need(op: &Op) -> Need {
    match op {
        // By their keys.
        Op::Put(_) | Op::DeleteRange(_) | Op::Range(_) | Op::Txn(_) => Need::Nothing,
        // And by the keys of the lease.
        Op::LeaseGrant { .. } | Op::LeaseRevoke { .. } | Op::LeaseKeepAlive { .. } => Need::User,
        Op::Compact { .. } | Op::Alarm { .. } | Op::CheckpointNow => Need::Root,
        // Proves itself, signed by the organisations' governance keys; or, in a network of one owner, by
        // what is changed (protocol.md 22.8).
        Op::Config(_) => Need::Nothing,
        // Proves itself, signed by the accused.
        Op::Evidence { .. } => Need::Nothing,
        Op::Auth(op) => match **op {
            // The admitting replica has compared the password.
            AuthOp::Authenticate { .. } => Need::Nothing,
            AuthOp::Enable
            | AuthOp::Disable
            | AuthOp::UserAdd { .. }
            | AuthOp::UserDelete { .. }
            | AuthOp::UserChangePassword { .. }
            | AuthOp::UserGrantRole { .. }
            | AuthOp::UserRevokeRole { .. }
            | AuthOp::RoleAdd { .. }
            | AuthOp::RoleDelete { .. }
            | AuthOp::RoleGrantPermission { .. }
            | AuthOp::RoleRevokePermission { .. } => Need::Root,
        },
    }
}
