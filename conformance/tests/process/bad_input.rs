//! What an operator or a stranger can get wrong: a clear refusal, nothing lost, nothing half done.

use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use conformance::network::{Network, althing};
use conformance::peers::{self, Process, free_port};

fn wanted(test: &str) -> bool {
    peers::available(&format!("process::{test}"), &["althing"])
}

/// A single server's flags on free ports.
pub fn flags(data: &Path, client: u16) -> Vec<String> {
    let peer = format!("http://127.0.0.1:{}", free_port());
    let client = format!("http://127.0.0.1:{client}");
    vec![
        "--name=one".into(),
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=one={peer}"),
    ]
}

/// Runs it and wants it to end by itself with a failure whose text names all of `words`.
fn refused(mut command: Command, words: &[&str]) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let log = directory.path().join("log");
    command.current_dir(directory.path());
    let mut process = Process::start("althing", command, &log);
    let mut status = None;
    peers::eventually(&format!("a refusal naming {words:?}"), || {
        status = process.exited();
        status.is_some()
    });
    let output = process.output();
    assert!(!status.expect("ended").success(), "it ended well:\n{output}");
    for word in words {
        assert!(output.contains(word), "the refusal does not name {word:?}:\n{output}");
    }
    assert!(!output.contains("panicked"), "{output}");
}

fn althing_with(flags: &[String]) -> Command {
    let mut command = peers::command("althing");
    command.args(flags);
    command
}

#[test]
fn wrong_flags_are_refused_by_name() {
    if !wanted("wrong_flags") {
        return;
    }
    let home = tempfile::tempdir().expect("a temporary directory");
    let good = flags(&home.path().join("data"), free_port());
    let with = |extra: &str| althing_with(&[&good[..], &[extra.to_owned()]].concat());
    refused(
        with("--listen-cleint-urls=http://127.0.0.1:1"),
        &["listen-cleint-urls", "listen-client-urls"],
    );
    refused(with("--quota-backend-bytes=many"), &["quota-backend-bytes", "many"]);
    let mut both = althing_with(&good);
    both.env("ETCD_NAME", "other");
    refused(both, &["conflicting environment variable", "ETCD_NAME"]);
    assert!(!home.path().join("data").exists(), "a refused start made a data directory");
}

#[test]
fn a_taken_port_and_a_used_directory_are_refused() {
    if !wanted("taken_port") {
        return;
    }
    let home = tempfile::tempdir().expect("a temporary directory");
    let (data, port) = (home.path().join("data"), free_port());
    let first = althing_with(&flags(&data, port));
    let _first = Process::start("althing", first, &home.path().join("log"));
    let url = format!("http://127.0.0.1:{port}");
    peers::eventually("the first answers", || {
        conformance::client::http_get(&url, None, "/version").is_ok()
    });
    refused(althing_with(&flags(&home.path().join("other"), port)), &[&port.to_string()]);
    refused(althing_with(&flags(&data, free_port())), &[&data.display().to_string()]);
    conformance::client::http_get(&url, None, "/health").expect("the first is still well");
}

#[test]
fn strangers_bytes_on_the_ports_harm_nobody() {
    if !wanted("strangers") {
        return;
    }
    let mut network = Network::start(4);
    for replica in &network.replicas {
        for address in
            [replica.peer_address.as_str(), replica.endpoint.trim_start_matches("https://")]
        {
            for garbage in
                [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], &[0x16, 3, 1, 0xff, 0xff, 1]]
            {
                let mut stream = TcpStream::connect(address).expect("the port is open");
                // The server may hang up first.
                let _hung_up = stream.write_all(garbage);
            }
        }
    }
    for index in 0..4 {
        network.wait_until_ready(index);
        assert!(!network.replicas[index].output().contains("panicked"));
    }
}

#[test]
fn a_genesis_that_was_touched_is_refused() {
    if !wanted("genesis") {
        return;
    }
    let mut network = Network::start(4);
    network.kill(3);
    let genesis = network.directory().join("genesis.json");
    let text = std::fs::read_to_string(&genesis).expect("the genesis");
    let serve = |genesis: &Path, home: &Path| {
        let mut command = peers::command("althing");
        command.arg("serve").arg("--genesis").arg(genesis).arg("--home").arg(home);
        command.arg("--data-dir").arg(network.replicas[3].home().join("data"));
        command
    };
    let changed = network.directory().join("changed.json");
    std::fs::write(&changed, text.replace("cedar", "ceder")).expect("a file");
    refused(serve(&changed, network.replicas[3].home()), &["changed.json"]);
    // The key of nobody in this genesis.
    let stranger = network.directory().join("stranger");
    let path = stranger.display().to_string();
    althing(&[
        "org",
        "init",
        "--name",
        "stranger",
        "--home",
        &path,
        "--client-url",
        "https://127.0.0.1:1",
        "--peer-addr",
        "127.0.0.1:2",
    ]);
    refused(serve(&genesis, &stranger), &["genesis"]);
    // A damaged key is refused and never made anew.
    let key: PathBuf = network.replicas[3].home().join("replica.key");
    let intact = std::fs::read(&key).expect("the key");
    std::fs::write(&key, b"not a key").expect("the key");
    refused(serve(&genesis, network.replicas[3].home()), &["replica.key"]);
    assert_eq!(std::fs::read(&key).expect("the key"), b"not a key");
    std::fs::write(&key, intact).expect("the key");
    network.restart(3);
}

#[test]
fn the_data_of_another_network_is_refused() {
    if !wanted("another_network") {
        return;
    }
    let mut one = Network::start(4);
    let mut other = Network::start(1);
    one.kill(0);
    other.kill(0);
    let mut command = peers::command("althing");
    command.arg("serve").arg("--genesis").arg(one.directory().join("genesis.json"));
    command.arg("--home").arg(one.replicas[0].home());
    let data = other.replicas[0].home().join("data");
    command.arg("--data-dir").arg(&data);
    refused(command, &["data directory", "network", "--data-dir"]);
    one.restart(0);
    other.restart(0);
}
