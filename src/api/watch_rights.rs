//! What the watchers of a stream may read, asked again whenever users or roles have changed: who loses a
//! right sees no event more (faults.md 5.4).

use std::collections::BTreeMap;

use crate::api::Api;
use crate::api::errors::Refusal;
use crate::api::identity::Caller;
use crate::chain::{Author, Range};
use crate::node::Shared;

/// The rights that a stream's watchers were created with.
pub(super) struct Rights {
    /// Whose stream it is.
    caller: Caller,
    /// The users and roles by which all of them were allowed.
    checked: AuthState,
    watches: BTreeMap<i64, Watched>,
}

/// Whether users are asked for, and the auth revision; changes whenever a right may have.
type AuthState = (bool, u64);

/// A watcher's range as it was asked for, and by whom.
pub(super) struct Watched {
    author: Author,
    range: Range,
}

impl Rights {
    pub(super) fn new(api: &Api, caller: Caller) -> Self {
        let checked = api.handle.read(|shared| api.auth_state(shared));
        Self { caller, checked, watches: BTreeMap::new() }
    }

    /// Whether the caller may read a range now.
    ///
    /// # Errors
    /// etcd's.
    pub(super) async fn ask(&self, api: &Api, range: Range) -> Result<Watched, Refusal> {
        let author = api.author(&self.caller).await?;
        api.permitted(&author, |subject| subject.read(&range), |_| ())?;
        Ok(Watched { author, range })
    }

    /// A watcher was created. Users may have changed since it was allowed: then it is asked again with
    /// the others.
    pub(super) fn add(&mut self, watch_id: i64, watched: Watched) {
        self.watches.insert(watch_id, watched);
    }

    pub(super) fn remove(&mut self, watch_id: i64) {
        self.watches.remove(&watch_id);
    }

    /// Whether what was allowed is still known to be, in this state.
    pub(super) fn are_current(&self, api: &Api, shared: &Shared) -> bool {
        self.checked == api.auth_state(shared)
    }

    /// Asks again; those that are refused now, and why. They are not remembered.
    pub(super) async fn renew(&mut self, api: &Api) -> Vec<(i64, Refusal)> {
        let now = api.handle.read(|shared| api.auth_state(shared));
        let again = api.author(&self.caller).await;
        let mut lost = Vec::new();
        for (watch_id, watched) in &mut self.watches {
            if watched.author.user.is_empty() {
                // Nobody's while nobody was asked for a user: whose is it now?
                match &again {
                    Ok(author) => watched.author = author.clone(),
                    Err(refusal) => {
                        lost.push((*watch_id, *refusal));
                        continue;
                    }
                }
            } else {
                // A user stays himself when his token ends, as in etcd.
                watched.author.auth_revision = now.1;
            }
            let Watched { author, range } = watched;
            if let Err(refusal) = api.permitted(author, |subject| subject.read(range), |_| ()) {
                lost.push((*watch_id, refusal));
            }
        }
        for (watch_id, _) in &lost {
            self.watches.remove(watch_id);
        }
        self.checked = now;
        lost
    }
}

impl Api {
    /// Of the users and roles that this replica's clients are subject to.
    fn auth_state(&self, shared: &Shared) -> AuthState {
        let store = |organisation| {
            let store = shared.state.auth.store(organisation);
            (store.enabled, store.revision)
        };
        self.organisation(shared).map_or((true, 0), store)
    }
}
