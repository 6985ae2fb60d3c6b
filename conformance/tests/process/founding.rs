//! Networks of one owner that members found by etcd's flags alone, over their peer URLs.

use std::path::Path;
use std::time::Duration;

use conformance::certificates::{Authority, LOOPBACK, authority, holder};
use conformance::client::field;
use conformance::founded::Founded;
use conformance::peers::{self, eventually};

fn cluster_id(network: &Founded, at: usize) -> String {
    let reply = network.client(at).call("Cluster/MemberList", "").expect("a list");
    format!("{:?}", field(&reply, "header.cluster_id"))
}

fn put(network: &Founded, at: usize, key: &str) {
    eventually(&format!("a write through m{at}"), || {
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
    eventually("another leads", || others.iter().any(|at| leads(&network, *at)));
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

/// As etcd's own tests wait for a leader: a linearizable read, then all must name one that is there.
#[test]
fn once_the_primary_has_stopped_nobody_names_it() {
    if !peers::available("process::founding", &["althing"]) {
        return;
    }
    let mut network = Founded::start(3);
    let ask = |network: &Founded, at: usize| {
        let status = network.client(at).call("Maintenance/Status", "").expect("a status");
        let id = |path| field(&status, path).as_u64().expect("an id");
        (id("leader"), id("header.member_id"))
    };
    for round in 0..6 {
        let leads = |at: &usize| matches!(ask(&network, *at), (leader, own) if leader == own);
        let mut first = None;
        eventually("one leads", || {
            first = (0..3).find(leads);
            first.is_some()
        });
        let first = first.expect("found above");
        let gone = ask(&network, first).1;
        network.terminate(first);
        let others: Vec<usize> = (0..3).filter(|at| *at != first).collect();
        eventually("a read", || {
            let patience = Duration::from_secs(3);
            network.client(others[0]).call_within("KV/Range", "key:'any'", patience).is_ok()
        });
        // Two are left, and both were needed for the read. Who is starved names nobody for a moment.
        for at in &others {
            eventually("it names one", || {
                let (leader, _) = ask(&network, *at);
                assert_ne!(leader, gone, "round {round}: m{at} names who has stopped");
                leader != 0
            });
        }
        network.launch_all();
    }
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
        eventually("it has said who it is", || key.exists());
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
    eventually("there is no more space", || {
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

/// A certificate for this machine, good until the end of that year.
fn write_pair(directory: &Path, name: &str, (authority, year): (&Authority, i32)) {
    let mut member = holder(name, LOOPBACK);
    member.not_before = rcgen::date_time_ymd(2020, 1, 1);
    member.not_after = rcgen::date_time_ymd(year, 12, 31);
    let [certificate, key] = ["crt", "key"].map(|end| directory.join(format!("{name}.{end}")));
    authority.issue(&member).write(&certificate, &key);
}

fn write_authority(directory: &Path, name: &str) -> Authority {
    let made = authority(name);
    std::fs::write(directory.join(format!("{name}.crt")), &made.certificate).expect("written");
    made
}

fn peer_flags(directory: &Path, name: &str, ca: &str) -> Vec<String> {
    let path = |file: &str| directory.join(file).display().to_string();
    vec![
        format!("--peer-cert-file={}", path(&format!("{name}.crt"))),
        format!("--peer-key-file={}", path(&format!("{name}.key"))),
        format!("--peer-trusted-ca-file={}", path(&format!("{ca}.crt"))),
        "--peer-client-cert-auth".to_owned(),
    ]
}

#[test]
fn members_at_https_urls_need_certificates_to_find_each_other_and_none_afterwards() {
    if !peers::available("process::founding", &["althing", "etcdctl"]) {
        return;
    }
    let files = tempfile::tempdir().expect("a temporary directory");
    let files = files.path();
    let (ours, theirs) = (write_authority(files, "ours"), write_authority(files, "theirs"));
    write_pair(files, "member", (&ours, 2099));
    write_pair(files, "stranger", (&theirs, 2099));
    let mut network = Founded::places(3).secure(peer_flags(files, "member", "ours"));
    let stranger = peer_flags(files, "stranger", "theirs");
    let stranger: Vec<&str> = stranger.iter().map(String::as_str).collect();
    network.launch(0, &[]);
    network.launch(1, &[]);
    network.launch(2, &stranger);
    // Each says why it still waits.
    eventually("the stranger's certificate is refused", || {
        let heard = network.members[0].output();
        heard.contains("m2 (https://") && heard.contains("UnknownIssuer")
    });
    assert!(!network.file(0, "keys/genesis.json").exists(), "no network with a stranger");
    network.kill(2);
    network.launch_all();
    put(&network, 0, "key");
    (0..3).for_each(|at| get(&network, at, "key"));
    let shown = peers::command("althing")
        .args(["cert", "status", "--endpoint", &network.members[0].client_url])
        .output()
        .expect("althing runs");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for part in ["peer URLs", "peer URLs: authority", "member.crt", "ours.crt"] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }

    // A stranger is not let in; a member is, with certificates that changed meanwhile.
    let next = write_authority(files, "ours");
    write_pair(files, "member", (&next, 2099));
    let at = network.add_place();
    let url = network.members[at].peer_url.clone();
    eventually("it is added", || {
        network.etcdctl(0, &["member", "add", "m3", &format!("--peer-urls={url}")]).is_ok()
    });
    network.launch(at, &[&["--initial-cluster-state=existing"], &stranger[..]].concat());
    eventually("its certificate is refused", || {
        network.members[at].output().contains("waiting to be let into the network")
    });
    network.kill(at);
    network.launch(at, &["--initial-cluster-state=existing"]);
    network.wait_until_ready(at);
    put(&network, at, "joined");

    // They expire: whoever starts again is linked all the same.
    write_pair(files, "member", (&next, 2021));
    for at in 0..4 {
        network.terminate(at);
        network.launch(at, &[]);
        network.wait_until_ready(at);
        put(&network, at, "expired");
    }
    (0..4).for_each(|at| get(&network, at, "expired"));
}

#[test]
fn https_peer_urls_work_with_made_certificates_and_are_refused_without_any() {
    if !peers::available("process::founding", &["althing", "etcdctl"]) {
        return;
    }
    let mut network = Founded::places(3).secure(vec!["--peer-auto-tls".to_owned()]);
    network.launch_all();
    put(&network, 0, "key");
    (0..3).for_each(|at| get(&network, at, "key"));
    let mut bare = Founded::places(3).secure(Vec::new());
    bare.launch(0, &[]);
    let said = bare.wait_until_ended(0);
    assert!(said.contains("cannot listen on TLS for 127.0.0.1:"), "{said}");
    assert!(said.contains("KeyFile and CertFile are not presented"), "{said}");
    assert!(!bare.file(0, "keys").exists(), "nothing was made");
    // Who listens without TLS and is sought with it is not found: the other says so.
    let mut mixed = Founded::places(2).secure(vec!["--peer-auto-tls".to_owned()]);
    let plain = mixed.members[1].peer_url.replacen("https", "http", 1);
    mixed.launch(0, &[]);
    mixed.launch(1, &[&format!("--listen-peer-urls={plain}")]);
    eventually("the first says why it waits", || {
        mixed.members[0].output().contains("m1 (https://")
    });
    assert!(!mixed.file(0, "keys/genesis.json").exists());
}
