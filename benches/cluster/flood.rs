//! What a flooding peer costs the others, by what it sends: one of four is a silent liar, then a loud one,
//! in turn. Its threads yield to all others, so that its own work is not what is measured.

use std::time::Duration;

use conformance::flood::{Flood, KINDS, Kind as Sent};

use crate::faults::percentile;
use crate::load::{self, Kind, Shape};
use crate::measure::Sample;
use crate::servers::{Cluster, System};

/// Every kind.
const ALL: &str = "all";
/// The silent or loud one.
const LIAR: usize = 3;
/// Messages made beforehand of each kind.
const PREPARED: u64 = 20_000;

/// One stretch of time.
#[derive(Default)]
struct Stretch {
    rate: u64,
    /// Of the three others, per acknowledged put.
    cpu_us: u64,
    /// The same with nobody writing, in thousandths of a core.
    idle_millicores: u64,
    kib_per_second: u64,
}

/// Whether there are rows of this name.
pub fn is_kind(name: &str) -> bool {
    name == ALL || KINDS.iter().any(|kind| format!("{kind:?}") == name)
}

/// Prints the row of this name, or one per kind and one of all of them at once.
pub fn by_kind(only: &str, rounds: usize, seconds: u64) {
    println!(
        "| sent | KiB/s that get through | puts/s without | with | ratio | us CPU per put without | with \
         | millicores idle without | with |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for kind in KINDS {
        let name = format!("{kind:?}");
        if only == ALL || only == name {
            row((&name, &[kind]), rounds, seconds);
        }
    }
    if only == ALL {
        row(("all of these", &KINDS), rounds, seconds);
    }
}

/// In a network of its own, so that no checkpoint of what rows before it wrote falls into it.
fn row((name, kinds): (&str, &[Sent]), rounds: usize, seconds: u64) {
    let mut cluster = Cluster::start(System::Althing);
    cluster.kill(LIAR);
    let prepared = PREPARED / kinds.len() as u64;
    let flood = Flood::start(cluster.network(), LIAR, (kinds, prepared));
    let (mut quiet, mut loud) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        flood.set(false);
        // What waits in queues is dealt with or thrown away.
        std::thread::sleep(Duration::from_secs(2));
        quiet.push(stretch(&cluster, &flood, seconds));
        flood.set(true);
        std::thread::sleep(Duration::from_secs(2));
        loud.push(stretch(&cluster, &flood, seconds));
    }
    let median = |of: &[Stretch], field: fn(&Stretch) -> u64| {
        let mut sorted: Vec<u64> = of.iter().map(field).collect();
        sorted.sort_unstable();
        percentile(&sorted, 50)
    };
    let both = |field: fn(&Stretch) -> u64| (median(&quiet, field), median(&loud, field));
    let (rates, cpu, idle) = (both(|s| s.rate), both(|s| s.cpu_us), both(|s| s.idle_millicores));
    println!(
        "| {name} | {} | {} | {} | {:.2} | {} | {} | {} | {} |",
        median(&loud, |s| s.kib_per_second),
        rates.0,
        rates.1,
        rates.1 as f64 / rates.0.max(1) as f64,
        cpu.0,
        cpu.1,
        idle.0,
        idle.1
    );
}

/// Some time without load, some with.
fn stretch(cluster: &Cluster, flood: &Flood, seconds: u64) -> Stretch {
    let processes = cluster.processes();
    let sent = flood.sent_bytes();
    let start = Sample::of(&processes);
    std::thread::sleep(Duration::from_secs(1));
    let begin = Sample::of(&processes);
    let endpoints = [cluster.address(cluster.leader_seen_by(0))];
    let shape = Shape { name: "put", kind: Kind::Put, connections: 10, clients: 256 };
    let done = load::run(&endpoints, &shape, Duration::from_secs(seconds)).len() as u64;
    let used = Sample::of(&processes).since(&begin).cpu_us;
    Stretch {
        rate: done / seconds,
        cpu_us: used / done.max(1),
        idle_millicores: begin.since(&start).cpu_us / 1000,
        kib_per_second: (flood.sent_bytes() - sent) / (seconds + 1) / 1024,
    }
}
