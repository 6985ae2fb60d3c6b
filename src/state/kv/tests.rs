use proptest::prelude::*;

use super::*;
use crate::chain::{Range, SortOrder, SortTarget};
use crate::state::Span;

/// Every change ever made, none forgotten.
#[derive(Default)]
struct Model {
    changes: Vec<(Revision, u32, KeyValue, ChangeKind)>,
}

impl Model {
    fn latest(&self, key: &[u8], at: Revision) -> Option<&KeyValue> {
        let last = self
            .changes
            .iter()
            .rev()
            .find(|(revision, _, kv, _)| *revision <= at && kv.key == key)?;
        (last.3 == ChangeKind::Put).then_some(&last.2)
    }

    fn all(&self, span: Span<'_>, at: Revision) -> Vec<KeyValue> {
        let mut keys: Vec<&Bytes> =
            self.changes.iter().map(|change| &change.2.key).filter(|key| span.holds(key)).collect();
        keys.sort();
        keys.dedup();
        keys.into_iter().filter_map(|key| self.latest(key, at)).cloned().collect()
    }

    /// etcd's range, word for word.
    fn range(&self, range: &Range, now: Revision) -> RangeResult {
        let at = if range.revision <= 0 { now } else { Revision(range.revision) };
        let mut kvs = self.all(Span::new(&range.key, &range.range_end), at);
        let count = i64::try_from(kvs.len()).expect("few keys");
        if range.count_only {
            return RangeResult { kvs: Vec::new(), count, more: false };
        }
        let limit = usize::try_from(range.limit).unwrap_or(0);
        let filters = range.min_mod_revision | range.max_create_revision;
        let pushed = filters == 0
            && (range.sort_order == SortOrder::None
                || (range.sort_target == SortTarget::Key && range.sort_order == SortOrder::Ascend));
        if pushed && limit > 0 {
            kvs.truncate(limit + 1);
        }
        kvs.retain(|kv| range.min_mod_revision == 0 || kv.modified.0 >= range.min_mod_revision);
        kvs.retain(|kv| range.max_create_revision == 0 || kv.create.0 <= range.max_create_revision);
        let number = |kv: &KeyValue| match range.sort_target {
            SortTarget::Version => kv.version,
            SortTarget::Create => kv.create.0,
            SortTarget::Mod => kv.modified.0,
            _ => 0,
        };
        kvs.sort_by_key(number);
        if range.sort_order == SortOrder::Descend {
            if range.sort_target == SortTarget::Key {
                kvs.reverse();
            } else {
                kvs.sort_by_key(|kv| -number(kv));
            }
        }
        let more = limit > 0 && kvs.len() > limit;
        if more {
            kvs.truncate(limit);
        }
        if range.keys_only {
            kvs.iter_mut().for_each(|kv| {
                kv.lease = LeaseId(0);
                kv.value = ValueRef::default();
            });
        }
        RangeResult { kvs, count, more }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Txn(Vec<(u8, bool)>),
    Compact(u8),
    Sweep(usize),
    Range(Range),
    Changes(u8, usize),
}

fn name(n: u8) -> Bytes {
    Bytes::from(format!("key{:02}", n % 40))
}

fn range() -> impl Strategy<Value = Range> {
    let order = prop_oneof![
        3 => Just(SortOrder::None), 1 => Just(SortOrder::Ascend), 1 => Just(SortOrder::Descend)
    ];
    let target = prop_oneof![
        3 => Just(SortTarget::Key), 1 => Just(SortTarget::Version),
        1 => Just(SortTarget::Create), 1 => Just(SortTarget::Mod)
    ];
    let filter = || prop_oneof![4 => Just(0_i64), 1 => 1_i64..100];
    let end =
        prop_oneof![Just(Bytes::new()), Just(Bytes::from_static(&[0])), (0_u8..40).prop_map(name)];
    (
        0_u8..40,
        end,
        -1_i64..12,
        0_i64..110,
        order,
        target,
        any::<(bool, bool)>(),
        filter(),
        filter(),
    )
        .prop_map(
            |(key, range_end, limit, revision, sort_order, sort_target, only, min, max)| Range {
                key: name(key),
                range_end,
                limit,
                revision,
                sort_order,
                sort_target,
                keys_only: only.0,
                count_only: only.1 && key % 4 == 0,
                min_mod_revision: min,
                max_create_revision: max,
                ..Range::default()
            },
        )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec((0_u8..40, prop::bool::weighted(0.7)), 1..4).prop_map(Step::Txn),
        1 => any::<u8>().prop_map(Step::Compact),
        1 => (0_usize..20).prop_map(Step::Sweep),
        3 => range().prop_map(Step::Range),
        1 => (any::<u8>(), 1_usize..9).prop_map(|(from, max)| Step::Changes(from, max)),
    ]
}

/// A revision from the compact one on.
fn within(kv: &Kv, n: u8) -> Revision {
    let span = kv.revision().0 - kv.compact_revision().0.max(1) + 1;
    Revision(kv.compact_revision().0.max(1) + i64::from(n) % span)
}

fn write(kv: &mut Kv, model: &mut Model, changes: &[(u8, bool)]) {
    for (n, is_put) in changes {
        let key = name(*n);
        let event = if *is_put {
            let length = u32::try_from(model.changes.len()).expect("few changes");
            let value = ValueRef { segment: 1, offset: length, length, check: 0 };
            Some(kv.put(&key, LeaseId(i64::from(*n) % 3), value, Digest::ZERO))
        } else {
            kv.delete(&key)
        };
        let old = model.latest(&key, Revision(i64::MAX)).cloned();
        assert_eq!(event.is_some(), *is_put || old.is_some());
        if let Some(event) = event {
            assert_eq!(event.prev, old);
            model.changes.push((event.revision, event.sub, event.kv, event.kind));
        }
    }
    kv.end_revision();
}

/// What the changes from `from` on must be after compactions.
fn expected_changes(model: &Model, kv: &Kv, from: Revision) -> Vec<Event> {
    let compact = kv.compact_revision();
    let mut events = Vec::new();
    for (at, (revision, sub, change, kind)) in model.changes.iter().enumerate() {
        let prev = model.changes[..at].iter().rev().find(|other| other.2.key == change.key);
        let prev = prev.filter(|prev| prev.3 == ChangeKind::Put && *revision > compact);
        let superseded_within = model.changes[at + 1..]
            .iter()
            .any(|other| other.2.key == change.key && other.0 == *revision);
        let hidden = *kind == ChangeKind::Put && superseded_within && *revision <= compact;
        if *revision >= from && !hidden {
            events.push(Event {
                revision: *revision,
                sub: *sub,
                kind: *kind,
                kv: change.clone(),
                prev: prev.map(|prev| prev.2.clone()),
            });
        }
    }
    events
}

fn used(model: &Model, kv: &Kv) -> u64 {
    let mut used = 0;
    for kv in model.all(Span::From(b""), Revision(i64::MAX)) {
        used += KEY_CHARGE + kv.key.len() as u64 + u64::from(kv.value.length);
    }
    for event in expected_changes(model, kv, Revision(0)) {
        if let Some(prev) = event.prev {
            used += 128 + prev.key.len() as u64 + u64::from(prev.value.length);
        }
    }
    used
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn reads_at_any_revision_answer_as_if_nothing_were_ever_forgotten(
        steps in prop::collection::vec(step(), 1..200)
    ) {
        let mut kv = Kv::default();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Txn(changes) => write(&mut kv, &mut model, &changes),
                Step::Compact(n) => {
                    let revision = within(&kv, n);
                    let refused = revision <= kv.compact_revision();
                    prop_assert_eq!(kv.compact(revision).is_err(), refused);
                    prop_assert_eq!(
                        kv.compact(kv.revision().next()), Err(CompactError::Future)
                    );
                }
                Step::Sweep(max) => { kv.sweep(max); }
                Step::Range(mut range) => {
                    range.revision %= kv.revision().0 + 3;
                    let at = Revision(range.revision);
                    let found = kv.range(&range);
                    if at > kv.revision() {
                        prop_assert_eq!(found, Err(RangeError::Future));
                    } else if at.0 > 0 && at < kv.compact_revision() {
                        prop_assert_eq!(found, Err(RangeError::Compacted));
                    } else {
                        prop_assert_eq!(found, Ok(model.range(&range, kv.revision())));
                    }
                }
                Step::Changes(from, max) => {
                    let mut next = within(&kv, from);
                    let expected = expected_changes(&model, &kv, next);
                    let mut found = Vec::new();
                    while next <= kv.revision() {
                        let before = next;
                        let (events, after) =
                            kv.changes(next, kv.revision(), Span::From(b""), max);
                        prop_assert!(after > before);
                        found.extend(events);
                        next = after;
                    }
                    prop_assert_eq!(found, expected);
                }
            }
            prop_assert_eq!(kv.used_bytes(), used(&model, &kv));
        }
    }
}

#[test]
fn a_tombstone_exactly_at_the_compact_revision_survives_for_watchers() {
    let mut kv = Kv::default();
    let mut model = Model::default();
    write(&mut kv, &mut model, &[(1, true)]);
    write(&mut kv, &mut model, &[(1, false)]);
    let at = kv.revision();
    write(&mut kv, &mut model, &[(2, true)]);
    kv.compact(at).expect("a new compact revision");
    kv.sweep(100);
    let (events, next) = kv.changes(at, kv.revision(), Span::One(b"key01"), 10);
    assert_eq!(next, kv.revision().next());
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].kind, events[0].revision), (ChangeKind::Delete, at));
    assert_eq!(events[0].prev, None);
    kv.compact(kv.revision()).expect("a new compact revision");
    assert!(!kv.sweep(100));
    assert!(kv.deleted.is_empty());
}
