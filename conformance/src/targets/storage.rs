use std::sync::Arc;

use althing::chain::{Author, Genesis, Op, Put, Record};
use althing::state::{KeptChunk, Restore, Snapshotter, State};
use althing::storage::checkpoint::{
    CHECKPOINT_DIRECTORY, Checkpoint, CheckpointParts, CheckpointWriter, candidates,
};
use althing::storage::disk::{Disk, Open};
use althing::storage::log::{LogError, LogSettings, Recovered, ReplayMark, recover, segment_path};
use althing::storage::transfer::{Assembly, install};
use althing::types::{Digest, Height, LeaseId, LogPosition, ReplicaId};
use bytes::Bytes;

use crate::sim::disk::SimDisk;
use crate::targets::Choices;
use crate::targets::chain::{Chain, Operands};

fn settings() -> LogSettings {
    LogSettings {
        first_segment_bytes: 2048,
        segment_bytes: 4096,
        ..LogSettings::new(Digest([7; 32]), ReplicaId(2), [9; 16])
    }
}

type Shown = Vec<(LogPosition, Record)>;

fn open(disk: &SimDisk) -> Result<(Recovered, Shown), LogError> {
    let mut shown = Vec::new();
    let recovered = recover(disk, &settings(), ReplayMark::start(), &mut |position, _, record| {
        shown.push((position, record));
    })?;
    Ok((recovered, shown))
}

fn put(disk: &SimDisk, path: &str, bytes: &[u8]) {
    let file = disk.open(path, Open::Create).expect("memory does not fail");
    file.write_at(0, bytes).expect("memory does not fail");
}

/// Any bytes for segments are an error or an empty log: nobody else knows the salt.
pub fn log_open(data: &[u8]) {
    let mut choices = Choices::new(data);
    let disk = SimDisk::default();
    disk.create_directory("log").expect("memory does not fail");
    for segment in 1..=1 + u32::from(choices.byte() % 3) {
        let length = usize::from(choices.short() % 6000);
        put(&disk, &segment_path(segment), choices.bytes(length));
    }
    if let Ok((recovered, shown)) = open(&disk) {
        assert!(shown.is_empty() && recovered.log_end == LogPosition(0), "{shown:?}");
    }
}

/// A log with bytes changed is refused, or shows a beginning of what was written; with one byte changed,
/// nothing but the last batch can be missing. What is shown once is shown again.
pub fn log_torn(data: &[u8]) {
    let mut choices = Choices::new(data);
    let disk = SimDisk::default();
    let (mut recovered, _) = open(&disk).expect("a new log");
    let (mut written, mut safe) = (Shown::new(), 0);
    for _ in 0..=choices.byte() % 6 {
        safe = written.len();
        for _ in 0..=choices.byte() % 4 {
            let reason = Bytes::from(vec![choices.byte(); usize::from(choices.short() % 1500)]);
            let record = Record::Fenced { reason };
            let position = recovered.appender.last().next();
            recovered.appender.append(position, &record);
            written.push((position, record));
        }
        let batch = recovered.appender.take_batch().expect("not empty");
        batch.write(&disk).expect("memory does not fail");
        recovered.appender.durable(batch.last);
    }
    let changes = choices.byte() % 5;
    for _ in 0..changes {
        let path = segment_path(1 + u32::from(choices.byte() % 3));
        disk.rot(&path, usize::from(choices.short() % 4096), choices.byte());
    }
    let Ok((_, shown)) = open(&disk) else { return };
    assert!(written.starts_with(&shown), "{shown:?} is no beginning of {written:?}");
    if changes <= 1 {
        assert!(shown.len() >= safe, "{} of {safe} durable records", shown.len());
    }
    let (_, again) = open(&disk).expect("what was cut is gone");
    assert_eq!(again, shown);
}

/// A small state with keys, versions and leases, and a checkpoint of it.
struct Sample {
    genesis: Genesis,
    disk: SimDisk,
    checkpoint: Checkpoint,
    chunks: Vec<Bytes>,
}

impl Sample {
    fn new() -> Self {
        let mut chain = Chain::new(1);
        let roots_before = chain.state.exec_root();
        let mut operands = Operands::default();
        let mut ops = vec![Op::LeaseGrant { id: LeaseId(7), ttl_seconds: 60 }];
        for index in 0..12 {
            ops.push(Op::Put(Put {
                key: Bytes::from(format!("key {}", index % 8)),
                value: Some(operands.slot(&vec![b'v'; 40 * index])),
                lease: LeaseId(if index % 3 == 0 { 7 } else { 0 }),
                prev_kv: false,
                ignore_lease: false,
            }));
        }
        let ops = ops.into_iter().map(|op| (Author::default(), op)).collect();
        chain.execute(1_000, ReplicaId(0), ops, operands);
        let Chain { genesis, header, mut state, kept, .. } = chain;
        let disk = SimDisk::default();
        let mut writer = CheckpointWriter::begin(Arc::new(disk.clone())).expect("memory");
        let (mut snapshotter, mut chunks) = (Snapshotter::begin(&mut state), Vec::new());
        while let Some(chunk) = snapshotter.next_chunk(&state, &kept).expect("all values") {
            writer.push(&chunk).expect("memory does not fail");
            chunks.push(chunk);
        }
        let exec_root = state.exec_root();
        let parts = CheckpointParts {
            cluster_id: genesis.cluster_id(),
            header,
            exec_root,
            exec_roots: vec![(Height(0), roots_before), (Height(1), exec_root)],
            replay: ReplayMark::start(),
        };
        let checkpoint = writer.finish(parts).expect("memory does not fail");
        Self { genesis, disk, checkpoint, chunks }
    }

    /// The state in a checkpoint on a disk.
    fn restored(&self, disk: &SimDisk, checkpoint: &Checkpoint) -> Result<State, String> {
        let mut restore = Restore::new(&self.genesis);
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        for chunk in checkpoint.chunks(&shared) {
            let chunk = chunk.map_err(|error| error.to_string())?;
            let (segment, base) = (chunk.place.segment(), chunk.place.base);
            let kept = KeptChunk { bytes: chunk.bytes, segment, base };
            restore.push(&kept).map_err(|error| error.to_string())?;
        }
        restore.finish().map_err(|error| error.to_string())
    }
}

/// A checkpoint with bytes changed is passed over, or is the one that was written; chunks of any bytes
/// restore nothing that has the certified root.
pub fn checkpoint_install(data: &[u8]) {
    let mut choices = Choices::new(data);
    let sample = Sample::new();
    if choices.byte().is_multiple_of(2) {
        return push_anything(&sample, &mut choices);
    }
    let disk = sample.disk.clone();
    let names = disk.list(CHECKPOINT_DIRECTORY).expect("it was written there");
    for _ in 0..choices.byte() % 5 {
        let Some(name) = choices.pick(&names) else { continue };
        let path = format!("{CHECKPOINT_DIRECTORY}/{name}");
        disk.rot(&path, usize::from(choices.short()), choices.byte());
    }
    let Ok(found) = candidates(&disk, &sample.genesis.cluster_id()) else { return };
    for checkpoint in found.whole {
        assert_eq!(checkpoint, sample.checkpoint, "another checkpoint passes for it");
        if let Ok(state) = sample.restored(&disk, &checkpoint) {
            assert_eq!(state.exec_root(), sample.checkpoint.manifest.exec_root);
        }
    }
}

/// Chunks, each as it was, bent, repeated, left out or made up.
fn push_anything(sample: &Sample, choices: &mut Choices) {
    let mut restore = Restore::new(&sample.genesis);
    for number in 0..sample.chunks.len() + 2 {
        let mut bytes = sample.chunks.get(number).map_or_else(Vec::new, |chunk| chunk.to_vec());
        match choices.byte() % 4 {
            0 => {}
            1 => {
                let at = usize::from(choices.short()).checked_rem(bytes.len());
                let change = choices.byte();
                at.into_iter().for_each(|at| bytes[at] ^= change);
            }
            2 => continue,
            _ => {
                let length = usize::from(choices.byte());
                bytes = choices.bytes(length).to_vec();
            }
        }
        let kept = KeptChunk { bytes: Bytes::from(bytes), segment: 1 << 31, base: 0 };
        if restore.push(&kept).is_err() {
            return;
        }
    }
    if let Ok(state) = restore.finish() {
        // Whoever installs compares this root with the certified one.
        let _root = state.exec_root();
    }
}

/// Chunks from liars, in any order, with crashes in between: only what the manifest names is kept, and
/// once all is there it is the same checkpoint.
pub fn transfer_session(data: &[u8]) {
    let mut choices = Choices::new(data);
    let sample = Sample::new();
    let (header, manifest) =
        (&sample.checkpoint.header, Arc::new(sample.checkpoint.manifest.clone()));
    let disk = SimDisk::default();
    let begin = || {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let reusable = [CHECKPOINT_DIRECTORY];
        Assembly::begin(shared, header.clone(), Arc::clone(&manifest), &reusable).expect("memory")
    };
    let (mut assembly, held) = begin();
    assert!(held.is_empty(), "an empty disk holds {held:?}");
    let mut stored = vec![false; sample.chunks.len()];
    for _ in 0..200 {
        if choices.is_empty() {
            break;
        }
        if choices.byte().is_multiple_of(16) {
            // A crash; what was not synced may be gone, here it is there.
            let (again, held) = begin();
            let expected: Vec<u32> =
                (0..).zip(&stored).filter_map(|(at, is)| is.then_some(at)).collect();
            assert_eq!(held, expected, "what was kept is found again");
            assembly = again;
            continue;
        }
        let number = usize::from(choices.byte()) % (sample.chunks.len() + 2);
        let other = usize::from(choices.byte()) % sample.chunks.len();
        let mut bytes = sample.chunks.get(number).unwrap_or(&sample.chunks[other]).to_vec();
        match choices.byte() % 5 {
            0 => bytes = sample.chunks[other].to_vec(),
            1 => {
                let at = usize::from(choices.short()) % bytes.len();
                bytes[at] ^= choices.byte();
            }
            2 => bytes.truncate(usize::from(choices.short())),
            _ => {}
        }
        let sound = sample.chunks.get(number).is_some_and(|chunk| *chunk == bytes);
        let kept = assembly.store(number as u32, &bytes).expect("memory does not fail");
        assert_eq!(kept, sound, "chunk {number}");
        if let Some(is) = stored.get_mut(number) {
            *is |= kept;
        }
    }
    let there: Vec<bool> = assembly.chunks().map(|chunk| chunk.is_some()).collect();
    assert_eq!(there, stored);
    if stored.iter().all(|is| *is) {
        let checkpoint = assembly.finish(ReplayMark::start()).expect("memory does not fail");
        install(&disk, &checkpoint).expect("memory does not fail");
        let found = candidates(&disk, &sample.genesis.cluster_id()).expect("memory does not fail");
        assert_eq!(found.whole.len(), 1);
        let state = sample.restored(&disk, &found.whole[0]).expect("all chunks are there");
        assert_eq!(state.exec_root(), manifest.exec_root);
    }
}
