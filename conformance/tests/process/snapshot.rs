//! The open way out: a snapshot taken with etcdctl, restored with etcdutl, served by a stock etcd; and the
//! proof in it, checked offline.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use conformance::network::{Network, Replica};
use conformance::peers::{self, Process, eventually};
use serde_json::Value as Json;

fn wanted(test: &str) -> bool {
    let needed = ["althing", "etcd", "etcdctl", "etcdutl"];
    peers::available(&format!("process::{test}"), &needed)
}

/// Runs a command; whether it succeeded and all it printed.
fn run(command: &mut Command) -> (bool, String) {
    let output = command.output().expect("the program runs");
    let (out, err) = (output.stdout, output.stderr);
    let text = format!("{}{}", String::from_utf8_lossy(&out), String::from_utf8_lossy(&err));
    (output.status.success(), text)
}

fn done(command: &mut Command) -> String {
    let (success, text) = run(command);
    assert!(success, "{command:?}: {text}");
    text
}

/// Someone who serves the keys: a replica, or a stock etcd.
struct Server {
    endpoint: String,
    flags: Vec<String>,
}

impl Server {
    fn of(replica: &Replica) -> Self {
        let tls = replica.tls();
        let flags = vec![
            format!("--cacert={}", tls.ca.display()),
            format!("--cert={}", tls.certificate.display()),
            format!("--key={}", tls.key.display()),
        ];
        Self { endpoint: replica.endpoint.clone(), flags }
    }

    fn ctl(&self, arguments: &[&str]) -> Command {
        let mut command = peers::command("etcdctl");
        command.arg(format!("--endpoints={}", self.endpoint)).args(&self.flags);
        command.args(arguments);
        command
    }

    fn json(&self, arguments: &[&str]) -> Json {
        let text = done(self.ctl(arguments).args(["-w", "json"]));
        serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// What a client sees: every key at every revision that is there, the compact revision, leases.
    fn seen(&self) -> Vec<String> {
        let now = self.json(&["get", "", "--prefix"]);
        let revision = now["header"]["revision"].as_i64().expect("a revision");
        let mut seen = vec![format!("{revision} {}", now["kvs"])];
        for at in 1..=revision {
            let (success, text) =
                run(&mut self.ctl(&["get", "", "--prefix", &format!("--rev={at}"), "-w", "json"]));
            if success {
                let found: Json = serde_json::from_str(text.trim()).expect("JSON");
                seen.push(format!("{at} {}", found["kvs"]));
            } else {
                assert!(text.contains("required revision has been compacted"), "{text}");
                seen.push(format!("{at} compacted"));
            }
        }
        let leases = self.json(&["lease", "list"]);
        for lease in leases["leases"].as_array().into_iter().flatten() {
            let id = format!("{:x}", lease["id"].as_i64().expect("an id"));
            let found = self.json(&["lease", "timetolive", &id, "--keys"]);
            seen.push(format!("{id} {} {}", found["granted-ttl"], found["keys"]));
        }
        seen
    }

    fn write(&self) {
        let put = |key: &str, value: &str| done(&mut self.ctl(&["put", key, value]));
        for number in 0..40 {
            put(&format!("/registry/pods/{number:02}"), &"x".repeat(number * 50));
        }
        put("/large", &"y".repeat(100_000));
        let lease = done(&mut self.ctl(&["lease", "grant", "3600"]));
        let lease = lease.split_whitespace().nth(1).expect("an id").to_owned();
        done(&mut self.ctl(&["put", "leased", "1", &format!("--lease={lease}")]));
        done(&mut self.ctl(&["lease", "grant", "7200"]));
        // Several keys in one revision, which the compaction below passes.
        let client = self.ctl(&["txn"]).stdin(stdin("\nput a 1\nput b 2\nput c 3\n\n\n")).output();
        assert!(client.expect("etcdctl runs").status.success());
        done(&mut self.ctl(&["del", "/registry/pods/1", "--prefix"]));
        put("/registry/pods/02", "again");
        done(&mut self.ctl(&["put", "empty", ""]));
        done(&mut self.ctl(&["compact", "46"]));
        put("/registry/pods/11", "it is back");
        put("b", "22");
        done(&mut self.ctl(&["del", "c"]));
        done(&mut self.ctl(&["role", "add", "reader"]));
        done(&mut self.ctl(&[
            "role",
            "grant-permission",
            "reader",
            "read",
            "/registry/",
            "--prefix",
        ]));
        done(&mut self.ctl(&["user", "add", "ada:secret"]));
        done(&mut self.ctl(&["user", "grant-role", "ada", "reader"]));
    }
}

fn stdin(text: &str) -> fs::File {
    use std::io::{Seek, Write};
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(text.as_bytes()).expect("it is written");
    file.rewind().expect("it is read from its beginning");
    file
}

/// A stock etcd on a data directory.
fn stock(data: &Path, home: &Path) -> (Process, Server) {
    let client = format!("http://127.0.0.1:{}", peers::free_port());
    let peer = format!("http://127.0.0.1:{}", peers::free_port());
    let mut command = peers::command("etcd");
    command.args([
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
    ]);
    let process = Process::start("etcd", command, &home.join("etcd.log"));
    let server = Server { endpoint: client, flags: Vec::new() };
    eventually("the stock etcd answers", || run(&mut server.ctl(&["get", "a"])).0);
    (process, server)
}

/// A stock etcd on what `etcdutl snapshot restore` made of a file.
fn restored(file: &Path, home: &Path) -> (Process, Server) {
    let data = home.join("restored");
    done(
        peers::command("etcdutl")
            .args(["snapshot", "restore"])
            .arg(file)
            .arg(format!("--data-dir={}", data.display())),
    );
    stock(&data, home)
}

fn save(server: &Server, file: &Path) {
    done(server.ctl(&["snapshot", "save"]).arg(file));
}

fn verify(file: &Path, network: &Network) -> (bool, String) {
    let genesis = in_home(network, "genesis.json");
    let mut command = peers::command("althing");
    run(command.args(["snapshot", "verify"]).arg(file).arg("--trust").arg(genesis))
}

fn in_home(network: &Network, name: &str) -> PathBuf {
    network.directory().join(name)
}

#[test]
fn a_stock_etcd_serves_what_was_saved_and_anyone_can_check_it() {
    if !wanted("a_stock_etcd_serves_what_was_saved_and_anyone_can_check_it") {
        return;
    }
    let network = Network::start(4);
    let server = Server::of(&network.replicas[1]);
    server.write();
    let file = in_home(&network, "snapshot.db");
    save(&server, &file);
    let status =
        done(peers::command("etcdutl").args(["snapshot", "status", "-w", "json"]).arg(&file));
    let status: Json = serde_json::from_str(status.trim()).expect("JSON");
    let before = server.seen();
    let now = server.json(&["get", "", "--prefix", "--keys-only"]);
    assert_eq!(status["revision"], now["header"]["revision"]);
    assert_eq!(status["totalKey"], now["count"]);
    assert_eq!(status["version"], "3.7.0");
    let (process, etcd) = restored(&file, network.directory());
    assert_eq!(etcd.seen(), before);
    let users = done(&mut etcd.ctl(&["user", "get", "ada", "--detail"]));
    assert_eq!(users, done(&mut server.ctl(&["user", "get", "ada", "--detail"])));
    done(&mut etcd.ctl(&["put", "goes", "on"]));
    drop(process);

    let (success, text) = verify(&file, &network);
    assert!(success && text.contains("OK"), "{text}");
    assert!(text.contains("checksum     right"), "{text}");
    every_change_is_told(&network, &file);

    // Within a minute of that checkpoint there is no other: what is saved is current, and unsigned.
    done(&mut server.ctl(&["put", "a", "last"]));
    let second = in_home(&network, "second.db");
    save(&server, &second);
    let (success, text) = verify(&second, &network);
    assert!(!success && text.contains("carries no certificate"), "{text}");
    let before = server.seen();
    let again = network.directory().join("again");
    fs::create_dir(&again).expect("a directory");
    let (_process, etcd) = restored(&second, &again);
    assert_eq!(etcd.seen(), before);
}

/// A value, the certificate, the list of chunks, a cut: each is found, and the place is named.
fn every_change_is_told(network: &Network, file: &Path) {
    let whole = fs::read(file).expect("the file");
    let changed = in_home(network, "changed.db");
    let find = |what: &[u8]| {
        whole.windows(what.len()).position(|part| part == what).expect("it is in the file")
    };
    let told = |bytes: Vec<u8>, message: &str| {
        fs::write(&changed, bytes).expect("it is written");
        let (success, text) = verify(&changed, network);
        assert!(!success && text.contains(message), "{message}: {text}");
    };
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    told(flipped(find(b"it is back")), "is not what the replicas certified");
    told(flipped(find(&[b'y'; 5000]) + 50_000), "is not what the replicas certified");
    // Behind the key of its entry: epoch, height, digests, signatures.
    let certificate = find(b"certificate") + b"certificate".len();
    told(flipped(certificate + 8 + 8 + 3), "certificate does not hold");
    told(flipped(certificate + 8 + 8 + 96 + 4 + 2 + 7), "certificate does not hold");
    told(flipped(find(b"manifest") + 8 + 50), "is not the one the replicas signed");
    told(whole[..whole.len() / 2].to_vec(), "cut off");
    told(flipped(whole.len() - 1), "the appended checksum is another one");
}

#[test]
fn a_network_starts_with_what_a_stock_etcd_held() {
    if !wanted("a_network_starts_with_what_a_stock_etcd_held") {
        return;
    }
    let home = tempfile::tempdir().expect("a directory");
    let (process, etcd) = stock(&home.path().join("data"), home.path());
    etcd.write();
    let file = home.path().join("etcd.db");
    save(&etcd, &file);
    let before = etcd.seen();
    drop(process);

    let mut network = Network::start_from(4, &file);
    for replica in &network.replicas {
        assert_eq!(Server::of(replica).seen(), before, "{}", replica.name);
    }
    done(&mut Server::of(&network.replicas[0]).ctl(&["put", "/registry/pods/03", "new"]));
    // Without a checkpoint of its own it reads the file again.
    network.kill(3);
    network.restart(3);
    super::roots_become_equal(&network);
    let server = Server::of(&network.replicas[2]);
    let saved = in_home(&network, "saved.db");
    save(&server, &saved);
    let (success, text) = verify(&saved, &network);
    assert!(success, "{text}");
    let (_process, etcd) = restored(&saved, network.directory());
    assert_eq!(etcd.seen(), server.seen());
    // An empty disk: the state comes from the others, the file or both.
    network.kill(1);
    fs::remove_dir_all(network.replicas[1].home().join("data")).expect("it is lost");
    network.restart(1);
    super::roots_become_equal(&network);
}
