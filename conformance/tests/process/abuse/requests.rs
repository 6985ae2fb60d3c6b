//! Requests that are well formed, and too many or too much.

use std::time::Duration;

use conformance::client::{Received, field, grpc_frame, number, quoted};
use conformance::peers::eventually;
use prost_reflect::Value;

use super::http2::{DATA, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, Raw, call, frame};
use super::{GROWTH_MIB, Victim, full, many_calls, put};
use crate::MINUTE;

#[test]
fn watches_created_and_cancelled_without_end_leave_nothing_behind() {
    let Some(mut victim) = Victim::start("watch_churn", &[]) else { return };
    let rounds = full(5_000, 50_000);
    let client = victim.target.client();
    let mut stream = client.open("Watch/Watch").expect("a stream");
    for id in 1..=rounds {
        stream.send(&format!("create_request{{key:'k{}' watch_id:{id}}}", id % 7));
        stream.send(&format!("cancel_request{{watch_id:{id}}}"));
        stream.send("progress_request{}");
    }
    let mut cancelled = 0;
    while cancelled < rounds {
        match stream.receive(MINUTE) {
            Received::Message(message) => {
                cancelled += usize::from(field(&message, "canceled") == Value::Bool(true));
            }
            other => panic!("{cancelled} of {rounds} were cancelled, then {other:?}"),
        }
    }
    stream.send("create_request{key:'well' watch_id:1}");
    victim.is_well("watch_churn", GROWTH_MIB);
    eventually("the stream still tells of a write", || {
        let told = stream.receive(Duration::from_secs(1));
        put(&client, b"well", b"2");
        matches!(told, Received::Message(message)
            if field(&message, "events").as_list().is_some_and(|events| !events.is_empty()))
    });
}

#[test]
fn many_leases_and_a_storm_of_renewals_are_bounded() {
    let Some(mut victim) = Victim::start("lease_storm", &[]) else { return };
    for (ttl, refused) in [("0", false), ("-1", false), ("9000000001", true)] {
        let answer = victim.target.call("Lease/LeaseGrant", &format!("TTL:{ttl}"));
        assert_eq!(answer.is_err(), refused, "{ttl}: {answer:?}");
    }
    let count = full(10_000, 100_000);
    let grant = |number: usize| format!("ID:{} TTL:600", number + 1);
    let failed = many_calls(&victim.target, count, ("Lease/LeaseGrant", &grant));
    assert_eq!(failed, [], "grants");
    let list = victim.target.call("Lease/LeaseLeases", "").expect("a list");
    let found = field(&list, "leases").as_list().expect("leases").len();
    assert!(found >= count, "{found} of {count} leases");
    victim.is_well("leases", GROWTH_MIB);
    let client = victim.target.client();
    let storm: Vec<_> = (0..8)
        .map(|_| {
            let stream = client.open("Lease/LeaseKeepAlive").expect("a stream");
            for number in 0..2_500 {
                stream.send(&format!("ID:{}", number % 100 + 1));
            }
            stream
        })
        .collect();
    // Its connection is driven, so that the renewals go out; nobody reads the answers.
    for _ in 0..20 {
        client.call("KV/Range", "key:'a'").expect("a read beside the storm");
    }
    victim.is_well("renewals", GROWTH_MIB);
    drop(storm);
    let left = victim.target.call("Lease/LeaseTimeToLive", "ID:1").expect("a lease");
    assert!(number(&left, "TTL") > 0);
}

/// Each of a thousand requests is answered with 16 MiB, and nobody takes a byte of it.
#[test]
fn answers_that_nobody_takes_share_one_bound() {
    let Some(mut victim) = Victim::start("untaken", &[]) else { return };
    let client = victim.target.client();
    for number in 0..32 {
        put(&client, format!("big {number:02}").as_bytes(), &[b'x'; 512 << 10]);
    }
    victim.measure_again();
    let range = grpc_frame(&[0x0a, 1, 0, 0x12, 1, 0]);
    let mut connections = Vec::new();
    for number in 0..20 {
        let method = if number % 2 == 0 { "Range" } else { "RangeStream" };
        let head = call(&format!("/etcdserverpb.KV/{method}"));
        let mut raw = Raw::open(victim.address(), &[(INITIAL_WINDOW_SIZE, 1)]);
        for at in 0..50 {
            let stream = 2 * at + 1;
            let mut asked = frame(HEADERS, END_HEADERS, stream, &head);
            asked.extend(frame(DATA, END_STREAM, stream, &range));
            assert!(raw.send(&asked), "an ordinary request");
        }
        connections.push(raw);
    }
    let all = "key:'\\000' range_end:'\\000'";
    eventually("the bound is reached", || {
        let answer = client.call("KV/Range", all);
        answer.is_err_and(|why| why.code == "ResourceExhausted")
    });
    // The bound is 512 MiB, and what is being made is there twice.
    victim.is_well("untaken", 1_024 + GROWTH_MIB);
    drop(connections);
    eventually("there is room again", || client.call("KV/Range", all).is_ok());
}

#[test]
fn who_guesses_passwords_waits_and_nobody_else_does() {
    let flags = ["--bcrypt-cost=4"];
    let Some(mut victim) = Victim::start("guesses", &flags) else { return };
    let root = victim.target.client();
    for line in [
        "Auth/UserAdd name:'root' password:'right'",
        "Auth/UserAdd name:'alice' password:'right'",
        "Auth/UserGrantRole user:'root' role:'root'",
        "Auth/AuthEnable ",
    ] {
        let (method, request) = line.split_once(' ').expect("a method");
        root.call(method, request).unwrap_or_else(|why| panic!("{line}: {why:?}"));
    }
    let login = |user: &str, word: &str| {
        let request = format!("name:'{user}' password:'{word}'");
        victim.target.client().call_within("Auth/Authenticate", &request, Duration::from_secs(5))
    };
    let wrong = "etcdserver: authentication failed, invalid user ID or password";
    assert_eq!(login("alice", "wrong").expect_err("wrong").message, wrong);
    assert_eq!(login("nobody", "wrong").expect_err("unknown").message, wrong);
    let rounds = |threads: usize, each: usize| {
        std::thread::scope(|scope| {
            let guess = || (0..each).map(|_| login("alice", "wrong")).collect::<Vec<_>>();
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(guess)).collect();
            let all = threads.into_iter().flat_map(|thread| thread.join().expect("no panic"));
            all.map(|one| one.expect_err("wrong").message).collect::<Vec<_>>()
        })
    };
    assert!(rounds(20, 2).iter().any(|told| *told == wrong));
    let told = rounds(100, 1);
    assert!(told.iter().any(|why| why.contains("too many requests")), "{told:?}");
    // Neither another user of that address nor the one who is guessed at is shut out.
    let token = login("root", "right").expect("another user");
    root.set_token(field(&token, "token").as_str());
    root.call("KV/Put", "key:'a' value:'1'").expect("a write");
    eventually("the right password is taken", || login("alice", "right").is_ok());
    login("alice", "right").expect("no wait any more");
    root.call("Auth/AuthDisable", "").expect("root may");
    victim.is_well("guesses", GROWTH_MIB);
}

#[test]
fn keys_of_any_bytes_are_kept_as_they_are_and_reach_no_terminal() {
    let Some(mut victim) = Victim::start("odd_keys", &["--warning-apply-duration=0s"]) else {
        return;
    };
    let client = victim.target.client();
    let keys: [&[u8]; 6] = [
        b"\0",
        b"\xff\xfe\xff",
        b"\x1b[2J\x1b]0;owned\x07",
        b"a\r\nb",
        b"\xc3\x28",
        "\u{202e}".as_bytes(),
    ];
    for key in keys {
        put(&client, key, key);
        let found = client.call("KV/Range", &format!("key:{}", quoted(key))).expect("a read");
        let kvs = field(&found, "kvs");
        let kv = kvs.as_list().and_then(|kvs| kvs.first()).and_then(Value::as_message);
        let kv = kv.expect("the key is there");
        assert_eq!(field(kv, "key").as_bytes().map(|key| &key[..]), Some(key));
        assert_eq!(field(kv, "value").as_bytes().map(|value| &value[..]), Some(key));
    }
    victim.is_well("odd_keys", GROWTH_MIB);
    let output = victim.target.process().output();
    let raw = |c: char| c.is_control() && c != '\n' && c != '\t' || c == '\u{202e}';
    assert!(!output.contains(raw), "the log holds what a terminal obeys:\n{output:?}");
}
