use std::sync::Arc;

use crate::planted::{self, Bug};
use crate::state::Event;
use crate::types::Revision;
use crate::watch::ring::{bytes_bound, previous_before_revision};
use crate::watch::stream::POLL_BYTES;
use crate::watch::{Delivery, Load, Slot, Store, WatchStream};

/// Watchers that catch up in one poll, so that the store's lock is held shortly.
const WATCHERS_MAX: usize = 16;

impl WatchStream {
    /// Moves watchers that are not synced on by one batch each.
    pub(super) fn catch_up(&mut self, store: &Store, deliveries: &mut Vec<Delivery>) {
        let some: Vec<i64> = self.behind.iter().copied().take(WATCHERS_MAX).collect();
        for id in some {
            self.catch_up_one(id, store, deliveries);
        }
    }

    fn catch_up_one(&mut self, id: i64, store: &Store, deliveries: &mut Vec<Delivery>) {
        let Some(cursor) = self.watchers.get_mut(&id) else { return };
        let current = store.ring.revision();
        if cursor.next < store.compact_revision {
            // Behind compaction: cancelled at once, before any event (etcd's chooseAll). The
            // header has no revision there.
            let load = Load::Compacted(store.compact_revision);
            deliveries.push(Delivery { watch_id: id, revision: Revision(0), load });
            self.cancel(id);
            return;
        }
        let (mut events, end) = (store.history)(cursor.next, &cursor.watch.range);
        previous_before_revision(&mut events);
        let until = batch_end(&events).unwrap_or(end);
        assert!(until > cursor.next, "history does not go on");
        let slots: Vec<Arc<Slot>> = events
            .into_iter()
            .filter(|event| event.revision < until)
            .map(|event| Arc::new(Slot::new(event)))
            .filter(|slot| cursor.wants(slot))
            .collect();
        cursor.next = until;
        if until > current {
            cursor.synced = true;
            self.synced.insert(cursor.watch.range.clone(), id);
            self.behind.remove(&id);
        }
        if !slots.is_empty() {
            self.deliver(id, current, slots, deliveries);
        }
    }
}

/// The revision that the next batch begins with; None if all of `events` are one batch. A batch
/// ends between two revisions, when it is large enough.
fn batch_end(events: &[Event]) -> Option<Revision> {
    let mut bytes = 0;
    for events in events.chunk_by(|a, b| a.revision == b.revision) {
        if bytes >= POLL_BYTES && !planted::is(Bug::UnboundedWatch) {
            return events.first().map(|event| event.revision);
        }
        bytes += events.iter().map(bytes_bound).sum::<usize>();
    }
    None
}
