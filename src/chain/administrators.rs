use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

/// Who may change the members of a network of one owner (protocol.md 22.8): the users with the role root
/// while authentication is on, everybody while it is off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Administrators(Option<Arc<BTreeSet<Bytes>>>);

impl Administrators {
    /// These users alone.
    #[must_use]
    pub fn only(users: BTreeSet<Bytes>) -> Self {
        Self(Some(Arc::new(users)))
    }

    /// Whether this user is one of them; an empty name is nobody's.
    #[must_use]
    pub fn include(&self, user: &[u8]) -> bool {
        self.0.as_ref().is_none_or(|users| users.contains(user))
    }
}
