//! The etcd API, request by request: the same scripts on a real etcd 3.7.3 and on Althing.
//!
//! `scripts/NAME.txt` holds requests, `recorded/NAME.txt` what etcd 3.7.3 answered. With peers, the
//! recording is first checked against a live etcd, so it cannot go stale; without, Althing is still
//! compared with it. `ALTHING_RECORD=1` writes recordings anew; `ALTHING_UNDER_TEST=etcd` runs a
//! second etcd in Althing's place, and whatever differs then is the script's own fault.

mod differential;
mod etcdctl;
mod flags;
mod http;
mod page;
mod rest;
mod script;

use std::path::PathBuf;

use conformance::cluster::Target;
use conformance::peers;

/// The program judged: `althing`, or what `ALTHING_UNDER_TEST` names.
fn program_under_test() -> String {
    std::env::var("ALTHING_UNDER_TEST").unwrap_or_else(|_| "althing".into())
}

fn start(program: &str, flags: &[&str]) -> Target {
    match program {
        "etcd" => Target::etcd(flags),
        _ => Target::althing(flags),
    }
}

fn file(folder: &str, name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/api/{folder}/{name}.txt"))
}

/// Runs the script `name` on both, each fresh, with `flags`.
fn compare(name: &str, flags: &[&str]) {
    let text = std::fs::read_to_string(file("scripts", name)).expect("a script");
    let steps = script::parse(&text);
    let recorded = file("recorded", name);
    if peers::available(&format!("api::{name} on etcd"), &["etcd"]) {
        let live = script::transcript(&start("etcd", flags), &steps);
        if std::env::var_os("ALTHING_RECORD").is_some() {
            std::fs::write(&recorded, &live).expect("a recording");
        }
        let stored = std::fs::read_to_string(&recorded).unwrap_or_default();
        script::assert_same(&format!("{name}: recording and live etcd"), &stored, &live);
    }
    let program = program_under_test();
    if peers::available(&format!("api::{name} on {program}"), &[&program]) {
        let stored = std::fs::read_to_string(&recorded).expect("a recording");
        let found = script::transcript(&start(&program, flags), &steps);
        script::assert_same(&format!("{name}: etcd and {program}"), &stored, &found);
    }
}

#[test]
fn range_answers_as_etcd_does() {
    compare("range", &[]);
}

#[test]
fn put_and_delete_answer_as_etcd_does() {
    compare("put_delete", &[]);
}

#[test]
fn transactions_answer_as_etcd_does() {
    compare("txn", &[]);
}

#[test]
fn compaction_answers_as_etcd_does() {
    compare("compact", &[]);
}

#[test]
fn watches_answer_as_etcd_does() {
    compare("watch", &[]);
}

#[test]
fn watches_beside_compaction_answer_as_etcd_does() {
    compare("watch_compact", &[]);
}

#[test]
fn leases_answer_as_etcd_does() {
    compare("lease", &[]);
}

#[test]
fn limits_are_those_of_etcd() {
    compare("limits", &[]);
}

/// Where Althing differs from etcd on purpose (`docs/compatibility.md`).
#[test]
fn a_key_above_1_kib_is_refused() {
    if !peers::available("api::long_key", &["althing"]) {
        return;
    }
    let target = Target::althing(&[]);
    let key = "k".repeat(1025);
    for (method, request) in [
        ("KV/Put", format!("key:'{key}' value:'1'")),
        ("KV/Txn", format!("success{{request_put{{key:'{key}'}}}}")),
        ("KV/Txn", format!("success{{request_txn{{failure{{request_put{{key:'{key}'}}}}}}}}")),
    ] {
        let failure = target.call(method, &request).expect_err("a key of 1,025 bytes");
        assert_eq!(failure.code, "InvalidArgument", "{method}: {failure:?}");
        assert_eq!(failure.message, "etcdserver: request is too large", "{method}");
    }
    let reply = target.call("KV/Range", &format!("key:'{key}'")).expect("a read may ask for it");
    assert_eq!(conformance::client::number(&reply, "count"), 0);
}

#[test]
fn other_services_answer_as_etcd_does() {
    compare("other", &[]);
}

#[test]
fn locks_answer_as_etcds() {
    compare("lock", &[]);
}

#[test]
fn elections_answer_as_etcds() {
    compare("election", &[]);
}

#[test]
fn locks_and_elections_ask_in_their_callers_name() {
    compare("concurrency_auth", &["--bcrypt-cost=4"]);
}

#[test]
fn hashes_and_downgrades_answer_as_etcd_does() {
    compare("maintenance", &[]);
}

#[test]
fn kubernetes_shapes_answer_as_etcd_does() {
    compare("kubernetes", &[]);
}

/// bcrypt at its least cost: a login is not what is tested.
#[test]
fn users_and_roles_answer_as_etcd_does() {
    compare("auth", &["--bcrypt-cost=4"]);
}

#[test]
fn tokens_end_as_those_of_etcd() {
    compare("auth_ttl", &["--bcrypt-cost=4", "--auth-token-ttl=1"]);
}

#[test]
fn permissions_are_those_of_etcd() {
    compare("permissions", &["--bcrypt-cost=4"]);
}

/// Where Althing differs from etcd on purpose: there a watcher keeps what it was allowed at first.
#[test]
fn a_watcher_that_loses_its_right_sees_no_more() {
    if !peers::available("api::lost_right", &["althing"]) {
        return;
    }
    let steps = script::parse(include_str!("scripts/lost_right.commands"));
    let found = script::transcript(&Target::althing(&["--bcrypt-cost=4"]), &steps);
    let expected = include_str!("scripts/lost_right.expected");
    script::assert_same("a lost right", expected, &found);
}

/// A JWT proves itself: with the same secret, one server's is the other's.
#[test]
fn a_jwt_of_etcd_is_good_here_and_the_other_way_round() {
    if !peers::available("api::jwt", &["etcd", "althing"]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary directory");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "not a secret at all, but long enough").expect("a file");
    let kind = format!("--auth-token=jwt,priv-key={},sign-method=HS256,ttl=10m", secret.display());
    let flags = [kind.as_str(), "--bcrypt-cost=4"];
    let both = [Target::etcd(&flags), Target::althing(&flags)];
    let mut tokens = Vec::new();
    for target in &both {
        for (method, request) in [
            ("Auth/UserAdd", "name:'root' password:'r'"),
            ("Auth/UserGrantRole", "user:'root' role:'root'"),
            ("Auth/AuthEnable", ""),
        ] {
            target.call(method, request).expect("allowed while it is off");
        }
        let reply = target.call("Auth/Authenticate", "name:'root' password:'r'");
        let token = conformance::client::field(&reply.expect("the password is right"), "token");
        tokens.push(token.as_str().expect("text").to_owned());
    }
    for target in &both {
        let client = target.client();
        for token in &tokens {
            client.set_token(Some(token));
            client.call("KV/Put", "key:'a' value:'1'").expect("root's token");
        }
        client.call("Auth/RoleAdd", "name:'later'").expect("root's token");
        let refused = client.call("KV/Put", "key:'a' value:'1'").expect_err("an old token");
        assert_eq!(refused.code, "InvalidArgument", "{}", target.name);
        assert_eq!(refused.message, "etcdserver: revision of auth store is old");
        client.set_token(Some(&format!("{}x", tokens[0])));
        let refused = client.call("KV/Put", "key:'a' value:'1'").expect_err("no token");
        assert_eq!(
            (refused.code.as_str(), refused.message.as_str()),
            ("Unauthenticated", "etcdserver: invalid auth token")
        );
    }
}

#[test]
fn streamed_ranges_answer_as_etcd_does() {
    compare("range_stream", &[]);
}
