use crate::apply::{Done, Login, OpError, Reply, Step};
use crate::chain::AuthOp;

impl Step<'_> {
    /// Users and roles of the submitting organisation.
    pub(super) fn auth(&mut self, op: &AuthOp) -> Done<Reply> {
        let organisation = self.organisation.ok_or(OpError::Malformed)?;
        let password = match op {
            AuthOp::UserAdd { password: Some(slot), .. }
            | AuthOp::UserChangePassword { password: Some(slot), .. } => {
                Some(self.operands.operand(slot)?)
            }
            _ => None,
        };
        self.state.change_auth(organisation, op, password).map_err(OpError::from)?;
        let auth_revision = self.state.auth.store(organisation).revision;
        if let AuthOp::Authenticate { user, token } = op {
            let login = Login { organisation, user: user.clone(), token: *token, auth_revision };
            self.logins.push(login);
        }
        let (revision, height) = (self.revision(), self.header.height);
        Ok(Reply::Auth { revision, auth_revision, height })
    }
}
