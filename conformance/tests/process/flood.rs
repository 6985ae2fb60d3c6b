//! One of four floods the others with its own key (faults.md B7, B14, B16): garbage, STATUS, VIEW-CHANGEs
//! for huge views, forged votes, valid bundles.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use althing::chain::{Author, Bundle, BundleParts, Genesis, Op, Phase, Skeleton, ViewChange, Vote};
use althing::codec::Encode;
use althing::config::{GenesisFile, Home, SecretSeed};
use althing::crypto::Ed25519;
use althing::net::{FrameLimits, Lane, PeerAddress, PeerNet, PeerNetConfig};
use althing::ordering::{Message, Mode, Status};
use althing::tls::{PeerTable, PeerTls};
use althing::types::{Digest, Epoch, Height, Millis, ReplicaId, View};
use bytes::Bytes;
use conformance::network::Network;
use conformance::peers::{self, eventually};

use crate::load::Load;

/// The replica whose key the flood is sent with.
const LIAR: usize = 3;
const MINUTE: Duration = Duration::from_secs(60);
/// What must be acknowledged under the flood; how fast is for `benches/` to say.
const WRITES: u64 = 200;
/// Of each kind.
const PREPARED: u64 = 2000;

/// Sends as fast as it may, while `on` is set.
struct Flood {
    on: Arc<AtomicBool>,
    end: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Flood {
    fn start(network: &Network) -> Flood {
        let genesis = GenesisFile::read(&network.directory().join("genesis.json"));
        let genesis = genesis.expect("the network's genesis").genesis;
        let home = Home::at(network.replicas[LIAR].home());
        let seed = SecretSeed::load(&home.replica_key(), true).expect("the liar's key");
        let own = genesis.members[LIAR].id;
        let frames = frames(&genesis, own, &seed.signer());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let net = connect(&genesis, own, seed.signer(), runtime.handle());
        let victims: Vec<ReplicaId> =
            genesis.members.iter().map(|member| member.id).filter(|id| *id != own).collect();
        let (on, end, sent) = <(Arc<AtomicBool>, Arc<AtomicBool>, Arc<AtomicU64>)>::default();
        let (is_on, has_ended, count) = (on.clone(), end.clone(), sent.clone());
        let links_end = end.clone();
        let links = std::thread::spawn(move || {
            runtime.block_on(async {
                while !links_end.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        });
        let sender = std::thread::spawn(move || {
            let mut at = 0;
            while !has_ended.load(Ordering::Relaxed) {
                if !is_on.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                }
                let (frame, lane) = &frames[at % frames.len()];
                at += 1;
                let taken =
                    victims.iter().filter(|id| net.send(**id, frame.clone(), *lane)).count();
                count.fetch_add(taken as u64, Ordering::Relaxed);
                if taken == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        Flood { on, end, sent, threads: vec![sender, links] }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ended = thread.join();
        }
    }
}

fn connect(
    genesis: &Genesis,
    own: ReplicaId,
    signer: Ed25519,
    runtime: &tokio::runtime::Handle,
) -> PeerNet {
    let table = PeerTable::new(genesis.members.iter().map(|m| (m.id, m.key)).collect());
    let tls = PeerTls::new(own, genesis.cluster_id(), Arc::new(signer), table);
    let peers = genesis.members.iter().filter(|member| member.id != own);
    let config = PeerNetConfig {
        tls: Arc::new(tls.expect("a TLS key")),
        listeners: Vec::new(),
        peers: peers
            .map(|member| PeerAddress {
                id: member.id,
                name: member.name.clone(),
                label: member.id.to_string(),
                address: member.peer_address.clone(),
                key: member.key,
            })
            .collect(),
        frame_limits: FrameLimits { control_bytes: 1 << 20, bulk_bytes: Message::BYTES_MAX },
        queue_bytes_max: 8 << 20,
        unsettled_bytes_max: 8 << 20,
    };
    PeerNet::start(runtime, config, |_| {}).expect("links")
}

/// Some of everything that costs its receiver something, in turn.
fn frames(genesis: &Genesis, own: ReplicaId, signer: &Ed25519) -> Vec<(Bytes, Lane)> {
    let cluster_id = genesis.cluster_id();
    let mut frames = Vec::new();
    for n in 0..PREPARED {
        let garbage: Vec<u8> = (0..2048_u64).map(|at| (at * 31 + n * 17) as u8).collect();
        let status = Status {
            epoch: Epoch(0),
            view: View(1 << 40),
            mode: Mode::Normal,
            unix_ms: Millis(n),
            committed: Height(1 << 50),
            executed: Height(1 << 50),
            stable: Height(1 << 50),
        };
        let round = (Epoch(0), View((1 << 40) + n));
        let view_change = ViewChange::sign(round, own, (None, None, None), &cluster_id, signer);
        let range = (Height(1 + n % 8), vec![Digest([n as u8; 32])]);
        let mut forged =
            Vote::sign((Phase::Commit, Epoch(0), View(0)), own, range, &cluster_id, signer);
        forged.signed.signature.0[5] ^= 1;
        let bundle = BundleParts {
            origin: own,
            session: 7 << 20,
            first_seq: n,
            not_after_ms: Millis(u64::MAX),
            skeletons: vec![Skeleton { author: Author::default(), op: Op::CheckpointNow }],
            values: Vec::new(),
        };
        let bundle = Bundle::sign(bundle, &cluster_id, signer);
        frames.push((garbage.into(), Lane::Control));
        for message in [
            Message::Status(status),
            Message::ViewChange(Arc::new(view_change)),
            Message::Votes(vec![forged]),
            Message::Bundle(bundle),
            Message::GetBlocks { from: Height(1), until: Height(u64::MAX) },
        ] {
            frames.push((message.to_bytes(), Lane::Control));
        }
    }
    frames
}

/// Writes through the honest three, until `count` were acknowledged; how many a second.
fn write_through_it(network: &Network, name: &str, count: u64) -> f64 {
    let writers: Vec<_> = network.replicas[..LIAR].iter().collect();
    let load = Load::start(name, &writers);
    let start = Instant::now();
    load.progress(name, count);
    let rate = count as f64 / start.elapsed().as_secs_f64();
    let ledger = load.finish();
    ledger.check(network);
    rate
}

fn memory_kib(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok()).unwrap_or(0)
}

#[test]
fn a_flooding_peer_neither_stops_the_others_nor_fills_their_memory() {
    if !peers::available("process::flood", &["althing"]) {
        return;
    }
    let mut network = Network::start(4);
    // A silent liar first, then a flooding one: both leave three to do the work.
    network.kill(LIAR);
    let flood = Flood::start(&network);
    let quiet = write_through_it(&network, "quiet", WRITES);
    flood.on.store(true, Ordering::Relaxed);
    eventually("the flood has begun", MINUTE, || flood.sent.load(Ordering::Relaxed) > 1_000);
    let before = flood.sent.load(Ordering::Relaxed);
    let loud = write_through_it(&network, "loud", WRITES);
    let sent = flood.sent.load(Ordering::Relaxed) - before;
    let memory: Vec<u64> = network.process_ids().into_iter().map(memory_kib).collect();
    eprintln!("flood: {quiet:.0} writes/s without, {loud:.0} with {sent} messages; KiB {memory:?}");
    assert!(sent > 1_000, "only {sent} messages: that was no flood");
    assert!(memory.iter().all(|kib| *kib < 512 << 10), "memory grew: {memory:?} KiB");
}
