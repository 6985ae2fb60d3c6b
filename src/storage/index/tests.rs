//! The index is a fold of the log, on a real sled in a temporary directory.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::chain::{Change, ChangeKind, Record, SYSTEM_ORDINAL};
use crate::storage::disk::{Disk, memory::MemoryDisk};
use crate::storage::log::{LogSettings, ReplayMark, recover};
use crate::storage::testing::{NETWORK, block_on, commit};
use crate::types::{Digest, LeaseId, ReplicaId};

const KEYS: [&[u8]; 5] = [b"a", b"a\0", b"a\0\xff", b"a\xff", b"bb"];

struct World {
    /// Where each block's effects went.
    blocks: Vec<(u32, Arc<Block>, Effects)>,
    log: BlockReader,
    last_sealed: u32,
}

/// A log of blocks whose puts go to the keys chosen; each block also lets a lease expire on one key.
fn world(choices: &[Vec<usize>]) -> World {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    let settings = LogSettings {
        first_segment_bytes: 4096,
        segment_bytes: 8192,
        ..LogSettings::new(NETWORK, ReplicaId(0), [0; 16])
    };
    let recovered = recover(&*disk, &settings, ReplayMark::start(), &mut |_, _, _| ());
    let mut appender = recovered.expect("a new log").appender;
    let mut blocks: Vec<(u32, Arc<Block>, Effects)> = Vec::new();
    let mut revision = Revision(1);
    for keys in choices {
        let puts: Vec<(&[u8], &[u8])> =
            keys.iter().map(|at| (KEYS[*at], &b"kubelet"[..])).collect();
        let block = block_on(blocks.last().map(|(_, block, _)| &**block), 0, &puts);
        let abandoned =
            block_on(blocks.last().map(|(_, block, _)| &**block), 1, &[(b"bb", b"liar")]);
        let mut changes = Vec::new();
        for ((key, _), ordinal) in puts.iter().zip(0_u32..) {
            revision = revision.next();
            changes.push(change(key, revision, ordinal, 0));
        }
        revision = revision.next();
        changes.push(change(KEYS[keys[0]], revision, SYSTEM_ORDINAL, 77));
        let (height, exec_root) = (block.header.height, Digest::ZERO);
        let effects = Effects { height, exec_root, changes };
        let mut segment = 0;
        for record in [
            Record::Block(abandoned),
            Record::Block(block.clone()),
            commit(&block),
            Record::Effects(effects.clone()),
        ] {
            segment = appender.append(appender.last().next(), &record).segment;
        }
        blocks.push((segment, block, effects));
        appender.take_batch().expect("full").write(&*disk).expect("memory does not fail");
    }
    let log = BlockReader::new(disk, settings, appender.end());
    World { blocks, log, last_sealed: appender.segment() - 1 }
}

fn change(key: &[u8], revision: Revision, ordinal: u32, lease: i64) -> Change {
    Change {
        ordinal,
        revision,
        kind: if lease == 0 { ChangeKind::Put } else { ChangeKind::Delete },
        key: Bytes::copy_from_slice(key),
        commitment: Digest::ZERO,
        lease: LeaseId(lease),
    }
}

/// Tells the index of all blocks, and seals what is sealed.
fn fill(index: &mut Index, world: &mut World) {
    for (segment, block, effects) in &world.blocks {
        index.note(*segment, block, effects);
    }
    for segment in index.indexed().last_segment + 1..=world.last_sealed {
        index.index_segment(&mut world.log, segment).expect("a whole log");
    }
}

/// Newest first, from the effects alone.
fn model(world: &World, key: &[u8]) -> Vec<(Revision, Height, u32, WrittenBy)> {
    let mut all = Vec::new();
    for (_, block, effects) in &world.blocks {
        for change in effects.changes.iter().filter(|change| change.key == key) {
            let by = match change.ordinal {
                SYSTEM_ORDINAL => WrittenBy::LeaseExpiry { lease: LeaseId(77) },
                _ => WrittenBy::Client {
                    origin: ReplicaId(1),
                    client_name: Bytes::from_static(b"kubelet"),
                    user: Bytes::new(),
                },
            };
            all.push((change.revision, block.header.height, change.ordinal, by));
        }
    }
    all.reverse();
    all
}

fn check(index: &Index, world: &World) {
    for key in KEYS {
        let found = index.history(key, usize::MAX).expect("whole");
        assert!(found.iter().all(|one| one.key == key));
        let found: Vec<_> =
            found.into_iter().map(|one| (one.revision, one.height, one.ordinal, one.by)).collect();
        let wanted = model(world, key);
        assert_eq!(found, wanted);
        let newest = index.blame(key, None).expect("whole").map(|one| one.revision);
        assert_eq!(newest, wanted.first().map(|(revision, ..)| *revision));
        if let Some((older, ..)) = wanted.get(wanted.len() / 2) {
            let found = index.blame(key, Some(*older)).expect("whole").map(|one| one.revision);
            assert_eq!(found, Some(*older));
        }
    }
    assert_eq!(index.history(b"never", 3).expect("whole"), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    #[test]
    fn the_index_is_a_fold_of_the_log(
        choices in prop::collection::vec(prop::collection::vec(0_usize..5, 1..20), 1..30),
    ) {
        let home = tempfile::tempdir().expect("a temporary directory");
        let mut world = world(&choices);
        let mut index = Index::open(home.path(), NETWORK, world.last_sealed).expect("new");
        fill(&mut index, &mut world);
        check(&index, &world);
        drop(index);
        let mut index = Index::open(home.path(), NETWORK, world.last_sealed).expect("whole");
        prop_assert_eq!(index.indexed().last_segment, world.last_sealed);
        fill(&mut index, &mut world);
        check(&index, &world);
        let mut index = index.rebuild().expect("empty");
        prop_assert_eq!(index.indexed(), Indexed::default());
        fill(&mut index, &mut world);
        check(&index, &world);
    }
}

fn many() -> World {
    world(&(0..60).map(|n| (0..12).map(|m| (n * m) % 5).collect()).collect::<Vec<_>>())
}

#[test]
fn a_key_with_more_changes_than_a_page_holds_is_found_whole() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    let settings = LogSettings {
        first_segment_bytes: 1 << 20,
        ..LogSettings::new(NETWORK, ReplicaId(0), [0; 16])
    };
    let recovered = recover(&*disk, &settings, ReplayMark::start(), &mut |_, _, _| ());
    let mut appender = recovered.expect("a new log").appender;
    let block = block_on(None, 0, &[(b"hot", b"client")]);
    let changes =
        |key: &[u8], count| (0..count).map(|n| change(key, Revision(n), 0, 0)).collect::<Vec<_>>();
    let changes = [changes(b"a", 10), changes(b"hot", 5000), changes(b"z", 10)].concat();
    let effects = Effects { height: Height(1), exec_root: Digest::ZERO, changes };
    for record in [Record::Block(block.clone()), commit(&block), Record::Effects(effects)] {
        appender.append(appender.last().next(), &record);
    }
    appender.take_batch().expect("full").write(&*disk).expect("memory does not fail");
    let mut log = BlockReader::new(disk, settings, appender.end());
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut index = Index::open(home.path(), NETWORK, 1).expect("new");
    index.index_segment(&mut log, 1).expect("a whole log");
    for (key, count) in [(&b"a"[..], 10), (b"hot", 5000), (b"z", 10)] {
        assert_eq!(index.history(key, usize::MAX).expect("whole").len(), count);
    }
    assert_eq!(index.history(b"hot", 3).expect("whole")[2].revision, Revision(4997));
}

#[test]
fn a_damaged_foreign_or_longer_index_is_begun_anew() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut world = many();
    let mut index = Index::open(home.path(), NETWORK, world.last_sealed).expect("new");
    fill(&mut index, &mut world);
    let page = index.db.range(b"p".to_vec()..).next().expect("pages").expect("whole");
    let mut bytes = page.1.to_vec();
    bytes[40] ^= 1;
    index.db.insert(&page.0, bytes).expect("written");
    let damaged = KEYS.iter().filter_map(|key| index.history(key, usize::MAX).err());
    assert!(damaged.into_iter().any(|error| error.is_damage()));
    let mut index = index.rebuild().expect("empty");
    fill(&mut index, &mut world);
    check(&index, &world);
    drop(index);

    let shorter = Index::open(home.path(), NETWORK, world.last_sealed - 1).expect("anew");
    assert_eq!(shorter.indexed(), Indexed::default());
    drop(shorter);
    let mut index = Index::open(home.path(), NETWORK, world.last_sealed).expect("new");
    fill(&mut index, &mut world);
    drop(index);
    let foreign = Index::open(home.path(), Digest([8; 32]), world.last_sealed).expect("anew");
    assert_eq!(foreign.indexed(), Indexed::default());
    drop(foreign);

    for entry in std::fs::read_dir(home.path().join(INDEX_DIRECTORY)).expect("there") {
        let path = entry.expect("listed").path();
        if path.is_file() {
            std::fs::write(path, b"garbage of no particular form").expect("written");
        }
    }
    let mut index = Index::open(home.path(), NETWORK, world.last_sealed).expect("anew");
    fill(&mut index, &mut world);
    check(&index, &world);
}
