//! A replica stands still for seconds (SIGSTOP; faults.md T3): the others go on, and what it answers when it
//! goes on is not what was true before.

use std::time::{Duration, Instant};

use conformance::client::{field, number};
use conformance::network::Network;
use conformance::peers::{self, eventually};
use rustix::process::Signal;

use crate::damage::votes;
use crate::load::Load;
use crate::{WARM_UP, roots_become_equal};

/// Longer than every timeout that could notice.
const PAUSE: Duration = Duration::from_secs(5);

/// Stops `victim` under load. A linearizable read that began while it stood still must see what was
/// acknowledged before the read began.
fn stands_still(network: &mut Network, name: &str, victim: usize) {
    let others: Vec<usize> = (0..4).filter(|index| *index != victim).collect();
    let writers: Vec<_> = others.iter().map(|index| &network.replicas[*index]).collect();
    let load = Load::start(name, &writers);
    load.progress("at first", WARM_UP);
    // Connected before, so that the request is in the stopped process's socket.
    let paused = network.replicas[victim].client();
    let seen = paused.call("KV/Range", "key:'none'").expect("a read");
    let until = number(&seen, "header.revision");
    network.signal(victim, Signal::STOP);
    let process = network.process_id(victim);
    eventually("SIGSTOP stops it", || is_stopped(process));
    let stopped = Instant::now();
    load.progress("while it stands still", WARM_UP);
    let writer = network.replicas[others[0]].client();
    let key = format!("{name}/while-stopped");
    let reply = writer.call("KV/Put", &format!("key:'{key}' value:'new'")).expect("a write");
    let written = number(&reply, "header.revision");
    assert!(written > until, "the others went on");
    let reading = std::thread::spawn(move || {
        let patience = Duration::from_secs(120);
        paused.call_within("KV/Range", &format!("key:'{key}'"), patience)
    });
    while stopped.elapsed() < PAUSE {
        load.progress("while it still stands", WARM_UP / 5);
    }
    assert!(!reading.is_finished(), "nobody answered for the stopped one");
    network.signal(victim, Signal::CONT);
    match reading.join().expect("a reader") {
        Ok(read) => {
            assert_eq!(number(&read, "count"), 1, "{name}: a stale read after the pause");
            assert!(number(&read, "header.revision") >= written, "{:?}", field(&read, "header"));
        }
        Err(refused) => eprintln!("{name}: refused after the pause: {refused:?}"),
    }
    network.wait_until_ready(victim);
    load.progress("after it went on", WARM_UP);
    let ledger = load.finish();
    let (writes, unknown) = (ledger.len(), ledger.failures);
    eprintln!("{name}: {writes} writes, {unknown} unknown, longest {:?}", ledger.longest_gap);
    ledger.check(network);
    roots_become_equal(network);
    votes(network, victim, others[0]);
}

/// The state letter of /proc: stopped by a signal.
fn is_stopped(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it is there");
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
}

#[test]
fn a_backup_that_stands_still_is_not_missed_and_answers_nothing_stale() {
    if !peers::available("process::paused_backup", &["althing"]) {
        return;
    }
    let mut network = Network::start(4);
    let primary = network.known_primary(0);
    stands_still(&mut network, "paused-backup", (primary + 1) % 4);
}

#[test]
fn a_primary_that_stands_still_is_replaced_and_answers_nothing_stale() {
    if !peers::available("process::paused_primary", &["althing"]) {
        return;
    }
    let mut network = Network::start(4);
    let primary = network.known_primary(0);
    stands_still(&mut network, "paused-primary", primary);
}
