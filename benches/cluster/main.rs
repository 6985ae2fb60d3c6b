//! A 3-node etcd against a 4-replica Althing, interleaved: same machine, same disk, both with fsync
//! and mutual TLS.
//!
//! `cargo build --profile dist && cargo bench -p conformance --bench cluster` (`-- --help` for more).
//! Prints medians and quartiles, server CPU per operation over all processes, and what explains
//! them. Each round says how much of the machine was taken away (steal). Nothing here passes or fails
//! by speed.

mod comeback;
mod faults;
mod flood;
mod load;
mod measure;
mod report;
mod servers;

use std::time::{Duration, Instant};

use faults::Liar;
use load::{Kind, Shape};
use report::{Cell, Table};
use servers::{Cluster, System};

/// What the command line asks for.
struct Plan {
    rounds: usize,
    seconds: u64,
    stored_keys: u64,
    all_endpoints: bool,
    special: Option<Special>,
    systems: Vec<System>,
}

/// Measured instead of the table of workloads.
enum Special {
    Faults(usize),
    /// The kind, or all.
    Flood(String),
    Restart(u64),
    Transfer(u64),
}

const HELP: &str = "\
--rounds N         interleaved rounds per workload (5)
--seconds S        length of one measurement (5)
--stored-keys N    keys of 512 B for memory and restart (500000); 0 leaves that out
--all-endpoints    spread connections over all servers instead of the leader's
--faults N         instead: kill the leader N times, then stop another one, then have one lie
--flood KIND       instead: one of four floods the others with KIND (Rejoin, ...), or all by kind
--restart N        instead: one of N keys of 512 B comes back, after SIGTERM and kill -9
--transfer N       instead: an empty replica fetches N MiB of state
--only SYSTEM      etcd or althing
--quick            2 rounds of 2 s, 20000 stored keys: shows that it runs";

fn plan() -> Plan {
    let mut plan = Plan {
        rounds: 5,
        seconds: 5,
        stored_keys: 500_000,
        all_endpoints: false,
        special: None,
        systems: vec![System::Etcd, System::Althing],
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| usage(&argument));
        match argument.as_str() {
            "--rounds" => plan.rounds = value().parse().unwrap_or_else(|_| usage(&argument)),
            "--seconds" => plan.seconds = value().parse().unwrap_or_else(|_| usage(&argument)),
            "--stored-keys" => {
                plan.stored_keys = value().parse().unwrap_or_else(|_| usage(&argument));
            }
            "--flood" => {
                let kind = Some(value()).filter(|kind| flood::is_kind(kind));
                plan.special = Some(Special::Flood(kind.unwrap_or_else(|| usage(&argument))));
            }
            "--faults" | "--restart" | "--transfer" => {
                let count: u64 = value().parse().unwrap_or_else(|_| usage(&argument));
                plan.special = Some(match argument.as_str() {
                    "--faults" => Special::Faults(usize::try_from(count).unwrap_or(usize::MAX)),
                    "--restart" => Special::Restart(count),
                    _ => Special::Transfer(count),
                });
            }
            "--all-endpoints" => plan.all_endpoints = true,
            "--only" => {
                plan.systems = match value().as_str() {
                    "etcd" => vec![System::Etcd],
                    "althing" => vec![System::Althing],
                    _ => usage(&argument),
                }
            }
            "--quick" => (plan.rounds, plan.seconds, plan.stored_keys) = (2, 2, 20_000),
            // What `cargo bench` adds by itself.
            "--bench" => {}
            _ => usage(&argument),
        }
    }
    plan
}

fn usage(argument: &str) -> ! {
    eprintln!("{argument}:\n{HELP}");
    std::process::exit(2);
}

const WORKLOADS: [Shape; 6] = [
    Shape { name: "put, 1 client", kind: Kind::Put, connections: 1, clients: 1 },
    Shape { name: "put, 64 on 64", kind: Kind::Put, connections: 64, clients: 64 },
    Shape { name: "put, 256 on 10", kind: Kind::Put, connections: 10, clients: 256 },
    Shape { name: "put, 1000 on 100", kind: Kind::Put, connections: 100, clients: 1_000 },
    Shape { name: "range, 256 on 10", kind: Kind::Range, connections: 10, clients: 256 },
    Shape { name: "serializable, 256 on 10", kind: Kind::Local, connections: 10, clients: 256 },
];

fn main() {
    let plan = plan();
    for system in &plan.systems {
        if !conformance::peers::available("cluster", &[system.program()]) {
            std::process::exit(3);
        }
    }
    measure::print_machine();
    match &plan.special {
        Some(Special::Faults(kills)) => return under_faults(&plan, *kills),
        Some(Special::Flood(only)) => return flood::by_kind(only, plan.rounds, plan.seconds),
        Some(Special::Restart(keys)) => {
            return plan.systems.iter().for_each(|one| comeback::restart(*one, *keys, plan.rounds));
        }
        Some(Special::Transfer(mib)) => return comeback::transfer(*mib, plan.rounds),
        None => {}
    }
    let clusters: Vec<Cluster> = plan.systems.iter().map(|s| Cluster::start(*s)).collect();
    for cluster in &clusters {
        println!("{}: {}", cluster.system.program(), cluster.describe());
        // Reads find all of the keys that writes choose from.
        load::fill(cluster, load::KEYS, 256);
    }
    let mut table = Table::default();
    for shape in &WORKLOADS {
        for round in 0..plan.rounds {
            for cluster in &clusters {
                let cell = measured(cluster, shape, &plan);
                eprintln!("{} round {round} {}: {cell}", shape.name, cluster.system.program());
                table.add(shape.name, cluster.system, cell);
            }
        }
    }
    table.print();
    drop(clusters);
    if plan.stored_keys > 0 {
        for system in &plan.systems {
            memory_and_restart(*system, plan.stored_keys);
        }
    }
}

/// What faults cost, system by system.
fn under_faults(plan: &Plan, kills: usize) {
    for system in &plan.systems {
        let waits = faults::failover(*system, kills);
        println!(
            "{}: leader killed {} times, ms to the next write: p50 {} p90 {} p99 {} longest {}",
            system.program(),
            waits.len(),
            faults::percentile(&waits, 50),
            faults::percentile(&waits, 90),
            faults::percentile(&waits, 99),
            faults::percentile(&waits, 100),
        );
    }
    for system in &plan.systems {
        let (healthy, silent) = faults::silent(*system, plan.rounds, plan.seconds);
        println!(
            "{}: puts per second, medians of {}: all {}, one silent {}",
            system.program(),
            plan.rounds,
            faults::percentile(&healthy, 50),
            faults::percentile(&silent, 50),
        );
    }
    if plan.systems.contains(&System::Althing) {
        for (liar, name) in [(Liar::Voter, "voter"), (Liar::Primary, "primary")] {
            let (healthy, lying) = faults::lying(liar, plan.rounds, plan.seconds);
            println!(
                "althing: puts per second, medians of {}: all honest {}, one {name} equivocating {}",
                plan.rounds,
                faults::percentile(&healthy, 50),
                faults::percentile(&lying, 50),
            );
        }
    }
}

/// One measurement on one cluster, nothing else running.
fn measured(cluster: &Cluster, shape: &Shape, plan: &Plan) -> Cell {
    let endpoints = cluster.endpoints(plan.all_endpoints);
    load::run(&endpoints, shape, Duration::from_millis(500));
    let before = cluster.sample();
    let latencies = load::run(&endpoints, shape, Duration::from_secs(plan.seconds));
    let after = cluster.sample();
    Cell::new(latencies, plan.seconds, &after.since(&before))
}

/// Fills a fresh cluster, shows its memory and disk, stops it, and times the way back to serving.
fn memory_and_restart(system: System, keys: u64) {
    let mut cluster = Cluster::start(system);
    let before = cluster.sample();
    load::fill(&cluster, keys, 512);
    let filled = cluster.sample();
    let written = filled.since(&before).written_bytes / (keys * cluster.size());
    let (rss, anonymous) = filled.memory_mib(cluster.size());
    let disk = cluster.disk_bytes() / cluster.size() / (1 << 20);
    cluster.stop();
    let started = Instant::now();
    cluster.start_again();
    let restart = started.elapsed();
    let (rss_again, anonymous_again) = cluster.sample().memory_mib(cluster.size());
    println!(
        "{}: {keys} keys x 512 B, per process: RSS {rss} MiB (anonymous {anonymous}), \
         disk {disk} MiB, {written} B written per put; restart to serving {:.1} s, \
         then RSS {rss_again} MiB (anonymous {anonymous_again})",
        system.program(),
        restart.as_secs_f64()
    );
}
