//! Which watch streams have something to do: one task looks at each block's events once and wakes
//! the streams that want one of them, so that an idle watcher costs nothing per write.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::node::Handle;
use crate::types::Revision;
use crate::watch::{Hub, KeyRange, Slot};

/// How often the network is asked whether it has a leader.
const LEADER_CHECK: Duration = Duration::from_millis(500);

/// Checks without a leader after which streams that require one are cut: etcd's three election
/// timeouts of one second.
const LEADERLESS_CHECKS: u32 = 6;

/// All watch streams of this replica.
pub(super) struct Wakes {
    handle: Handle,
    table: Mutex<Table>,
    running: AtomicBool,
    /// No leader for so long that streams which require one are to end.
    leaderless: AtomicBool,
    /// The replica stops.
    stopped: AtomicBool,
}

#[derive(Default)]
struct Table {
    streams: BTreeMap<u64, Waiter>,
    ranges: Hub<(u64, i64)>,
    next_stream: u64,
    /// Every event up to here was looked at.
    seen: Revision,
}

struct Waiter {
    notify: Arc<Notify>,
    /// The first revision with an event for this stream that it has not taken yet.
    pending: Option<Revision>,
    ranges: BTreeMap<i64, KeyRange>,
}

/// One stream's place among the [`Wakes`]; it leaves when dropped.
pub(super) struct Registration {
    wakes: Arc<Wakes>,
    stream: u64,
    notify: Arc<Notify>,
}

impl Wakes {
    pub(super) fn new(handle: Handle) -> Self {
        Self {
            handle,
            table: Mutex::default(),
            running: AtomicBool::new(false),
            leaderless: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        }
    }

    /// Adds a stream. The first one starts the task that wakes, on its own runtime.
    pub(super) fn register(self: &Arc<Self>) -> Registration {
        if !self.running.swap(true, Ordering::SeqCst) {
            self.table().seen = self.handle.read(|shared| shared.ring.revision());
            tokio::spawn(run(Arc::clone(self)));
        }
        let notify = Arc::new(Notify::new());
        let mut table = self.table();
        let stream = table.next_stream;
        table.next_stream += 1;
        let waiter = Waiter { notify: Arc::clone(&notify), pending: None, ranges: BTreeMap::new() };
        table.streams.insert(stream, waiter);
        drop(table);
        Registration { wakes: Arc::clone(self), stream, notify }
    }

    pub(super) fn is_leaderless(&self) -> bool {
        self.leaderless.load(Ordering::SeqCst)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes who wants one of the events since the last call.
    fn look(&self) {
        let seen = self.table().seen;
        let (current, slots) = self.handle.read(|shared| {
            let slots = shared.ring.from(seen.next());
            let slots = slots.map(|slots| slots.cloned().collect::<Vec<Arc<Slot>>>());
            (shared.ring.revision(), slots)
        });
        let mut table = self.table();
        match slots {
            Some(slots) => table.match_all(&slots),
            None => table.streams.values_mut().for_each(|waiter| waiter.wake(seen.next())),
        }
        table.seen = table.seen.max(current);
    }

    fn wake_all(&self) {
        self.table().streams.values().for_each(|waiter| waiter.notify.notify_one());
    }
}

impl Table {
    fn match_all(&mut self, slots: &[Arc<Slot>]) {
        let Self { streams, ranges, .. } = self;
        for slot in slots {
            ranges.wanting(&slot.event.kv.key, |(stream, _)| {
                if let Some(waiter) = streams.get_mut(&stream) {
                    waiter.wake(slot.event.revision);
                }
            });
        }
    }
}

impl Waiter {
    fn wake(&mut self, revision: Revision) {
        if self.pending.is_none() {
            self.pending = Some(revision);
            self.notify.notify_one();
        }
    }
}

impl Registration {
    /// Adds a range; from its next event on the stream is woken. Register before the watcher's
    /// first revision is read, or an event between the two is missed.
    pub(super) fn insert(&self, watch_id: i64, range: KeyRange) {
        let mut table = self.wakes.table();
        table.ranges.insert(range.clone(), (self.stream, watch_id));
        if let Some(waiter) = table.streams.get_mut(&self.stream) {
            waiter.ranges.insert(watch_id, range);
        }
    }

    pub(super) fn remove(&self, watch_id: i64) {
        let mut table = self.wakes.table();
        let waiter = table.streams.get_mut(&self.stream);
        if let Some(range) = waiter.and_then(|waiter| waiter.ranges.remove(&watch_id)) {
            table.ranges.remove(&range, (self.stream, watch_id));
        }
    }

    /// Below which revision this stream has no event it has not been woken for and taken: from here
    /// on it must look itself.
    pub(super) fn take(&self) -> Revision {
        let mut table = self.wakes.table();
        let seen = table.seen;
        let pending = table.streams.get_mut(&self.stream).and_then(|waiter| waiter.pending.take());
        pending.unwrap_or(seen.next())
    }

    pub(super) async fn woken(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut table = self.wakes.table();
        let Some(waiter) = table.streams.remove(&self.stream) else { return };
        for (watch_id, range) in waiter.ranges {
            table.ranges.remove(&range, (self.stream, watch_id));
        }
    }
}

/// Looks at every block until the replica stops.
async fn run(wakes: Arc<Wakes>) {
    let mut applied = wakes.handle.applied();
    let mut checks = tokio::time::interval(LEADER_CHECK);
    checks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut leaderless = 0;
    loop {
        tokio::select! {
            changed = applied.changed() => match changed {
                Ok(()) => wakes.look(),
                Err(_) => break,
            },
            _ = checks.tick() => {
                let has_leader = wakes.handle.has_leader();
                leaderless = if has_leader { 0 } else { leaderless + 1 };
                let cut = leaderless >= LEADERLESS_CHECKS;
                if wakes.leaderless.swap(cut, Ordering::SeqCst) != cut && cut {
                    wakes.wake_all();
                }
                if wakes.handle.is_quarantined() {
                    wakes.wake_all();
                }
            }
        }
    }
    wakes.stopped.store(true, Ordering::SeqCst);
    wakes.wake_all();
}
