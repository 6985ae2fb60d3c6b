//! Unmodified Kubernetes 1.37.1 over an etcd API: two apiservers, controller manager, scheduler.
//!
//! `ALTHING_UNDER_TEST=etcd` runs the same scene on a real etcd, the oracle of `known_errors.txt`:
//! lines an apiserver logs there too. Any other error line fails the scene.

mod scene;

use std::time::Duration;

use conformance::cluster::Target;
use conformance::kube::{PROGRAMS, Store};
use conformance::network::Network;
use conformance::peers;

#[test]
fn kubernetes_works_on_one_server() {
    let program = std::env::var("ALTHING_UNDER_TEST").unwrap_or_else(|_| "althing".into());
    if !peers::available("kube::one_server", &[&PROGRAMS[..], &[&program]].concat()) {
        return;
    }
    let target = match program.as_str() {
        "etcd" => Target::etcd(&[]),
        _ => Target::althing(&[]),
    };
    let store = Store { endpoints: target.endpoint.clone(), tls: None };
    scene::play(&store, &store, || {});
}

/// Each apiserver is on its own organisation's replica, neither of them the primary; the primary is
/// killed while objects are written.
#[test]
fn kubernetes_works_on_four_organisations_and_survives_their_primary() {
    if !peers::available("kube::four_organisations", &[&PROGRAMS[..], &["althing"]].concat()) {
        return;
    }
    let mut network = Network::start(4);
    let primary = network.primary(0).expect("a primary");
    let store = |index: usize| {
        let replica = &network.replicas[index % 4];
        Store { endpoints: replica.endpoint.clone(), tls: Some(replica.tls()) }
    };
    let (first, second) = (store(primary + 1), store(primary + 2));
    scene::play(&first, &second, || {
        network.kill(primary);
        std::thread::sleep(Duration::from_secs(5));
        network.restart(primary);
    });
}
