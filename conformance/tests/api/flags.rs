//! Flags, variables and the configuration file, beside a real etcd's.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Output;
use std::time::Duration;

use althing::config::{FLAGS, Section, Values};
use conformance::client::{Client, http};
use conformance::cluster::Target;
use conformance::peers::{self, Process, command, eventually, free_port};

const MINUTE: Duration = Duration::from_secs(60);

/// `--help` of a real etcd: flags with their defaults.
fn flags_of_etcd() -> BTreeMap<String, String> {
    let output = command("etcd").arg("--help").output().expect("etcd runs");
    let text = String::from_utf8(output.stdout).expect("text");
    // What stands before the first section is usage.
    let (_, text) = text.split_once("\nMember:\n").expect("etcd's sections");
    let flags = text.lines().filter_map(|line| line.strip_prefix("  --"));
    let flag = |line: &str| {
        let (name, default) = line.split_once(' ').unwrap_or((line, ""));
        (name.to_owned(), default.trim().trim_matches('\'').to_owned())
    };
    flags.map(flag).collect()
}

#[test]
fn every_flag_of_etcd_is_taken_with_its_default() {
    if !peers::available("api::flags", &["etcd"]) {
        return;
    }
    // Its help has no default for these.
    let silent = [
        ("memory-mlock", "false"),
        ("enable-grpc-gateway", "true"),
        ("bootstrap-defrag-threshold-megabytes", "0"),
    ];
    let mut expected = flags_of_etcd();
    assert!(expected.len() > 100, "{} flags", expected.len());
    expected.insert("config-file".to_owned(), String::new());
    for (name, default) in silent {
        assert_eq!(expected.insert(name.to_owned(), default.to_owned()).as_deref(), Some(""));
    }
    let ours = FLAGS.iter().filter(|flag| flag.section != Section::Althing);
    let ours: BTreeMap<String, String> =
        ours.map(|flag| (flag.name.to_owned(), flag.default.to_owned())).collect();
    assert_eq!(ours, expected);
}

/// etcd reads over keys it does not know, and refuses a known one that holds a map: so it tells which
/// it knows. The wrong state of the cluster ends every start.
#[test]
fn the_configuration_file_has_etcds_keys() {
    if !peers::available("api::config_file", &["etcd"]) {
        return;
    }
    let home = tempfile::tempdir().expect("a temporary directory");
    let file = home.path().join("etcd.yaml");
    let argument = format!("--config-file={}", file.display());
    let tls = ["cert-file", "client-cert-auth", "allowed-hostname", "allowed-cn", "crl-file"];
    let keys = FLAGS.iter().filter(|flag| flag.section != Section::Althing);
    let keys = keys.map(|flag| (String::new(), flag.name.to_owned()));
    let sections = ["client-transport-security", "peer-transport-security"];
    let nested = sections
        .iter()
        .flat_map(|section| tls.iter().map(|key| ((*section).to_owned(), (*key).to_owned())));
    for (section, key) in keys.chain(nested) {
        if key == "initial-cluster-state" {
            continue;
        }
        let entry = match section.as_str() {
            "" => format!("{key}: {{x: [1]}}\n"),
            section => format!("{section}:\n  {key}: {{x: [1]}}\n"),
        };
        std::fs::write(&file, format!("{entry}initial-cluster-state: bogus\n")).expect("a file");
        let output = command("etcd").arg(&argument).current_dir(home.path()).output();
        let output = output.expect("etcd runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{entry}{text}");
        let known = !text.contains("unexpected clusterState");
        std::fs::write(&file, &entry).expect("a file");
        let ours = Values::collect(core::slice::from_ref(&argument), &[]);
        assert_eq!(ours.is_err(), known, "{entry}{text}\n{ours:?}");
    }
}

fn run(program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut command = command(program);
    command.args(arguments).current_dir(home.path());
    command.envs(variables.iter().copied()).output().expect("it runs")
}

const SECURE: &str = "--listen-client-urls=https://127.0.0.1:1";

#[test]
fn wrong_flags_end_with_etcds_exit_codes() {
    type Row = (&'static [&'static str], &'static [(&'static str, &'static str)]);
    if !peers::available("api::exit_codes", &["etcd", "althing"]) {
        return;
    }
    let rows: [Row; 36] = [
        (&["--help"], &[]),
        (&["--version"], &[]),
        (&["--nothing=1"], &[]),
        (&["--name"], &[]),
        (&["--name", "a", "stray"], &[]),
        (&["--client-cert-auth", "true"], &[]),
        (&["--client-cert-auth=perhaps"], &[]),
        (&["--max-wals=-1"], &[]),
        (&["--max-wals=08"], &[]),
        (&["--corrupt-check-time=5"], &[]),
        (&["--initial-cluster-state=old"], &[]),
        (&["--listen-client-urls=127.0.0.1:1"], &[]),
        (&["--listen-client-urls=http://127.0.0.1:1/"], &[]),
        (&["--listen-client-urls=http://127.0.0.1:1"], &[]),
        (&["--listen-peer-urls=http://example.invalid:1"], &[]),
        (&["--listen-peer-urls=http://:1"], &[]),
        (&["--listen-client-urls=http://:1", "--advertise-client-urls=http://:1"], &[]),
        (&["--initial-advertise-peer-urls=http://:1"], &[]),
        (&["--advertise-client-urls=http://:1"], &[]),
        (&["--listen-peer-urls=http://127.0.0.1:99999"], &[]),
        (&["--listen-peer-urls=http://127.0.0.1:x"], &[]),
        (&["--log-level=loud"], &[]),
        (&[], &[("ETCD_LOG_LEVEL", "loud")]),
        (&["--log-format=yaml"], &[]),
        (&[SECURE, "--advertise-client-urls=https://127.0.0.1:1", "--cert-file=/nowhere"], &[]),
        (&["--feature-gates=Nothing=true"], &[]),
        (&["--max-concurrent-streams=5000000000"], &[]),
        (&["--heartbeat-interval=0"], &[]),
        (&["--tls-min-version=TLS1.1"], &[]),
        (&["--logger=capnslog"], &[]),
        (&["--log-outputs=default,stderr"], &[]),
        (&["--discovery-fallback=proxy"], &[]),
        (&["--name=a"], &[("ETCD_NAME", "a")]),
        (&[], &[("ETCD_MAX_WALS", "many")]),
        (&["--config-file=/nowhere/at/all"], &[]),
        (&[], &[("ETCD_CONFIG_FILE", "/nowhere/at/all")]),
    ];
    for (arguments, variables) in rows {
        let etcd = run("etcd", arguments, variables);
        let ours =
            run("althing", if arguments.is_empty() { &["serve"] } else { arguments }, variables);
        let said = String::from_utf8_lossy(&ours.stderr).into_owned();
        assert_eq!(ours.status.code(), etcd.status.code(), "{arguments:?} {variables:?}: {said}");
    }
    let conflict = run("althing", &["--name=a"], &[("ETCD_NAME", "a")]);
    let said = String::from_utf8_lossy(&conflict.stderr).into_owned();
    assert!(said.contains("is shadowed by corresponding command-line flag"), "{said}");
    let version =
        |program| String::from_utf8_lossy(&run(program, &["--version"], &[]).stdout).into_owned();
    let (etcd, ours) = (version("etcd"), version("althing"));
    for line in ["etcd Version: ", "Go OS/Arch: "] {
        let found = |text: &str| text.lines().find(|l| l.starts_with(line)).map(str::to_owned);
        assert_eq!(found(&ours), found(&etcd), "{ours}");
    }
}

/// A log file, a unix socket, an IPv6 address, a port for HTTP alone and the word to systemd.
#[test]
fn listeners_logs_and_supervisor_are_as_etcd_has_them() {
    if !peers::available("api::listeners", &["althing", "etcdctl"]) {
        return;
    }
    let home = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| home.path().join(name).display().to_string();
    let notified = std::os::unix::net::UnixDatagram::bind(at("notify")).expect("a socket");
    notified.set_read_timeout(Some(MINUTE)).expect("a time out");
    let (six, only_http, probes) = (free_port(), free_port(), free_port());
    // A socket that a process left behind is no hindrance.
    drop(std::os::unix::net::UnixListener::bind(at("etcd.sock")).expect("a socket"));
    let has_six = std::net::TcpListener::bind("[::1]:0").is_ok();
    let mut urls = format!("unix://{}", at("etcd.sock"));
    if has_six {
        urls = format!("{urls},http://[::1]:{six}");
    }
    let mut started = command("althing");
    started.env("NOTIFY_SOCKET", at("notify")).current_dir(home.path()).args([
        format!("--data-dir={}", at("data")),
        format!("--listen-client-urls={urls}"),
        format!("--advertise-client-urls={urls}"),
        format!("--listen-client-http-urls=http://127.0.0.1:{only_http}"),
        format!("--listen-metrics-urls=http://127.0.0.1:{probes}"),
        format!("--log-outputs=stdout,{}", at("etcd.log")),
        "--unsafe-no-fsync".to_owned(),
    ]);
    let mut process = Process::start("althing", started, &home.path().join("output"));
    let mut word = [0; 64];
    let length = notified.recv(&mut word).expect("a word within a minute");
    assert_eq!(&word[..length], b"READY=1\n");

    let put = |endpoint: &str| {
        let mut etcdctl = command("etcdctl");
        let output = etcdctl.args([&format!("--endpoints={endpoint}"), "put", "a", "1"]).output();
        let output = output.expect("etcdctl runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{endpoint}: {said}\n{}", process.last_output());
    };
    put(&format!("unix://{}", at("etcd.sock")));
    if has_six {
        put(&format!("http://[::1]:{six}"));
    }
    let answer = |port: u16, path: &str| {
        http(&format!("http://127.0.0.1:{port}"), None, "GET", path).expect("an answer")
    };
    assert_eq!(answer(only_http, "/version").status, 200);
    assert_eq!((answer(probes, "/livez").status, answer(probes, "/version").status), (200, 404));
    let grpc = Client::new(&format!("http://127.0.0.1:{only_http}"), None);
    assert!(grpc.call("KV/Range", "key:'a'").is_err(), "this port is for HTTP alone");

    let ready = "ready to serve client requests";
    let logged = std::fs::read_to_string(at("etcd.log")).expect("a log file");
    assert!(logged.contains(ready) && process.output().contains(ready), "{logged}");
    assert!(process.terminate(MINUTE).is_some_and(|status| status.success()));
    let length = notified.recv(&mut word).expect("a word within a minute");
    assert_eq!(&word[..length], b"STOPPING=1\n");
}

#[test]
fn a_full_log_file_is_put_aside() {
    if !peers::available("api::log_rotation", &["althing"]) {
        return;
    }
    let logs = tempfile::tempdir().expect("a temporary directory");
    let log = logs.path().join("etcd.log");
    std::fs::File::create(&log)
        .and_then(|mut file| file.write_all(&vec![b'\n'; 1 << 20]))
        .expect("a log that is almost full");
    let flag = format!("--log-outputs={}", log.display());
    let target = Target::althing(&[
        &flag,
        "--enable-log-rotation",
        "--log-rotation-config-json={\"maxsize\":1,\"maxbackups\":1}",
    ]);
    eventually("the full file is put aside", || {
        drop(target.call("KV/Put", "key:'a'"));
        let names = std::fs::read_dir(logs.path()).expect("a directory").count();
        names == 2 && std::fs::metadata(&log).is_ok_and(|found| found.len() < 1 << 20)
    });
}
