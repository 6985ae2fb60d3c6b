use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::storage::disk::memory::MemoryDisk;
use crate::storage::disk::{Disk, Open};

type Buckets = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

fn fill<E>(mut writer: DatabaseWriter<'_, E>, buckets: &Buckets) -> Result<Layout, E> {
    for (name, entries) in buckets {
        for (key, value) in entries {
            writer.put(key, value)?;
        }
        writer.end_bucket(name)?;
    }
    writer.finish()
}

fn written(buckets: &Buckets) -> Vec<u8> {
    let mut measure = DatabaseWriter::<()>::measure();
    for (name, entries) in buckets {
        for (key, value) in entries {
            measure.put_length(key, value.len()).expect("nothing fails");
        }
        measure.end_bucket(name).expect("nothing fails");
    }
    let layout = measure.finish().expect("nothing fails");
    let mut file = Vec::new();
    let mut sink = |page: &[u8]| -> Result<(), ()> {
        file.extend_from_slice(page);
        Ok(())
    };
    let writer = DatabaseWriter::begin(layout, &mut sink).expect("nothing fails");
    assert_eq!(fill(writer, buckets), Ok(layout), "both passes find the same places");
    assert_eq!(file.len() as u64, layout.bytes());
    file
}

fn open(bytes: Vec<u8>) -> Result<Database, DatabaseError> {
    let disk = MemoryDisk::default();
    disk.put("file", bytes);
    Database::open(disk.open("file", Open::Read).expect("it is there"))
}

fn read(database: &Database) -> Result<Buckets, DatabaseError> {
    let mut buckets = Buckets::new();
    for name in database.buckets() {
        let mut entries = BTreeMap::new();
        let mut cursor = database.cursor(name);
        while let Some((key, value)) = cursor.next_entry()? {
            entries.insert(key.to_vec(), value.to_vec());
        }
        buckets.insert(name.to_vec(), entries);
    }
    Ok(buckets)
}

fn entries() -> impl Strategy<Value = BTreeMap<Vec<u8>, Vec<u8>>> {
    let key = prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 1..20),
        1 => proptest::collection::vec(any::<u8>(), 1..1500),
    ];
    let length = prop_oneof![8 => 0..200_usize, 1 => 3900..4200_usize, 1 => 0..40_000_usize];
    let value = (length, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]);
    proptest::collection::btree_map(key, value, 0..400)
}

fn buckets() -> impl Strategy<Value = Buckets> {
    let name = proptest::collection::vec(any::<u8>(), 1..12);
    proptest::collection::btree_map(name, entries(), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_written_is_read_in_order_and_by_key(buckets in buckets()) {
        let database = open(written(&buckets)).expect("it was just written");
        prop_assert_eq!(read(&database), Ok(buckets.clone()));
        for (name, entries) in &buckets {
            for (key, value) in entries.iter().step_by(7) {
                let found = database.get(name, key).expect("it is whole");
                prop_assert_eq!(found.as_deref(), Some(&value[..]));
                let absent = [&key[..], b"\0absent"].concat();
                if !entries.contains_key(&absent) {
                    prop_assert_eq!(database.get(name, &absent).expect("it is whole"), None);
                }
            }
        }
    }

    /// Whatever is changed, reading ends, and ends in entries or in an error.
    #[test]
    fn changed_bytes_never_panic_and_never_hang(
        buckets in buckets(),
        changes in proptest::collection::vec(
            (any::<prop::sample::Index>(), 0..256_usize, any::<u8>()),
            1..40,
        ),
        numbers in proptest::collection::vec((any::<prop::sample::Index>(), 0..40_u64), 0..10),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = written(&buckets);
        let pages = bytes.len() / PAGE_BYTES;
        for (page, at, byte) in changes {
            // Headers and elements, where numbers are; the metas stay, or nothing else is looked at.
            let page = 2 + page.index(pages - 2);
            bytes[page * PAGE_BYTES + at] ^= byte;
        }
        for (page, number) in numbers {
            // The first child of a page becomes another page: circles.
            let at = page.index(pages) * PAGE_BYTES + HEADER_BYTES + 8;
            if at > 2 * PAGE_BYTES {
                bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(database) = open(bytes) {
            let names: Vec<Vec<u8>> = database.buckets().map(<[u8]>::to_vec).collect();
            drop(read(&database));
            for (name, key) in names.iter().flat_map(|name| [(name, &b"k"[..]), (name, b"")]) {
                drop(database.get(name, key));
            }
        }
    }

    #[test]
    fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..9000)) {
        drop(open(bytes).map(|database| read(&database)));
    }
}

#[test]
fn a_file_that_is_cut_off_or_whose_meta_is_damaged_says_so() {
    let entries = (0..500_u32).map(|n| (n.to_be_bytes().to_vec(), vec![7; 100])).collect();
    let buckets: Buckets = [(b"key".to_vec(), entries), (b"meta".to_vec(), BTreeMap::new())].into();
    let bytes = written(&buckets);
    let cut = open(bytes[..bytes.len() - PAGE_BYTES].to_vec()).err();
    assert!(matches!(cut, Some(DatabaseError::CutOff { .. })), "{cut:?}");
    let mut one = bytes.clone();
    one[HEADER_BYTES] ^= 1;
    assert_eq!(read(&open(one.clone()).expect("the other meta is whole")), Ok(buckets));
    one[PAGE_BYTES + HEADER_BYTES] ^= 1;
    assert_eq!(open(one).err(), Some(DatabaseError::NoDatabase));
    assert_eq!(open(Vec::new()).err(), Some(DatabaseError::NoDatabase));
    let digest = [bytes, vec![3; 32]].concat();
    assert_eq!(open(digest).expect("a snapshot").digest(), Some(&[3; 32]));
}
