use super::*;
use crate::chain::Parameters;
use crate::config::{LogOutput, voted};

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
    let peer = &settings.peer.tls;
    assert_eq!(peer.certificate, Some(("/pki/peer.crt".into(), "/pki/peer.key".into())));
    assert!(peer.certificate_required && peer.trusted_ca == Some("/pki/ca.crt".into()));
    assert!(!settings.warnings.iter().any(|w| w.contains("peer")), "{:?}", settings.warnings);
}

#[test]
fn peer_tls_is_checked_at_once_and_in_etcds_words() {
    let https = "--listen-peer-urls=https://127.0.0.1:2380";
    let pair = "--peer-cert-file=c --peer-key-file=k";
    let table = [
        (https.to_owned(), "cannot listen on TLS for 127.0.0.1:2380: KeyFile and CertFile"),
        ("--peer-cert-file=c".to_owned(), "must both be present[key: , cert: c]"),
        (format!("{pair} --peer-client-key-file=k"), "both be present or both absent"),
        (
            format!("{pair} --peer-cert-allowed-cn=a --peer-cert-allowed-hostname=b"),
            "AllowedCNs and AllowedHostnames are mutually exclusive",
        ),
        (format!("{https} {pair} --peer-client-cert-auth"), "needs --peer-trusted-ca-file"),
    ];
    for (flags, why) in table {
        let error = parse(&flags).expect_err(&flags).to_string();
        assert!(error.contains(why), "{flags}: {error}");
    }
    let warned = |flags: &str| parse(flags).expect(flags).warnings.join("; ");
    assert!(warned(pair).contains("scheme is HTTP while key and cert files are present"));
    let both = warned(&format!("{https} {pair} --peer-auto-tls"));
    assert_eq!(both, "ignoring peer auto TLS since certs given");
    let genesis = format!("--genesis=g --home=h --data-dir=d {pair} --peer-auto-tls=false");
    let ignored = warned(&genesis);
    assert!(ignored.contains("--peer-key-file has no effect") && !ignored.contains("auto-tls"));
    let made = parse(&format!("{https} --peer-auto-tls")).expect("made at start").peer.tls;
    assert!(made.automatic && made.certificate.is_none());
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
fn what_no_network_may_have_becomes_the_nearest_that_one_may() {
    let most = parse(
        "--election-timeout=50000 --max-request-bytes=33554432 --max-txn-ops=10000 \
         --quota-backend-bytes=9223372036854775807",
    )
    .expect("etcd takes them");
    assert_eq!(most.bootstrap.view_timeout_ms, Some(8_000));
    assert_eq!(most.client.request_bytes_max, Some(4 << 20));
    assert_eq!(most.client.txn_ops_max, Some(4096));
    assert_eq!(most.bootstrap.quota_bytes, Some(Parameters::QUOTA_BYTES_MAX));
    let warned = most.warnings.join("\n");
    let told = "--election-timeout is 50000, taken as 8000: a network has 100 to 8000";
    assert!(warned.contains(told) && warned.contains("--max-txn-ops"), "{warned}");
    let least = parse("--heartbeat-interval=10 --election-timeout=50").expect("etcd takes them");
    assert_eq!(least.bootstrap.view_timeout_ms, Some(100));
    let parameters = voted(&most, &Parameters::default());
    assert_eq!(parameters.out_of_bounds(), None, "a network may be founded with any flags");
    assert_eq!(voted(&least, &parameters).out_of_bounds(), None, "and given any later");
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
        (format!("{client}=https://127.0.0.1:1 --cert-file=a"), "both or none"),
        (format!("{client}=https://127.0.0.1:1 --client-cert-auth"), "needs --trusted-ca-file"),
        ("--discovery=http://d".to_owned(), "--discovery is not supported"),
        ("--cipher-suites=TLS_NOTHING".to_owned(), "unexpected TLS cipher suite"),
        ("--cipher-suites=TLS_RSA_WITH_RC4_128_SHA".to_owned(), "names none that is offered"),
        ("--tls-min-version=TLS1.1".to_owned(), "unexpected TLS version"),
        ("--tls-min-version=TLS1.3 --tls-max-version=TLS1.2".to_owned(), "greater than max"),
        (
            "--tls-min-version=TLS1.3 --cipher-suites=TLS_AES_128_GCM_SHA256".to_owned(),
            "only TLS1.3",
        ),
        ("--logger=capnslog".to_owned(), "removed in v3.5"),
        ("--log-outputs=default,stderr".to_owned(), "not supported yet"),
        ("--enable-log-rotation".to_owned(), "a single file path"),
        ("--feature-gates=Nothing=true".to_owned(), "unrecognized gate"),
        ("--feature-gates=AllBeta".to_owned(), "NAME=true"),
        ("--discovery-fallback=proxy".to_owned(), "v2 proxy is deprecated"),
        ("--initial-cluster=a".to_owned(), "NAME=URL"),
        ("--initial-cluster-state=old".to_owned(), "one of new, existing"),
        ("--heartbeat-interval=0".to_owned(), "must be >0"),
        ("--election-timeout=400".to_owned(), "at least as 5 times"),
        ("--election-timeout=60000".to_owned(), "too long"),
        ("--auto-compaction-mode=x".to_owned(), "unknown auto-compaction-mode"),
        ("--auto-compaction-retention=soon".to_owned(), "a duration such as 5m"),
        ("--max-concurrent-streams=5000000000".to_owned(), "larger than"),
    ];
    for (flags, expected) in table {
        let why = parse(&flags).expect_err(&flags).to_string();
        assert!(why.contains(expected), "{flags}: {why}");
    }
}

#[test]
fn flags_of_tls_and_of_logs_are_read() {
    let settings = parse(
        "--log-outputs=/tmp/a.log,stderr --enable-log-rotation --log-rotation-config-json={\"maxsize\":1} \
         --tls-min-version=TLS1.2 --tls-max-version=TLS1.2 --metrics=extensive \
         --cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_RSA_WITH_AES_128_CBC_SHA \
         --client-cert-allowed-hostname=a.example,b.example --quota-backend-bytes=-1 \
         --host-whitelist=db --cors=* --warning-unary-request-duration=1s",
    )
    .expect("good flags");
    assert_eq!(settings.log.outputs, [LogOutput::File("/tmp/a.log".into()), LogOutput::Stderr]);
    assert_eq!(settings.log.rotation.map(|rotation| rotation.bytes_max), Some(1 << 20));
    let tls = &settings.client.tls;
    assert_eq!((tls.tls12, tls.tls13), (true, false));
    assert_eq!(tls.cipher_suites, ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]);
    assert_eq!(tls.allowed_hostnames, ["a.example", "b.example"]);
    assert_eq!(settings.bootstrap.quota_bytes, Some(1 << 50));
    assert_eq!((settings.client.host_whitelist.len(), settings.client.cors.len()), (1, 0));
    assert!(settings.client.metrics_extensive && settings.client.slow_request_ms == 1000);
    assert!(settings.warnings.iter().any(|w| w.contains("TLS_RSA_WITH_AES_128_CBC_SHA is not")));
}

#[test]
fn a_wrong_flag_ends_with_etcds_code() {
    for (flags, usage) in [
        ("--nothing=1", true),
        ("--max-wals=x", true),
        ("--initial-cluster-state=old", true),
        ("--listen-client-urls=127.0.0.1:1", true),
        ("--feature-gates=Nothing=true", true),
        ("--max-concurrent-streams=5000000000", true),
        ("name", false),
        ("--heartbeat-interval=0", false),
        ("--tls-min-version=TLS1.1", false),
        ("--listen-client-urls=http://:2379", false),
        ("--advertise-client-urls=http://:2379", false),
        ("--listen-peer-urls=http://127.0.0.1:123456", false),
        ("--listen-peer-urls=http://127.0.0.1:x", true),
    ] {
        assert_eq!(parse(flags).expect_err(flags).is_usage(), usage, "{flags}");
    }
}
