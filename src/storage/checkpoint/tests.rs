use std::sync::Arc;

use super::*;
use crate::chain::Record;
use crate::storage::disk::{Disk, memory::MemoryDisk};
use crate::storage::log::{Carried, ReplayMark};
use crate::storage::testing::{NETWORK, header};
use crate::types::{Digest, LogPosition};

fn write(disk: &Arc<dyn Disk>, height: u64, chunks: &[&[u8]]) -> Checkpoint {
    let mut writer = CheckpointWriter::begin(Arc::clone(disk)).expect("memory does not fail");
    for chunk in chunks {
        writer.push(chunk).expect("memory does not fail");
    }
    let mut carried = Carried::default();
    carried.note(LogPosition(3), &Record::Session { counter: height });
    let parts = CheckpointParts {
        cluster_id: NETWORK,
        header: header(height),
        exec_root: Digest([4; 32]),
        exec_roots: vec![(Height(height), Digest([4; 32]))],
        replay: ReplayMark { segment: 2, first_position: LogPosition(9), carried },
    };
    writer.finish(parts).expect("memory does not fail")
}

fn disk() -> (Arc<MemoryDisk>, Arc<dyn Disk>) {
    let memory = Arc::new(MemoryDisk::default());
    (Arc::clone(&memory), memory)
}

#[test]
fn a_checkpoint_comes_back_whole() {
    let (_, disk) = disk();
    assert_eq!(newest(&disk, &NETWORK), Ok((None, Vec::new())));
    let first = write(&disk, 10, &[b"one", b"two"]);
    let second = write(&disk, 20, &[b"three", b"", b"four"]);
    assert_eq!(newest(&disk, &NETWORK), Ok((Some(second.clone()), Vec::new())));
    let chunks: Vec<_> = second.chunks(&disk).map(|chunk| chunk.expect("whole")).collect();
    let bytes: Vec<&[u8]> = chunks.iter().map(|chunk| &chunk.bytes[..]).collect();
    assert_eq!(bytes, [&b"three"[..], b"", b"four"]);
    assert_eq!(chunks[2].place, ChunkPlace { file: 2, base: 5 });
    assert_eq!(chunks[2].place.segment(), 0x8000_0002);
    assert_eq!(first.files(), [1]);
    assert_eq!(first.manifest.root(), write(&disk, 10, &[b"one", b"two"]).manifest.root());
}

#[test]
fn every_flipped_byte_of_the_newest_leads_to_the_one_before() {
    let (memory, disk) = disk();
    let first = write(&disk, 10, &[b"one", b"two"]);
    let second = write(&disk, 20, &[b"three", b"four"]);
    for path in [manifest_path(Height(20)), chunk_path(2)] {
        let bytes = memory.read(&path);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            memory.put(&path, flipped);
            match newest(&disk, &NETWORK) {
                Ok((found, damaged)) => {
                    assert_eq!(found.as_ref(), Some(&first), "{path} byte {at}");
                    assert_eq!(damaged.len(), 1);
                }
                Err(CheckpointError::Version { .. }) => assert!((8..10).contains(&at)),
                Err(error) => panic!("{path} byte {at}: {error}"),
            }
        }
        for length in 0..bytes.len() {
            memory.put(&path, bytes[..length].to_vec());
            let (found, _) = newest(&disk, &NETWORK).expect("damage is no error");
            assert_eq!(found.as_ref(), Some(&first), "{path} cut at {length}");
        }
        memory.put(&path, bytes);
    }
    assert_eq!(newest(&disk, &NETWORK).expect("whole").0, Some(second));
    let other = newest(&disk, &Digest([8; 32])).expect_err("another network");
    assert!(matches!(other, CheckpointError::OtherNetwork { .. }));
}

#[test]
fn two_checkpoints_and_what_is_in_use_are_kept() {
    let (memory, disk) = disk();
    for height in [10, 20, 30, 40] {
        write(&disk, height, &[b"chunk"]);
    }
    let mut unfinished = CheckpointWriter::begin(Arc::clone(&disk)).expect("memory");
    unfinished.push(b"never finished").expect("memory");
    memory.put("checkpoint/00000000000000000050.manifest.tmp", vec![1]);
    remove_old(&*disk, &NETWORK, (&[1], &[])).expect("memory does not fail");
    let left = [chunk_path(1), chunk_path(3), chunk_path(4)].into_iter();
    let left = left.chain([manifest_path(Height(30)), manifest_path(Height(40))]);
    let mut left: Vec<String> = left.collect();
    left.sort();
    assert_eq!(memory.paths(), left);
}
