use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::planted::{self, Bug};
use crate::state::Event;
use crate::types::Revision;
use crate::watch::cursor::Cursor;
use crate::watch::ring::bytes_bound;
use crate::watch::{Delivery, Hub, KeyRange, Load, Ring, Slot, Watch};

/// Most watchers of one stream.
pub const WATCHES_MAX: usize = 10_000;

/// Bytes after which one poll of a stream stops at the next revision.
pub(super) const POLL_BYTES: usize = 256 << 10;

/// Values move once per checkpoint; a watcher that finds them gone more often at one revision gives up.
const TIMES_BACK_MAX: u32 = 3;

/// How a stream reads the events that have left the ring.
pub type History<'a> = dyn Fn(Revision, &KeyRange) -> (Vec<Event>, Revision) + 'a;

/// The store as one poll sees it: all of it under one lock, so that data, revision and events
/// agree.
pub struct Store<'a> {
    /// The latest events.
    pub ring: &'a Ring,
    /// The revision of the last compaction.
    pub compact_revision: Revision,
    /// History: the events of a range from a revision on, whole revisions, at least those of the
    /// first if there are any; and the revision to go on from, above the store's if that was all.
    pub history: &'a History<'a>,
}

/// Why a watcher was not created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateError {
    /// The stream has a watcher of this id.
    DuplicateId,
    /// The stream has [`WATCHES_MAX`].
    TooMany,
}

/// The watchers of one client stream.
///
/// Those that have caught up share one position in the ring; each of the others has its own and
/// comes from history. Nothing is buffered between two polls.
#[derive(Debug)]
pub struct WatchStream {
    pub(super) watchers: BTreeMap<i64, Cursor>,
    /// The synced watchers by range.
    pub(super) synced: Hub<i64>,
    /// The synced watchers have had every event below it.
    pub(super) position: Revision,
    /// The watchers that are not synced.
    pub(super) behind: BTreeSet<i64>,
    pub(super) progress_wanted: bool,
    pub(super) ticked: bool,
    next_id: i64,
}

impl WatchStream {
    /// A stream without watchers, opened at the store's `revision`.
    #[must_use]
    pub fn new(revision: Revision) -> Self {
        Self {
            watchers: BTreeMap::new(),
            synced: Hub::default(),
            position: revision.next(),
            behind: BTreeSet::new(),
            progress_wanted: false,
            ticked: false,
            next_id: 0,
        }
    }

    /// The id a new watcher would get. The caller may then register its range before it reads the
    /// store's revision for [`WatchStream::create`].
    ///
    /// # Errors
    /// [`CreateError`].
    pub fn id_for(&mut self, watch: &Watch) -> Result<i64, CreateError> {
        if self.watchers.len() >= WATCHES_MAX {
            return Err(CreateError::TooMany);
        }
        let id = if watch.id == 0 { self.free_id() } else { watch.id };
        if self.watchers.contains_key(&id) {
            return Err(CreateError::DuplicateId);
        }
        Ok(id)
    }

    /// Adds a watcher under an id of [`WatchStream::id_for`]. The response says "created" at
    /// `current`, the store's revision; events come from the next poll on (etcd's
    /// watchStream.Watch).
    pub fn create(&mut self, id: i64, watch: Watch, current: Revision) {
        let start = watch.start;
        let synced = start.0 == 0 || start > current;
        let wanted = if planted::is(Bug::FutureRevisionWatch) { Revision(0) } else { start };
        let next = if synced { wanted.max(current.next()) } else { start };
        let back = (Revision(0), 0);
        if synced {
            self.synced.insert(watch.range.clone(), id);
        } else {
            self.behind.insert(id);
        }
        let before = self.watchers.insert(id, Cursor { watch, next, synced, quiet: true, back });
        assert!(before.is_none(), "a watch id is given to one watcher");
    }

    /// The caller knows that no event below `revision` is for this stream.
    pub fn skip_to(&mut self, revision: Revision) {
        self.position = self.position.max(revision);
    }

    /// etcd counts from 0 and skips ids in use; an id once given is not given again.
    fn free_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// Removes a watcher; false if there is no such watcher.
    pub fn cancel(&mut self, id: i64) -> bool {
        let Some(cursor) = self.watchers.remove(&id) else { return false };
        self.behind.remove(&id);
        if cursor.synced {
            self.synced.remove(&cursor.watch.range, id);
        }
        true
    }

    /// A watcher's events from `revision` on could not be sent, for their values have moved: it takes
    /// them again, from history. False if it did so before and they are gone all the same.
    #[must_use]
    pub fn go_back(&mut self, id: i64, revision: Revision) -> bool {
        let Some(cursor) = self.watchers.get_mut(&id) else { return false };
        let before = if cursor.back.0 == revision { cursor.back.1 } else { 0 };
        if before >= TIMES_BACK_MAX {
            return false;
        }
        cursor.back = (revision, before + 1);
        if cursor.synced {
            cursor.synced = false;
            self.synced.remove(&cursor.watch.range, id);
            self.behind.insert(id);
        }
        cursor.next = revision;
        true
    }

    /// What is to be sent next, and whether there is more: then poll again once it is sent.
    pub fn poll(&mut self, store: &Store) -> (Vec<Delivery>, bool) {
        let mut deliveries = Vec::new();
        self.read_ring(store, &mut deliveries);
        self.catch_up(store, &mut deliveries);
        let more = self.position <= store.ring.revision() || !self.behind.is_empty();
        self.progress(store.ring.revision(), more, &mut deliveries);
        (deliveries, more)
    }

    /// Moves the shared position through the ring, a whole revision at a time.
    fn read_ring(&mut self, store: &Store, deliveries: &mut Vec<Delivery>) {
        let current = store.ring.revision();
        if self.position > current {
            return;
        }
        let Some(slots) = store.ring.from(self.position) else {
            self.leave_ring(current);
            return;
        };
        // As etcd's synced watchers: whoever wants them, events come in the order of revisions.
        let mut found: Vec<(i64, Vec<Arc<Slot>>)> = Vec::new();
        let mut of_revision: BTreeMap<i64, Vec<Arc<Slot>>> = BTreeMap::new();
        let mut bytes = 0;
        let mut until = current.next();
        for slot in slots {
            let revision = slot.event.revision;
            let bounded = !planted::is(Bug::UnboundedWatch);
            if bounded && bytes >= POLL_BYTES && revision > self.position {
                until = revision;
                break;
            }
            if revision > self.position {
                append(&mut found, core::mem::take(&mut of_revision));
            }
            self.position = revision;
            let watchers = &self.watchers;
            self.synced.wanting(&slot.event.kv.key, |id| {
                if watchers.get(&id).is_some_and(|cursor| cursor.wants(slot)) {
                    bytes += bytes_bound(&slot.event);
                    of_revision.entry(id).or_default().push(Arc::clone(slot));
                }
            });
        }
        self.position = until;
        append(&mut found, of_revision);
        for (id, slots) in found {
            let revision = slots.last().map_or(current, |slot| slot.event.revision);
            self.deliver(id, revision, slots, deliveries);
        }
    }

    /// The ring moved on without this stream: everyone goes on from history.
    fn leave_ring(&mut self, current: Revision) {
        for (id, cursor) in self.watchers.iter_mut().filter(|(_, cursor)| cursor.synced) {
            cursor.next = cursor.next.max(self.position);
            if cursor.next <= current {
                cursor.synced = false;
                self.synced.remove(&cursor.watch.range, *id);
                self.behind.insert(*id);
            }
        }
        self.position = current.next();
    }

    pub(super) fn deliver(
        &mut self,
        id: i64,
        revision: Revision,
        slots: Vec<Arc<Slot>>,
        deliveries: &mut Vec<Delivery>,
    ) {
        let Some(cursor) = self.watchers.get_mut(&id) else { return };
        cursor.quiet = false;
        let Watch { prev_kv, fragment, .. } = cursor.watch;
        let load = Load::Events { slots, prev_kv, fragment };
        deliveries.push(Delivery { watch_id: id, revision, load });
    }
}

/// Adds the events of a revision. etcd's synced watchers get one response for each; several in one, as
/// its catching up does it, are the same to a client, and cheaper.
fn append(found: &mut Vec<(i64, Vec<Arc<Slot>>)>, of_revision: BTreeMap<i64, Vec<Arc<Slot>>>) {
    for (id, slots) in of_revision {
        match found.last_mut() {
            Some((last, before)) if *last == id => before.extend(slots),
            _ => found.push((id, slots)),
        }
    }
}

#[cfg(test)]
mod tests;
