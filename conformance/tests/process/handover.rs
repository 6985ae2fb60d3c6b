//! Planned changes of the primary, with clients that must not notice.

use conformance::network::Network;
use conformance::peers::{self, command, eventually};

use crate::load::Load;

fn etcdctl(network: &Network, at: usize, arguments: &[&str]) -> (bool, String) {
    let replica = &network.replicas[at];
    let tls = replica.tls();
    let output = command("etcdctl")
        .args(["--endpoints", &replica.endpoint])
        .arg("--cacert")
        .arg(&tls.ca)
        .arg("--cert")
        .arg(&tls.certificate)
        .arg("--key")
        .arg(&tls.key)
        .args(arguments)
        .output()
        .expect("etcdctl runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn member_id(network: &Network, at: usize) -> String {
    let (_, json) = etcdctl(network, at, &["endpoint", "status", "--write-out=json"]);
    let text = json.split("\"member_id\":").nth(1).expect("a member id");
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    format!("{:x}", digits.parse::<u64>().expect("a member id is a 64-bit number"))
}

#[test]
fn move_leader_and_sigterm_pass_the_lead_on_and_fail_no_write() {
    if !peers::available("process::handover", &["althing", "etcdctl"]) {
        return;
    }
    let mut network = Network::start(4);
    let first = network.known_primary(0);
    let at = |step: usize| (first + step) % 4;
    let writers = [at(2), at(3)].map(|index| &network.replicas[index]);
    let load = Load::start("handover", &writers);
    load.progress("at first", 50);

    let (next, last) = (member_id(&network, at(1)), member_id(&network, at(3)));
    let (moved, said) = etcdctl(&network, at(0), &["move-leader", &last]);
    assert!(!moved && said.contains("etcdserver: bad leader transferee"), "{said}");
    let (moved, said) = etcdctl(&network, at(0), &["move-leader", &next]);
    assert!(moved && said.contains("Leadership transferred from"), "{said}");
    eventually("the next one leads", || network.primary(at(1)) == Some(at(1)));
    let (moved, said) = etcdctl(&network, at(0), &["move-leader", &next]);
    assert!(!moved && said.contains("no leader endpoint given"), "{said}");
    load.progress("after move-leader", 50);
    let moved = load.finish();
    let writers = [at(2), at(3)].map(|index| &network.replicas[index]);
    let load = Load::start("sigterm", &writers);
    load.progress("before SIGTERM", 50);

    network.terminate(at(1));
    load.progress("after SIGTERM of the primary", 50);
    let ledger = load.finish();
    for (what, ledger) in [("move-leader", &moved), ("SIGTERM", &ledger)] {
        eprintln!("{what}: {} writes, longest wait {:?}", ledger.len(), ledger.longest_gap);
        assert_eq!(ledger.failures, 0, "{what}: a planned change fails no write elsewhere");
    }
    let led = network.replicas[at(1)].output();
    assert!(led.contains("stopping"), "{led}");
    network.restart(at(1));
    moved.check(&network);
    ledger.check(&network);
}
