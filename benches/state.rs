//! Prints the rows of state.md 2 and 3 for what is built: `cargo bench --no-default-features --bench
//! state [-- KEYS...]` (default 100000 500000). Medians over blocks; wall time on one thread.
#![allow(
    clippy::disallowed_methods,
    clippy::float_arithmetic,
    clippy::unwrap_used,
    reason = "a bench reads the clock and prints ratios"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use althing::apply;
use althing::chain::{
    Author, Block, BlockHeader, BlockParts, Bundle, BundleParts, Entry, Genesis, GenesisMember, Op,
    Ownership, Parameters, Put, Range, Skeleton, Value, ValueError, ValueRef, ValueSlot,
    ValueSource,
};
use althing::codec::Encode;
use althing::crypto::{Ed25519, PublicKey};
use althing::state::measure::Keys;
use althing::state::{KeptChunk, Snapshotter, State};
use althing::types::{Digest, Epoch, Height, LeaseId, Millis, OrgId, ReplicaId, View};
use althing::verify;
use bytes::Bytes;

const BLOCKS: [usize; 4] = [1, 16, 100, 400];

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Names {
    Uniform,
    Kube,
}

fn key(names: Names, n: usize) -> Bytes {
    let mut random = Random(n as u64);
    Bytes::from(match names {
        Names::Uniform => {
            format!("{:016x}{:016x}{:019x}", random.below(usize::MAX), random.below(usize::MAX), n)
        }
        Names::Kube => {
            let kind = ["pods", "events", "configmaps", "secrets"][random.below(4)];
            let namespace = random.below(200);
            format!(
                "/registry/{kind}/namespace-{namespace:03}/workload-{:08x}-{n:07}",
                random.below(1 << 30)
            )
        }
    })
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn place(n: usize) -> (ValueRef, Digest) {
    let n = n as u32;
    let mut commitment = [0; 32];
    commitment[..4].copy_from_slice(&n.to_le_bytes());
    (ValueRef { segment: 1, offset: n, length: 512, check: 0 }, Digest(commitment))
}

/// Microseconds per put for the changes and for the root, per block size.
fn puts(keys: &mut Keys, names: &[Bytes], sequential: bool, flush: bool) -> Vec<(f64, f64)> {
    let mut random = Random(42);
    let mut next = 0;
    let mut cache = vec![0_u8; if flush { 64 << 20 } else { 0 }];
    BLOCKS
        .iter()
        .map(|block| {
            let rounds = (if flush { 8_000 } else { 60_000 } / block).clamp(40, 2_000);
            let (mut changes, mut roots) = (Vec::new(), Vec::new());
            for round in 0..rounds {
                let chosen: Vec<usize> = (0..*block)
                    .map(|_| {
                        next += 1;
                        if sequential { next % names.len() } else { random.below(names.len()) }
                    })
                    .collect();
                cache.iter_mut().step_by(64).for_each(|byte| *byte = byte.wrapping_add(1));
                black_box(&cache);
                let start = Instant::now();
                let warm: Vec<&[u8]> = chosen.iter().map(|n| &names[*n][..]).collect();
                keys.warm(&warm);
                for n in &chosen {
                    let (value, commitment) = place(*n);
                    keys.put(&names[*n], value, commitment);
                }
                let middle = Instant::now();
                black_box(keys.root());
                let end = Instant::now();
                changes.push(us(middle - start) / *block as f64);
                roots.push(us(end - middle) / *block as f64);
                if round % 64 == 0 {
                    keys.compact();
                }
            }
            (median(changes), median(roots))
        })
        .collect()
}

fn row(name: &str, cells: &[(f64, f64)]) {
    let cells: Vec<String> = cells
        .iter()
        .map(|(change, root)| format!("{:.2} = {change:.2}+{root:.2}", change + root))
        .collect();
    println!("| {name} | {} |", cells.join(" | "));
}

fn btree_row(names: &[Bytes]) {
    let mut map: BTreeMap<Box<[u8]>, [u64; 6]> =
        names.iter().map(|name| (Box::from(&name[..]), [0; 6])).collect();
    let mut random = Random(42);
    let cells: Vec<(f64, f64)> = BLOCKS
        .iter()
        .map(|block| {
            let mut times = Vec::new();
            for _ in 0..(60_000 / block).clamp(40, 2_000) {
                let start = Instant::now();
                for _ in 0..*block {
                    let name = &names[random.below(names.len())];
                    let old = map.get(&name[..]).copied().unwrap_or_default();
                    map.insert(Box::from(&name[..]), old.map(|n| n + 1));
                }
                times.push(us(start.elapsed()) / *block as f64);
            }
            (median(times), 0.0)
        })
        .collect();
    row("BTreeMap get + insert, no root", &cells);
    let get = timed(200, || {
        for _ in 0..100 {
            black_box(map.get(&names[random.below(names.len())][..]));
        }
    }) / 100.0;
    println!("\nBTreeMap get {get:.2} us\n");
}

fn timed(rounds: usize, mut run: impl FnMut()) -> f64 {
    let mut times = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        run();
        times.push(us(start.elapsed()));
    }
    median(times)
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or("VmRSS: 0 kB");
    let kib: f64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0.0);
    kib / 1024.0
}

/// Values of 512 bytes, made up when asked for.
struct MadeUp;

impl ValueSource for MadeUp {
    fn read(&self, at: ValueRef) -> Result<Value, ValueError> {
        let mut salt = [0; 16];
        salt[..4].copy_from_slice(&at.offset.to_le_bytes());
        Ok(Value { salt, bytes: Bytes::from(vec![7; at.length as usize]) })
    }
}

fn index_rows(keys: usize) {
    println!("\n## {keys} keys: us per put = changes + root, blocks of 1 | 16 | 100 | 400\n");
    println!("| | 1 | 16 | 100 | 400 |\n|---|---|---|---|---|");
    for names in [Names::Uniform, Names::Kube] {
        let list: Vec<Bytes> = (0..keys).map(|n| key(names, n)).collect();
        let label = if names == Names::Uniform { "uniform" } else { "kube" };
        if names == Names::Uniform {
            btree_row(&list);
        }
        let before = resident_mib();
        let mut store = Keys::default();
        for (n, name) in list.iter().enumerate() {
            let (value, commitment) = place(n);
            store.put(name, value, commitment);
            if n % 1000 == 0 {
                store.root();
                store.compact();
            }
        }
        store.root();
        store.compact();
        let per_key = (resident_mib() - before) * 1024.0 * 1024.0 / keys as f64;
        row(&format!("page trie, {label}"), &puts(&mut store, &list, false, false));
        row(&format!("page trie, {label}, caches flushed"), &puts(&mut store, &list, false, true));
        if names == Names::Kube {
            continue;
        }
        let mut sorted = list.clone();
        sorted.sort();
        row("page trie, sequential", &puts(&mut store, &sorted, true, false));
        let mut random = Random(7);
        let get = timed(200, || {
            for _ in 0..100 {
                black_box(store.kv().get(&list[random.below(keys)]));
            }
        }) / 100.0;
        let range = timed(200, || {
            let start = random.below(keys - 600);
            let request = Range {
                key: sorted[start].clone(),
                range_end: sorted[start + 500].clone(),
                ..Range::default()
            };
            black_box(store.kv().range(&request).unwrap());
        });
        let count = timed(200, || {
            black_box(store.count_prefix(&sorted[random.below(keys)][..2]));
        });
        println!(
            "\nget {get:.2} us, range of 500 {range:.1} us, count of a prefix {count:.2} us, {per_key:.0} B per key (RSS)"
        );
    }
}

fn genesis() -> Genesis {
    let members = (0..4_u16).map(|id| GenesisMember {
        id: ReplicaId(id),
        organisation: OrgId(id),
        name: format!("org{id}"),
        key: PublicKey([1; 32]),
        governance_keys: Vec::new(),
        client_urls: Vec::new(),
        peer_address: String::new(),
    });
    Genesis {
        ownership: Ownership::Many,
        demo: false,
        salt: [0; 32],
        created_ms: Millis(0),
        members: members.collect(),
        parameters: Parameters { quota_bytes: 1 << 40, ..Parameters::default() },
        initial: None,
    }
}

fn block(height: u64, first_seq: u64, names: &[Bytes]) -> (Block, Vec<Vec<ValueRef>>) {
    let mut skeletons = Vec::new();
    let mut values = Vec::new();
    let mut refs = Vec::new();
    for (index, name) in (0_u32..).zip(names) {
        let offset = (first_seq as u32).wrapping_add(index);
        let at = ValueRef { segment: 1, offset, length: 512, check: 0 };
        let value = MadeUp.read(at).unwrap();
        let slot = ValueSlot { index, commitment: value.commitment() };
        let op = Op::Put(Put {
            key: name.clone(),
            value: Some(slot),
            lease: LeaseId(0),
            prev_kv: false,
            ignore_lease: false,
        });
        skeletons.push(Skeleton { author: Author::default(), op });
        values.push(value);
        refs.push(at);
    }
    let parts = BundleParts {
        origin: ReplicaId(0),
        session: 1,
        first_seq,
        not_after_ms: Millis(u64::MAX),
        skeletons,
        values,
    };
    let bundle = Bundle::sign(parts, &Digest::ZERO, &Ed25519::from_seed(&[1; 32]));
    let header = BlockHeader {
        flags: 0,
        cluster_id: Digest::ZERO,
        epoch: Epoch(0),
        height: Height(height),
        view: View(0),
        proposer: ReplicaId(0),
        time_ms: Millis(height),
        parent: Digest::ZERO,
        body_root: Digest::ZERO,
        skeleton_len: 0,
        values_len: 0,
        n_ops: 0,
        exec_height: Height(0),
        exec_root: Digest::ZERO,
        config_hash: Digest::ZERO,
    };
    (BlockParts::new(vec![Entry::Bundle(bundle)]).into_block(header), vec![refs])
}

fn execute_rows(keys: usize) {
    let list: Vec<Bytes> = (0..keys).map(|n| key(Names::Kube, n)).collect();
    let mut state = State::genesis(&genesis());
    let (mut height, mut seq) = (0, 0);
    let mut run = |state: &mut State, names: &[Bytes]| {
        height += 1;
        let (block, refs) = block(height, seq, names);
        seq += names.len() as u64;
        let start = Instant::now();
        black_box(apply::execute(state, &block, &refs, &MadeUp, ReplicaId(0)).unwrap());
        us(start.elapsed()) / names.len() as f64
    };
    for names in list.chunks(400) {
        run(&mut state, names);
    }
    let mut random = Random(9);
    let cells: Vec<String> = BLOCKS
        .iter()
        .map(|size| {
            let times = (0..(40_000 / size).clamp(40, 1_000)).map(|_| {
                let names: Vec<Bytes> =
                    (0..*size).map(|_| list[random.below(keys)].clone()).collect();
                run(&mut state, &names)
            });
            format!("{:.2}", median(times.collect()))
        })
        .collect();
    println!("\n| apply::execute, kube, us per put, all included | {} |", cells.join(" | "));

    proof_row(&state, &list);
    snapshot_row(&mut state);
}

fn proof_row(state: &State, list: &[Bytes]) {
    let keys = list.len();
    let mut random = Random(11);
    let proofs: Vec<_> =
        (0..2_000).map(|_| state.prove(&list[random.below(keys)], &MadeUp).unwrap()).collect();
    let mut sizes: Vec<usize> = proofs.iter().map(|proof| proof.to_bytes().len()).collect();
    sizes.sort_unstable();
    let prove = timed(500, || {
        black_box(state.prove(&list[random.below(keys)], &MadeUp).unwrap());
    });
    let root = state.exec_root();
    let mut at = 0;
    let check = timed(500, || {
        at = (at + 1) % proofs.len();
        verify::state_proof(black_box(&proofs[at]), &root).unwrap();
    });
    println!(
        "proof bytes with key, leaf and sub-state roots p50/p99/max {}/{}/{}, prove {prove:.1} us, verify {check:.1} us",
        sizes[1_000], sizes[1_980], sizes[1_999]
    );
}

fn snapshot_row(state: &mut State) {
    let root = state.exec_root();
    let start = Instant::now();
    let mut snapshotter = Snapshotter::begin(state);
    let mut chunks = Vec::new();
    let mut longest = Duration::ZERO;
    loop {
        let plan = Instant::now();
        let Some(chunk) = snapshotter.plan_chunk(state) else { break };
        longest = longest.max(plan.elapsed());
        chunks.push(chunk.write(&MadeUp).unwrap());
    }
    let taken = start.elapsed();
    let bytes: usize = chunks.iter().map(Bytes::len).sum();
    let n_chunks = chunks.len();
    let mut base = 0;
    let kept: Vec<KeptChunk> = chunks
        .into_iter()
        .map(|bytes| {
            let chunk = KeptChunk { base, segment: 0x8000_0000, bytes };
            base += chunk.bytes.len() as u32;
            chunk
        })
        .collect();
    let start = Instant::now();
    let restored = State::restore(&genesis(), kept).unwrap();
    let restore = start.elapsed();
    assert_eq!(restored.exec_root(), root);
    println!(
        "snapshot {} chunks, {} MiB in {} ms, longest slice under the lock {:.2} ms; restore {} ms",
        n_chunks,
        bytes >> 20,
        taken.as_millis(),
        us(longest) / 1000.0,
        restore.as_millis()
    );
}

fn main() {
    let sizes: Vec<usize> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let sizes = if sizes.is_empty() { vec![100_000, 500_000] } else { sizes };
    for keys in sizes {
        index_rows(keys);
        execute_rows(keys);
    }
}
