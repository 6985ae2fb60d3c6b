//! Networks of one owner that members found by etcd's flags alone, over their peer URLs.

use std::time::Duration;

use conformance::client::field;
use conformance::founded::Founded;
use conformance::peers::{self, eventually};

const MINUTE: Duration = Duration::from_secs(60);

fn cluster_id(network: &Founded, at: usize) -> String {
    let reply = network.client(at).call("Cluster/MemberList", "").expect("a list");
    format!("{:?}", field(&reply, "header.cluster_id"))
}

fn put(network: &Founded, at: usize, key: &str) {
    eventually(&format!("a write through m{at}"), MINUTE, || {
        network.etcdctl(at, &["put", key, "value"]).is_ok_and(|said| said == "OK")
    });
}

fn get(network: &Founded, at: usize, key: &str) {
    let found = network.etcdctl(at, &["get", key, "--print-value-only"]);
    assert_eq!(found, Ok("value".to_owned()), "at m{at}");
}

#[test]
fn members_started_with_etcds_flags_alone_are_one_network() {
    if !peers::available("process::founding", &["althing", "etcdctl"]) {
        return;
    }
    for count in [1, 2, 3, 4, 5] {
        let network = Founded::start(count);
        put(&network, count - 1, "key");
        get(&network, 0, "key");
        for at in 0..count {
            assert_eq!(cluster_id(&network, at), cluster_id(&network, 0), "one network");
            let listed = network.etcdctl(at, &["member", "list"]).expect("a list");
            for member in &network.members {
                let (name, peer, client) = (&member.name, &member.peer_url, &member.client_url);
                let line = format!("started, {name}, {peer}, {client}, false");
                assert!(listed.contains(&line), "{line} is missing in\n{listed}");
            }
            let said = network.members[at].output();
            assert_eq!(said.contains("whoever answers at their peer URLs"), count > 1, "{said}");
            assert_eq!(said.contains("f = 0"), count < 4, "{said}");
        }
        // One organisation: users made at one member are users at all.
        network.etcdctl(0, &["user", "add", "u:p"]).expect("a user");
        let users = network.etcdctl(count - 1, &["user", "list"]);
        assert_eq!(users, Ok("u".to_owned()), "of {count}");
    }
}

#[test]
fn of_three_two_go_on_and_one_reads_what_it_has() {
    if !peers::available("process::founding", &["althing", "etcdctl"]) {
        return;
    }
    let mut network = Founded::start(3);
    put(&network, 0, "first");
    let leader = |network: &Founded, at: usize| {
        let status = network.client(at).call("Maintenance/Status", "").ok()?;
        Some((field(&status, "leader"), field(&status, "header.member_id")))
    };
    let leads = |network: &Founded, at: usize| leader(network, at).is_some_and(|(l, m)| l == m);
    let first = (0..3).find(|at| leads(&network, *at)).expect("a leader");
    network.terminate(first);
    let others: Vec<usize> = (0..3).filter(|at| *at != first).collect();
    eventually("another leads", MINUTE, || others.iter().any(|at| leads(&network, *at)));
    put(&network, others[0], "second");
    get(&network, others[1], "second");
    network.kill(others[0]);
    let last = others[1];
    let local = network.etcdctl(last, &["get", "first", "--consistency=s", "--print-value-only"]);
    assert_eq!(local, Ok("value".to_owned()));
    assert!(network.etcdctl(last, &["get", "first"]).is_err(), "one of three is no quorum");
    assert!(network.etcdctl(last, &["put", "third", "value"]).is_err(), "nor does it write");
    network.launch_all();
    put(&network, last, "fourth");
    (0..3).for_each(|at| get(&network, at, "fourth"));
}

#[test]
fn who_crashes_or_loses_its_disk_while_the_network_is_founded_comes_in_or_is_refused() {
    if !peers::available("process::founding", &["althing", "etcdctl"]) {
        return;
    }
    let mut network = Founded::places(3);
    network.launch(0, &[]);
    network.launch(1, &[]);
    for at in [0, 1] {
        let key = network.file(at, "keys/hello");
        eventually("it has said who it is", MINUTE, || key.exists());
    }
    network.kill(0);
    network.launch(0, &[]);
    network.kill(1);
    network.wipe(1);
    network.launch(1, &[]);
    // Nobody has signed without the third.
    assert!(!network.file(0, "keys/genesis.json").exists());
    network.launch_all();
    put(&network, 0, "key");
    (0..3).for_each(|at| get(&network, at, "key"));
    let id = cluster_id(&network, 0);

    network.kill(2);
    network.wipe(2);
    network.launch(2, &[]);
    let said = network.wait_until_ended(2);
    assert!(said.contains("knows this one by the key"), "{said}");
    put(&network, 0, "later");
    // The two that are left start again as who they were.
    network.terminate(1);
    network.terminate(0);
    network.launch(0, &[]);
    network.launch(1, &[]);
    (0..2).for_each(|at| network.wait_until_ready(at));
    put(&network, 1, "after");
    assert_eq!(cluster_id(&network, 1), id);
    network.wipe(2);
    network.launch(2, &["--initial-cluster-token=other"]);
    let said = network.wait_until_ended(2);
    assert!(said.contains("another --initial-cluster or --initial-cluster-token"), "{said}");
}

#[test]
fn members_behind_proxies_are_found_where_they_say() {
    if !peers::available("process::founding", &["althing", "etcdctl"]) {
        return;
    }
    let mut network = Founded::behind_proxies(3);
    network.launch_all();
    put(&network, 2, "key");
    (0..3).for_each(|at| get(&network, at, "key"));
}

#[test]
fn a_larger_quota_at_one_members_restart_is_the_networks() {
    if !peers::available("process::founding", &["althing", "etcdctl"]) {
        return;
    }
    let mut network = Founded::places(3);
    for at in 0..3 {
        network.launch(at, &["--quota-backend-bytes=100000"]);
    }
    (0..3).for_each(|at| network.wait_until_ready(at));
    let big = "x".repeat(60_000);
    let put = |network: &Founded, at: usize| network.etcdctl(at, &["put", "big", &big]);
    eventually("there is no more space", MINUTE, || {
        put(&network, 0).is_err_and(|why| why.contains("mvcc: database space exceeded"))
    });
    network.terminate(1);
    network.launch(1, &["--quota-backend-bytes=10000000"]);
    network.wait_until_ready(1);
    let alarm = network.etcdctl(0, &["alarm", "disarm"]).expect("an answer");
    assert!(alarm.contains("alarm:NOSPACE"), "{alarm}");
    for at in 0..3 {
        assert_eq!(put(&network, at), Ok("OK".to_owned()), "through m{at}");
    }
    // Without the flag a member takes what the network has.
    network.terminate(2);
    network.launch(2, &[]);
    network.wait_until_ready(2);
    assert_eq!(put(&network, 2), Ok("OK".to_owned()));
}
