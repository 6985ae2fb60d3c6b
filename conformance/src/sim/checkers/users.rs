//! etcd's users and roles as one would write them on a page: maps of names, and permissions as they were
//! granted. Each organisation has its own (docs/adr/0004).

use std::collections::{BTreeMap, BTreeSet};

use althing::chain::{AuthOp, Author, Op, Permission, PermissionKind};
use althing::state::Auth;
use bytes::Bytes;

use crate::sim::checkers::model::names;

const ROOT: &[u8] = b"root";

/// Why something is refused: the name of production's error.
pub type Refused = &'static str;

/// A key or a range as a request names it.
type Span<'a> = (&'a [u8], &'a [u8]);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Right {
    Read,
    Write,
}

#[derive(Default)]
struct User {
    roles: BTreeSet<Bytes>,
    has_password: bool,
}

/// The users of one organisation.
pub struct Users {
    enabled: bool,
    /// Changes from 1 on.
    pub revision: u64,
    users: BTreeMap<Bytes, User>,
    roles: BTreeMap<Bytes, Vec<Permission>>,
}

impl Default for Users {
    fn default() -> Self {
        let (users, roles) = (BTreeMap::new(), BTreeMap::new());
        Self { enabled: false, revision: 1, users, roles }
    }
}

impl Users {
    /// Whether somebody may do something; `attached` says which keys have a lease.
    ///
    /// # Errors
    /// He may not.
    pub fn allow(
        &self,
        author: &Author,
        op: &Op,
        attached: &dyn Fn(i64) -> Vec<Bytes>,
    ) -> Result<(), Refused> {
        if !self.enabled {
            return Ok(());
        }
        let lease = |id: i64| {
            if self.is_root(&author.user).is_ok() {
                return Ok(());
            }
            attached(id).iter().try_for_each(|key| self.keys(author, (key, &[]), Right::Write))
        };
        match op {
            Op::Put(put) => {
                self.keys(author, (&put.key, &[]), Right::Write)?;
                lease(put.lease.0)?;
                if put.prev_kv { self.keys(author, (&put.key, &[]), Right::Read) } else { Ok(()) }
            }
            Op::DeleteRange(delete) => {
                let span = (&delete.key[..], &delete.range_end[..]);
                self.keys(author, span, Right::Write)?;
                if delete.prev_kv { self.keys(author, span, Right::Read) } else { Ok(()) }
            }
            Op::Range(range) => self.keys(author, (&range.key, &range.range_end), Right::Read),
            Op::Txn(txn) => {
                for compare in &txn.compares {
                    self.keys(author, (&compare.key, &compare.range_end), Right::Read)?;
                }
                let mut all = txn.success.iter().chain(&txn.failure);
                all.try_for_each(|op| self.allow(author, op, attached))
            }
            Op::LeaseGrant { .. } => is_somebody(author),
            Op::LeaseRevoke { id } | Op::LeaseKeepAlive { id } => {
                is_somebody(author)?;
                lease(id.0)
            }
            Op::Compact { .. } | Op::CheckpointNow => self.is_root(&author.user),
            Op::Auth(op) if !matches!(**op, AuthOp::Authenticate { .. }) => {
                self.is_root(&author.user)
            }
            _ => Ok(()),
        }
    }

    fn is_root(&self, user: &[u8]) -> Result<(), Refused> {
        match self.users.get(user) {
            _ if user.is_empty() => Err("UserEmpty"),
            None => Err("UserNotFound"),
            Some(user) if user.roles.contains(ROOT) => Ok(()),
            Some(_) => Err("PermissionDenied"),
        }
    }

    fn keys(&self, author: &Author, span: Span<'_>, right: Right) -> Result<(), Refused> {
        is_somebody(author)?;
        if author.auth_revision < self.revision {
            return Err("OldRevision");
        }
        let user = self.users.get(&author.user).ok_or("PermissionDenied")?;
        let held = user.roles.iter().filter_map(|role| self.roles.get(role)).flatten();
        let against =
            if right == Right::Read { PermissionKind::Write } else { PermissionKind::Read };
        let held: Vec<&Permission> = held.filter(|held| held.kind != against).collect();
        if user.roles.contains(ROOT) || covers(&held, span) {
            Ok(())
        } else {
            Err("PermissionDenied")
        }
    }

    /// Does what an op asks for.
    ///
    /// # Errors
    /// It cannot be done, and nothing is.
    pub fn execute(&mut self, op: &AuthOp) -> Result<(), Refused> {
        let changed = match op {
            AuthOp::Enable => {
                if !self.enabled {
                    let root = self.users.get(ROOT).ok_or("RootUserNotExist")?;
                    let is_root = root.roles.contains(ROOT);
                    self.enabled = is_root.then_some(true).ok_or("RootRoleNotExist")?;
                }
                false
            }
            AuthOp::Disable => core::mem::replace(&mut self.enabled, false),
            AuthOp::Authenticate { user, .. } => {
                let enabled = self.enabled.then_some(()).ok_or("AuthNotEnabled");
                let user = enabled.and_then(|()| self.users.get(user).ok_or("AuthFailed"))?;
                user.has_password.then_some(false).ok_or("AuthFailed")?
            }
            AuthOp::UserAdd { name, password } => {
                if self.users.contains_key(name) {
                    return Err("UserAlreadyExist");
                }
                let user = User { has_password: password.is_some(), ..User::default() };
                self.users.insert(name.clone(), user);
                true
            }
            AuthOp::UserDelete { name } => {
                self.keeps_root(name)?;
                self.users.remove(name).ok_or("UserNotFound").map(|_| true)?
            }
            AuthOp::UserChangePassword { name, password } => {
                let user = self.users.get(name).ok_or("UserNotFound")?;
                let lacks = user.has_password && password.is_none();
                (!lacks).then_some(true).ok_or("NoPasswordUser")?
            }
            AuthOp::UserGrantRole { user, role } => {
                let user = self.users.get_mut(user).ok_or("UserNotFound")?;
                if role != ROOT && !self.roles.contains_key(role) {
                    return Err("RoleNotFound");
                }
                user.roles.insert(role.clone())
            }
            AuthOp::UserRevokeRole { user, role } => {
                if user == ROOT {
                    self.keeps_root(role)?;
                }
                let user = self.users.get_mut(user).ok_or("UserNotFound")?;
                user.roles.remove(role).then_some(true).ok_or("RoleNotGranted")?
            }
            role => self.change_role(role)?,
        };
        self.revision += u64::from(changed);
        Ok(())
    }

    fn change_role(&mut self, op: &AuthOp) -> Result<bool, Refused> {
        match op {
            AuthOp::RoleAdd { name } if self.roles.contains_key(name) => {
                return Err("RoleAlreadyExist");
            }
            AuthOp::RoleAdd { name } => drop(self.roles.insert(name.clone(), Vec::new())),
            AuthOp::RoleDelete { name } => {
                self.keeps_root(name)?;
                self.roles.remove(name).ok_or("RoleNotFound")?;
                self.users.values_mut().for_each(|user| user.roles.retain(|role| role != name));
            }
            AuthOp::RoleGrantPermission { role, permission } => {
                let new = permission.clone().ok_or("PermissionNotGiven")?;
                let all_behind = new.range_end[..] == [0];
                if !new.range_end.is_empty() && !all_behind && new.range_end <= new.key {
                    return Err("InvalidManagement");
                }
                let held = self.roles.get_mut(role).ok_or("RoleNotFound")?;
                // Only the first of a key is compared, as in etcd.
                match held.iter_mut().find(|one| one.key == new.key) {
                    Some(one) if one.range_end == new.range_end => *one = new,
                    _ => {
                        let behind = held.iter().take_while(|one| one.key <= new.key).count();
                        held.insert(behind, new);
                    }
                }
            }
            AuthOp::RoleRevokePermission { role, key, range_end } => {
                let held = self.roles.get_mut(role).ok_or("RoleNotFound")?;
                let before = held.len();
                held.retain(|one| (&one.key, &one.range_end) != (key, range_end));
                if held.len() == before {
                    return Err("PermissionNotGranted");
                }
            }
            _ => {}
        }
        Ok(true)
    }

    /// Root, user or role, stays while users are asked for.
    fn keeps_root(&self, name: &Bytes) -> Result<(), Refused> {
        if self.enabled && name == ROOT { Err("InvalidManagement") } else { Ok(()) }
    }

    fn is_same(&self, theirs: &althing::state::AuthStore) -> bool {
        let users = theirs.users.iter().map(|(name, user)| (name, &user.roles));
        let roles = theirs.roles.iter().map(|(name, role)| (name, &role.permissions));
        (self.enabled, self.revision) == (theirs.enabled, theirs.revision)
            && users.eq(self.users.iter().map(|(name, user)| (name, &user.roles)))
            && roles.eq(&self.roles)
    }
}

/// Whether a replica's users are these.
#[must_use]
pub fn are_same(ours: &BTreeMap<u16, Users>, theirs: &Auth) -> bool {
    let fresh = Users::default();
    theirs.stores().all(|(id, store)| ours.get(&id.0).unwrap_or(&fresh).is_same(store))
        && ours.iter().all(|(id, users)| users.is_same(theirs.store(althing::types::OrgId(*id))))
}

fn is_somebody(author: &Author) -> Result<(), Refused> {
    if author.auth_revision == 0 { Err("UserEmpty") } else { Ok(()) }
}

/// Whether all keys of a span are reached: its first, and each that some permission ends in front of.
fn covers(held: &[&Permission], (key, range_end): Span<'_>) -> bool {
    let inside = |at: &[u8]| match range_end {
        [] => false,
        [0] => at > key,
        end => at > key && at < end,
    };
    // No key is behind all others, but one that ends no permission stands for those far behind.
    let beyond = [0xff; 64];
    let ends = held.iter().map(|one| match &one.range_end[..] {
        [] => [&one.key[..], &[0]].concat(),
        end => end.to_vec(),
    });
    let mut places: Vec<Vec<u8>> = ends.filter(|end| inside(end)).collect();
    places.push(key.to_vec());
    if range_end == [0] {
        places.push(beyond.to_vec());
    }
    places.iter().all(|place| held.iter().any(|one| names((&one.key, &one.range_end), place)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_covered_by_permissions_that_touch_and_by_no_others() {
        let permission = |key: &'static str, end: &'static str| Permission {
            kind: PermissionKind::Read,
            key: Bytes::from_static(key.as_bytes()),
            range_end: Bytes::from_static(end.as_bytes()),
        };
        let (low, high, one) = (permission("b", "d"), permission("d", "g"), permission("g", ""));
        let all = permission("f", "\0");
        let cases: [(&[&Permission], &str, &str, bool); 9] = [
            (&[&low], "b", "d", true),
            (&[&low], "a", "d", false),
            (&[&low], "c", "e", false),
            (&[&low, &high], "c", "e", true),
            (&[&high, &one], "e", "g\0", true),
            (&[&high, &one], "e", "h", false),
            (&[&one], "g", "", true),
            (&[&high], "e", "\0", false),
            (&[&high, &all], "e", "\0", true),
        ];
        for (held, key, end, expected) in cases {
            assert_eq!(covers(held, (key.as_bytes(), end.as_bytes())), expected, "{key} {end}");
        }
    }
}
