use super::*;

fn parse(text: &str) -> Result<Settings, SettingsError> {
    let arguments: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    Settings::parse(&arguments, &[])
}

#[test]
fn no_flag_at_all_is_etcd_on_its_default_ports() {
    let settings = parse("").expect("defaults");
    assert_eq!(
        (settings.name.as_str(), settings.data_dir.to_str()),
        ("default", Some("default.etcd"))
    );
    assert_eq!(settings.client.advertise, ["http://localhost:2379"]);
    assert_eq!(settings.peer.listen[0].to_string(), "http://localhost:2380");
    assert_eq!(settings.client.watch_progress_ms, 600_000);
    assert_eq!(settings.auto_compaction, AutoCompaction::Off);
    assert!(settings.warnings.is_empty() && settings.genesis.is_none());
}

#[test]
fn kubeadms_static_pod_starts() {
    let settings = parse(
        "--name=cp --listen-client-urls=https://127.0.0.1:2379,https://10.0.0.4:2379 \
         --advertise-client-urls=https://10.0.0.4:2379 --listen-peer-urls=https://10.0.0.4:2380 \
         --initial-advertise-peer-urls=https://10.0.0.4:2380 --data-dir=/var/lib/etcd \
         --cert-file=/pki/server.crt --key-file=/pki/server.key --trusted-ca-file=/pki/ca.crt \
         --client-cert-auth=true --peer-cert-file=/pki/peer.crt --peer-key-file=/pki/peer.key \
         --peer-trusted-ca-file=/pki/ca.crt --peer-client-cert-auth=true --snapshot-count=10000 \
         --listen-metrics-urls=http://127.0.0.1:2381 --watch-progress-notify-interval=5s \
         --feature-gates=InitialCorruptCheck=true --initial-cluster=cp=https://10.0.0.4:2380",
    )
    .expect("kubeadm's flags");
    assert_eq!(settings.client.listen.len(), 2);
    assert!(settings.client.tls.client_certificate_required);
    assert_eq!(settings.client.watch_progress_ms, 5000);
    assert_eq!(settings.bootstrap.members, [("cp".into(), "https://10.0.0.4:2380".into())]);
    let silent = ["snapshot-count", "name"];
    for name in silent {
        assert!(!settings.warnings.iter().any(|w| w.contains(name)), "{name} keeps its default");
    }
    assert!(settings.warnings.iter().any(|w| w.contains("--peer-cert-file has no effect")));
}

#[test]
fn envtest_and_kwok_start() {
    let envtest = parse(
        "--listen-peer-urls=http://localhost:0 --data-dir=/tmp/x --unsafe-no-fsync=true \
         --advertise-client-urls=http://127.0.0.1:5 --listen-client-urls=http://127.0.0.1:5",
    );
    let warnings = envtest.expect("envtest's flags").warnings;
    assert!(warnings.iter().any(|w| w.contains("--unsafe-no-fsync")), "{warnings:?}");
    let kwok = parse(
        "--name=node0 --auto-compaction-retention=1 --quota-backend-bytes=8589934592 \
         --listen-client-urls=http://0.0.0.0:2379 --advertise-client-urls=http://0.0.0.0:2379",
    )
    .expect("kwok's flags");
    assert_eq!(kwok.auto_compaction, AutoCompaction::Periodic { keep_ms: 3_600_000 });
    assert_eq!(kwok.bootstrap.quota_bytes, Some(8 << 30));
}

#[test]
fn an_organisations_replica_needs_its_home_and_its_data() {
    let settings = parse("--genesis g.json --home /etc/althing --data-dir d").expect("complete");
    assert_eq!(settings.genesis, Some("g.json".into()));
    assert!(settings.client.listen.is_empty(), "the genesis tells");
    let settings = parse("--home /etc/althing --data-dir d").expect("complete");
    assert_eq!(settings.genesis, Some("/etc/althing/genesis.json".into()));
    assert!(
        parse("--genesis g.json --data-dir d").is_err_and(|e| e.to_string().contains("--home"))
    );
    assert!(parse("--home h").is_err_and(|e| e.to_string().contains("--data-dir")));
}

#[test]
fn what_cannot_work_is_refused_with_its_reason() {
    let client = "--advertise-client-urls=http://a:1 --listen-client-urls";
    let table = [
        (
            "--listen-client-urls=http://127.0.0.1:1".to_owned(),
            "--advertise-client-urls is required",
        ),
        (format!("{client}=http://example:1"), "expected IP in URL for binding"),
        (format!("{client}=https://127.0.0.1:1"), "must be provided for client url"),
        (format!("{client}=127.0.0.1:1"), "does not begin with http://"),
        ("--cert-file=a".to_owned(), "both or none"),
        ("--client-cert-auth".to_owned(), "needs --trusted-ca-file"),
        ("--discovery=http://d".to_owned(), "--discovery is not supported"),
        ("--client-cert-allowed-hostname=x".to_owned(), "own CA"),
        ("--force-new-cluster".to_owned(), "--force-new-cluster is not supported"),
        ("--initial-cluster=a".to_owned(), "NAME=URL"),
        ("--initial-cluster-state=old".to_owned(), "new or existing"),
        ("--heartbeat-interval=0".to_owned(), "must be >0"),
        ("--election-timeout=400".to_owned(), "at least as 5 times"),
        ("--election-timeout=60000".to_owned(), "too long"),
        ("--auto-compaction-mode=x".to_owned(), "unknown auto-compaction-mode"),
        ("--auto-compaction-retention=soon".to_owned(), "a duration such as 5m"),
        ("--max-txn-ops=5000000000".to_owned(), "larger than"),
    ];
    for (flags, expected) in table {
        let why = parse(&flags).expect_err(&flags).to_string();
        assert!(why.contains(expected), "{flags}: {why}");
    }
}
