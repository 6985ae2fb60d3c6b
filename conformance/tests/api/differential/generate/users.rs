//! Programs of users: who asks changes from request to request, and so do users and roles.

use super::{Generator, USERS, call};
use crate::differential::program::Step;

const ROLES: [&str; 4] = ["r1", "r2", "r3", "root"];

impl Generator {
    fn user(&mut self) -> &'static str {
        self.random.pick(&USERS)
    }

    fn role(&mut self) -> &'static str {
        self.random.pick(&ROLES)
    }

    /// Few enough that a role keeps at most a dozen: beyond, Go's sort is not stable.
    fn permission(&mut self) -> String {
        let key = self.random.pick(&["a", "aa", "b"]);
        match self.random.pick(&["", "b", "\\000"]) {
            "" => format!("key:'{key}'"),
            end => format!("key:'{key}' range_end:'{end}'"),
        }
    }

    pub(super) fn change_of_users(&mut self, who: Option<usize>) -> Step {
        call(who, &self.auth())
    }

    pub(super) fn login(&mut self) -> Step {
        let user = usize::try_from(self.random.below(USERS.len() as u64)).expect("small");
        let password = if self.random.one_in(5) { "wrong" } else { USERS[user] };
        Step::Login { user, password: password.to_owned() }
    }

    fn auth(&mut self) -> String {
        let (user, role) = (self.user(), self.role());
        match self.random.below(30) {
            0..=2 => format!("Auth/RoleAdd name:'{role}'"),
            3 => format!("Auth/RoleDelete role:'{role}'"),
            4..=9 => {
                let kind = self.random.pick(&["READ", "WRITE", "READWRITE"]);
                let permission = self.permission();
                format!(
                    "Auth/RoleGrantPermission name:'{role}' perm{{permType:{kind} {permission}}}"
                )
            }
            10 => format!("Auth/RoleRevokePermission role:'{role}' {}", self.permission()),
            11..=13 => format!("Auth/UserAdd name:'{user}' password:'{user}'"),
            14 => format!("Auth/UserDelete name:'{user}'"),
            15 => format!("Auth/UserChangePassword name:'{user}' password:'{user}'"),
            16..=20 => format!("Auth/UserGrantRole user:'{user}' role:'{role}'"),
            21 => format!("Auth/UserRevokeRole name:'{user}' role:'{role}'"),
            22 => format!("Auth/UserGet name:'{user}'"),
            23 => format!("Auth/RoleGet role:'{role}'"),
            24 => "Auth/UserList".to_owned(),
            25 => "Auth/RoleList".to_owned(),
            26 => "Auth/AuthStatus".to_owned(),
            27 if self.random.one_in(4) => "Auth/AuthDisable".to_owned(),
            28 => "Auth/AuthEnable".to_owned(),
            _ => "Maintenance/Alarm".to_owned(),
        }
    }
}
