//! Clients that ask for much, or take nothing.

use std::time::Duration;

use conformance::client::{Received, Stream, field, number};
use conformance::cluster::Target;
use conformance::peers;
use prost_reflect::Value;

const SECOND: Duration = Duration::from_secs(1);

/// `althing`, or what `ALTHING_UNDER_TEST` names: these hold for a real etcd, too.
fn start(test: &str) -> Option<Target> {
    let program = std::env::var("ALTHING_UNDER_TEST").unwrap_or_else(|_| "althing".into());
    if !peers::available(test, &[&program]) {
        return None;
    }
    Some(match program.as_str() {
        "etcd" => Target::etcd(&[]),
        _ => Target::althing(&[]),
    })
}

fn next(stream: &mut Stream) -> prost_reflect::DynamicMessage {
    match stream.receive(20 * SECOND) {
        Received::Message(message) => message,
        other => panic!("no message: {other:?}"),
    }
}

#[test]
fn ten_thousand_watches_on_one_stream_work() {
    let Some(target) = start("process::many_watches") else { return };
    let client = target.client();
    let mut stream = client.open("Watch/Watch").expect("a stream");
    for number in 0..10_000 {
        stream.send(&format!("create_request{{key:'k{number}'}}"));
    }
    for expected in 0..10_000 {
        let message = next(&mut stream);
        assert_eq!(number(&message, "watch_id"), expected);
        assert_eq!(field(&message, "created"), Value::Bool(true));
        assert_eq!(field(&message, "canceled"), Value::Bool(false));
    }
    for chosen in [0, 4_321, 9_999] {
        client.call("KV/Put", &format!("key:'k{chosen}' value:'x'")).expect("a write");
        let message = next(&mut stream);
        assert_eq!(number(&message, "watch_id"), chosen);
    }
}

/// 64 MiB of events for a stream nobody reads: the others get theirs, memory stays within bounds.
#[test]
fn a_client_that_never_reads_holds_nobody_up() {
    let Some(mut target) = start("process::never_reads") else { return };
    let deaf_client = target.client();
    let deaf = deaf_client.open("Watch/Watch").expect("a stream");
    deaf.send("create_request{key:'\\000' range_end:'\\000' prev_kv:true}");
    // Its connection is driven once, so that the watch exists; afterwards never again.
    deaf_client.call("KV/Range", "key:'a'").expect("a read");
    let client = target.client();
    let mut good = client.open("Watch/Watch").expect("a stream");
    good.send("create_request{key:'load'}");
    next(&mut good);
    let process = target.process().id();
    let before = resident_mib(process);
    let request = format!("key:'load' value:'{}'", "x".repeat(64 << 10));
    let mut told = 0;
    for _ in 0..1_000 {
        client.call("KV/Put", &request).expect("a write");
        let message = next(&mut good);
        told += field(&message, "events").as_list().expect("events").len();
    }
    assert_eq!(told, 1_000);
    let grown = resident_mib(process) - before;
    eprintln!("never_reads: resident memory grew by {grown} MiB");
    assert!(grown < 512, "resident memory grew by {grown} MiB");
}

/// 128 MiB of events for each of 1,000 streams on ten connections that nobody reads: what is kept for them is
/// bounded for the process, not by stream, and the others are served.
#[test]
fn watchers_that_never_read_share_one_bound() {
    let Some(mut target) = start("process::deaf_watchers") else { return };
    let mut deaf = Vec::new();
    for _ in 0..10 {
        let client = target.client();
        let streams: Vec<Stream> = (0..100)
            .map(|_| {
                let stream = client.open("Watch/Watch").expect("a stream");
                stream.send("create_request{key:'load'}");
                stream
            })
            .collect();
        // Its connection is driven once, so that the watches exist; afterwards never again.
        client.call("KV/Range", "key:'a'").expect("a read");
        deaf.push((client, streams));
    }
    let client = target.client();
    let process = target.process().id();
    let before = resident_mib(process);
    let request = format!("key:'load' value:'{}'", "x".repeat(256 << 10));
    for _ in 0..512 {
        client.call("KV/Put", &request).expect("a write");
    }
    let grown = resident_mib(process) - before;
    eprintln!("deaf_watchers: resident memory grew by {grown} MiB");
    assert!(grown < 1_536, "resident memory grew by {grown} MiB");
    drop(deaf);
}

/// Memory that a process has now.
pub fn resident_mib(process: u32) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("/proc");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).expect("a number").parse::<i64>().expect("a number") / 1024
}
