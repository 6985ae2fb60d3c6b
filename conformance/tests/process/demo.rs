//! The first five minutes: `althing demo`, then etcdctl against each organisation.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use conformance::network::althing;
use conformance::peers::{self, eventually};

const NAMES: [&str; 4] = ["acme", "birch", "cedar", "delta"];

/// Ends the demo however the test ends.
struct Demo {
    home: String,
}

impl Demo {
    /// `althing demo --detach`, which returns when all replicas are ready; the table it prints.
    fn up(&self) -> String {
        // A file instead of a pipe: the replicas inherit it, and must not keep the reader waiting.
        let path = Path::new(&self.home).with_extension("output");
        let file = std::fs::File::create(&path).expect("an output file");
        let copy = file.try_clone().expect("an output file");
        let mut command = peers::command("althing");
        command.args(["demo", "--detach", "--home", &self.home]).stdout(file).stderr(copy);
        let status = command.status().expect("althing runs");
        let output = std::fs::read_to_string(&path).expect("an output file");
        assert!(status.success(), "{output}");
        output
    }

    fn run(&self, arguments: &[&str]) -> String {
        althing(&[&["demo"], arguments, &["--home", &self.home]].concat())
    }

    /// etcdctl with the variables that `demo env NAME` prints.
    fn etcdctl(&self, name: &str, arguments: &[&str]) -> Output {
        let mut command: Command = peers::command("etcdctl");
        command.envs(self.environment(name)).args(arguments);
        command.output().expect("etcdctl runs")
    }

    fn environment(&self, name: &str) -> BTreeMap<String, String> {
        let text = self.run(&["env", name]);
        let lines = text.lines().filter_map(|line| line.strip_prefix("export "));
        let pairs = lines.filter_map(|line| line.split_once('='));
        pairs
            .map(|(key, value)| (key.to_owned(), value.trim_matches(['"', '\'']).to_owned()))
            .filter(|(key, _)| key.starts_with("ETCDCTL_"))
            .collect()
    }

    fn put(&self, name: &str, key: &str) -> bool {
        self.etcdctl(name, &["put", key, name, "--command-timeout=5s"]).status.success()
    }

    fn get(&self, name: &str, key: &str) -> String {
        let output = self.etcdctl(name, &["get", key, "--print-value-only"]);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let mut command = peers::command("althing");
        let _ended = command.args(["demo", "down", "--home", &self.home]).output();
    }
}

#[test]
fn the_first_five_minutes_work() {
    if !peers::available("process::demo", &["althing", "etcdctl"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let home = directory.path().join("demo").display().to_string();
    let demo = Demo { home };
    let table = demo.up();
    for name in NAMES {
        assert!(table.contains(name), "{name} is not in the table:\n{table}");
        assert!(demo.put(name, &format!("from-{name}")), "put through {name}");
    }
    for (reader, writer) in NAMES.iter().zip(NAMES.iter().rev()) {
        assert_eq!(demo.get(reader, &format!("from-{writer}")), *writer);
    }
    // A crash, a return, a cut, a reunion.
    demo.run(&["stop", "cedar"]);
    eventually("writes go on without cedar", || demo.put("acme", "without-cedar"));
    demo.run(&["start", "cedar"]);
    eventually("cedar has caught up", || demo.get("cedar", "without-cedar") == "acme");
    demo.run(&["cut", "acme"]);
    eventually("writes go on without acme", || demo.put("birch", "without-acme"));
    assert!(!demo.put("acme", "cut-off"), "a write through a replica that is cut off");
    demo.run(&["heal"]);
    eventually("acme has caught up", || demo.get("acme", "without-acme") == "birch");
    // Down and up again: the same network.
    demo.run(&["down"]);
    assert!(!demo.put("acme", "while-down"), "a write while the demo is down");
    demo.up();
    assert_eq!(demo.get("delta", "from-birch"), "birch");
    assert!(demo.put("delta", "again"));
}

/// One `demo lie`: the others prove it, the proof is a file that verifies alone, writes go on.
fn is_caught(demo: &Demo, liar: &str) {
    let others: Vec<&str> = NAMES.into_iter().filter(|name| *name != liar).collect();
    let report = demo.run(&["lie", liar]);
    assert!(report.contains(&format!("PROVEN: {liar} (")), "{report}");
    assert!(report.contains(&format!("held by {}", others.join(", "))), "{report}");
    eventually("writes go on beside a liar", || demo.put(others[0], "beside-a-liar"));
    for name in &others {
        let home = format!("{}/{name}", demo.home);
        let list = althing(&["misbehaviour", "list", "--home", &home]);
        assert!(list.contains(liar), "{name} keeps no proof:\n{list}");
        let status = althing(&["status", "--home", &home]);
        assert!(status.contains(&format!("{liar} is PROVEN to have lied (")), "{status}");
        // Ordered by one of them, it stands in the state of all.
        eventually("the proof is on record", || {
            let list = althing(&["misbehaviour", "list", "--home", &home]);
            list.lines().any(|line| line.contains(liar) && line.contains("block "))
        });
    }
}

#[test]
fn a_replica_told_to_lie_is_proven_guilty_and_the_others_go_on() {
    if !peers::available("process::lie", &["althing", "etcdctl"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let home = directory.path().join("demo").display().to_string();
    let demo = Demo { home };
    let table = demo.up();
    let primary = table.lines().find(|line| line.contains("primary")).expect("a primary");
    let primary = *NAMES.iter().find(|name| primary.starts_with(*name)).expect("a name");
    let voter = *NAMES.iter().find(|name| **name != primary).expect("another");
    is_caught(&demo, voter);
    is_caught(&demo, primary);
    let files = std::fs::read_dir(&demo.home).expect("the demo's home");
    let proofs: Vec<_> = files
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "evidence"))
        .collect();
    assert_eq!(proofs.len(), 2, "one proof each");
    let genesis = format!("{}/genesis.json", demo.home);
    for proof in proofs {
        let path = proof.display().to_string();
        let verdict = althing(&["misbehaviour", "verify", &path, "--trust", &genesis]);
        assert!(verdict.starts_with("PROVEN: "), "{verdict}");
        let mut bytes = std::fs::read(&proof).expect("the proof");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&proof, bytes).expect("the proof is changed");
        let mut command = peers::command("althing");
        command.args(["misbehaviour", "verify", &path, "--trust", &genesis]);
        let refused = command.output().expect("althing runs");
        assert_eq!(refused.status.code(), Some(1));
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(why.contains("did not sign"), "{why}");
    }
    // Restarted, the liar is honest again, and its proofs are still there.
    demo.run(&["stop", voter]);
    demo.run(&["start", voter]);
    eventually("all go on together", || demo.put(voter, "forgiven"));
}
