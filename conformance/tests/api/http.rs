//! HTTP on the client port: the same paths, bodies and status codes as etcd.

use std::fmt::Write as _;

use conformance::client::http;
use conformance::cluster::Target;
use conformance::peers;

use crate::script::assert_same;
use crate::{program_under_test, start};

const REQUESTS: [(&str, &str); 26] = [
    ("GET", "/version"),
    ("POST", "/version"),
    ("OPTIONS", "/version"),
    ("PUT", "/health?serializable=true"),
    ("GET", "/health?serializable=yes"),
    ("DELETE", "/metrics"),
    ("GET", "/health"),
    ("GET", "/health?serializable=true"),
    ("GET", "/health?exclude=NOSPACE"),
    ("GET", "/health?serializable=true&exclude=NOSPACE&exclude=NOSPACE"),
    ("POST", "/health"),
    ("GET", "/livez"),
    ("GET", "/livez?verbose"),
    ("GET", "/livez/serializable_read"),
    ("GET", "/livez/linearizable_read"),
    ("GET", "/readyz?exclude=nothing&verbose"),
    ("POST", "/readyz/non_learner"),
    ("POST", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/readyz?verbose"),
    ("GET", "/readyz?exclude=linearizable_read&verbose"),
    ("GET", "/readyz/linearizable_read"),
    ("GET", "/readyz/data_corruption"),
    ("GET", "/readyz/non_learner"),
    ("GET", "/readyz/nothing"),
    ("GET", "/nothing"),
];

#[test]
fn http_answers_as_etcd_does() {
    let program = program_under_test();
    if !peers::available("api::http", &["etcd", &program]) {
        return;
    }
    let flags: [&[&str]; 3] =
        [&[], &["--cors=http://a", "--host-whitelist=127.0.0.1"], &["--host-whitelist=elsewhere"]];
    for flags in flags {
        let expected = session(&start("etcd", flags));
        let found = session(&start(&program, flags));
        assert_same(&format!("HTTP on etcd and {program}, {flags:?}"), &expected, &found);
    }
}

/// A young etcd says storage 3.5.0 until its monitor has raised it; what is compared is what it says
/// from then on.
fn settle(target: &Target) {
    let settled = r#""storage":"3.7.0""#;
    for _ in 0..100 {
        let answer = http(&target.endpoint, target.tls.as_ref(), "GET", "/version");
        if answer.is_ok_and(|answer| answer.status == 421 || answer.body.contains(settled)) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

fn session(target: &Target) -> String {
    settle(target);
    let mut out = String::new();
    for (method, path) in REQUESTS {
        let answer = http(&target.endpoint, target.tls.as_ref(), method, path);
        let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        writeln!(out, "{method} {path}\n    {}", answer.status).expect("text");
        for name in ["allow", "access-control-allow-origin", "access-control-allow-methods"] {
            if let Some(value) = answer.header(name) {
                writeln!(out, "    {name}: {value}").expect("text");
            }
        }
        // etcd lists its checks in the order of a map.
        let mut lines: Vec<&str> = answer.body.lines().collect();
        lines.sort_by_key(|line| (!line.starts_with('['), *line));
        for line in lines {
            writeln!(out, "    {line}").expect("text");
        }
    }
    out
}

/// What dashboards and alerts read: the names, where etcd has them, with the same labels.
#[test]
fn metrics_have_etcds_names() {
    let program = program_under_test();
    if !peers::available("api::metrics", &[&program]) {
        return;
    }
    let target = start(&program, &[]);
    target.call("KV/Put", "key:'a' value:'1'").expect("a write");
    let answer = http(&target.endpoint, None, "GET", "/metrics").expect("/metrics");
    let wanted = [
        "etcd_server_has_leader 1",
        "etcd_server_leader_changes_seen_total",
        "etcd_server_proposals_failed_total",
        "etcd_server_proposals_pending",
        "etcd_server_proposals_committed_total",
        "etcd_server_proposals_applied_total",
        "etcd_server_quota_backend_bytes",
        "etcd_mvcc_db_total_size_in_bytes",
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "etcd_disk_wal_fsync_duration_seconds_bucket",
        "etcd_disk_backend_commit_duration_seconds_bucket",
        "etcd_network_client_grpc_received_bytes_total",
        "etcd_network_client_grpc_sent_bytes_total",
        "grpc_server_started_total{",
        "grpc_server_handled_total{",
        "process_resident_memory_bytes",
    ];
    let missing: Vec<_> = wanted.iter().filter(|name| !answer.body.contains(**name)).collect();
    assert!(missing.is_empty(), "no {missing:?} in\n{}", answer.body);
    let put = answer.body.lines().find(|line| {
        line.starts_with("grpc_server_handled_total{")
            && [r#"grpc_code="OK""#, r#"grpc_method="Put""#, r#"grpc_service="etcdserverpb.KV""#]
                .iter()
                .all(|label| line.contains(label))
    });
    assert!(put.is_some_and(|line| line.ends_with(" 1")), "one Put was answered: {put:?}");
}
