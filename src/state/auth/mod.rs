//! Users, roles and permissions, one [`AuthStore`] for each organisation: what etcd's Auth service sets.
//!
//! A user belongs to the organisation whose replica ordered his creation, and acts through its replicas
//! alone: a bundle's signature proves the organisation, the user is its claim (trust.md 3.9). So no
//! organisation can change another's users, lock it out or act as one of them. A network of one owner has
//! one organisation, hence one store, as in etcd.

mod rights;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;

pub use store::{AUTH_BYTES_MAX, AuthStore, Role, User};

use crate::chain::{AuthOp, Value};
use crate::codec::{DecodeError, Encode, Reader, Writer};
use crate::crypto::{Context, hash};
use crate::types::{Digest, OrgId};

/// What is asked of a range of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To see it.
    Read,
    /// To change it.
    Write,
}

/// etcd's errors of `server/auth/store.go`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// There is no user root.
    RootUserNotExist,
    /// The user root has not the role root.
    RootRoleNotExist,
    /// The name is taken.
    UserAlreadyExist,
    /// No name, or a request without a user where one is needed.
    UserEmpty,
    /// No such user.
    UserNotFound,
    /// The name is taken.
    RoleAlreadyExist,
    /// No such role.
    RoleNotFound,
    /// No name.
    RoleEmpty,
    /// Wrong name or password.
    AuthFailed,
    /// A user without a password showed one.
    NoPasswordUser,
    /// The request names no permission.
    PermissionNotGiven,
    /// The user may not.
    PermissionDenied,
    /// The user has not this role.
    RoleNotGranted,
    /// The role has not this permission.
    PermissionNotGranted,
    /// Authentication is off.
    AuthNotEnabled,
    /// Root may not be taken away while authentication is on; or a range that is none.
    InvalidManagement,
    /// Users or roles have changed since the request's user was looked up.
    OldRevision,
    /// The organisation's users and roles fill [`AUTH_BYTES_MAX`].
    Full,
}

impl core::fmt::Display for AuthError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::RootUserNotExist => "there is no user root",
            Self::RootRoleNotExist => "the user root has not the role root",
            Self::UserAlreadyExist => "the user exists already",
            Self::UserEmpty => "no user is named",
            Self::UserNotFound => "there is no such user",
            Self::RoleAlreadyExist => "the role exists already",
            Self::RoleNotFound => "there is no such role",
            Self::RoleEmpty => "no role is named",
            Self::AuthFailed => "wrong user or password",
            Self::NoPasswordUser => "a password was given for a user without one",
            Self::PermissionNotGiven => "no permission is named",
            Self::PermissionDenied => "the user may not do this",
            Self::RoleNotGranted => "the user has not this role",
            Self::PermissionNotGranted => "the role has not this permission",
            Self::AuthNotEnabled => "authentication is not enabled",
            Self::InvalidManagement => {
                "root is needed while authentication is on, or the range is none"
            }
            Self::OldRevision => "users or roles have changed since the user was looked up",
            Self::Full => "the organisation's users and roles fill their space",
        })
    }
}

impl std::error::Error for AuthError {}

/// All stores.
#[derive(Clone, Debug)]
pub struct Auth {
    /// Only those that were ever changed.
    stores: BTreeMap<OrgId, AuthStore>,
    fresh: AuthStore,
    /// Over the stores, values as commitments; kept, for a block seldom changes them.
    root: Digest,
}

impl Default for Auth {
    fn default() -> Self {
        Self::of(BTreeMap::new())
    }
}

impl Auth {
    fn of(stores: BTreeMap<OrgId, AuthStore>) -> Self {
        let mut auth = Self { stores, fresh: AuthStore::default(), root: Digest::ZERO };
        auth.refresh_root();
        auth
    }

    /// An organisation's users and roles.
    #[must_use]
    pub fn store(&self, organisation: OrgId) -> &AuthStore {
        self.stores.get(&organisation).unwrap_or(&self.fresh)
    }

    /// Those that were ever changed, by organisation.
    pub fn stores(&self) -> impl Iterator<Item = (OrgId, &AuthStore)> {
        self.stores.iter().map(|(organisation, store)| (*organisation, store))
    }

    pub(in crate::state) fn root(&self) -> Digest {
        self.root
    }

    fn refresh_root(&mut self) {
        let mut writer = Writer::new();
        writer.length(self.stores.len());
        for (organisation, store) in &self.stores {
            writer.u16(organisation.0);
            store.write(&mut writer, &|value, writer| writer.digest(&value.commitment()));
        }
        self.root = hash(&Context::STATE_ROOT, &[writer.as_slice()]);
    }

    /// Executes an op on an organisation's store; `password` is the value its slot names.
    pub(in crate::state) fn change(
        &mut self,
        organisation: OrgId,
        op: &AuthOp,
        password: Option<Value>,
    ) -> Result<(), AuthError> {
        let mut store = self.stores.remove(&organisation).unwrap_or_default();
        let done = store.execute(op, password);
        if store != self.fresh {
            self.stores.insert(organisation, store);
        }
        self.refresh_root();
        done
    }

    /// One chunk for each store, in ascending order of organisation.
    pub(in crate::state) fn chunks(&self, kind: u8) -> Vec<Bytes> {
        let chunk = |(organisation, store): (OrgId, &AuthStore)| {
            let mut writer = Writer::new();
            writer.u8(kind);
            writer.u16(organisation.0);
            store.write(&mut writer, &|value, writer| value.encode(writer));
            writer.finish()
        };
        self.stores().map(chunk).collect()
    }

    /// Reads what [`Auth::chunks`] wrote, behind the kind.
    pub(in crate::state) fn read_chunk(&mut self, reader: &mut Reader) -> Result<(), DecodeError> {
        let organisation = OrgId(reader.u16("auth organisation")?);
        if self.stores.last_key_value().is_some_and(|(last, _)| *last >= organisation) {
            return Err(DecodeError::Invalid("auth organisation order"));
        }
        let store = AuthStore::read(reader)?;
        if store == self.fresh {
            return Err(DecodeError::Invalid("auth store that is fresh"));
        }
        self.stores.insert(organisation, store);
        self.refresh_root();
        Ok(())
    }
}
