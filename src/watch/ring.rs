use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::state::{Event, KeyValue};
use crate::types::Revision;

/// Most events the ring holds.
const EVENTS_MAX: usize = 65_536;

/// Most bytes the ring's events may cost once they are encoded, for both wire forms of each.
const BYTES_MAX: usize = 64 << 20;

/// Bytes of an encoded event beside its keys and values, rounded up.
const EVENT_OVERHEAD: usize = 128;

/// One event and its wire forms, each encoded once, by the first stream that sends it.
#[derive(Debug)]
pub struct Slot {
    /// What happened.
    pub event: Event,
    wire: [OnceLock<Bytes>; 2],
}

impl Slot {
    /// A slot whose wire forms are not there yet.
    #[must_use]
    pub fn new(event: Event) -> Self {
        Self { event, wire: [const { OnceLock::new() }; 2] }
    }

    /// The wire form with or without the version before, made by `encode` if it is not there.
    ///
    /// # Errors
    /// Those of `encode`.
    pub fn wire<E>(
        &self,
        with_previous: bool,
        encode: impl FnOnce(&Event) -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        let cell = &self.wire[usize::from(with_previous)];
        if let Some(bytes) = cell.get() {
            return Ok(bytes.clone());
        }
        let bytes = encode(&self.event)?;
        Ok(cell.get_or_init(|| bytes).clone())
    }
}

/// At least the bytes of one wire form of an event; known before it is encoded.
pub(super) fn bytes_bound(event: &Event) -> usize {
    let kv = |kv: &KeyValue| kv.key.len() + kv.value.length as usize;
    EVENT_OVERHEAD + kv(&event.kv) + event.prev.as_ref().map_or(0, kv)
}

/// Makes `prev` the version before the event's *revision*: a key that one transaction changes twice
/// has no version in between for a watcher (etcd's sendLoop reads it at `mod_revision - 1`). The
/// events of a revision come together.
pub(super) fn previous_before_revision(events: &mut [Event]) {
    for at in 0..events.len() {
        let (earlier, rest) = events.split_at_mut(at);
        let Some(event) = rest.first_mut() else { return };
        if event.prev.as_ref().is_none_or(|prev| prev.modified < event.revision) {
            continue;
        }
        let same =
            |other: &&Event| other.revision == event.revision && other.kv.key == event.kv.key;
        let mut nearby = earlier.iter().rev().take_while(|other| other.revision == event.revision);
        event.prev = nearby.find(same).and_then(|other| other.prev.clone());
    }
}

/// The latest events of this replica, in (revision, sub-revision) order and without gaps.
#[derive(Debug)]
pub struct Ring {
    slots: VecDeque<Arc<Slot>>,
    /// Every event above it is in `slots`, and nothing else.
    floor: Revision,
    /// The store's revision; no event is above it.
    revision: Revision,
    /// Twice the sum of [`bytes_bound`]: two wire forms.
    bytes: usize,
}

impl Ring {
    /// A ring that begins behind `revision`; what came before is in the state's history.
    #[must_use]
    pub fn new(revision: Revision) -> Self {
        Self { slots: VecDeque::new(), floor: revision, revision, bytes: 0 }
    }

    /// Appends what one block did. `revision` is the store's revision behind that block.
    ///
    /// # Panics
    /// If an event is out of order: a gap or a repetition would reach every watcher.
    pub fn publish(&mut self, mut events: Vec<Event>, revision: Revision) {
        previous_before_revision(&mut events);
        assert!(revision >= self.revision, "the store's revision went back");
        for event in events {
            let last = self.slots.back().map(|slot| (slot.event.revision, slot.event.sub));
            let this = (event.revision, event.sub);
            assert!(last.is_none_or(|last| last < this), "watch events out of order");
            assert!(this.0 > self.floor && this.0 <= revision, "watch event outside its block");
            let slot = Slot::new(event);
            self.bytes += 2 * bytes_bound(&slot.event);
            self.slots.push_back(Arc::new(slot));
        }
        self.revision = revision;
        self.evict();
    }

    /// Whole revisions leave together, so that `floor` stays true.
    fn evict(&mut self) {
        while self.slots.len() > EVENTS_MAX || self.bytes > BYTES_MAX {
            let Some(first) = self.slots.front().map(|slot| slot.event.revision) else { return };
            let gone = self.slots.partition_point(|slot| slot.event.revision <= first);
            for slot in self.slots.drain(..gone) {
                self.bytes -= 2 * bytes_bound(&slot.event);
            }
            self.floor = first;
        }
    }

    /// Drops the events up to `through`: values they refer to may be gone from where they were. A stream
    /// that still needs them goes on from history.
    pub fn forget(&mut self, through: Revision) {
        let gone = self.slots.partition_point(|slot| slot.event.revision <= through);
        for slot in self.slots.drain(..gone) {
            self.bytes -= 2 * bytes_bound(&slot.event);
        }
        self.floor = self.floor.max(through.min(self.revision));
    }

    /// The store's revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The events from revision `from` on, or None if some of them have left the ring.
    #[must_use]
    pub fn from(&self, from: Revision) -> Option<impl Iterator<Item = &Arc<Slot>>> {
        if from <= self.floor {
            return None;
        }
        let start = self.slots.partition_point(|slot| slot.event.revision < from);
        Some(self.slots.range(start..))
    }
}
