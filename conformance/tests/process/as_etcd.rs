//! Members that come and go, beside a real etcd with the same flags: the same requests at the same moments are
//! answered and refused in the same words, and learners answer as little.

use std::time::Duration;

use conformance::client::{Client, Failure, Received, field};
use conformance::founded::Founded;
use conformance::peers::{self, eventually};

use crate::MINUTE;

const JOINS: &[&str] = &["--initial-cluster-state=existing"];
/// Longer than etcd's HealthInterval.
const HEALTHY: Duration = Duration::from_secs(8);

/// The oracle and its twin, with as many members each.
struct Pair {
    etcd: Founded,
    althing: Founded,
}

fn said(answer: Result<impl Sized, Failure>) -> String {
    match answer {
        Ok(_) => "OK".to_owned(),
        Err(failure) => format!("{}: {}", failure.code, failure.message),
    }
}

/// The id of a member, by its place.
fn id(network: &Founded, at: usize) -> String {
    let url = &network.members[at].peer_url;
    let listed = network.etcdctl(0, &["member", "list"]).expect("a list");
    let line = listed.lines().find(|line| line.contains(url));
    let line = line.unwrap_or_else(|| panic!("{url} is missing in\n{listed}"));
    let hexadecimal = line.split(',').next().expect("a first column");
    u64::from_str_radix(hexadecimal, 16).expect("an id").to_string()
}

impl Pair {
    fn start(count: usize) -> Self {
        let mut pair =
            Self { etcd: Founded::of("etcd", count), althing: Founded::of("althing", count) };
        pair.both(|network| network.launch_all());
        pair
    }

    fn both(&mut self, mut change: impl FnMut(&mut Founded)) {
        change(&mut self.etcd);
        change(&mut self.althing);
    }

    /// Asks etcd, then Althing until it answers the same: what is refused changes nothing, and some
    /// refusals depend on how long members have been connected.
    fn agree(&self, method: &str, request: impl Fn(&Founded) -> String) -> String {
        let ask = |network: &Founded| {
            said(network.client(0).call_within(method, &request(network), MINUTE))
        };
        let expected = ask(&self.etcd);
        let mut found = String::new();
        eventually(&format!("{method} is answered as etcd does: {expected}"), || {
            found = ask(&self.althing);
            assert!(found == expected || found != "OK", "{method}: etcd says {expected}");
            found == expected
        });
        eprintln!("as etcd: {method} -> {found}");
        found
    }
}

fn add(url: &str, learner: bool) -> String {
    format!("peerURLs:'{url}' isLearner:{learner}")
}

#[test]
fn members_come_and_go_as_in_etcd() {
    if !peers::available("process::as_etcd", &["althing", "etcd", "etcdctl"]) {
        return;
    }
    let mut pair = Pair::start(3);
    let fresh = pair.agree("Cluster/MemberAdd", |_| "peerURLs:'no url'".into());
    assert!(fresh.contains("given member URLs are invalid"), "{fresh}");
    std::thread::sleep(HEALTHY);
    for bad in ["", "peerURLs:'127.0.0.1:1'", "peerURLs:'http://127.0.0.1'", "peerURLs:'ftp://a:1'"]
    {
        pair.agree("Cluster/MemberAdd", |_| bad.to_owned());
    }
    pair.agree("Cluster/MemberAdd", |_| "peerURLs:'http://a:1/path'".into());
    pair.agree("Cluster/MemberAdd", |network| add(&network.members[1].peer_url, false));
    pair.agree("Cluster/MemberRemove", |_| "ID:77".into());
    pair.agree("Cluster/MemberPromote", |_| "ID:77".into());
    pair.agree("Cluster/MemberPromote", |network| format!("ID:{}", id(network, 1)));
    pair.agree("Cluster/MemberUpdate", |_| "ID:77 peerURLs:'http://127.0.0.1:1'".into());
    let taken = |network: &Founded| {
        format!("ID:{} peerURLs:'{}'", id(network, 2), network.members[1].peer_url)
    };
    pair.agree("Cluster/MemberUpdate", taken);
    let same = |network: &Founded| {
        format!("ID:{} peerURLs:'{}'", id(network, 2), network.members[2].peer_url)
    };
    assert_eq!(pair.agree("Cluster/MemberUpdate", same), "OK");

    // A learner that does not come.
    pair.both(|network| {
        network.add_place();
    });
    let learner = |network: &Founded| add(&network.members[3].peer_url, true);
    assert_eq!(pair.agree("Cluster/MemberAdd", learner), "OK");
    // Within one second etcd would make the same id of the same URL again, and complain of that.
    std::thread::sleep(Duration::from_secs(2));
    let again = pair.agree("Cluster/MemberAdd", learner);
    assert!(again.contains("Peer URLs already exists"), "{again}");
    pair.agree("Cluster/MemberAdd", |_| add("http://127.0.0.1:1", true));
    pair.agree("Cluster/MemberPromote", |network| format!("ID:{}", id(network, 3)));
    let removed = id(&pair.etcd, 3);
    let of_althing = id(&pair.althing, 3);
    assert_eq!(
        pair.agree("Cluster/MemberRemove", |network| format!("ID:{}", id(network, 3))),
        "OK"
    );
    let again = said(pair.etcd.client(0).call("Cluster/MemberRemove", &format!("ID:{removed}")));
    let ours = pair.althing.client(0).call("Cluster/MemberRemove", &format!("ID:{of_althing}"));
    assert_eq!(said(ours), again);

    // One of three is down: nothing that could lose the quorum.
    pair.both(|network| network.kill(2));
    std::thread::sleep(HEALTHY);
    let unhealthy = pair.agree("Cluster/MemberAdd", |_| add("http://127.0.0.1:1", false));
    assert!(unhealthy.contains("unhealthy cluster"), "{unhealthy}");
    pair.agree("Cluster/MemberAdd", |_| add("http://127.0.0.1:1", true));
    pair.agree("Cluster/MemberRemove", |network| format!("ID:{}", id(network, 1)));
    pair.agree("Cluster/MemberRemove", |network| format!("ID:{}", id(network, 0)));
    // The one that is down may go.
    assert_eq!(
        pair.agree("Cluster/MemberRemove", |network| format!("ID:{}", id(network, 2))),
        "OK"
    );
    std::thread::sleep(HEALTHY);
    pair.agree("Cluster/MemberRemove", |network| format!("ID:{}", id(network, 1)));
}

#[test]
fn a_network_of_one_changes_as_etcds() {
    if !peers::available("process::as_etcd", &["althing", "etcd", "etcdctl"]) {
        return;
    }
    let pair = Pair::start(1);
    pair.agree("Cluster/MemberRemove", |network| format!("ID:{}", id(network, 0)));
    pair.agree("Cluster/MemberPromote", |network| format!("ID:{}", id(network, 0)));
    pair.agree("Cluster/MemberAdd", |network| add(&network.members[0].peer_url, true));
    assert_eq!(pair.agree("Cluster/MemberAdd", |_| add("http://127.0.0.1:1", true)), "OK");
    pair.agree("Cluster/MemberAdd", |network| add(&network.members[0].peer_url, true));
    pair.agree("Cluster/MemberAdd", |_| add("http://127.0.0.1:2", true));
}

/// Every call of etcd's services, with a request that a voter would answer.
const CALLS: &[(&str, &str)] = &[
    ("KV/Range", "key:'k'"),
    ("KV/Range", "key:'k' serializable:true"),
    ("KV/Range", ""),
    ("KV/Range", "serializable:true"),
    ("KV/Put", "key:'k' value:'v'"),
    ("KV/Put", ""),
    ("KV/DeleteRange", "key:'k'"),
    ("KV/Txn", ""),
    ("KV/Txn", "success { request_range { key:'k' serializable:true } }"),
    ("KV/Compact", "revision:1"),
    ("Lease/LeaseGrant", "TTL:10"),
    ("Lease/LeaseRevoke", "ID:1"),
    ("Lease/LeaseTimeToLive", "ID:1"),
    ("Lease/LeaseLeases", ""),
    ("Cluster/MemberList", ""),
    ("Cluster/MemberList", "linearizable:true"),
    ("Cluster/MemberAdd", "peerURLs:'http://127.0.0.1:1'"),
    ("Cluster/MemberRemove", "ID:1"),
    ("Cluster/MemberUpdate", "ID:1 peerURLs:'http://127.0.0.1:1'"),
    ("Cluster/MemberPromote", "ID:1"),
    ("Maintenance/Status", ""),
    ("Maintenance/Alarm", ""),
    ("Maintenance/Defragment", ""),
    ("Maintenance/Hash", ""),
    ("Maintenance/HashKV", ""),
    ("Maintenance/MoveLeader", "targetID:1"),
    ("Maintenance/Downgrade", ""),
    ("Auth/AuthStatus", ""),
    ("Auth/AuthEnable", ""),
    ("Auth/AuthDisable", ""),
    ("Auth/Authenticate", "name:'a' password:'b'"),
    ("Auth/UserAdd", "name:'a' password:'b'"),
    ("Auth/UserGet", "name:'a'"),
    ("Auth/UserList", ""),
    ("Auth/UserDelete", "name:'a'"),
    ("Auth/UserChangePassword", "name:'a' password:'b'"),
    ("Auth/UserGrantRole", "user:'a' role:'b'"),
    ("Auth/UserRevokeRole", "name:'a' role:'b'"),
    ("Auth/RoleAdd", "name:'a'"),
    ("Auth/RoleGet", "role:'a'"),
    ("Auth/RoleList", ""),
    ("Auth/RoleDelete", "role:'a'"),
    ("Auth/RoleGrantPermission", "name:'a'"),
    ("Auth/RoleRevokePermission", "role:'a'"),
    ("v3lockpb.Lock/Lock", "name:'l'"),
    ("v3lockpb.Lock/Unlock", "key:'l'"),
    ("v3electionpb.Election/Campaign", "name:'e'"),
    ("v3electionpb.Election/Proclaim", ""),
    ("v3electionpb.Election/Leader", "name:'e'"),
    ("v3electionpb.Election/Resign", ""),
];
const STREAMS: &[(&str, &str)] = &[
    ("KV/RangeStream", "key:'k'"),
    ("KV/RangeStream", "key:'k' serializable:true"),
    ("Watch/Watch", "create_request { key:'k' }"),
    ("Lease/LeaseKeepAlive", "ID:1"),
    ("Maintenance/Snapshot", ""),
    ("v3electionpb.Election/Observe", "name:'e'"),
];

/// The first thing that comes of a stream.
fn first(client: &Client, method: &str, request: &str) -> String {
    let mut stream = match client.open(method) {
        Ok(stream) => stream,
        Err(failure) => return said(Err::<(), _>(failure)),
    };
    stream.send(request);
    match stream.receive(MINUTE) {
        Received::Message(_) => "a message".to_owned(),
        Received::Nothing => "nothing".to_owned(),
        Received::End(None) => "the end".to_owned(),
        Received::End(Some(failure)) => said(Err::<(), _>(failure)),
    }
}

#[test]
fn a_learner_answers_what_etcds_does() {
    if !peers::available("process::as_etcd", &["althing", "etcd", "etcdctl"]) {
        return;
    }
    let mut pair = Pair::start(1);
    pair.both(|network| {
        network.etcdctl(0, &["put", "k", "v"]).expect("a write");
        let at = network.add_place();
        let url = network.members[at].peer_url.clone();
        network.client(0).call("Cluster/MemberAdd", &add(&url, true)).expect("added");
        network.launch(at, JOINS);
        network.wait_until_ready(at);
    });
    let is_learner = |network: &Founded| {
        let status = network.client(1).call("Maintenance/Status", "").expect("a status");
        format!("{:?}", field(&status, "isLearner"))
    };
    assert_eq!(is_learner(&pair.althing), is_learner(&pair.etcd));
    let (theirs, ours) = (pair.etcd.client(1), pair.althing.client(1));
    let mut refused = 0;
    for (method, request) in CALLS {
        let expected = said(theirs.call(method, request));
        assert_eq!(said(ours.call(method, request)), expected, "{method}({request})");
        refused += usize::from(expected.contains("rpc not supported for learner"));
    }
    for (method, request) in STREAMS {
        let expected = first(&theirs, method, request);
        assert_eq!(first(&ours, method, request), expected, "{method}({request})");
        refused += usize::from(expected.contains("rpc not supported for learner"));
    }
    eprintln!("as etcd: {refused} of {} refused by a learner", CALLS.len() + STREAMS.len());
    assert!(refused > 50, "most are");
    for path in ["/readyz", "/readyz/non_learner", "/livez", "/health?serializable=true"] {
        let answer = |network: &Founded| {
            let url = &network.members[1].client_url;
            let answer = conformance::client::http(url, None, "GET", path).expect("an answer");
            // etcd lists its checks in the order of a Go map.
            let mut lines: Vec<String> = answer.body.lines().map(str::to_owned).collect();
            lines.sort();
            (answer.status, lines)
        };
        assert_eq!(answer(&pair.althing), answer(&pair.etcd), "{path}");
    }
    // Once it votes it answers everything.
    pair.both(|network| {
        let id = id(network, 1);
        eventually("the learner is promoted", || {
            let client = network.client(0);
            client.call("Cluster/MemberPromote", &format!("ID:{id}")).is_ok()
        });
        eventually("it answers", || network.client(1).call("KV/Put", "key:'k' value:'w'").is_ok());
    });
}
