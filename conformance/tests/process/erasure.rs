//! A Secret that was deleted is gone from every file, and what was proved stays provable.

use std::path::{Path, PathBuf};

use conformance::client::{Received, number};
use conformance::network::{Network, althing};
use conformance::peers::{self, eventually};

use crate::MINUTE;

const MARKER: &str = "hunter2-is-the-password-of-the-old-database";

/// The files below `directory` that hold `needle`.
pub fn files_with(directory: &Path, needle: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if let Ok(bytes) = std::fs::read(&path)
                && bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
            {
                found.push(path);
            }
        }
    }
    found
}

/// How many replicas' homes hold the marker.
fn holders(network: &Network) -> Vec<PathBuf> {
    network.replicas.iter().flat_map(|replica| files_with(replica.home(), MARKER)).collect()
}

fn put(network: &Network, replica: usize, key: &str, value: &str) {
    let request = format!("key:'{key}' value:'{value}'");
    network.replicas[replica].client().call("KV/Put", &request).expect("a write");
}

/// A checkpoint ordered by `replica`, stable everywhere. A replica's second one within a minute would be
/// the first.
fn checkpoint(network: &Network, replica: usize) {
    let executed = |status: serde_json::Value| status["executed"].as_u64().expect("a height");
    let before = executed(network.replicas[replica].own_status().expect("a status"));
    network.replicas[replica].client().call("Maintenance/Defragment", "").expect("a checkpoint");
    eventually("the checkpoint is stable at every replica", || {
        network.replicas.iter().all(|replica| {
            let status = replica.own_status().expect("a status");
            status["stable_checkpoint"].as_u64() > Some(before)
        })
    });
}

fn value_of(network: &Network, replica: usize, key: &str) -> String {
    let client = network.replicas[replica].client();
    let answer = client.call("KV/Range", &format!("key:'{key}'")).expect("a read");
    assert_eq!(number(&answer, "count"), 1, "{key}");
    format!("{answer:?}")
}

#[test]
fn a_deleted_secret_is_in_no_file_after_two_checkpoints_and_the_chain_still_verifies() {
    if !peers::available("process::erasure", &["althing"]) {
        return;
    }
    let mut network = Network::start(4);
    put(&network, 0, "kept/early", "stays");
    put(&network, 1, "secret/1", MARKER);
    put(&network, 1, "kept/late", "stays too");
    assert_eq!(holders(&network).len(), 4, "each replica's log holds it at first");
    network.replicas[2].client().call("KV/DeleteRange", "key:'secret/1'").expect("a delete");
    let revision = network.replicas[2].revision().expect("a revision");
    let compact = format!("revision:{revision}");
    network.replicas[2].client().call("KV/Compact", &compact).expect("a compaction");
    checkpoint(&network, 0);
    put(&network, 3, "kept/between", "stays as well");
    checkpoint(&network, 1);
    eventually("the marker is in no file of any replica", || holders(&network).is_empty());
    let kept = ["kept/early", "kept/late", "kept/between"];
    let check = |network: &Network| {
        for replica in 0..4 {
            kept.iter().for_each(|key| assert!(value_of(network, replica, key).contains("stays")));
            verify(network, replica);
        }
    };
    check(&network);
    watch_sees(&network, revision);
    // Who wrote it is still known, and that it was: not what it was.
    let home = network.replicas[0].home().display().to_string();
    let history = althing(&["history", "secret/1", "--home", &home]);
    assert!(history.contains("put") && history.contains("delete"), "{history}");
    let block = althing(&["block", "get", "2", "--home", &home]);
    assert!(block.contains("certificate"), "{block}");
    for replica in 0..4 {
        network.kill(replica);
    }
    for replica in 0..4 {
        network.launch(replica);
    }
    for replica in 0..4 {
        network.wait_until_ready(replica);
    }
    check(&network);
    watch_sees(&network, revision);
    put(&network, 2, "kept/after", "1");
    super::roots_become_equal(&network);
    assert!(holders(&network).is_empty(), "a restart brings nothing back");
}

/// The chain in a replica's directory holds from end to end.
fn verify(network: &Network, replica: usize) {
    let home = network.replicas[replica].home().display().to_string();
    let genesis = network.directory().join("genesis.json").display().to_string();
    let said = althing(&["log", "verify", "--home", &home, "--genesis", &genesis]);
    assert!(said.contains("blocks       1 to"), "{said}");
    let erased = said.lines().find(|line| line.starts_with("erased")).expect("a count");
    assert!(!erased.contains("erased       0 of"), "{said}");
}

/// A watch from the compact revision on gets every change since.
fn watch_sees(network: &Network, revision: i64) {
    for replica in 0..4 {
        let client = network.replicas[replica].client();
        let mut stream = client.open("Watch/Watch").expect("a stream");
        stream.send(&format!(
            "create_request {{ key:'kept/' range_end:'kept0' start_revision:{revision} }}"
        ));
        eventually("the watch shows the later change", || {
            let received = stream.receive(MINUTE);
            assert!(matches!(received, Received::Message(_)), "replica {replica}: {received:?}");
            format!("{received:?}").contains("kept/between")
        });
    }
}
