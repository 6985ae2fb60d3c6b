//! Four replicas as processes, and what happens when some of them die.

mod abuse;
mod as_etcd;
mod auth;
mod bad_input;
mod certificates;
mod clients;
mod damage;
mod demo;
mod disk;
mod diverge;
mod erasure;
mod flood;
mod founding;
mod handover;
mod hashes;
mod links;
mod load;
mod lost_disk;
mod members;
mod membership;
mod memory;
mod observers;
mod pause;
mod snapshot;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use conformance::network::Network;
use conformance::peers::{self, eventually};
use load::Load;
use serde_json::Value as Json;

const WARM_UP: u64 = 50;
/// How long anything may take that must happen, however slow the machine is.
const MINUTE: Duration = Duration::from_secs(60);

/// Kills replica `victim` under load; the three others go on; the victim comes back and votes.
fn survives_death_of(network: &mut Network, name: &str, victim: usize) {
    let others: Vec<usize> = (0..4).filter(|index| *index != victim).collect();
    let writers: Vec<_> = others.iter().map(|index| &network.replicas[*index]).collect();
    let load = Load::start(name, &writers);
    load.progress("at first", WARM_UP);
    network.kill(victim);
    load.progress("after the kill", WARM_UP);
    let ledger = load.finish();
    eprintln!(
        "{name}: {} writes, {} unknown, longest wait {:?}",
        ledger.len(),
        ledger.failures,
        ledger.longest_gap
    );
    network.restart(victim);
    ledger.check(network);
    roots_become_equal(network);
    // The one that came back must vote: without it there is no quorum now.
    let second = others[0];
    network.kill(second);
    let load = Load::start(&format!("{name}-again"), &[&network.replicas[victim]]);
    load.progress("with the returned one", WARM_UP);
    let ledger = load.finish();
    network.restart(second);
    ledger.check(network);
    roots_become_equal(network);
}

/// All running replicas have executed the same height, and say the same root for it.
fn roots_become_equal(network: &Network) {
    let running: Vec<_> = network.replicas.iter().filter(|replica| replica.runs()).collect();
    eventually("all replicas have the same root", || {
        let roots: Vec<Option<(Json, Json)>> = running
            .iter()
            .map(|replica| replica.own_status().ok())
            .map(|status| status.map(|s| (s["executed"].clone(), s["exec_root"].clone())))
            .collect();
        let told = roots.iter().flatten().all(|(height, root)| height.is_u64() && root.is_string());
        let heights: BTreeSet<_> = roots.iter().flatten().map(|(h, _)| h.to_string()).collect();
        if heights.len() == 1 && roots.iter().all(Option::is_some) {
            assert!(roots.iter().all(|root| *root == roots[0]), "roots differ: {roots:?}");
        }
        told && roots.iter().all(|root| root.is_some() && *root == roots[0])
    });
}

#[test]
fn a_dead_backup_is_not_missed_and_votes_again() {
    if !peers::available("process::backup", &["althing"]) {
        return;
    }
    let mut network = Network::start(4);
    let primary = network.known_primary(0);
    survives_death_of(&mut network, "backup", (primary + 1) % 4);
}

#[test]
fn a_dead_primary_is_replaced_and_votes_again() {
    if !peers::available("process::primary", &["althing"]) {
        return;
    }
    let mut network = Network::start(4);
    let primary = network.known_primary(0);
    survives_death_of(&mut network, "primary", primary);
}

#[test]
fn all_four_killed_under_load_lose_nothing() {
    if !peers::available("process::all_four", &["althing"]) {
        return;
    }
    let mut network = Network::start(4);
    let mut ledgers = Vec::new();
    for round in 0..3 {
        let writers: Vec<_> = network.replicas.iter().collect();
        let load = Load::start(&format!("round-{round}"), &writers);
        load.progress("before all are killed", WARM_UP + 37 * round);
        for index in 0..4 {
            network.kill(index);
        }
        ledgers.push(load.finish());
        for index in 0..4 {
            network.launch(index);
        }
        for index in 0..4 {
            network.wait_until_ready(index);
        }
        for ledger in &ledgers {
            ledger.check(&network);
        }
        roots_become_equal(&network);
    }
}

#[test]
fn the_largest_request_is_ordered_by_three_of_four() {
    if !peers::available("process::largest", &["althing"]) {
        return;
    }
    let mut network = Network::start(4);
    let primary = network.known_primary(0);
    network.kill((primary + 1) % 4);
    let backup = (primary + 2) % 4;
    let client = network.replicas[backup].client();
    // etcd's limit is 1.5 MiB for the whole request.
    let value = "v".repeat(1_500_000);
    for number in 0..3 {
        let request = format!("key:'large-{number}' value:'{value}'");
        client.call("KV/Put", &request).expect("a write of 1.5 MB");
    }
    let read =
        network.replicas[primary].client().call("KV/Range", "key:'large-2'").expect("a read");
    assert_eq!(conformance::client::number(&read, "count"), 1);
    network.restart((primary + 1) % 4);
    roots_become_equal(&network);
}

#[test]
fn with_two_of_four_down_nothing_is_ordered_and_one_return_is_enough() {
    if !peers::available("process::two_down", &["althing"]) {
        return;
    }
    let mut network = Network::start(4);
    let client = network.replicas[0].client();
    client.call("KV/Put", "key:'before' value:'1'").expect("a write");
    network.kill(2);
    network.kill(3);
    let started = Instant::now();
    let within = Duration::from_secs(30);
    for (method, request) in [("KV/Put", "key:'lost' value:'1'"), ("KV/Range", "key:'before'")] {
        let failure = client.call_within(method, request, within).expect_err("no quorum");
        assert_eq!(failure.code, "Unavailable", "{method}: {failure:?}");
        let known = ["etcdserver: no leader", "etcdserver: request timed out"];
        assert!(known.iter().any(|k| failure.message.starts_with(k)), "{method}: {failure:?}");
    }
    eprintln!("two down: refused after {:?}", started.elapsed());
    let local = client.call("KV/Range", "key:'before' serializable:true").expect("a local read");
    assert_eq!(conformance::client::number(&local, "count"), 1);
    network.launch(2);
    let back = Instant::now();
    eventually("writes are ordered again", || {
        client.call_within("KV/Put", "key:'after' value:'1'", Duration::from_secs(5)).is_ok()
    });
    eprintln!("two down: ordered again {:?} after one returned", back.elapsed());
    network.restart(3);
    roots_become_equal(&network);
}
