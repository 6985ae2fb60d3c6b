//! A replica whose disk is lost, or comes back older than it was: fenced, synced, and voting again.

use std::path::Path;
use std::time::Instant;

use conformance::network::Network;
use conformance::peers::{self, eventually};

use crate::load::Load;
use crate::{WARM_UP, roots_become_equal};

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    let permissions = std::fs::metadata(from).expect("a directory").permissions();
    std::fs::set_permissions(to, permissions).expect("an own directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// Loses or replaces the data directory of `victim` while the others are written to; it must say so,
/// vote no word until its REJOIN is committed, and then be needed and enough for a quorum.
fn comes_back(network: &mut Network, name: &str, victim: usize, exchange: impl FnOnce(&Path)) {
    let others: Vec<usize> = (0..4).filter(|index| *index != victim).collect();
    let writers: Vec<_> = others.iter().map(|index| &network.replicas[*index]).collect();
    let load = Load::start(name, &writers);
    load.progress("at first", WARM_UP);
    network.kill(victim);
    exchange(&network.replicas[victim].home().join("data"));
    load.progress("without it", WARM_UP);
    let said = network.replicas[victim].output().len();
    let started = Instant::now();
    network.launch(victim);
    let new_output = |network: &Network| network.replicas[victim].output()[said..].to_owned();
    eventually("it finds that its votes are lost", || {
        new_output(network).contains("ROLLBACK_DETECTED")
    });
    eventually("its REJOIN is committed", || {
        network.replicas[victim].own_status().is_ok_and(|s| s["mode"] == "normal")
    });
    eprintln!("{name}: in normal mode {:?} after its start", started.elapsed());
    let ledger = load.finish();
    network.wait_until_ready(victim);
    ledger.check(network);
    roots_become_equal(network);
    let second = others[0];
    network.kill(second);
    let load = Load::start(&format!("{name}-again"), &[&network.replicas[victim]]);
    load.progress("with the returned one, which must vote", WARM_UP);
    let again = load.finish();
    network.restart(second);
    ledger.check(network);
    again.check(network);
    roots_become_equal(network);
    // A crash now is an ordinary one: what it voted before the fence accuses it no more.
    let said = network.replicas[victim].output().len();
    network.kill(victim);
    network.restart(victim);
    let status = network.replicas[victim].own_status().expect("a status");
    assert!(status["fenced"].is_null(), "{status}");
    let output = network.replicas[victim].output();
    assert!(!output[said..].contains("ROLLBACK_DETECTED"), "{}", &output[said..]);
}

#[test]
fn a_wiped_replica_rejoins_and_votes() {
    if !peers::available("process::wiped", &["althing"]) {
        return;
    }
    let mut network = Network::start(4);
    let victim = network.primary(0).map_or(1, |primary| (primary + 1) % 4);
    comes_back(&mut network, "wiped", victim, |data| {
        std::fs::remove_dir_all(data).expect("the data directory goes");
    });
}

#[test]
fn a_replica_on_an_older_copy_of_its_disk_rejoins_and_votes() {
    if !peers::available("process::rolled_back", &["althing"]) {
        return;
    }
    let mut network = Network::start(4);
    // The primary, whose own proposals alone would be no sign of a rollback.
    let victim = network.primary(0).unwrap_or(0);
    let load = Load::start("before", &[&network.replicas[victim]]);
    load.progress("before the copy", WARM_UP);
    let ledger = load.finish();
    network.kill(victim);
    let old = network.directory().join("older-copy");
    copy(&network.replicas[victim].home().join("data"), &old);
    network.restart(victim);
    comes_back(&mut network, "rolled-back", victim, |data| {
        std::fs::remove_dir_all(data).expect("the newer directory goes");
        copy(&old, data);
    });
    ledger.check(&network);
}
