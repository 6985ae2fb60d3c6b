//! Unmodified Kubernetes 1.37.1 over an etcd API: two apiservers, controller manager, scheduler.
//!
//! `ALTHING_UNDER_TEST=etcd` runs the same scene on a real etcd, the oracle of `known_errors.txt`:
//! lines an apiserver logs there too. Any other error line fails the scene.

mod scene;

use conformance::cluster::Target;
use conformance::kube::{PROGRAMS, Store};
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
