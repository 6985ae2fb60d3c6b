//! The first five minutes: `althing demo`, then etcdctl against each organisation.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use conformance::network::althing;
use conformance::peers::{self, eventually};

const NAMES: [&str; 4] = ["acme", "birch", "cedar", "delta"];
const MINUTE: Duration = Duration::from_secs(60);

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
    eventually("writes go on without cedar", MINUTE, || demo.put("acme", "without-cedar"));
    demo.run(&["start", "cedar"]);
    eventually("cedar has caught up", MINUTE, || demo.get("cedar", "without-cedar") == "acme");
    demo.run(&["cut", "acme"]);
    eventually("writes go on without acme", MINUTE, || demo.put("birch", "without-acme"));
    assert!(!demo.put("acme", "cut-off"), "a write through a replica that is cut off");
    demo.run(&["heal"]);
    eventually("acme has caught up", MINUTE, || demo.get("acme", "without-acme") == "birch");
    // Down and up again: the same network.
    demo.run(&["down"]);
    assert!(!demo.put("acme", "while-down"), "a write while the demo is down");
    demo.up();
    assert_eq!(demo.get("delta", "from-birch"), "birch");
    assert!(demo.put("delta", "again"));
}
