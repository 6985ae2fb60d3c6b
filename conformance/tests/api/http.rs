//! HTTP on the client port: the same paths, bodies and status codes as etcd.

use std::fmt::Write as _;

use conformance::client::http;
use conformance::cluster::Target;
use conformance::peers;

use crate::script::assert_same;
use crate::{program_under_test, start};

const REQUESTS: [(&str, &str); 25] = [
    ("GET", "/version"),
    ("POST", "/version"),
    ("OPTIONS", "/version"),
    ("PUT", "/health?serializable=true"),
    ("GET", "/health?serializable=yes"),
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
    let flags: [&[&str]; 3] = [
        &[],
        &["--cors=http://a:80", "--host-whitelist=127.0.0.1"],
        &["--host-whitelist=elsewhere"],
    ];
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

/// A call may be counted as handled a little after its answer.
fn compaction_is_handled(line: &str) -> bool {
    line.starts_with("grpc_server_handled_total{")
        && [r#"grpc_code="OK""#, r#"grpc_method="Compact""#]
            .iter()
            .all(|label| line.contains(label))
        && line.ends_with(" 1")
}

/// Lines of `/metrics` that the same requests must make equal, whoever answered them.
fn comparable(text: &str) -> Vec<String> {
    const EQUAL: [&str; 10] = [
        "etcd_mvcc_put_total ",
        "etcd_mvcc_delete_total ",
        "etcd_debugging_mvcc_keys_total ",
        "etcd_debugging_mvcc_current_revision ",
        "etcd_debugging_mvcc_compact_revision ",
        "etcd_server_has_leader ",
        "etcd_server_is_learner ",
        "etcd_server_version{",
        "etcd_cluster_version{",
        "etcd_server_proposals_failed_total ",
    ];
    const BUCKETS: [&str; 3] = [
        "etcd_disk_wal_fsync_duration_seconds_bucket{",
        "etcd_disk_backend_commit_duration_seconds_bucket{",
        "grpc_server_handling_seconds_bucket{",
    ];
    let labels = |line: &str| {
        let (name, rest) = line.split_once('{')?;
        let (labels, value) = rest.rsplit_once("} ")?;
        let mut labels: Vec<&str> = labels.split(',').collect();
        labels.sort_unstable();
        Some((format!("{name}{{{}}}", labels.join(",")), value.to_owned()))
    };
    let of_kv = |line: &str| line.contains(r#"grpc_service="etcdserverpb.KV""#);
    let mut found = Vec::new();
    for line in text.lines() {
        if EQUAL.iter().any(|name| line.starts_with(name)) {
            found.push(line.to_owned());
        } else if line.starts_with("grpc_server_handled_total{")
            || line.starts_with("grpc_server_started_total{")
        {
            let (name, value) = labels(line).expect("labels");
            // What tests and probes call beside the requests is not equal; that the series exist is.
            found.push(if of_kv(line) { format!("{name} {value}") } else { name });
        } else if BUCKETS.iter().any(|name| line.starts_with(name)) {
            let (name, _) = labels(line).expect("labels");
            if of_kv(line) == line.starts_with("grpc")
                && (!of_kv(line) || line.contains(r#"grpc_method="Put""#))
            {
                // Go writes 1, Rust 1.0 or 1.
                found.push(name.replace(".0\"", "\""));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn metrics_count_as_those_of_etcd() {
    let program = program_under_test();
    if !peers::available("api::metrics_of_etcd", &["etcd", &program]) {
        return;
    }
    let scrape = |program: &str| {
        let target = start(program, &["--metrics=extensive"]);
        settle(&target);
        for (method, request) in [
            ("KV/Put", "key:'a' value:'1'"),
            ("KV/Put", "key:'b' value:'2' prev_kv:true"),
            ("KV/Put", "key:''"),
            ("KV/Put", "key:'c' lease:99"),
            ("KV/Txn", "success{request_put{key:'c'}} success{request_delete_range{key:'a'}}"),
            (
                "KV/Txn",
                "compare{key:'x' version:1} success{request_put{key:'d'}} failure{request_put{key:'e'}}",
            ),
            ("KV/DeleteRange", "key:'b' range_end:'d'"),
            ("KV/DeleteRange", "key:'nothing'"),
            ("KV/Compact", "revision:3"),
        ] {
            drop(target.call(method, request));
        }
        let mut last = String::new();
        let counted = ["etcd_debugging_mvcc_compact_revision 3\n", "etcd_mvcc_put_total 4\n"];
        peers::eventually("the last write is counted", || {
            last = http(&target.endpoint, None, "GET", "/metrics").expect("/metrics").body;
            counted.iter().all(|line| last.contains(line))
                && last.lines().any(compaction_is_handled)
        });
        comparable(&last)
    };
    let (etcd, ours) = (scrape("etcd"), scrape(&program));
    let missing: Vec<_> = etcd.iter().filter(|line| !ours.contains(line)).collect();
    // Reflection is not served; Snapshot and others that are not there yet are counted when they are.
    let missing: Vec<_> = missing
        .into_iter()
        .filter(|line| !line.contains("reflection") && !line.contains(r#"grpc_method="List""#))
        .collect();
    assert!(missing.is_empty(), "etcd has these lines and {program} does not:\n{missing:#?}");
    let values: Vec<_> = ours.iter().filter(|line| line.starts_with("etcd_")).collect();
    let expected: Vec<_> = etcd.iter().filter(|line| line.starts_with("etcd_")).collect();
    assert_eq!(values, expected);
}
