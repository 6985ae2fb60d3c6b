//! Recovery against every damage a small log can have.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::chain::{Block, BlockHeader, BlockParts, EpochProof, Record};
use crate::storage::disk::{Disk, memory::MemoryDisk};
use crate::storage::testing::{block_on, chain_of, commit};
use crate::types::{Digest, Epoch, Height, View};

type Shown = Vec<(LogPosition, Placed, Record)>;

fn settings() -> LogSettings {
    LogSettings {
        first_segment_bytes: 2048,
        segment_bytes: 4096,
        ..LogSettings::new(Digest([7; 32]), ReplicaId(2), [9; 16])
    }
}

fn open(disk: &MemoryDisk) -> Result<(Recovered, Shown), LogError> {
    open_from(disk, ReplayMark::start())
}

fn open_from(disk: &MemoryDisk, mark: ReplayMark) -> Result<(Recovered, Shown), LogError> {
    let mut shown = Vec::new();
    let recovered = recover(disk, &settings(), mark, &mut |position, placed, record| {
        shown.push((position, placed, record));
    })?;
    Ok((recovered, shown))
}

fn session(counter: u64) -> Record {
    Record::Session { counter }
}

fn fenced(bytes: usize) -> Record {
    Record::Fenced { reason: Bytes::from(vec![b'x'; bytes]) }
}

/// Appends `batches` and writes all but what `write` refuses.
fn append(appender: &mut Appender, disk: &MemoryDisk, batches: &[Vec<Record>]) -> Shown {
    let mut written = Vec::new();
    for batch in batches {
        for record in batch {
            let position = appender.last().next();
            written.push((position, appender.append(position, record), record.clone()));
        }
        let batch = appender.take_batch().expect("not empty");
        assert_eq!((batch.last, batch.end), (appender.last(), appender.end()));
        batch.write(disk).expect("memory does not fail");
        appender.durable(batch.last);
    }
    written
}

fn log_of(batches: &[Vec<Record>]) -> (MemoryDisk, Shown) {
    let disk = MemoryDisk::default();
    let (mut recovered, shown) = open(&disk).expect("a new log");
    assert!(shown.is_empty());
    let written = append(&mut recovered.appender, &disk, batches);
    (disk, written)
}

fn small_log() -> (MemoryDisk, Shown) {
    let one = vec![session(1), fenced(300), session(2)];
    let two = vec![session(3)];
    // Crosses into the second segment.
    let three = vec![fenced(700), session(4), fenced(900)];
    let four = vec![session(5), fenced(40)];
    let (disk, written) = log_of(&[one, two, three, four]);
    assert_eq!(segments(&disk).expect("listed"), [1, 2]);
    (disk, written)
}

/// Records of the last batch of `small_log`.
const LAST_BATCH: usize = 2;

#[test]
fn what_was_written_comes_back_and_goes_on() {
    let (disk, written) = small_log();
    let (mut recovered, shown) = open(&disk).expect("whole");
    assert_eq!(shown, written);
    assert_eq!(recovered.cut_bytes, 0);
    let more = append(&mut recovered.appender, &disk, &[vec![session(9)], vec![fenced(3000)]]);
    let (_, shown) = open(&disk).expect("whole");
    assert_eq!(shown, [written, more].concat());
}

#[test]
fn a_record_larger_than_a_segment_gets_one_of_its_own() {
    let effects = Record::ViewChangeSent {
        epoch: Epoch(0),
        view: View(1),
        message: Bytes::from(vec![1; 10_000]),
    };
    let (disk, written) = log_of(&[vec![session(1), effects, session(2)], vec![session(3)]]);
    assert_eq!(segments(&disk).expect("listed"), [1, 2, 3]);
    assert_eq!(open(&disk).expect("whole").1, written);
}

#[test]
fn every_flipped_byte_is_refused_or_cuts_the_last_batch_alone() {
    let (disk, written) = small_log();
    let safe = &written[..written.len() - LAST_BATCH];
    for path in disk.paths() {
        let bytes = disk.read(&path);
        for at in 0..bytes.len() {
            let damaged = disk.copy();
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x41;
            damaged.put(&path, flipped);
            match open(&damaged) {
                Ok((recovered, shown)) => {
                    assert!(written.starts_with(&shown), "{path} byte {at}: other records");
                    assert!(shown.starts_with(safe), "{path} byte {at}: promised records are gone");
                    let again = open(&damaged).expect("a cut log is whole");
                    assert_eq!((again.1, again.0.cut_bytes), (shown, 0), "{path} byte {at}");
                    assert_eq!(recovered.log_end, again.0.log_end);
                }
                Err(error) => {
                    let message = error.to_string();
                    assert!(message.contains("segment"), "{message}");
                    assert_eq!(damaged.read(&path)[at], bytes[at] ^ 0x41, "nothing is changed");
                }
            }
        }
    }
}

#[test]
fn a_last_batch_torn_anywhere_is_cut_and_nothing_before_it() {
    let (disk, written) = small_log();
    let safe = written.len() - LAST_BATCH;
    let (_, last_safe, _) = &written[safe];
    let path = segment_path(last_safe.segment);
    let bytes = disk.read(&path);
    let start = (last_safe.offset - FRAME_HEAD_BYTES) as usize;
    for at in start..bytes.len() {
        let torn = disk.copy();
        let mut kept = bytes[..at].to_vec();
        kept.resize(bytes.len(), 0);
        torn.put(&path, kept);
        let (_, shown) = open(&torn).expect("a torn tail is cut");
        assert!(shown.len() >= safe && written.starts_with(&shown), "torn at {at}");
        assert_eq!(open(&torn).expect("whole").1, shown);
    }
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let (disk, _) = small_log();
    for path in disk.paths() {
        let bytes = disk.read(&path);
        // Without its header the last segment is as if it had never been made; whether it was is
        // the other replicas' to say.
        for length in SEGMENT_HEADER_BYTES as usize..bytes.len() {
            let short = disk.copy();
            short.put(&path, bytes[..length].to_vec());
            let error = open(&short).expect_err("it was longer");
            assert!(error.is_damage() && error.to_string().contains("shorter"), "{error}");
        }
    }
}

#[test]
fn a_batch_whose_later_record_alone_reached_the_disk_is_cut() {
    let (disk, written) = small_log();
    let (_, first_of_last, _) = written[written.len() - LAST_BATCH];
    let path = segment_path(first_of_last.segment);
    let mut bytes = disk.read(&path);
    bytes[first_of_last.offset as usize] ^= 1;
    disk.put(&path, bytes);
    let (recovered, shown) = open(&disk).expect("no sync had returned");
    assert_eq!(shown[..], written[..written.len() - LAST_BATCH]);
    assert!(recovered.cut_bytes > 0);
}

#[test]
fn a_lost_write_in_front_of_a_later_batch_is_refused() {
    let (disk, written) = small_log();
    // The second batch is one record; it reads as zeros, as if the disk had never written it.
    let (position, placed, _) = &written[3];
    let path = segment_path(placed.segment);
    let mut bytes = disk.read(&path);
    let from = (placed.offset - FRAME_HEAD_BYTES) as usize;
    bytes[from..from + 112].fill(0);
    disk.put(&path, bytes);
    let error = open(&disk).expect_err("a promise is lost");
    let offset = from as u64;
    assert!(matches!(error, LogError::Rot { segment: 1, offset: at, position: lost, .. }
        if at == offset && lost == *position));
    assert!(error.is_damage() && error.to_string().contains("althing replica repair"));
}

#[test]
fn a_misdirected_write_is_refused() {
    let (disk, written) = small_log();
    let (_, first, _) = &written[0];
    let (_, third, _) = &written[2];
    let path = segment_path(1);
    let mut bytes = disk.read(&path);
    let head = |placed: &Placed| (placed.offset - FRAME_HEAD_BYTES) as usize;
    let copy = bytes[head(first)..head(first) + 112].to_vec();
    bytes[head(third)..head(third) + 112].copy_from_slice(&copy);
    disk.put(&path, bytes);
    assert!(matches!(open(&disk).err(), Some(LogError::Rot { segment: 1, .. })));
}

#[test]
fn missing_swapped_and_foreign_segments_are_refused() {
    let (disk, _) = small_log();
    let (one, two) = (disk.read(&segment_path(1)), disk.read(&segment_path(2)));
    let without_first = disk.copy();
    without_first.remove(&segment_path(1)).expect("removed");
    assert_eq!(open(&without_first).err(), Some(LogError::Missing { segment: 1 }));

    let swapped = disk.copy();
    swapped.put(&segment_path(1), two);
    swapped.put(&segment_path(2), one);
    assert!(matches!(open(&swapped).err(), Some(LogError::Rot { segment: 1, .. })));

    let other = LogSettings { cluster_id: Digest([8; 32]), ..settings() };
    let error = recover(&disk, &other, ReplayMark::start(), &mut |_, _, _| ()).err();
    assert!(matches!(error, Some(LogError::OtherNetwork { segment: 1, .. })), "{error:?}");
    let other = LogSettings { replica: ReplicaId(3), ..settings() };
    let error = recover(&disk, &other, ReplayMark::start(), &mut |_, _, _| ()).err();
    assert!(matches!(error, Some(LogError::OtherReplica { segment: 1, .. })), "{error:?}");

    let newer = disk.copy();
    let mut bytes = disk.read(&segment_path(1));
    bytes[8] = 2;
    newer.put(&segment_path(1), bytes);
    assert_eq!(open(&newer).err(), Some(LogError::Version { segment: 1, found: 2 }));
}

#[test]
fn a_preparation_cut_short_anywhere_is_taken_up_again() {
    let (disk, written) = small_log();
    let (recovered, _) = open(&disk).expect("whole");
    let preparation = recovered.appender.preparation();
    while !preparation.step(&disk, 1000).expect("memory does not fail") {
        assert_eq!(open(&disk).expect("whole").1, written);
    }
    let path = segment_path(preparation.segment());
    let bytes = disk.read(&path);
    for at in 0..SEGMENT_HEADER_BYTES as usize {
        let mut cut = bytes.clone();
        cut[at..].fill(0);
        disk.put(&path, cut);
        let whole = written_segments(&disk, &settings()).expect("a log");
        assert!(whole.last().is_some_and(|last| *last < preparation.segment()), "at {at}");
        let (mut recovered, shown) = open(&disk).expect("whole");
        assert_eq!(shown, written);
        let copy = disk.copy();
        let more = append(&mut recovered.appender, &copy, &[vec![fenced(3000)]]);
        assert_eq!(open(&copy).expect("whole").1, [written.clone(), more].concat());
    }
}

#[test]
fn a_record_posing_inside_a_value_is_not_found_behind_a_torn_tail() {
    let (disk, _) = small_log();
    let (mut recovered, _) = open(&disk).expect("whole");
    // The next record's payload holds a whole frame of another log with the same shape.
    let foreign = MemoryDisk::default();
    let other = LogSettings { salt: [1; 16], ..settings() };
    let mut fake = recover(&foreign, &other, ReplayMark::start(), &mut |_, _, _| ())
        .expect("a new log")
        .appender;
    append(&mut fake, &foreign, &[vec![session(1)], vec![session(2)]]);
    let bait = Record::Fenced { reason: Bytes::from(foreign.read(&segment_path(1))) };
    let written = append(&mut recovered.appender, &disk, &[vec![bait]]);
    let placed = written[0].1;
    let path = segment_path(placed.segment);
    let mut bytes = disk.read(&path);
    bytes[placed.offset as usize] ^= 1;
    disk.put(&path, bytes);
    assert!(open(&disk).expect("a torn tail").0.cut_bytes > 0);
}

#[test]
fn a_replay_from_a_mark_sees_what_lies_above_and_carries_the_rest() {
    let disk = MemoryDisk::default();
    let (mut recovered, _) = open(&disk).expect("a new log");
    let chain = chain_of(12);
    let mut batches = vec![vec![session(41)]];
    batches.extend(chain.iter().map(|block| vec![Record::Block(block.clone()), commit(block)]));
    let written = append(&mut recovered.appender, &disk, &batches);
    let mark = recovered.appender.replay_mark(Height(8));
    assert!(mark.segment > 1);
    let unsynced = |appender: &mut Appender| {
        // A segment that is planned and not there yet is no place to begin.
        let before = (appender.replay_mark(Height(99)), appender.end().segment);
        appender.rotate();
        let position = appender.last().next();
        appender.append(position, &session(42));
        assert!(appender.end().segment > before.1);
        assert_eq!(appender.replay_mark(Height(99)), before.0);
    };
    unsynced(&mut open(&disk).expect("whole").0.appender);
    let restarted = open(&disk).expect("whole").0;
    assert_eq!(restarted.appender.replay_mark(Height(8)), mark);
    let (_, shown) = open_from(&disk, mark.clone()).expect("whole");
    assert!(written.ends_with(&shown) && shown[0].0 == mark.first_position);
    let above = |records: &Shown| {
        let blocks = records.iter().filter_map(|(_, _, record)| match record {
            Record::Block(block) if block.header.height > Height(8) => Some(block.hash()),
            _ => None,
        });
        blocks.collect::<Vec<_>>()
    };
    assert_eq!(above(&shown), above(&written));
    let carried: Vec<Record> = mark.carried.records().into_iter().map(|(_, one)| one).collect();
    assert_eq!(carried[0], session(41));
    let again = <Carried as crate::codec::Decode>::from_bytes(crate::codec::Encode::to_bytes(
        &mark.carried,
    ));
    assert_eq!(again, Ok(mark.carried));
}

#[test]
fn the_ends_of_epochs_are_carried_in_their_order_however_often_they_are_written() {
    let end_of = |epoch: u64| {
        let block = chain_of(1).remove(0);
        let header = BlockHeader { epoch: Epoch(epoch), ..block.header.clone() };
        let block = Arc::new(BlockParts::new(block.entries.clone()).into_block(header));
        let Record::Committed(certificate) = commit(&block) else { unreachable!("a commit") };
        Record::EpochStart(EpochProof { block, certificate })
    };
    let mut carried = Carried::default();
    // Who joins is shown all, and gets to the first two itself.
    for (position, epoch) in (1..).zip([0, 1, 2, 3, 0, 1]) {
        carried.note(LogPosition(position), &end_of(epoch));
    }
    let records = carried.records().into_iter();
    let epochs: Vec<u64> = records
        .map(|(_, record)| match record {
            Record::EpochStart(proof) => proof.block.header.epoch.0,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(epochs, [0, 1, 2, 3]);
}

#[test]
fn committed_blocks_are_found_by_height_among_abandoned_ones() {
    let chain = chain_of(20);
    let abandoned: Vec<Arc<Block>> =
        (1..20).map(|at| block_on(Some(&chain[at - 1]), 1, &[(b"key", b"client")])).collect();
    let disk = Arc::new(MemoryDisk::default());
    let (mut recovered, _) = open(&disk).expect("a new log");
    let mut reader = BlockReader::new(Arc::clone(&disk) as _, settings(), recovered.appender.end());
    assert_eq!(reader.read_blocks(Height(1), Height(5), 1 << 20), Ok(None));
    let certified = |height: usize| height.is_multiple_of(3);
    for (at, block) in chain.iter().enumerate() {
        let mut batch = vec![Record::Block(block.clone())];
        if at >= 1 {
            batch.insert(0, Record::Block(abandoned[at - 1].clone()));
        }
        if certified(at + 1) {
            batch.push(commit(block));
        }
        append(&mut recovered.appender, &disk, &[batch]);
        reader.advance(recovered.appender.end());
    }
    for height in 1..=18_usize {
        let found = reader.block(Height(height as u64)).expect("read").expect("held");
        assert_eq!(found.block, chain[height - 1]);
        assert_eq!(found.certificate.height.0 as usize, height.next_multiple_of(3));
        assert_eq!(found.headers.len(), height.next_multiple_of(3) - height);
    }
    assert_eq!(reader.block(Height(19)), Ok(None), "no certificate proves it yet");

    let page = reader.read_blocks(Height(2), Height(18), 1 << 20).expect("read").expect("held");
    assert_eq!(page.blocks, chain[1..18]);
    assert_eq!(page.certificate.block_hash, chain[17].hash());
    let two = chain[0].encoded().len() * 5 / 2;
    let page = reader.read_blocks(Height(2), Height(18), two).expect("read").expect("held");
    assert_eq!(page.blocks, chain[1..3], "a page ends at a certificate");
    let page = reader.read_blocks(Height(4), Height(4), 1).expect("read").expect("held");
    assert_eq!(page.blocks, chain[3..4], "one block at least");
    let page = reader.read_blocks(Height(4), Height(18), two).expect("read").expect("held");
    assert_eq!(page.blocks, chain[4..6], "the highest of what a certificate proves");
    assert_eq!(page.certificate.block_hash, chain[5].hash());
    let page = reader.read_blocks(Height(4), Height(5), two).expect("read").expect("held");
    assert_eq!(page.blocks, chain[3..5], "what those stand on");
}

#[test]
fn a_certificate_in_a_segment_without_blocks_is_found() {
    let chain = chain_of(2);
    for sealed in [false, true] {
        let disk = Arc::new(MemoryDisk::default());
        let (mut recovered, _) = open(&disk).expect("a new log");
        let end = recovered.appender.end();
        let mut reader = BlockReader::new(Arc::clone(&disk) as _, settings(), end);
        // A checkpoint of the block before turned the segment over between the two.
        append(&mut recovered.appender, &disk, &[vec![Record::Block(chain[0].clone())]]);
        recovered.appender.rotate();
        append(&mut recovered.appender, &disk, &[vec![commit(&chain[0])]]);
        if sealed {
            recovered.appender.rotate();
            let next = vec![Record::Block(chain[1].clone()), commit(&chain[1])];
            append(&mut recovered.appender, &disk, &[next]);
        }
        reader.advance(recovered.appender.end());
        let page = reader.read_blocks(Height(1), Height(1), 1 << 20).expect("read").expect("held");
        assert_eq!(page.blocks, chain[..1]);
        assert_eq!(page.certificate.block_hash, chain[0].hash(), "its own, not a later one's");
        assert_eq!(reader.first_height(), Ok(Some(Height(1))));
    }
}

/// Bytes a disk writes as one.
const SECTOR: usize = 512;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whatever_sectors_of_the_last_batch_arrive_all_before_it_stays(
        earlier in prop::collection::vec(0_usize..900, 1..6),
        last in prop::collection::vec(0_usize..1500, 1..6),
        arrive in prop::collection::vec(any::<bool>(), 40),
    ) {
        let records = |sizes: &[usize]| sizes.iter().map(|bytes| fenced(*bytes)).collect();
        let (disk, safe) = log_of(&[records(&earlier)]);
        let before = disk.copy();
        let (mut recovered, _) = open(&disk).expect("whole");
        let more = append(&mut recovered.appender, &disk, &[records(&last)]);
        let mut arrive = arrive.into_iter().cycle();
        for path in disk.paths() {
            let mut after = disk.read(&path);
            let old = if before.paths().contains(&path) {
                before.read(&path)
            } else {
                // A segment is made, header and all, before a record goes there.
                let mut made = vec![0; after.len()];
                made[..SEGMENT_HEADER_BYTES as usize]
                    .copy_from_slice(&after[..SEGMENT_HEADER_BYTES as usize]);
                made
            };
            for (new, old) in after.chunks_mut(SECTOR).zip(old.chunks(SECTOR)) {
                if !arrive.next().unwrap_or(true) {
                    new.copy_from_slice(old);
                }
            }
            disk.put(&path, after);
        }
        let (_, shown) = open(&disk).expect("nothing promised is lost");
        prop_assert!(shown.starts_with(&safe));
        prop_assert!([safe, more].concat().starts_with(&shown));
        prop_assert_eq!(open(&disk).expect("whole").1, shown);
    }

    #[test]
    fn any_log_comes_back_whatever_the_batches(
        sizes in prop::collection::vec(prop::collection::vec(0_usize..1500, 1..5), 1..12),
        restarts in prop::collection::vec(any::<bool>(), 12),
    ) {
        let disk = MemoryDisk::default();
        let mut written = Vec::new();
        let (mut recovered, _) = open(&disk).expect("a new log");
        for (batch, restart) in sizes.iter().zip(restarts) {
            let records = batch.iter().map(|bytes| fenced(*bytes)).collect();
            written.extend(append(&mut recovered.appender, &disk, &[records]));
            if restart {
                let (again, shown) = open(&disk).expect("whole");
                prop_assert_eq!(&shown, &written);
                recovered = again;
            }
        }
        prop_assert_eq!(open(&disk).expect("whole").1, written);
    }

    #[test]
    fn any_bytes_for_a_segment_are_an_error_or_an_empty_log(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let disk = MemoryDisk::default();
        disk.put(&segment_path(1), bytes);
        if let Ok((recovered, shown)) = open(&disk) {
            prop_assert!(shown.is_empty() && recovered.log_end == LogPosition(0));
        }
    }
}
