//! What clients notice of a fault: how long writes stop when the leader is killed, and what a silent or a
//! lying replica costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use conformance::client::Client;
use rustix::process::{Pid, Signal, kill_process};

use crate::load::{self, Kind, Shape};
use crate::servers::{Address, Cluster, System};

/// The longest any one write is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Kills the leader `kills` times under one client elsewhere. Milliseconds from each kill to the
/// first acknowledgement of a write that began after it, in ascending order.
pub fn failover(system: System, kills: usize) -> Vec<u64> {
    let mut cluster = Cluster::start(system);
    let mut waits: Vec<u64> = (0..kills)
        .map(|round| {
            let leader = cluster.leader();
            let elsewhere = cluster.address((leader + 1 + round % 2) % cluster.len());
            let waited = killed(&mut cluster, leader, elsewhere);
            cluster.restart(leader);
            eprintln!("{} kill {round}: {waited} ms", system.program());
            waited
        })
        .collect();
    waits.sort_unstable();
    waits
}

fn killed(cluster: &mut Cluster, leader: usize, (url, tls): Address) -> u64 {
    let stop = Arc::new(AtomicBool::new(false));
    let ended = stop.clone();
    let writer = std::thread::spawn(move || {
        let mut writes = Vec::new();
        let mut client = Client::new(&url, Some(&tls));
        while !ended.load(Ordering::Relaxed) {
            let began = Instant::now();
            match client.call_within("KV/Put", "key:'f' value:'1'", PATIENCE) {
                Ok(_) => writes.push((began, Instant::now())),
                Err(_unknown_outcome) => client = Client::new(&url, Some(&tls)),
            }
        }
        writes
    });
    std::thread::sleep(Duration::from_millis(500));
    let at = Instant::now();
    cluster.kill(leader);
    std::thread::sleep(Duration::from_secs(6));
    stop.store(true, Ordering::Relaxed);
    let writes = writer.join().expect("a writer");
    let next = writes.iter().find(|(began, _)| *began > at);
    let (_, acknowledged) = next.expect("a write within six seconds");
    u64::try_from(acknowledged.duration_since(at).as_millis()).unwrap_or(u64::MAX)
}

/// Puts per second with all replicas, and with one that is not the leader stopped (SIGSTOP: its links
/// stand, nothing comes), `rounds` times in turn.
pub fn silent(system: System, rounds: usize, seconds: u64) -> (Vec<u64>, Vec<u64>) {
    let cluster = Cluster::start(system);
    let shape = Shape { name: "put", kind: Kind::Put, connections: 10, clients: 256 };
    let rate = || {
        let endpoints = cluster.endpoints(false);
        let done = load::run(&endpoints, &shape, Duration::from_secs(seconds)).len() as u64;
        done / seconds
    };
    let (mut healthy, mut degraded) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        healthy.push(rate());
        let victim = cluster.processes()[(cluster.leader() + 1) % cluster.len()];
        signal(victim, Signal::STOP);
        // Beyond every timeout that finds it missing.
        std::thread::sleep(Duration::from_secs(2));
        degraded.push(rate_elsewhere(&cluster, victim, &shape, seconds));
        signal(victim, Signal::CONT);
        std::thread::sleep(Duration::from_secs(3));
    }
    healthy.sort_unstable();
    degraded.sort_unstable();
    (healthy, degraded)
}

/// Whom the lie is asked of.
#[derive(Clone, Copy)]
pub enum Liar {
    /// One that follows.
    Voter,
    /// The one that proposes: it is found out, and the view changes under the load.
    Primary,
}

/// Puts per second through an honest replica that does not lead, while all are honest and while one
/// equivocates, `rounds` times in turn. A lie lasts ten seconds.
pub fn lying(liar: Liar, rounds: usize, seconds: u64) -> (Vec<u64>, Vec<u64>) {
    let mut cluster = Cluster::start_demo();
    let seconds = seconds.min(9);
    let shape = Shape { name: "put", kind: Kind::Put, connections: 10, clients: 256 };
    let (mut healthy, mut degraded) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let leader = cluster.leader();
        let endpoints = [cluster.address((leader + 1) % cluster.len())];
        let rate = || {
            let done = load::run(&endpoints, &shape, Duration::from_secs(seconds)).len() as u64;
            done / seconds
        };
        healthy.push(rate());
        let leader = cluster.leader();
        let liar = match liar {
            Liar::Voter => (leader + 2) % cluster.len(),
            Liar::Primary => leader,
        };
        cluster.network().replicas[liar].lie();
        degraded.push(rate());
        std::thread::sleep(Duration::from_secs(12 - seconds));
    }
    healthy.sort_unstable();
    degraded.sort_unstable();
    (healthy, degraded)
}

/// The leader's endpoint, asked of one that runs.
fn rate_elsewhere(cluster: &Cluster, stopped: u32, shape: &Shape, seconds: u64) -> u64 {
    let running = cluster.processes().iter().position(|process| *process != stopped);
    let leader = cluster.leader_seen_by(running.expect("one runs"));
    let endpoints = [cluster.address(leader)];
    load::run(&endpoints, shape, Duration::from_secs(seconds)).len() as u64 / seconds
}

fn signal(process: u32, signal: Signal) {
    let pid = Pid::from_raw(process.cast_signed()).expect("a process id");
    kill_process(pid, signal).expect("our own process");
}

/// The value below which `percent` of them lie.
pub fn percentile(sorted: &[u64], percent: usize) -> u64 {
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0)
}
