//! Unmodified Kubernetes 1.37.1 over an etcd API: two apiservers, controller manager, scheduler.
//!
//! `ALTHING_UNDER_TEST=etcd` runs the same scenes on a real etcd, the oracle of the `known_errors*.txt`:
//! lines an apiserver logs there too. Any other error line fails a scene.

mod scene;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use conformance::ceremony::{OBSERVER, VOTER, with_observer};
use conformance::cluster::Target;
use conformance::etcd_cluster::EtcdCluster;
use conformance::kube::{PROGRAMS, Store};
use conformance::network::Network;
use conformance::peers;

/// A control plane fills a machine: two at once starve each other.
fn alone() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn kubernetes_works_on_one_server() {
    let _alone = alone();
    let program = std::env::var("ALTHING_UNDER_TEST").unwrap_or_else(|_| "althing".into());
    if !peers::available("kube::one_server", &[&PROGRAMS[..], &[&program]].concat()) {
        return;
    }
    let target = match program.as_str() {
        "etcd" => Target::etcd(&[]),
        _ => Target::althing(&[]),
    };
    let store = Store { endpoints: target.endpoint.clone(), tls: None };
    scene::play(&store, &store, scene::HEALTHY, || {});
}

/// Each apiserver is on its own organisation's replica, neither of them the primary; the primary is
/// killed while objects are written.
#[test]
fn kubernetes_works_on_four_organisations_and_survives_their_primary() {
    let _alone = alone();
    let program = std::env::var("ALTHING_UNDER_TEST").unwrap_or_else(|_| "althing".into());
    if !peers::available("kube::four_organisations", &[&PROGRAMS[..], &[&program]].concat()) {
        return;
    }
    if program == "etcd" {
        return on_an_etcd_cluster();
    }
    let mut network = Network::start(4);
    let primary = network.known_primary(0);
    let store = |index: usize| {
        let replica = &network.replicas[index % 4];
        Store { endpoints: replica.endpoint.clone(), tls: Some(replica.tls()) }
    };
    let (first, second) = (store(primary + 1), store(primary + 2));
    scene::play(&first, &second, scene::LEADER_KILLED, || {
        network.kill(primary);
        std::thread::sleep(Duration::from_secs(5));
        network.restart(primary);
    });
}

/// One apiserver lists the voter and the observer of its organisation; each of them is restarted while
/// objects are written.
#[test]
fn kubernetes_works_on_two_endpoints_of_one_organisation_while_each_restarts() {
    let _alone = alone();
    let program = std::env::var("ALTHING_UNDER_TEST").unwrap_or_else(|_| "althing".into());
    let needed = [&PROGRAMS[..], &[&program]].concat();
    if program == "etcd" || !peers::available("kube::two_endpoints", &needed) {
        return;
    }
    let mut network = with_observer();
    let (voter, observer) = (&network.replicas[VOTER], &network.replicas[OBSERVER]);
    let both = Store {
        endpoints: format!("{},{}", voter.endpoint, observer.endpoint),
        tls: Some(voter.tls()),
    };
    let other = &network.replicas[2];
    let second = Store { endpoints: other.endpoint.clone(), tls: Some(other.tls()) };
    scene::play(&both, &second, scene::LEADER_KILLED, || {
        for index in [VOTER, OBSERVER] {
            network.terminate(index);
            std::thread::sleep(Duration::from_secs(3));
            network.restart(index);
        }
    });
}

/// The same with three nodes of etcd, whose leader dies: what an apiserver logs then.
fn on_an_etcd_cluster() {
    let mut cluster = EtcdCluster::start();
    let leader = cluster.leader(0);
    let store = |index: usize| Store {
        endpoints: cluster.endpoint(index % 3),
        tls: Some(cluster.tls.clone()),
    };
    let (first, second) = (store(leader + 1), store(leader + 2));
    scene::play(&first, &second, scene::LEADER_KILLED, || {
        cluster.kill(leader);
        std::thread::sleep(Duration::from_secs(5));
        cluster.launch(leader);
    });
}
