use std::sync::Arc;

use crate::chain::ChangeKind;
use crate::types::Revision;
use crate::watch::{KeyRange, Slot};

/// What a client asks for in a watch create request, checked and normalised.
#[derive(Clone, Debug)]
pub struct Watch {
    /// The id the client chose; 0 lets the stream choose.
    pub id: i64,
    /// Which keys.
    pub range: KeyRange,
    /// The first revision wanted; 0 for "from now on".
    pub start: Revision,
    /// Which events are not wanted.
    pub filters: Filters,
    /// Send each event with the version before it.
    pub prev_kv: bool,
    /// Send progress when nothing else was sent for a while.
    pub progress_notify: bool,
    /// Cut large responses into several.
    pub fragment: bool,
}

/// etcd's NOPUT and NODELETE.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filters {
    /// Puts are not wanted.
    pub no_put: bool,
    /// Deletes are not wanted.
    pub no_delete: bool,
}

/// One watcher: what it wants and how far it has come.
#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) watch: Watch,
    /// It has had every event below this revision that it wants, and none from it on.
    pub(super) next: Revision,
    /// It takes its events from the ring, with all others of its stream that do.
    pub(super) synced: bool,
    /// No event was sent to it since the last tick of the progress interval.
    pub(super) quiet: bool,
    /// The revision whose events it last took again, and how often.
    pub(super) back: (Revision, u32),
}

impl Cursor {
    pub(super) fn wants(&self, slot: &Slot) -> bool {
        let event = &slot.event;
        let filtered = match event.kind {
            ChangeKind::Put => self.watch.filters.no_put,
            ChangeKind::Delete => self.watch.filters.no_delete,
        };
        event.revision >= self.next && !filtered && self.watch.range.contains(&event.kv.key)
    }
}

/// One response to send. Several for the same watcher are to be sent in their order.
#[derive(Debug)]
pub struct Delivery {
    /// Whose; -1 for progress of all watchers of the stream.
    pub watch_id: i64,
    /// The header's revision.
    pub revision: Revision,
    /// What is sent.
    pub load: Load,
}

/// What a [`Delivery`] carries.
#[derive(Debug)]
pub enum Load {
    /// Events, not none, in order; those of one revision are never parted.
    Events {
        /// Which.
        slots: Vec<Arc<Slot>>,
        /// Each with the version before it.
        prev_kv: bool,
        /// May be cut into several responses.
        fragment: bool,
    },
    /// Everything up to the revision was sent.
    Progress,
    /// The watcher is gone: what it wants next was compacted at this revision.
    Compacted(Revision),
}
