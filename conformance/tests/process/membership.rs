//! Members of a network of one owner come and go by etcd's own calls, through the unmodified etcdctl.

use conformance::founded::Founded;
use conformance::peers::{self, eventually};

const JOINS: &[&str] = &["--initial-cluster-state=existing"];

fn list(network: &Founded, at: usize) -> String {
    network.etcdctl(at, &["member", "list"]).unwrap_or_default()
}

/// The member id in the line of `member list` that holds this text.
fn id_of(network: &Founded, at: usize, text: &str) -> String {
    let listed = list(network, at);
    let line = listed.lines().find(|line| line.contains(text));
    let line = line.unwrap_or_else(|| panic!("{text} is missing in\n{listed}"));
    line.split(',').next().expect("a first column").to_owned()
}

fn refused(network: &Founded, arguments: &[&str], why: &str) {
    let said = network.etcdctl(0, arguments).expect_err("refused");
    assert!(said.contains(why), "{arguments:?}: {said}");
}

fn works_everywhere(network: &Founded, members: &[usize], key: &str) {
    for at in members {
        let key = format!("{key}{at}");
        eventually(&format!("a write through m{at}"), || {
            network.etcdctl(*at, &["put", &key, "value"]).is_ok()
        });
        for reader in members {
            let found = network.etcdctl(*reader, &["get", &key, "--print-value-only"]);
            assert_eq!(found, Ok("value".to_owned()), "{key} at m{reader}");
        }
    }
}

/// Adds the member at the next place, starts it and waits until it is listed as started.
fn grow(network: &mut Founded, how: &[&str]) -> usize {
    let at = network.add_place();
    let url = format!("--peer-urls={}", network.members[at].peer_url);
    let name = network.members[at].name.clone();
    // Refused as unhealthy until the members have been connected for some seconds, as in etcd.
    eventually(&format!("{name} is added"), || {
        network.etcdctl(0, &[&["member", "add", &name, &url], how].concat()).is_ok()
    });
    let listed = list(network, 0);
    assert!(listed.contains(&format!("unstarted, , {}", network.members[at].peer_url)), "{listed}");
    network.launch(at, JOINS);
    network.wait_until_ready(at);
    let learner = how.contains(&"--learner");
    let member = &network.members[at];
    let line = format!("started, {name}, {}, {}, {learner}", member.peer_url, member.client_url);
    eventually(&format!("{name} is started"), || list(network, 0).contains(&line));
    at
}

#[test]
fn a_network_of_one_grows_to_three_and_goes_on_without_its_founder() {
    if !peers::available("process::membership", &["althing", "etcdctl"]) {
        return;
    }
    let mut network = Founded::start(1);
    works_everywhere(&network, &[0], "alone");
    let own = id_of(&network, 0, "m0");
    refused(&network, &["member", "remove", &own], "not enough started members");
    refused(&network, &["member", "promote", &own], "can only promote a learner member");
    refused(&network, &["member", "remove", "123"], "member not found");
    let taken = format!("--peer-urls={}", network.members[0].peer_url);
    refused(&network, &["member", "add", "x", &taken], "Peer URLs already exists");

    let second = grow(&mut network, &[]);
    works_everywhere(&network, &[0, second], "two");
    let third = grow(&mut network, &["--learner"]);
    refused(
        &network,
        &["member", "add", "x", "--peer-urls=http://127.0.0.1:1", "--learner"],
        "too many learner members in cluster",
    );
    let learner = id_of(&network, 0, "m2");
    eventually("the learner is promoted", || {
        network.etcdctl(0, &["member", "promote", &learner]).is_ok()
    });
    works_everywhere(&network, &[0, second, third], "three");

    eventually("the founder is removed", || {
        network.etcdctl(second, &["member", "remove", &own]).is_ok()
    });
    let said = network.wait_until_ended(0);
    assert!(said.contains("was removed from the network"), "{said}");
    works_everywhere(&network, &[second, third], "left");
    assert_eq!(list(&network, second).lines().count(), 2);
    // What they are they stay, also after a restart of all.
    network.terminate(second);
    network.terminate(third);
    network.launch(second, JOINS);
    network.launch(third, JOINS);
    network.wait_until_ready(second);
    network.wait_until_ready(third);
    works_everywhere(&network, &[second, third], "again");
}

#[test]
fn one_that_is_expected_is_listed_moved_and_removed_and_nobody_else_is_let_in() {
    if !peers::available("process::membership", &["althing", "etcdctl"]) {
        return;
    }
    let mut network = Founded::start(1);
    let expected = ["member", "add", "x", "--peer-urls=http://127.0.0.1:1"];
    network.etcdctl(0, &[&expected[..], &["--learner"]].concat()).expect("added");
    let id = id_of(&network, 0, "http://127.0.0.1:1,");
    refused(&network, &["member", "promote", &id], "in sync with leader");
    let moved = ["member", "update", &id, "--peer-urls=http://127.0.0.1:2"];
    network.etcdctl(0, &moved).expect("updated");
    assert_eq!(id_of(&network, 0, "unstarted, , http://127.0.0.1:2, , true"), id);
    let at = network.add_place();
    network.launch(at, JOINS);
    let said = network.wait_until_ended(at);
    assert!(said.contains("unmatched member while checking PeerURLs"), "{said}");
    network.etcdctl(0, &["member", "remove", &id]).expect("removed");
    assert_eq!(list(&network, 0).lines().count(), 1);
    works_everywhere(&network, &[0], "still");
}
