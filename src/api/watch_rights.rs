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
    /// The auth revision at which all of them were allowed.
    revision: u64,
    watches: BTreeMap<i64, Watched>,
}

/// A watcher's range as it was asked for, and by whom.
pub(super) struct Watched {
    author: Author,
    range: Range,
}

impl Rights {
    pub(super) fn new(api: &Api, caller: Caller) -> Self {
        let revision = api.handle.read(|shared| api.auth_revision(shared));
        Self { caller, revision, watches: BTreeMap::new() }
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
        self.revision == api.auth_revision(shared)
    }

    /// Asks again; those that are refused now, and why. They are not remembered.
    pub(super) async fn renew(&mut self, api: &Api) -> Vec<(i64, Refusal)> {
        let now = api.handle.read(|shared| api.auth_revision(shared));
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
                watched.author.auth_revision = now;
            }
            let Watched { author, range } = watched;
            if let Err(refusal) = api.permitted(author, |subject| subject.read(range), |_| ()) {
                lost.push((*watch_id, refusal));
            }
        }
        for (watch_id, _) in &lost {
            self.watches.remove(watch_id);
        }
        self.revision = now;
        lost
    }
}

impl Api {
    /// Grows with every change of users and roles that this replica's clients are subject to.
    fn auth_revision(&self, shared: &Shared) -> u64 {
        let store = |organisation| shared.state.auth.store(organisation).revision;
        self.organisation(shared).map_or(0, store)
    }
}
