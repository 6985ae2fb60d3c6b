use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::chain::{ChangeKind, ValueRef};
use crate::state::KeyValue;
use crate::types::LeaseId;
use crate::watch::Filters;

/// A store that keeps every event, and the truth to compare with.
struct World {
    ring: Ring,
    events: Vec<Event>,
    compacted: Revision,
}

impl World {
    fn new() -> Self {
        Self { ring: Ring::new(Revision(1)), events: Vec::new(), compacted: Revision(-1) }
    }

    /// One revision that changes `keys`, each put unless its number is odd.
    fn write(&mut self, keys: &BTreeSet<u8>) {
        let revision = self.ring.revision().next();
        let events: Vec<Event> = (0..)
            .zip(keys)
            .map(|(sub, key)| Event {
                revision,
                sub,
                kind: if key % 2 == 0 { ChangeKind::Put } else { ChangeKind::Delete },
                kv: KeyValue {
                    key: Bytes::copy_from_slice(&[b'a' + key]),
                    create: revision,
                    modified: revision,
                    version: 1,
                    lease: LeaseId(0),
                    value: ValueRef { length: 40_000, ..ValueRef::default() },
                },
                prev: None,
            })
            .collect();
        self.events.extend(events.iter().cloned());
        self.ring.publish(events, revision);
    }

    /// What a state transfer does: the ring begins anew.
    fn lose_ring(&mut self) {
        self.ring = Ring::new(self.ring.revision());
    }

    fn poll(&self, stream: &mut WatchStream) -> (Vec<Delivery>, bool) {
        let history = |from: Revision, range: &KeyRange| {
            let all = self.events.iter().filter(|event| event.revision >= from);
            let all: Vec<Event> = all.cloned().collect();
            let revisions: Vec<_> = all.chunk_by(|a, b| a.revision == b.revision).collect();
            let batch = revisions.iter().take(3).copied().flatten();
            let wanted = batch.filter(|event| range.contains(&event.kv.key)).cloned().collect();
            let next = revisions.get(3).map(|events| events[0].revision);
            (wanted, next.unwrap_or(self.ring.revision().next()))
        };
        let store = Store { ring: &self.ring, compact_revision: self.compacted, history: &history };
        stream.poll(&store)
    }
}

fn watch(key: &'static [u8], end: &'static [u8], start: i64) -> Watch {
    Watch {
        id: 0,
        range: KeyRange::new(Bytes::from_static(key), Bytes::from_static(end)).expect("a range"),
        start: Revision(start),
        filters: Filters::default(),
        prev_kv: false,
        progress_notify: true,
        fragment: false,
    }
}

fn create(stream: &mut WatchStream, watch: Watch, current: Revision) -> Result<i64, CreateError> {
    let id = stream.id_for(&watch)?;
    stream.create(id, watch, current);
    Ok(id)
}

fn seen(deliveries: &[Delivery], id: i64) -> Vec<(i64, u32)> {
    let events = deliveries.iter().filter(|delivery| delivery.watch_id == id);
    let slots = events.filter_map(|delivery| match &delivery.load {
        Load::Events { slots, .. } => Some(slots),
        _ => None,
    });
    slots.flatten().map(|slot| (slot.event.revision.0, slot.event.sub)).collect()
}

fn is_progress(delivery: &Delivery, id: i64, revision: i64) -> bool {
    delivery.watch_id == id
        && delivery.revision == Revision(revision)
        && matches!(delivery.load, Load::Progress)
}

#[test]
fn a_watcher_behind_compaction_is_cancelled_before_any_event() {
    let mut world = World::new();
    (0..5).for_each(|_| world.write(&BTreeSet::from([0])));
    world.compacted = Revision(4);
    let mut stream = WatchStream::new(world.ring.revision());
    let behind = create(&mut stream, watch(b"a", b"", 3), Revision(6)).expect("created");
    let at = create(&mut stream, watch(b"a", b"", 4), Revision(6)).expect("created");
    let (deliveries, _) = world.poll(&mut stream);
    assert_eq!((behind, at), (0, 1));
    assert!(matches!(deliveries[0].load, Load::Compacted(Revision(4))));
    assert_eq!(seen(&deliveries, behind), []);
    assert_eq!(seen(&deliveries, at), [(4, 0), (5, 0), (6, 0)]);
    assert!(!stream.cancel(behind));
}

#[test]
fn progress_of_all_waits_for_every_watcher() {
    let mut world = World::new();
    let mut stream = WatchStream::new(world.ring.revision());
    stream.request_progress();
    assert!(world.poll(&mut stream).0.is_empty(), "a stream without watchers has no progress");
    create(&mut stream, watch(b"a", b"", 0), Revision(1)).expect("created");
    world.write(&BTreeSet::from([0]));
    stream.request_progress();
    let (deliveries, more) = world.poll(&mut stream);
    assert_eq!(seen(&deliveries, 0), [(2, 0)]);
    assert!(is_progress(&deliveries[1], -1, 2) && !more);
    create(&mut stream, watch(b"a", b"", 9), Revision(2)).expect("created");
    stream.request_progress();
    assert!(world.poll(&mut stream).0.is_empty(), "one watcher has not begun");
}

#[test]
fn watchers_of_one_stream_are_told_in_the_order_of_revisions() {
    let mut world = World::new();
    let mut stream = WatchStream::new(world.ring.revision());
    for (key, end) in [(&b"a"[..], &b""[..]), (b"a", b"z"), (b"b", b"")] {
        create(&mut stream, watch(key, end, 0), Revision(1)).expect("created");
    }
    for keys in [&[0][..], &[1], &[0, 1]] {
        world.write(&keys.iter().copied().collect());
    }
    let (deliveries, _) = world.poll(&mut stream);
    let told: Vec<(i64, Vec<(i64, u32)>)> = deliveries
        .iter()
        .map(|delivery| {
            (delivery.watch_id, seen(core::slice::from_ref(delivery), delivery.watch_id))
        })
        .collect();
    let expected = [
        (0, vec![(2, 0)]),
        (1, vec![(2, 0), (3, 0)]),
        (2, vec![(3, 0)]),
        (0, vec![(4, 0)]),
        (1, vec![(4, 0), (4, 1)]),
        (2, vec![(4, 1)]),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_tick_after_an_event_is_skipped() {
    let mut world = World::new();
    let mut stream = WatchStream::new(world.ring.revision());
    create(&mut stream, watch(b"a", b"", 0), Revision(1)).expect("created");
    let tick = |stream: &mut WatchStream, world: &World| {
        stream.tick();
        world.poll(stream).0
    };
    assert!(is_progress(&tick(&mut stream, &world)[0], 0, 1));
    world.write(&BTreeSet::from([0]));
    assert_eq!(seen(&world.poll(&mut stream).0, 0), [(2, 0)]);
    assert!(tick(&mut stream, &world).is_empty());
    assert!(is_progress(&tick(&mut stream, &world)[0], 0, 2));
}

#[test]
fn ids_are_counted_from_zero_and_skip_those_in_use() {
    let mut stream = WatchStream::new(Revision(1));
    let chosen = Watch { id: 1, ..watch(b"a", b"", 0) };
    assert_eq!(create(&mut stream, chosen.clone(), Revision(1)), Ok(1));
    assert_eq!(create(&mut stream, chosen, Revision(1)), Err(CreateError::DuplicateId));
    assert_eq!(create(&mut stream, watch(b"a", b"", 0), Revision(1)), Ok(0));
    assert_eq!(create(&mut stream, watch(b"a", b"", 0), Revision(1)), Ok(2));
}

/// A stream's reader may be slow: what one poll collects waits in memory for it (kubernetes #123448).
#[test]
fn one_poll_holds_no_more_bytes_than_its_bound_and_one_revision() {
    for from_history in [false, true] {
        let mut world = World::new();
        let mut stream = WatchStream::new(world.ring.revision());
        let start = if from_history { 2 } else { 0 };
        if from_history {
            (0..40).for_each(|_| world.write(&BTreeSet::from([0, 1, 2, 3])));
        }
        create(&mut stream, watch(b"a", b"z", start), world.ring.revision()).expect("created");
        if !from_history {
            (0..40).for_each(|_| world.write(&BTreeSet::from([0, 1, 2, 3])));
        }
        let (mut polls, mut events) = (0, 0);
        let revision_bytes: usize = world.events[..4].iter().map(bytes_bound).sum();
        loop {
            let (deliveries, more) = world.poll(&mut stream);
            let mut bytes = 0;
            for delivery in &deliveries {
                let Load::Events { slots, .. } = &delivery.load else { panic!("events alone") };
                events += slots.len();
                bytes += slots.iter().map(|slot| bytes_bound(&slot.event)).sum::<usize>();
            }
            assert!(bytes <= POLL_BYTES + revision_bytes, "history {from_history}: {bytes} bytes");
            polls += 1;
            if !more {
                break;
            }
        }
        assert!(polls > 10 && events == 160, "{events} events in {polls} polls");
    }
}

/// Each watcher for itself: that values of others moved too, one poll after the other, is no reason.
#[test]
fn a_watcher_takes_events_again_until_it_found_them_gone_three_times() {
    let mut world = World::new();
    let mut stream = WatchStream::new(world.ring.revision());
    for key in [b"a", b"c", b"e", b"g", b"i"] {
        create(&mut stream, watch(key, b"", 0), Revision(1)).expect("created");
    }
    world.write(&BTreeSet::from([0, 2, 4, 6, 8]));
    assert_eq!(seen(&world.poll(&mut stream).0, 0), [(2, 0)]);
    for id in 0..5 {
        assert!(stream.go_back(id, Revision(2)), "{id} for the first time");
        let (deliveries, _) = world.poll(&mut stream);
        assert_eq!(seen(&deliveries, id).len(), 1, "{id} sees its event again");
    }
    for _ in 0..2 {
        assert!(stream.go_back(1, Revision(2)));
        assert_eq!(seen(&world.poll(&mut stream).0, 1).len(), 1);
    }
    assert!(!stream.go_back(1, Revision(2)), "its value is nowhere");
    world.write(&BTreeSet::from([2]));
    assert_eq!(seen(&world.poll(&mut stream).0, 1), [(3, 0)]);
    assert!(stream.go_back(1, Revision(3)), "another event's value");
    assert!(!stream.go_back(9, Revision(3)), "there is no such watcher");
}

#[derive(Clone, Debug)]
enum Step {
    Write(BTreeSet<u8>),
    Create { key: u8, end: Option<u8>, start: i64, no_delete: bool },
    Cancel(i64),
    Poll,
    Ask,
    LoseRing,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::btree_set(0u8..6, 1..4).prop_map(Step::Write),
        3 => (0u8..6, prop::option::of(0u8..7), 0i64..40, any::<bool>())
            .prop_map(|(key, end, start, no_delete)| Step::Create { key, end, start, no_delete }),
        1 => (0i64..4).prop_map(Step::Cancel),
        4 => Just(Step::Poll),
        2 => Just(Step::Ask),
        1 => Just(Step::LoseRing),
    ]
}

/// What one watcher should see, by the definition of a watch.
struct Expected {
    watch: Watch,
    from: Revision,
    seen: Vec<(i64, u32)>,
}

impl Expected {
    fn events(&self, world: &World) -> Vec<(i64, u32)> {
        let wanted = |event: &&Event| {
            event.revision >= self.from
                && self.watch.range.contains(&event.kv.key)
                && !(self.watch.filters.no_delete && event.kind == ChangeKind::Delete)
        };
        world.events.iter().filter(wanted).map(|event| (event.revision.0, event.sub)).collect()
    }

    fn events_until(&self, world: &World, revision: Revision) -> usize {
        self.events(world).iter().filter(|(at, _)| *at <= revision.0).count()
    }
}

fn check_poll(
    world: &World,
    stream: &mut WatchStream,
    expected: &mut BTreeMap<i64, Expected>,
) -> bool {
    let (deliveries, more) = world.poll(stream);
    for delivery in &deliveries {
        match &delivery.load {
            Load::Events { slots, .. } => {
                let watcher = expected.get_mut(&delivery.watch_id).expect("a watcher");
                let events = slots.iter().map(|slot| (slot.event.revision.0, slot.event.sub));
                watcher.seen.extend(events);
                let all = watcher.events(world);
                assert_eq!(watcher.seen, all[..watcher.seen.len()], "gap or disorder");
                let next = all.get(watcher.seen.len()).map(|(revision, _)| *revision);
                let last = watcher.seen.last().map(|(revision, _)| *revision);
                assert_ne!(next, last, "a revision was parted");
                assert!(delivery.revision.0 >= last.expect("never empty"));
            }
            Load::Progress => {
                assert_eq!(delivery.watch_id, -1);
                for watcher in expected.values() {
                    assert_eq!(
                        watcher.seen.len(),
                        watcher.events_until(world, delivery.revision),
                        "progress ahead of an event"
                    );
                }
            }
            Load::Compacted(_) => panic!("nothing was compacted"),
        }
    }
    more
}

proptest! {
    #[test]
    fn every_watcher_sees_its_events_once_in_order_and_whole(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let mut world = World::new();
        let mut stream = WatchStream::new(world.ring.revision());
        let mut expected: BTreeMap<i64, Expected> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Write(keys) => world.write(&keys),
                Step::Create { key, end, start, no_delete } => {
                    let end = end.map_or(Bytes::new(), |end| Bytes::copy_from_slice(&[b'a' + end]));
                    let key = Bytes::copy_from_slice(&[b'a' + key]);
                    let Some(range) = KeyRange::new(key, end) else { continue };
                    let filters = Filters { no_put: false, no_delete };
                    let new = Watch { range, start: Revision(start), filters, ..watch(b"a", b"", 0) };
                    let current = world.ring.revision();
                    let id = create(&mut stream, new.clone(), current).expect("created");
                    let from = if start == 0 { current.next() } else { Revision(start) };
                    expected.insert(id, Expected { watch: new, from, seen: Vec::new() });
                }
                Step::Cancel(id) => {
                    prop_assert_eq!(stream.cancel(id), expected.remove(&id).is_some());
                }
                Step::Poll => { check_poll(&world, &mut stream, &mut expected); }
                Step::Ask => stream.request_progress(),
                Step::LoseRing => world.lose_ring(),
            }
        }
        while check_poll(&world, &mut stream, &mut expected) {}
        for watcher in expected.values() {
            prop_assert_eq!(&watcher.seen, &watcher.events(&world));
        }
    }
}
