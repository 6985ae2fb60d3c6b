use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use bytes::Bytes;

use crate::chain::{Administrators, AuthOp, Permission, Value};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::state::Span;
use crate::state::auth::rights::Rights;
use crate::state::auth::{Access, AuthError};

/// Most bytes of an organisation's users and roles: bounds a checkpoint's chunk, and the work that a
/// change of them costs every replica.
pub const AUTH_BYTES_MAX: usize = 256 << 10;

/// The user and the role that may do everything.
const ROOT: &[u8] = b"root";

/// A password hash is at most so long; bcrypt's are 60.
const HASH_BYTES_MAX: usize = 256;

/// What a record takes beside its names, at most.
const RECORD_BYTES: usize = 64;

/// A user.
#[derive(Clone, Debug, Default)]
pub struct User {
    /// Their names; they need not exist.
    pub roles: BTreeSet<Bytes>,
    /// The bcrypt hash; none for a user who proves himself by certificate alone.
    pub password: Option<Value>,
    /// The auth revision at which he was added or last got a password: what he got before is void.
    pub since: u64,
    /// Made at the first question after a change.
    rights: OnceLock<Rights>,
}

impl PartialEq for User {
    fn eq(&self, other: &Self) -> bool {
        let fields = |user: &Self| (user.roles.clone(), user.password.clone(), user.since);
        fields(self) == fields(other)
    }
}

/// A role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// In order of key; one range may occur twice with different kinds, as in etcd.
    pub permissions: Vec<Permission>,
}

/// The users and roles of one organisation.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthStore {
    /// Whether requests need a user.
    pub enabled: bool,
    /// Counts changes from 1.
    pub revision: u64,
    /// The revision at which authentication was last switched off: tokens from before are void.
    pub disabled_at: u64,
    /// By name.
    pub users: BTreeMap<Bytes, User>,
    /// By name.
    pub roles: BTreeMap<Bytes, Role>,
    /// As encoded; at most [`AUTH_BYTES_MAX`].
    bytes: usize,
    /// Follows from the rest.
    administrators: Administrators,
}

impl Default for AuthStore {
    fn default() -> Self {
        Self {
            enabled: false,
            revision: 1,
            disabled_at: 0,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
            bytes: 0,
            administrators: Administrators::default(),
        }
    }
}

/// A name of its own: what is decoded would keep its whole bundle in memory.
fn own(name: &Bytes) -> Bytes {
    Bytes::copy_from_slice(name)
}

impl AuthStore {
    /// etcd's IsAdminPermitted: whether this user has the role root. Always if authentication is off.
    ///
    /// # Errors
    /// "user name is empty", "user name not found", "permission denied".
    pub fn check_root(&self, user: &[u8]) -> Result<(), AuthError> {
        if !self.enabled {
            return Ok(());
        }
        if user.is_empty() {
            return Err(AuthError::UserEmpty);
        }
        let user = self.users.get(user).ok_or(AuthError::UserNotFound)?;
        if user.roles.contains(ROOT) { Ok(()) } else { Err(AuthError::PermissionDenied) }
    }

    /// Whom [`AuthStore::check_root`] lets pass.
    pub(in crate::state) fn administrators(&self) -> &Administrators {
        &self.administrators
    }

    fn find_administrators(&mut self) {
        let all = self.users.iter().filter(|(_, user)| user.roles.contains(ROOT));
        let names = || all.map(|(name, _)| name.clone()).collect();
        self.administrators =
            if self.enabled { Administrators::only(names()) } else { Administrators::default() };
    }

    /// etcd's requireAuthInfo: any user will do. `revision` is that of his look-up, 0 for no user.
    ///
    /// # Errors
    /// "user name is empty".
    pub fn check_user(&self, revision: u64) -> Result<(), AuthError> {
        if self.enabled && revision == 0 { Err(AuthError::UserEmpty) } else { Ok(()) }
    }

    /// etcd's isOpPermitted: whether a user, looked up at `revision`, may do this to these keys.
    ///
    /// # Errors
    /// "user name is empty", "revision of auth store is old", "permission denied".
    pub fn check_keys(
        &self,
        (user, revision): (&[u8], u64),
        span: Span<'_>,
        access: Access,
    ) -> Result<(), AuthError> {
        if !self.enabled {
            return Ok(());
        }
        self.check_user(revision)?;
        if revision < self.revision {
            return Err(AuthError::OldRevision);
        }
        let user = self.users.get(user).ok_or(AuthError::PermissionDenied)?;
        let rights = || user.rights.get_or_init(|| self.rights(user));
        if user.roles.contains(ROOT) || rights().permit(span, access) {
            Ok(())
        } else {
            Err(AuthError::PermissionDenied)
        }
    }

    fn rights(&self, user: &User) -> Rights {
        let roles = user.roles.iter().filter_map(|role| self.roles.get(role));
        Rights::of(roles.flat_map(|role| &role.permissions))
    }

    /// Whether a token that was given to this user at auth revision `issued` still stands for him.
    #[must_use]
    pub fn honours_token(&self, user: &[u8], issued: u64) -> bool {
        let since = self.users.get(user).map(|user| user.since);
        self.enabled && issued >= self.disabled_at && since.is_some_and(|since| issued >= since)
    }

    /// etcd's Authenticate, once the password has been compared.
    ///
    /// # Errors
    /// "authentication is not enabled", "authentication failed".
    pub fn check_login(&self, user: &[u8]) -> Result<(), AuthError> {
        if !self.enabled {
            return Err(AuthError::AuthNotEnabled);
        }
        let user = self.users.get(user).ok_or(AuthError::AuthFailed)?;
        if user.password.is_some() { Ok(()) } else { Err(AuthError::AuthFailed) }
    }

    /// Changes the store, or leaves it as it is.
    pub(super) fn execute(
        &mut self,
        op: &AuthOp,
        password: Option<Value>,
    ) -> Result<(), AuthError> {
        let growth = match op {
            AuthOp::UserAdd { .. }
            | AuthOp::UserChangePassword { .. }
            | AuthOp::UserGrantRole { .. }
            | AuthOp::RoleAdd { .. }
            | AuthOp::RoleGrantPermission { .. } => {
                let hash = password.as_ref().map_or(0, |value| value.bytes.len());
                op.to_bytes().len() + hash + RECORD_BYTES
            }
            _ => 0,
        };
        if growth > 0 && self.bytes + growth > AUTH_BYTES_MAX {
            return Err(AuthError::Full);
        }
        if password.as_ref().is_some_and(|value| value.bytes.len() > HASH_BYTES_MAX) {
            return Err(AuthError::NoPasswordUser);
        }
        let changed = self.dispatch(op, password)?;
        if changed {
            self.revision += 1;
            self.users.values_mut().for_each(|user| user.rights = OnceLock::new());
        }
        let mut writer = Writer::new();
        self.write(&mut writer, &|value, writer| value.encode(writer));
        self.bytes = writer.len();
        self.find_administrators();
        Ok(())
    }

    /// Whether the auth revision grows: AuthEnable and a role granted twice leave it.
    fn dispatch(&mut self, op: &AuthOp, password: Option<Value>) -> Result<bool, AuthError> {
        match op {
            AuthOp::Enable => self.enable().map(|()| false),
            AuthOp::Disable => {
                let was = core::mem::replace(&mut self.enabled, false);
                if was {
                    self.disabled_at = self.revision + 1;
                }
                Ok(was)
            }
            AuthOp::Authenticate { user, .. } => self.check_login(user).map(|()| false),
            AuthOp::UserAdd { name, .. } => self.add_user(name, password),
            AuthOp::UserDelete { name } => {
                if self.enabled && name == ROOT {
                    return Err(AuthError::InvalidManagement);
                }
                self.users.remove(name).map(|_| true).ok_or(AuthError::UserNotFound)
            }
            AuthOp::UserChangePassword { name, .. } => self.change_password(name, password),
            AuthOp::UserGrantRole { user, role } => {
                let user = self.users.get_mut(user).ok_or(AuthError::UserNotFound)?;
                if role != ROOT && !self.roles.contains_key(role) {
                    return Err(AuthError::RoleNotFound);
                }
                Ok(user.roles.insert(own(role)))
            }
            AuthOp::UserRevokeRole { user, role } => self.revoke_role(user, role),
            AuthOp::RoleAdd { name } => self.add_role(name),
            AuthOp::RoleDelete { name } => self.delete_role(name),
            AuthOp::RoleGrantPermission { role, permission } => {
                self.grant_permission(role, permission.as_ref())
            }
            AuthOp::RoleRevokePermission { role, key, range_end } => {
                let role = self.roles.get_mut(role).ok_or(AuthError::RoleNotFound)?;
                let before = role.permissions.len();
                role.permissions.retain(|one| one.key != *key || one.range_end != *range_end);
                let gone = role.permissions.len() < before;
                if gone { Ok(true) } else { Err(AuthError::PermissionNotGranted) }
            }
        }
    }

    fn enable(&mut self) -> Result<(), AuthError> {
        if self.enabled {
            return Ok(());
        }
        let root = self.users.get(ROOT).ok_or(AuthError::RootUserNotExist)?;
        if !root.roles.contains(ROOT) {
            return Err(AuthError::RootRoleNotExist);
        }
        self.enabled = true;
        Ok(())
    }

    fn add_user(&mut self, name: &Bytes, password: Option<Value>) -> Result<bool, AuthError> {
        if name.is_empty() {
            return Err(AuthError::UserEmpty);
        }
        if self.users.contains_key(name) {
            return Err(AuthError::UserAlreadyExist);
        }
        let user = User { password: kept(password), since: self.revision + 1, ..User::default() };
        self.users.insert(own(name), user);
        Ok(true)
    }

    fn change_password(
        &mut self,
        name: &Bytes,
        password: Option<Value>,
    ) -> Result<bool, AuthError> {
        let user = self.users.get_mut(name).ok_or(AuthError::UserNotFound)?;
        // A user without a password stays one.
        if user.password.is_some() {
            user.password = Some(kept(password).ok_or(AuthError::NoPasswordUser)?);
        }
        user.since = self.revision + 1;
        Ok(true)
    }

    fn revoke_role(&mut self, user: &Bytes, role: &Bytes) -> Result<bool, AuthError> {
        if self.enabled && user == ROOT && role == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        let user = self.users.get_mut(user).ok_or(AuthError::UserNotFound)?;
        if user.roles.remove(role) { Ok(true) } else { Err(AuthError::RoleNotGranted) }
    }

    fn add_role(&mut self, name: &Bytes) -> Result<bool, AuthError> {
        if name.is_empty() {
            return Err(AuthError::RoleEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(AuthError::RoleAlreadyExist);
        }
        self.roles.insert(own(name), Role::default());
        Ok(true)
    }

    fn delete_role(&mut self, name: &Bytes) -> Result<bool, AuthError> {
        if self.enabled && name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        self.roles.remove(name).ok_or(AuthError::RoleNotFound)?;
        for user in self.users.values_mut() {
            user.roles.remove(name);
        }
        Ok(true)
    }

    /// etcd compares with the first permission of this key only; one behind it is added again.
    fn grant_permission(
        &mut self,
        role: &Bytes,
        permission: Option<&Permission>,
    ) -> Result<bool, AuthError> {
        let Permission { kind, key, range_end } =
            permission.ok_or(AuthError::PermissionNotGiven)?;
        let range = !key.is_empty()
            && match Span::new(key, range_end) {
                Span::Until(key, end) => key < end,
                Span::One(_) | Span::From(_) => true,
            };
        if !range {
            return Err(AuthError::InvalidManagement);
        }
        let permissions = &mut self.roles.get_mut(role).ok_or(AuthError::RoleNotFound)?.permissions;
        let at = permissions.partition_point(|one| one.key < *key);
        match permissions.get_mut(at) {
            Some(one) if one.key == *key && one.range_end == *range_end => one.kind = *kind,
            _ => {
                let behind = permissions.partition_point(|one| one.key <= *key);
                let new = Permission { kind: *kind, key: own(key), range_end: own(range_end) };
                permissions.insert(behind, new);
            }
        }
        Ok(true)
    }

    /// Writes it, password hashes as `value` does.
    pub(super) fn write(&self, writer: &mut Writer, value: &dyn Fn(&Value, &mut Writer)) {
        writer.bool(self.enabled);
        writer.u64(self.revision);
        writer.u64(self.disabled_at);
        writer.length(self.users.len());
        for (name, user) in &self.users {
            writer.bytes(name);
            writer.u64(user.since);
            writer.bool(user.password.is_some());
            if let Some(password) = &user.password {
                value(password, writer);
            }
            writer.length(user.roles.len());
            user.roles.iter().for_each(|role| writer.bytes(role));
        }
        writer.length(self.roles.len());
        for (name, role) in &self.roles {
            writer.bytes(name);
            writer.length(role.permissions.len());
            role.permissions.iter().for_each(|permission| permission.encode(writer));
        }
    }

    /// Reads what [`AuthStore::write`] wrote with whole values.
    pub(super) fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        let start = reader.position();
        let mut store = Self {
            enabled: reader.bool("auth enabled")?,
            revision: reader.u64("auth revision")?,
            disabled_at: reader.u64("auth disabled")?,
            ..Self::default()
        };
        for _ in 0..reader.length(AUTH_BYTES_MAX, "auth users")? {
            let name = next_name(reader, store.users.last_key_value().map(|(last, _)| last))?;
            let since = reader.u64("auth user since")?;
            let given = reader.bool("auth user password")?;
            let password = if given { Some(read_hash(reader)?) } else { None };
            let mut roles = BTreeSet::new();
            for _ in 0..reader.length(AUTH_BYTES_MAX, "auth user roles")? {
                roles.insert(next_name(reader, roles.last())?);
            }
            let user = User { roles, password, since, ..User::default() };
            store.users.insert(name, user);
        }
        for _ in 0..reader.length(AUTH_BYTES_MAX, "auth roles")? {
            let name = next_name(reader, store.roles.last_key_value().map(|(last, _)| last))?;
            let mut permissions: Vec<Permission> = Vec::new();
            for _ in 0..reader.length(AUTH_BYTES_MAX, "auth permissions")? {
                let Permission { kind, key, range_end } = Permission::decode(reader)?;
                if permissions.last().is_some_and(|last| last.key > key) {
                    return Err(DecodeError::Invalid("auth permission order"));
                }
                permissions.push(Permission { kind, key: own(&key), range_end: own(&range_end) });
            }
            store.roles.insert(name, Role { permissions });
        }
        store.bytes = reader.position() - start;
        store.find_administrators();
        Ok(store)
    }
}

fn kept(password: Option<Value>) -> Option<Value> {
    password.map(|Value { salt, bytes }| Value { salt, bytes: own(&bytes) })
}

fn read_hash(reader: &mut Reader) -> Result<Value, DecodeError> {
    let value = Value::decode(reader)?;
    if value.bytes.len() > HASH_BYTES_MAX {
        return Err(DecodeError::TooLong("auth user password"));
    }
    Ok(Value { salt: value.salt, bytes: own(&value.bytes) })
}

fn next_name(reader: &mut Reader, last: Option<&Bytes>) -> Result<Bytes, DecodeError> {
    let name = reader.bytes(AuthOp::NAME_BYTES_MAX, "auth name")?;
    if last.is_some_and(|last| *last >= name) {
        return Err(DecodeError::Invalid("auth name order"));
    }
    Ok(own(&name))
}
