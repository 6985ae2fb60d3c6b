//! How long a replica takes to serve again: after a stop, after a crash, after the loss of its disk.

use std::time::{Duration, Instant};

use conformance::peers;

use crate::faults::percentile;
use crate::load;
use crate::servers::{Cluster, System};

/// Bytes of a value where the state's size matters and not the number of its keys.
const LARGE: usize = 16 << 10;

/// One server of `keys` keys of 512 B comes back while the others run: SIGTERM and kill -9 in turn.
pub fn restart(system: System, keys: u64, rounds: usize) {
    let mut cluster = Cluster::start(system);
    load::fill(&cluster, keys, 512);
    let (mut stopped, mut killed) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let victim = (cluster.leader() + 1) % cluster.len();
        cluster.terminate(victim);
        stopped.push(milliseconds(cluster.time_to_serve(victim)));
        let victim = (cluster.leader_seen_by(victim) + 1) % cluster.len();
        cluster.kill(victim);
        killed.push(milliseconds(cluster.time_to_serve(victim)));
        eprintln!("{} round {round}: {stopped:?}, {killed:?} ms", system.program());
    }
    stopped.sort_unstable();
    killed.sort_unstable();
    println!(
        "{}: {keys} keys x 512 B, one of {} restarted, ms until it serves, median (longest) of {rounds}: \
         SIGTERM {} ({}), kill -9 {} ({})",
        system.program(),
        cluster.len(),
        percentile(&stopped, 50),
        percentile(&stopped, 100),
        percentile(&killed, 50),
        percentile(&killed, 100),
    );
}

/// A replica whose directory was wiped fetches `mib` MiB of state from the others, and serves.
pub fn transfer(mib: u64, rounds: usize) {
    let mut cluster = Cluster::start(System::Althing);
    let victim = (cluster.leader() + 1) % cluster.len();
    load::fill(&cluster, (mib << 20) / LARGE as u64, LARGE);
    // Two checkpoints by two replicas, one each a minute: what lies behind them is erased.
    for through in (0..cluster.len()).filter(|index| *index != victim).take(2) {
        let (url, tls) = cluster.address(through);
        let client = conformance::client::Client::new(&url, Some(&tls));
        let stable = |cluster: &mut Cluster, index: usize| {
            let status = cluster.network().replicas[index].own_status();
            status.ok().and_then(|status| status["stable_checkpoint"].as_u64()).unwrap_or(0)
        };
        let before = stable(&mut cluster, through);
        let asked = client.call_within("Maintenance/Defragment", "", Duration::from_secs(300));
        asked.unwrap_or_else(|failure| panic!("a checkpoint: {failure:?}"));
        peers::eventually("the checkpoint is stable", || {
            (0..cluster.len()).all(|index| stable(&mut cluster, index) > before)
        });
        load::fill(&cluster, 1, 512);
    }
    let mut times = Vec::new();
    for round in 0..rounds {
        let home = cluster.network().replicas[victim].home().to_owned();
        cluster.kill(victim);
        std::fs::remove_dir_all(home.join("data")).expect("the data directory goes");
        let said = cluster.network().replicas[victim].output().len();
        let started = Instant::now();
        cluster.network().launch(victim);
        let network = cluster.network();
        let mut seen = Vec::new();
        for what in ["fetching a checkpoint", "a checkpoint is complete", "\"normal\""] {
            peers::eventually(what, || {
                let replica = &network.replicas[victim];
                if what.starts_with('"') {
                    return replica.own_status().is_ok_and(|status| status["mode"] == "normal");
                }
                replica.output()[said..].contains(what)
            });
            seen.push(milliseconds(started.elapsed()));
        }
        network.wait_until_ready(victim);
        let all = milliseconds(started.elapsed());
        eprintln!(
            "round {round}: {mib} MiB: asked after {} ms, complete {}, voting {}, serving {all}",
            seen[0], seen[1], seen[2]
        );
        times.push(all);
    }
    times.sort_unstable();
    println!(
        "althing: {mib} MiB of state to an empty replica, ms until it serves, median (longest) of {rounds}: \
         {} ({})",
        percentile(&times, 50),
        percentile(&times, 100)
    );
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
