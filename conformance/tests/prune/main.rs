//! Pruning the log, cut short at every disk operation: what stands then is the old segment or the new
//! one, recovery goes on from the checkpoint, and the second attempt erases the rest.

use std::collections::BTreeMap;
use std::sync::Arc;

use althing::chain::{
    Author, Block, BlockHeader, BlockParts, Bundle, BundleParts, Certificate,
    CheckpointCertificate, CheckpointId, Effects, Entry, Op, Phase, Put, Record, Skeleton, Value,
    ValueSlot,
};
use althing::crypto::Ed25519;
use althing::storage::disk::{Disk, Open};
use althing::storage::log::{
    BlockReader, Horizon, LogError, LogSettings, Placed, ReplayMark, anchors_path, drop_oldest,
    prune_segment, prune_steps, recover,
};
use althing::types::{Digest, Epoch, Height, LeaseId, LogPosition, Millis, ReplicaId, View};
use bytes::Bytes;
use conformance::sim::disk::{SimDisk, Survivors};
use conformance::sim::random::Random;

const NETWORK: Digest = Digest([7; 32]);

fn settings() -> LogSettings {
    LogSettings {
        first_segment_bytes: 4096,
        segment_bytes: 8192,
        ..LogSettings::new(NETWORK, ReplicaId(2), [9; 16])
    }
}

fn marker(height: Height) -> String {
    format!("the-secret-of-block-{height:04}-")
}

fn block_on(parent: Option<&Block>, key: &Ed25519) -> Arc<Block> {
    let height = parent.map_or(Height(1), |block| block.header.height.next());
    let value = Value { salt: [3; 16], bytes: Bytes::from(marker(height).repeat(8)) };
    let put = Put {
        key: Bytes::from_static(b"key"),
        value: Some(ValueSlot { index: 0, commitment: value.commitment() }),
        lease: LeaseId(0),
        prev_kv: false,
        ignore_lease: false,
    };
    let parts = BundleParts {
        origin: ReplicaId(1),
        session: 1,
        first_seq: height.0,
        not_after_ms: Millis(1),
        skeletons: vec![Skeleton { author: Author::default(), op: Op::Put(put) }],
        values: vec![value],
    };
    let bundle = Bundle::sign(parts, &NETWORK, key);
    Arc::new(BlockParts::new(vec![Entry::Bundle(bundle)]).into_block(BlockHeader {
        flags: 0,
        cluster_id: NETWORK,
        epoch: Epoch(0),
        height,
        view: View(0),
        proposer: ReplicaId(0),
        time_ms: Millis(height.0),
        parent: parent.map_or(Digest::ZERO, Block::hash),
        body_root: Digest::ZERO,
        skeleton_len: 0,
        values_len: 0,
        n_ops: 0,
        exec_height: Height(0),
        exec_root: Digest::ZERO,
        config_hash: Digest::ZERO,
    }))
}

fn certificate(phase: Phase, block: &Block) -> Certificate {
    Certificate {
        phase,
        epoch: Epoch(0),
        view: View(0),
        height: block.header.height,
        block_hash: block.hash(),
        signatures: Vec::new(),
    }
}

fn stable(block: &Block) -> CheckpointCertificate {
    let id = CheckpointId {
        height: block.header.height,
        block_hash: block.hash(),
        exec_root: Digest::ZERO,
        manifest_root: Digest::ZERO,
    };
    CheckpointCertificate { epoch: Epoch(0), id, signatures: Vec::new() }
}

/// A log as a replica with blocks in flight writes it: votes and effects come after later blocks.
struct World {
    disk: SimDisk,
    blocks: Vec<Arc<Block>>,
    /// Of the checkpoint at `height`.
    mark: ReplayMark,
    horizon: Horizon,
    end: Placed,
}

const BLOCKS: usize = 40;
const IN_FLIGHT: usize = 3;

impl World {
    fn new() -> Self {
        let disk = SimDisk::default();
        let key = Ed25519::from_seed(&[1; 32]);
        let log = recover(&disk, &settings(), ReplayMark::start(), &mut |_, _, _| {});
        let mut appender = log.expect("an empty log").appender;
        let mut blocks: Vec<Arc<Block>> = Vec::new();
        let (height, mut mark) = (Height(22), None);
        let mut append = |record: Record, rotate: bool| {
            let position = appender.last().next();
            appender.append(position, &record);
            let mark = appender.replay_mark(height);
            if rotate {
                appender.rotate();
            }
            appender.take_batch().expect("a record").write(&disk).expect("the disk works");
            appender.durable(position);
            (mark, appender.end())
        };
        append(
            Record::ViewEntered {
                epoch: Epoch(0),
                view: View(0),
                base_height: Height(0),
                base_hash: Digest::ZERO,
            },
            false,
        );
        let mut end = Placed::default();
        for number in 0..BLOCKS + IN_FLIGHT {
            if number < BLOCKS {
                let block = block_on(blocks.last().map(|block| &**block), &key);
                append(Record::Block(Arc::clone(&block)), false);
                blocks.push(block);
            }
            let Some(done) = number.checked_sub(IN_FLIGHT) else { continue };
            let block = Arc::clone(&blocks[done]);
            append(Record::Prepared(certificate(Phase::Prepare, &block)), false);
            append(Record::Committed(certificate(Phase::Commit, &block)), false);
            let (of, exec_root) = (block.header.height, Digest::ZERO);
            let effects = Effects { height: of, exec_root, changes: Vec::new() };
            let cut = of == height;
            let (found, now) = append(Record::Effects(effects), cut);
            mark = if cut { Some(found) } else { mark };
            end = now;
            if [Height(3), Height(5)].contains(&of) {
                append(Record::CheckpointStable(stable(&block)), false);
            }
        }
        let mark = mark.expect("the checkpoint's height was executed");
        let moved = Height(35);
        let horizon = Horizon { segment: mark.segment, height, moved, open: end.segment };
        Self { disk, blocks, mark, horizon, end }
    }

    fn prune(&self, disk: &SimDisk) -> Result<usize, LogError> {
        let steps = prune_steps(disk, &settings(), &self.horizon)?;
        for step in &steps {
            prune_segment(disk, &settings(), (*step, &self.horizon), &mut || {})?;
        }
        Ok(steps.len())
    }

    /// A restart from the checkpoint finds every record behind its mark, values included.
    fn check_recovery(&self, disk: &SimDisk) -> Vec<(LogPosition, u8)> {
        let mut shown = Vec::new();
        let mut with_values = BTreeMap::new();
        let recovered =
            recover(disk, &settings(), self.mark.clone(), &mut |position, _, record| {
                if let Record::Block(block) = &record {
                    with_values.insert(block.header.height, block.has_values());
                }
                shown.push((position, record.tag()));
            });
        let recovered = recovered.expect("a crash damages nothing");
        assert_eq!(recovered.log_end, shown.last().expect("records").0);
        assert_eq!(recovered.cut_bytes, 0);
        let above = with_values.range(self.horizon.height.next()..);
        assert_eq!(above.clone().count(), BLOCKS - 22, "all blocks above the checkpoint");
        assert!(above.clone().all(|(_, has)| *has), "with their values");
        shown
    }

    /// Every block is found by height, with the certificate and headers that prove it.
    fn check_blocks(&self, disk: &SimDisk) {
        let mut reader = BlockReader::new(Arc::new(disk.clone()), settings(), self.end);
        assert_eq!(reader.first_height(), Ok(Some(Height(1))));
        for block in &self.blocks {
            let height = block.header.height;
            let found = reader.block(height).expect("readable").expect("it is held");
            assert_eq!(found.block.hash(), block.hash());
            let proof = found.headers.last().unwrap_or(&found.block.header).hash();
            assert_eq!(found.certificate.block_hash, proof, "block {height}");
        }
        let mut next = Height(1);
        while next <= Height(BLOCKS as u64) {
            let page = reader.read_blocks(next, next.plus(7), 1 << 20).expect("readable");
            next = page.expect("it is held").certificate.height.next();
        }
    }

    fn holds(disk: &SimDisk, height: Height) -> bool {
        let marker = marker(height);
        disk.list("log").expect("a directory").iter().any(|name| {
            let file = disk.open(&format!("log/{name}"), Open::Read).expect("listed");
            let mut bytes = vec![0; usize::try_from(file.len().expect("a length")).expect("small")];
            file.read_at(0, &mut bytes).expect("as long as it says");
            bytes.windows(marker.len()).any(|window| window == marker.as_bytes())
        })
    }

    fn check_erased(&self, disk: &SimDisk) {
        for block in &self.blocks {
            let height = block.header.height;
            let erased = height <= self.horizon.height;
            assert_eq!(!Self::holds(disk, height), erased, "block {height}");
        }
    }
}

#[test]
fn values_votes_and_certificates_go_and_the_chain_stays() {
    let world = World::new();
    let shown = world.check_recovery(&world.disk);
    assert!(World::holds(&world.disk, Height(1)));
    let pruned = world.prune(&world.disk).expect("the disk works");
    assert!(pruned >= 3, "several segments, one of them in part: {pruned}");
    world.check_erased(&world.disk);
    world.check_blocks(&world.disk);
    assert_eq!(world.check_recovery(&world.disk), shown, "the same records at the same positions");
    assert_eq!(world.prune(&world.disk), Ok(0), "nothing is left to do");
    let mut reader = BlockReader::new(Arc::new(world.disk.clone()), settings(), world.end);
    let page = reader.read_blocks(Height(1), Height(9), 1 << 20).expect("readable").expect("held");
    assert!(page.blocks.iter().all(|block| !block.has_values()));
}

#[test]
fn a_crash_at_every_disk_operation_of_a_prune_loses_nothing_and_the_next_one_finishes() {
    let world = World::new();
    let mut operation = 0;
    loop {
        let mut finished = false;
        for (seed, policy) in
            [Survivors::Nothing, Survivors::Everything, Survivors::Random].into_iter().enumerate()
        {
            let disk = world.disk.copy();
            disk.fail_after(operation);
            finished = world.prune(&disk).is_ok();
            disk.crash(policy, &mut Random::new(operation * 3 + seed as u64));
            world.check_recovery(&disk);
            world.check_blocks(&disk);
            world.prune(&disk).expect("the disk works again");
            world.check_erased(&disk);
            world.check_blocks(&disk);
            world.check_recovery(&disk);
        }
        if finished {
            break;
        }
        operation += 1;
    }
    assert!(operation > 30, "a prune takes more operations: {operation}");
}

#[test]
fn values_that_the_state_still_refers_to_stay() {
    let mut world = World::new();
    // The newer checkpoint is not relocated: blocks of the partial segment may be in use.
    world.horizon.moved = Height(22);
    let partial = world.horizon.segment;
    world.prune(&world.disk).expect("the disk works");
    let in_partial = |disk: &SimDisk| {
        let mut reader = BlockReader::new(Arc::new(disk.clone()), settings(), world.end);
        let found = reader.block(Height(23)).expect("readable").expect("held");
        (found.placed.segment, found.block.has_values())
    };
    assert_eq!(in_partial(&world.disk), (partial, true));
    assert!(World::holds(&world.disk, world.horizon.height), "put off");
    assert!(!World::holds(&world.disk, Height(2)));
}

#[test]
fn segments_older_than_the_retention_go_and_a_checkpoint_a_day_stays() {
    let world = World::new();
    let disk = &world.disk;
    assert_eq!(drop_oldest(disk, &settings(), Millis(1000)), Ok(None), "nothing is pruned yet");
    world.prune(disk).expect("the disk works");
    assert_eq!(drop_oldest(disk, &settings(), Millis(1)), Ok(None), "nothing is old enough");
    let mut operation = 0;
    loop {
        let copy = disk.copy();
        copy.fail_after(operation);
        let done = drop_oldest(&copy, &settings(), Millis(12));
        copy.crash(Survivors::Random, &mut Random::new(operation));
        let again = drop_oldest(&copy, &settings(), Millis(12));
        assert!(again.is_ok(), "operation {operation}: {again:?}");
        world.check_recovery(&copy);
        operation += 1;
        if done.is_ok() {
            break;
        }
    }
    let mut dropped = Vec::new();
    while let Some(segment) = drop_oldest(disk, &settings(), Millis(12)).expect("the disk works") {
        dropped.push(segment);
    }
    assert!(dropped.contains(&1), "{dropped:?}");
    let mut reader = BlockReader::new(Arc::new(disk.clone()), settings(), world.end);
    let first = reader.first_height().expect("readable").expect("blocks");
    assert!(first > Height(1) && first < Height(12), "{first}");
    assert_eq!(reader.block(Height(1)), Ok(None));
    assert!(reader.block(first).expect("readable").is_some());
    world.check_recovery(disk);
    // All of it is one day: of the two certified checkpoints the later one's block stays.
    let kept: Vec<u32> = dropped
        .iter()
        .copied()
        .filter(|segment| disk.open(&anchors_path(*segment), Open::Read).is_ok())
        .collect();
    assert!(!kept.is_empty(), "{dropped:?}");
    let hash = world.blocks[4].hash();
    let file = disk.open(&anchors_path(*kept.last().expect("one")), Open::Read).expect("there");
    let mut bytes = vec![0; usize::try_from(file.len().expect("a length")).expect("small")];
    file.read_at(0, &mut bytes).expect("as long as it says");
    assert!(bytes.windows(32).any(|window| window == hash.0), "the certificate names block 5");
}
