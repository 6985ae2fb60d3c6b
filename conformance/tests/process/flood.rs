//! One of four floods the others with its own key, some of everything that costs its receiver something
//! (faults.md B7, B14, B16).

use std::time::Instant;

use conformance::flood::{Flood, KINDS};
use conformance::network::Network;
use conformance::peers::{self, eventually};

use crate::load::Load;

/// The replica whose key the flood is sent with.
const LIAR: usize = 3;
/// What must be acknowledged under the flood; how fast is for `benches/` to say.
const WRITES: u64 = 200;
/// Of each kind.
const PREPARED: u64 = 300;

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
    let flood = Flood::start(&network, LIAR, (&KINDS, PREPARED));
    let quiet = write_through_it(&network, "quiet", WRITES);
    flood.set(true);
    eventually("the flood has begun", || flood.sent() > 300);
    let before = flood.sent_bytes();
    let loud = write_through_it(&network, "loud", WRITES);
    let sent = flood.sent_bytes() - before;
    let memory: Vec<u64> = network.process_ids().into_iter().map(memory_kib).collect();
    eprintln!(
        "flood: {quiet:.0} writes/s without, {loud:.0} with {sent} bytes more; KiB {memory:?}"
    );
    assert!(sent > 100 << 10, "only {sent} bytes: that was no flood");
    assert!(memory.iter().all(|kib| *kib < 512 << 10), "memory grew: {memory:?} KiB");
}
