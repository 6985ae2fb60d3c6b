//! A replica whose apply goes wrong at one moment (a build with the feature `planted`; faults.md B10, point
//! 5 of "Ordering that survives everything"): it finds out by itself, the others need not.

use std::time::Duration;

use conformance::client::number;
use conformance::network::Network;
use conformance::peers::{self, PLANTED, eventually};

use crate::damage::{etcdctl, is_quarantined, put, repair, votes};
use crate::load::Load;
use crate::{WARM_UP, roots_become_equal};

/// The delete that goes wrong.
const KEY: &str = "planted/key";

/// Blocks between a state and the header that names its root (W, protocol.md 5.1).
const WINDOW: u64 = 4;

/// Lets `victim`, whose build is planted, diverge under load; then repairs it.
fn diverges(network: &mut Network, name: &str, victim: usize) {
    let others: Vec<usize> = (0..4).filter(|index| *index != victim).collect();
    let writers: Vec<_> = others.iter().map(|index| &network.replicas[*index]).collect();
    let load = Load::start(name, &writers);
    load.progress("before the divergence", WARM_UP);
    put(&network.replicas[others[0]], KEY, "1");
    let first = load.finish();
    let voices = Voices::of(network, &others);
    let leader = if name.starts_with("primary") { victim } else { others[0] };
    eventually("who is to lead leads", || lead_moves_to(network, leader));
    // Nothing is under way, so the delete is in the next block.
    let deleted = resting_height(network, others[0]) + 1;
    let deleter = network.replicas[others[0]].client();
    let reply = deleter.call("KV/DeleteRange", &format!("key:'{KEY}'")).expect("a delete");
    assert_eq!(number(&reply, "deleted"), 1, "the others do what was asked");
    let writers: Vec<_> = others.iter().map(|index| &network.replicas[*index]).collect();
    let load = Load::start(&format!("{name}-after"), &writers);
    let bad = &network.replicas[victim];
    is_quarantined(bad);
    let found = quarantined_at(&bad.output());
    eprintln!("{name}: deleted in block {deleted}, found at block {found}");
    // The root after the delete stands in the header W blocks above it.
    assert_eq!(found, deleted + WINDOW, "{name}");
    load.progress("beside the quarantined one", WARM_UP);
    let ledger = load.finish();
    assert_eq!(first.failures + ledger.failures, 0, "{name}: no write elsewhere fails");
    eprintln!("{name}: {} writes, longest wait {:?}", ledger.len(), ledger.longest_gap);
    voices.are_as_before(network);
    let status = bad.own_status().expect("it is up");
    assert_eq!(status["mode"], "quarantined", "{status}");

    let said = repair(bad);
    assert!(said.contains("votes again"), "{said}");
    let alarms = etcdctl(bad, &["alarm", "list"]);
    assert!(!alarms.contains("CORRUPT"), "{alarms}");
    let left = etcdctl(bad, &["get", KEY, "--print-value-only"]);
    assert_eq!(left.trim(), "", "the key is deleted here too");
    let kept = std::fs::read_dir(bad.home().join("data/damaged")).expect("the evidence is kept");
    assert!(kept.count() > 0, "the evidence is kept");
    roots_become_equal(network);
    votes(network, victim, others[0]);
    first.check(network);
    ledger.check(network);
}

/// What the others say about themselves, which the divergence of one must not change.
struct Voices(Vec<(usize, String)>);

impl Voices {
    fn of(network: &Network, others: &[usize]) -> Voices {
        Voices(others.iter().map(|index| (*index, Self::alarms(network, *index))).collect())
    }

    fn alarms(network: &Network, index: usize) -> String {
        etcdctl(&network.replicas[index], &["alarm", "list"])
    }

    fn are_as_before(&self, network: &Network) {
        for (index, alarms) in &self.0 {
            assert_eq!(&Self::alarms(network, *index), alarms);
            let output = network.replicas[*index].output();
            assert!(!output.contains("\"quarantine\"") && !output.contains("panicked"), "{output}");
        }
    }
}

/// The height that stays while nobody writes.
fn resting_height(network: &Network, index: usize) -> u64 {
    let height = || {
        let status = network.replicas[index].own_status().expect("a status");
        status["executed"].as_u64().expect("a height")
    };
    let mut last = 0;
    eventually("nothing is under way", || {
        std::thread::sleep(Duration::from_millis(300));
        let before = std::mem::replace(&mut last, height());
        before == last
    });
    last
}

/// The block whose root told the replica.
fn quarantined_at(output: &str) -> u64 {
    let line = output.lines().find(|line| line.contains("root")).expect("the reason is told");
    let words = line.split(|c: char| !c.is_ascii_alphanumeric()).collect::<Vec<_>>();
    let at =
        words.windows(2).find(|two| ["block", "height"].contains(&two[0]) && is_number(two[1]));
    let number = at.unwrap_or_else(|| panic!("no block is named: {line}"))[1];
    number.parse().expect("a height")
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_digit())
}

fn with_a_planted(name: &str, behind_the_primary: usize) {
    if !peers::available(&format!("process::{name}"), &["althing", "etcdctl", PLANTED]) {
        return;
    }
    let mut network = Network::start(4);
    let primary = network.known_primary(0);
    let victim = (primary + behind_the_primary) % 4;
    network.kill(victim);
    let mut planted = peers::command(PLANTED);
    planted.env("ALTHING_PLANTED_AT", KEY);
    network.launch_by(victim, planted);
    network.wait_until_ready(victim);
    roots_become_equal(&network);
    diverges(&mut network, name, victim);
}

/// Passes the lead one replica on, unless it is there.
fn lead_moves_to(network: &Network, wanted: usize) -> bool {
    let Some(primary) = network.primary(wanted) else { return false };
    if primary != wanted {
        let next = &network.replicas[(primary + 1) % 4];
        let status = etcdctl(next, &["endpoint", "status", "--write-out=json"]);
        let id = status.split("\"member_id\":").nth(1).unwrap_or_default();
        let digits: String = id.chars().take_while(char::is_ascii_digit).collect();
        let id = format!("{:x}", digits.parse::<u64>().unwrap_or_default());
        etcdctl(&network.replicas[primary], &["move-leader", &id]);
    }
    primary == wanted
}

#[test]
fn a_backup_that_diverges_quarantines_itself_and_is_repaired() {
    with_a_planted("backup_diverges", 1);
}

#[test]
fn a_primary_that_diverges_quarantines_itself_and_is_repaired() {
    with_a_planted("primary_diverges", 0);
}
