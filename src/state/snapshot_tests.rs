use bytes::Bytes;
use proptest::prelude::*;

use crate::chain::{Range, Value, ValueError, ValueRef, ValueSource};
use crate::codec::Decode;
use crate::state::testing::{MapValues, genesis};
use crate::state::{
    Cause, ContentHash, Event, KeptChunk, KeyValue, NewVersion, Record, RestoreError, Snapshotter,
    Span, State, moved_keys,
};
use crate::types::{LeaseId, Millis, Revision};

/// The state with its values, and those of a chunk file.
struct World {
    state: State,
    values: MapValues,
    file: Vec<u8>,
    ops: u32,
}

impl ValueSource for World {
    fn read(&self, at: ValueRef) -> Result<Value, ValueError> {
        if at.segment & 0x8000_0000 == 0 {
            return self.values.read(at);
        }
        let offset = at.offset as usize;
        let end = offset + 20 + at.length as usize;
        let bytes = self.file.get(offset..end).ok_or(ValueError::Erased(at))?;
        Value::from_bytes(Bytes::copy_from_slice(bytes)).map_err(|_| ValueError::Rotten(at))
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8, u16),
    /// A put that keeps the value, as `ignore_value` does.
    Again(u8),
    Delete(u8, u8),
    Grant(u8),
    Revoke(u8),
    Compact(u8),
    Sweep(usize),
    End,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_u8..60, 0_u8..6, 0_u16..400)
            .prop_map(|(key, lease, length)| Step::Put(key, lease, length)),
        2 => (0_u8..60).prop_map(Step::Again),
        3 => (0_u8..60, 0_u8..3).prop_map(|(from, count)| Step::Delete(from, count)),
        1 => (1_u8..6).prop_map(Step::Grant),
        1 => (1_u8..6).prop_map(Step::Revoke),
        1 => any::<u8>().prop_map(Step::Compact),
        1 => (0_usize..30).prop_map(Step::Sweep),
        6 => Just(Step::End),
    ]
}

fn name(n: u8) -> Bytes {
    Bytes::from(format!("/key/{n:03}"))
}

impl World {
    fn new() -> Self {
        let state = State::genesis(&genesis());
        Self { state, values: MapValues::default(), file: Vec::new(), ops: 0 }
    }

    fn run(&mut self, steps: &[Step], swept: bool) {
        let cause = Cause::expiry(LeaseId(0));
        let mut record = Record::default();
        for step in steps {
            self.ops += 1;
            match step {
                Step::Put(key, lease, length) => {
                    let bytes = Bytes::from(vec![*key; usize::from(*length)]);
                    let mut salt = [0; 16];
                    salt[..4].copy_from_slice(&self.ops.to_le_bytes());
                    let value = Value { salt, bytes };
                    let commitment = value.commitment();
                    let at = ValueRef {
                        segment: 1,
                        offset: self.ops,
                        length: u32::from(*length),
                        check: 0,
                    };
                    self.values.0.insert((1, self.ops), value);
                    let lease = LeaseId(i64::from(*lease));
                    let lease = self.state.leases.get(lease).map_or(LeaseId(0), |_| lease);
                    let new = NewVersion { lease, value: at, commitment };
                    self.state.put(&name(*key), new, &cause, &mut record);
                }
                Step::Again(key) => {
                    let Some(old) = self.state.kv.get(&name(*key)) else { continue };
                    let commitment = self.read(old.value).expect("it is kept").commitment();
                    let new = NewVersion { lease: LeaseId(0), value: old.value, commitment };
                    self.state.put(&name(*key), new, &cause, &mut record);
                }
                Step::Delete(from, count) => {
                    for key in *from..=from.saturating_add(*count) {
                        self.state.delete(&name(key), &cause, &mut record);
                    }
                }
                Step::Grant(id) => {
                    let _exists = self.state.grant(LeaseId(i64::from(*id)), 10);
                }
                Step::Revoke(id) => {
                    self.state.end_revision();
                    self.state.revoke(LeaseId(i64::from(*id)), &cause, &mut record);
                }
                Step::Compact(back) => {
                    self.state.end_revision();
                    let revision = self.state.kv.revision().0 - i64::from(*back) % 8;
                    let _refused = self.state.compact(Revision(revision));
                }
                Step::Sweep(max) if swept => {
                    self.state.kv.sweep(*max);
                }
                Step::Sweep(_) => {}
                Step::End => self.state.end_revision(),
            }
        }
        self.state.end_revision();
        self.state.refresh_root();
    }

    fn snapshot(&mut self) -> Vec<Bytes> {
        let mut snapshotter = Snapshotter::begin(&mut self.state);
        self.finish(&mut snapshotter)
    }

    fn finish(&self, snapshotter: &mut Snapshotter) -> Vec<Bytes> {
        let mut chunks = Vec::new();
        while let Some(chunk) = snapshotter.next_chunk(&self.state, self).expect("values are there")
        {
            chunks.push(chunk);
        }
        chunks
    }

    fn restored(chunks: &[Bytes]) -> Self {
        let mut file = Vec::new();
        let mut kept = Vec::new();
        for chunk in chunks {
            let base = u32::try_from(file.len()).expect("a small file");
            kept.push(KeptChunk { bytes: chunk.clone(), segment: 0x8000_0003, base });
            file.extend_from_slice(chunk);
        }
        let state = State::restore(&genesis(), kept).expect("a snapshot restores");
        Self { state, values: MapValues::default(), file, ops: 0 }
    }

    /// Lets the state refer to these chunks and forgets the log's values that were there at the cut.
    fn move_into(&mut self, chunks: &[Bytes], cut: u32) {
        self.file.clear();
        for bytes in chunks {
            let base = u32::try_from(self.file.len()).expect("a small file");
            let kept = KeptChunk { bytes: bytes.clone(), segment: 0x8000_0007, base };
            self.state.relocate(&moved_keys(&kept).expect("a snapshot's chunk"));
            self.file.extend_from_slice(bytes);
        }
        self.values.0.retain(|(_, offset), _| *offset > cut);
    }

    fn resolve(&self, kv: &KeyValue) -> (KeyValue, Value) {
        let value = self.read(kv.value).expect("visible values are kept");
        (KeyValue { value: ValueRef::default(), ..kv.clone() }, value)
    }

    /// Everything a client can ask.
    fn answers(&self) -> Vec<String> {
        let mut answers = Vec::new();
        let kv = &self.state.kv;
        for revision in kv.compact_revision().0.max(1)..=kv.revision().0 {
            let all =
                Range { key: "/".into(), range_end: "0".into(), revision, ..Range::default() };
            let result = kv.range(&all).expect("a visible revision");
            let kvs: Vec<_> = result.kvs.iter().map(|kv| self.resolve(kv)).collect();
            let content = self.content(Revision(revision));
            answers.push(format!("{revision} {} {content} {kvs:?}", result.count));
        }
        let from = kv.compact_revision();
        let (events, _) = kv.changes(from, kv.revision(), Span::From(b""), usize::MAX);
        for Event { revision, sub, kind, kv, prev } in events {
            let kv = if kv.version > 0 { self.resolve(&kv).0 } else { kv };
            let prev = prev.map(|prev| self.resolve(&prev));
            answers.push(format!("{revision} {sub} {kind:?} {kv:?} {prev:?}"));
        }
        for lease in self.state.leases.list() {
            answers.push(format!("{lease:?}"));
        }
        let (root, content) = (self.state.exec_root(), self.state.content());
        answers.push(format!("{} {root} {content}", kv.used_bytes()));
        answers
    }

    /// What HashKV answers with.
    fn content(&self, revision: Revision) -> u32 {
        let kv = &self.state.kv;
        let mut content = ContentHash::begin(kv, revision).expect("a visible revision");
        while let Some(page) = content.page(kv).expect("nobody compacts") {
            content.add(page, self).expect("visible values are kept");
        }
        content.finish()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_restored_snapshot_answers_and_hashes_as_the_state_did(
        before in prop::collection::vec(step(), 0..250),
        after in prop::collection::vec(step(), 0..60),
    ) {
        let mut world = World::new();
        world.run(&before, true);
        let answers = world.answers();
        let chunks = world.snapshot();
        let mut restored = World::restored(&chunks);
        prop_assert_eq!(&restored.answers(), &answers);
        prop_assert_eq!(&restored.snapshot(), &chunks, "a snapshot of it has the same bytes");

        let mut unswept = World::new();
        unswept.run(&before, false);
        prop_assert_eq!(&unswept.snapshot(), &chunks, "what is swept makes no difference");

        // Both go on alike, and a snapshot begun earlier does not notice.
        let mut late = Snapshotter::begin(&mut world.state);
        world.run(&after, true);
        restored.values = world.values.clone();
        restored.ops = world.ops - u32::try_from(after.len()).expect("few steps");
        restored.run(&after, true);
        prop_assert_eq!(restored.answers(), world.answers());
        prop_assert_eq!(world.finish(&mut late), chunks);
    }

    #[test]
    fn values_move_to_a_checkpoint_under_way_and_nobody_notices(
        before in prop::collection::vec(step(), 0..250),
        during in prop::collection::vec(step(), 0..60),
        after in prop::collection::vec(step(), 0..60),
    ) {
        let (mut moving, mut still) = (World::new(), World::new());
        for world in [&mut moving, &mut still] {
            world.run(&before, true);
        }
        let cut = moving.ops;
        let mut snapshotter = Snapshotter::begin(&mut moving.state);
        let first = snapshotter.next_chunk(&moving.state, &moving).expect("values are there");
        moving.run(&during, true);
        let mut chunks: Vec<Bytes> = first.into_iter().collect();
        chunks.extend(moving.finish(&mut snapshotter));
        drop(snapshotter);
        moving.move_into(&chunks, cut);
        moving.run(&after, false);
        still.run(&during, false);
        still.run(&after, true);
        prop_assert_eq!(moving.answers(), still.answers());
        let (one, other) = (moving.snapshot(), still.snapshot());
        prop_assert_eq!(&one, &other, "the same bytes whatever was moved or swept");
        let cut = moving.ops;
        moving.move_into(&one, cut);
        prop_assert!(moving.values.0.is_empty());
        prop_assert_eq!(moving.answers(), still.answers());
    }

    #[test]
    fn damaged_chunks_are_refused_or_change_the_root(
        steps in prop::collection::vec(step(), 20..80),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 60),
    ) {
        let mut world = World::new();
        world.run(&steps, true);
        let chunks = world.snapshot();
        for (at, bit) in flips {
            let mut bytes = chunks.concat();
            let place = at.index(bytes.len());
            bytes[place] ^= 1 << bit;
            let mut from = 0;
            let damaged: Vec<KeptChunk> = chunks.iter().map(|chunk| {
                let base = from;
                from += chunk.len();
                let bytes = Bytes::copy_from_slice(&bytes[base..from]);
                KeptChunk { bytes, segment: 0x8000_0000, base: u32::try_from(base).expect("small") }
            }).collect();
            if let Ok(state) = State::restore(&genesis(), damaged) {
                // The root covers the latest versions; older ones are covered by the chunks' hashes.
                let same = state.exec_root() == world.state.exec_root();
                let keys = state.kv.key_count() == world.state.kv.key_count();
                prop_assert!(!same || keys);
            }
        }
    }
}

/// Replicas of two releases compare these numbers: a change of them is a change of format.
#[test]
fn the_numbers_of_a_known_store_stay_and_depend_on_every_byte() {
    let steps = |length| {
        vec![
            Step::Grant(1),
            Step::Put(1, 1, length),
            Step::End,
            Step::Put(1, 0, 3),
            Step::Put(2, 0, 0),
            Step::End,
            Step::Delete(2, 0),
            Step::End,
        ]
    };
    let numbers = |steps: &[Step]| {
        let mut world = World::new();
        world.run(steps, true);
        let at = [1, 2, 3, 4].map(|revision| world.content(Revision(revision)));
        (at, world.state.content())
    };
    let known = numbers(&steps(5));
    assert_eq!(known, ([0, 2_738_152_671, 2_180_151_278, 2_119_751_111], 3_446_964_539));
    let (at, _) = numbers(&steps(6));
    assert_ne!(at[1], known.0[1], "one byte more of the value");
    assert_eq!([at[0], at[2], at[3]], [known.0[0], known.0[2], known.0[3]], "it was superseded");
    let mut compacted = World::new();
    compacted.run(&[&steps(5)[..], &[Step::Compact(1), Step::Sweep(99)]].concat(), true);
    let now = [3, 4].map(|revision| compacted.content(Revision(revision)));
    assert_eq!(now, [known.0[2], known.0[3]], "what is compacted makes no difference");
}

#[test]
fn a_large_state_makes_many_chunks_none_of_them_above_the_limit() {
    let mut world = World::new();
    let cause = Cause::expiry(LeaseId(0));
    for n in 0..3_000_u32 {
        let bytes = Bytes::from(vec![1; 1_000]);
        world.values.0.insert((1, n), Value { salt: [0; 16], bytes });
        let key = Bytes::from(format!("key{:05}", n * 7919 % 3_000));
        let at = ValueRef { segment: 1, offset: n, length: 1_000, check: 0 };
        let commitment = world.values.read(at).expect("just kept").commitment();
        let new = NewVersion { lease: LeaseId(0), value: at, commitment };
        world.state.put(&key, new, &cause, &mut Record::default());
        world.state.end_revision();
    }
    for id in 1..=50_000 {
        world.state.grant(LeaseId(id), 10).expect("a new lease");
    }
    world.state.refresh_root();
    let chunks = world.snapshot();
    assert_eq!(chunks.len(), 1 + 2 + 4);
    assert!(chunks.iter().all(|chunk| chunk.len() <= super::CHUNK_BYTES_MAX));
    let restored = World::restored(&chunks);
    assert_eq!(restored.state.exec_root(), world.state.exec_root());
    assert_eq!(restored.state.leases.clock(), Millis(0));
}

#[test]
fn a_key_written_often_goes_on_in_the_next_chunk() {
    let mut world = World::new();
    let mut steps = vec![Step::Put(1, 0, 10), Step::Put(9, 0, 10), Step::End];
    for round in 0..60 {
        steps.extend([Step::Put(5, 0, 60_000), Step::End]);
        if round % 7 == 3 {
            steps.extend([Step::Delete(5, 0), Step::End]);
        }
    }
    world.run(&steps, true);
    let (answers, cut) = (world.answers(), world.ops);
    let chunks = world.snapshot();
    assert!(chunks.len() >= 5, "{} chunks", chunks.len());
    assert!(chunks.iter().all(|chunk| chunk.len() <= super::CHUNK_BYTES_MAX));
    assert_eq!(World::restored(&chunks).answers(), answers);
    world.move_into(&chunks, cut);
    assert_eq!(world.answers(), answers);
    let mut swapped = chunks.clone();
    swapped.swap(2, 3);
    let kept = |bytes: &Bytes| KeptChunk { bytes: bytes.clone(), segment: 0x8000_0003, base: 0 };
    let refused = State::restore(&genesis(), swapped.iter().map(kept));
    assert!(matches!(refused, Err(RestoreError::Order)));
}

#[test]
fn chunks_of_another_network_or_out_of_order_are_refused() {
    let mut world = World::new();
    world.run(&[Step::Put(1, 0, 5), Step::Grant(1)], true);
    let kept: Vec<KeptChunk> = world
        .snapshot()
        .into_iter()
        .map(|bytes| KeptChunk { bytes, segment: 0x8000_0000, base: 0 })
        .collect();
    let mut other = genesis();
    other.salt = [8; 32];
    let refused = State::restore(&other, kept.clone()).expect_err("another network");
    assert_eq!(refused, RestoreError::Network(genesis().cluster_id()));
    assert!(State::restore(&genesis(), kept[1..].to_vec()).is_err());
    assert!(State::restore(&genesis(), kept[..2].to_vec()).is_err());
    let twice = [&kept[..], &kept[2..]].concat();
    assert_eq!(State::restore(&genesis(), twice).expect_err("twice"), RestoreError::Order);
}
