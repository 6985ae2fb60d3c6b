//! A second endpoint of one organisation: an observer admits requests, reads and watches without a vote,
//! so that either of the two can be away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use conformance::ceremony::{OBSERVER, VOTER, with_observer};
use conformance::client::{Client, Received, field, number};
use conformance::cluster::TlsFiles;
use conformance::network::Replica;
use conformance::peers;
use prost_reflect::Value;

use crate::load::Load;

/// Follows all keys below a prefix at one endpoint after the other, as a client with both does: when a
/// stream ends it goes on at the next one, behind what it was told.
struct Watcher {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(BTreeMap<i64, String>, u32)>,
}

impl Watcher {
    fn start(prefix: &str, from: i64, replicas: &[&Replica]) -> Watcher {
        let stop = Arc::new(AtomicBool::new(false));
        let endpoints: Vec<(String, TlsFiles)> =
            replicas.iter().map(|one| (one.endpoint.clone(), one.tls())).collect();
        let (prefix, ends) = (prefix.to_owned(), stop.clone());
        let thread = std::thread::spawn(move || follow(&prefix, from, &endpoints, &ends));
        Watcher { stop, thread }
    }

    /// Waits until it was told up to `revision`; all it was told, and how many streams ended under it.
    fn finish(self) -> (BTreeMap<i64, String>, u32) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the watcher")
    }
}

fn follow(
    prefix: &str,
    from: i64,
    endpoints: &[(String, TlsFiles)],
    ends: &AtomicBool,
) -> (BTreeMap<i64, String>, u32) {
    let mut told = BTreeMap::new();
    let mut next = from;
    let mut ended = 0;
    for at in 0.. {
        let (endpoint, tls) = &endpoints[at % endpoints.len()];
        let client = Client::new(endpoint, Some(tls));
        let Ok(mut stream) = client.open("Watch/Watch") else { continue };
        stream.send(&format!(
            "create_request{{key:'{prefix}/' range_end:'{prefix}0' start_revision:{next}}}"
        ));
        loop {
            match stream.receive(Duration::from_secs(3)) {
                Received::Message(message) => {
                    let events = field(&message, "events");
                    for event in events.as_list().expect("events") {
                        let event = event.as_message().expect("an event");
                        let revision = number(event, "kv.mod_revision");
                        assert!(revision >= next, "told twice or out of order: {revision}");
                        next = revision + 1;
                        let key = field(event, "kv.key");
                        let key = key.as_bytes().expect("bytes").to_vec();
                        told.insert(revision, String::from_utf8(key).expect("text"));
                    }
                    if field(&message, "canceled") == Value::Bool(true) {
                        break;
                    }
                }
                Received::Nothing if ends.load(Ordering::Relaxed) => return (told, ended),
                Received::Nothing => {}
                Received::End(_) => break,
            }
        }
        ended += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    unreachable!("it watches until it is told to end")
}

/// p50 and the longest of `count` calls, in milliseconds.
fn times(
    client: &Client,
    method: &str,
    count: u32,
    request: impl Fn(u32) -> String,
) -> (u128, u128) {
    let mut times: Vec<u128> = (0..count)
        .map(|turn| {
            let begun = Instant::now();
            client.call(method, &request(turn)).expect("answered");
            begun.elapsed().as_millis()
        })
        .collect();
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() - 1])
}

#[test]
fn a_client_with_both_endpoints_of_an_organisation_notices_no_restart_of_either() {
    if !peers::available("process::observer", &["althing"]) {
        return;
    }
    let mut network = with_observer();
    let said = network.replicas[OBSERVER].output();
    assert!(said.contains("joins the network") && !said.contains("ROLLBACK"), "{said}");
    for index in [VOTER, OBSERVER] {
        let client = network.replicas[index].client();
        let name = network.replicas[index].name;
        let put = |turn: u32| format!("key:'times/{turn}' value:'{name}'");
        let writes = times(&client, "KV/Put", 50, put);
        let reads = times(&client, "KV/Range", 50, |turn| format!("key:'times/{turn}'"));
        eprintln!(
            "observer: at {name}: put p50 {} max {} ms, read p50 {} max {} ms",
            writes.0, writes.1, reads.0, reads.1
        );
    }
    let from = network.replicas[1].revision().expect("a revision") + 1;
    let both = [VOTER, OBSERVER].map(|index| &network.replicas[index]);
    let watcher = Watcher::start("both", from, &both);
    let turned = [OBSERVER, VOTER].map(|index| &network.replicas[index]);
    let others = [1, 3].map(|index| &network.replicas[index]);
    let clients = [both.to_vec(), turned.to_vec(), others.to_vec()];
    let load = Load::start_with("both", &clients);
    load.progress("at first", 100);
    for (index, gently) in [(VOTER, true), (OBSERVER, true), (VOTER, false), (OBSERVER, false)] {
        let name = network.replicas[index].name;
        load.longest_stall();
        if gently {
            network.terminate(index);
        } else {
            network.kill(index);
        }
        load.progress(&format!("without {name}"), 100);
        network.restart(index);
        load.progress(&format!("with {name} again"), 100);
        let how = if gently { "stopped" } else { "killed" };
        eprintln!("observer: {name} {how}: longest wait of a client {:?}", load.longest_stall());
    }
    let ledger = load.finish();
    let last = ledger.revisions().last_key_value().map_or(0, |(revision, _)| *revision);
    for index in [VOTER, OBSERVER] {
        peers::eventually("both have executed the last write", || {
            network.replicas[index].revision().is_ok_and(|revision| revision >= last)
        });
    }
    let (told, ended) = watcher.finish();
    eprintln!("observer: {} writes, {} told, {ended} streams ended", ledger.len(), told.len());
    assert!(ended >= 1, "no stream ended: nothing was tested");
    assert_eq!(ledger.failures, 0, "a request failed at both endpoints");
    for (revision, key) in ledger.revisions() {
        assert_eq!(told.get(&revision), Some(&key), "revision {revision}");
    }
    ledger.check(&network);
    let status = network.replicas[OBSERVER].own_status().expect("a status page");
    assert_eq!(status["mode"], "observer", "{status}");
}
