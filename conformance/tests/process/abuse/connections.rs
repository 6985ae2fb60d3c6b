//! Connections on which something else than requests happens.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use conformance::client::{Client, grpc_frame};
use conformance::network::Network;
use conformance::peers::{self, Process, eventually, free_port};

use super::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, PING, RST_STREAM,
    Raw, SETTINGS, Verdict, call, frame, literal,
};
use super::{GROWTH_MIB, Victim, full};
use crate::bad_input;
use crate::clients::resident_mib;

const PUT: &str = "/etcdserverpb.KV/Put";
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// A flood of frames.
struct Flood {
    name: &'static str,
    /// What opens it.
    opening: fn() -> Vec<u8>,
    /// What is sent again and again with growing numbers.
    next: fn(u32) -> Vec<u8>,
    /// The server must hang up on it.
    must_end: bool,
}

impl Flood {
    /// One without an opening, that a connection may survive.
    const fn of(name: &'static str, next: fn(u32) -> Vec<u8>) -> Self {
        Self { name, opening: Vec::new, next, must_end: false }
    }
}

const FLOODS: [Flood; 9] = [
    Flood::of("rapid reset", |number| {
        let stream = 2 * number + 1;
        let mut both = frame(HEADERS, END_HEADERS, stream, &call(PUT));
        both.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        both
    }),
    Flood {
        name: "CONTINUATION",
        opening: || frame(HEADERS, 0, 1, &call(PUT)),
        next: |number| frame(CONTINUATION, 0, 1, &literal(&format!("x{number}"), &"y".repeat(100))),
        must_end: true,
    },
    Flood {
        name: "empty DATA",
        opening: || frame(HEADERS, END_HEADERS, 1, &call(PUT)),
        next: |_| frame(DATA, 0, 1, &[]),
        must_end: false,
    },
    Flood::of("SETTINGS", |number| {
        let (name, value) = (INITIAL_WINDOW_SIZE.to_be_bytes(), number.to_be_bytes());
        frame(SETTINGS, 0, 0, &[&name[..], &value].concat())
    }),
    Flood::of("PING", |number| frame(PING, 0, 0, &u64::from(number).to_be_bytes())),
    Flood::of("streams", |number| frame(HEADERS, END_HEADERS, 2 * number + 1, &call(WATCH))),
    // A header of 4,000 bytes into the table, then again and again by its number.
    Flood {
        must_end: true,
        ..Flood::of("header bomb", |number| {
            let mut block = call(PUT);
            if number == 0 {
                block.extend([0x40, 1, b'b', 0x7f, 0xa1, 0x1e]);
                block.extend([b'z'; 4_000]);
            }
            block.extend([0xbe; 4_000]);
            frame(HEADERS, END_HEADERS, 2 * number + 1, &block)
        })
    },
    Flood::of("junk", |number| {
        let kind = u8::try_from(number % 240).expect("below 240") + 10;
        frame(kind, 0xff, number, &[0xff; 64])
    }),
    Flood::of("messages of 2 GiB", |number| {
        let stream = 2 * number + 1;
        let mut both = frame(HEADERS, END_HEADERS, stream, &call(PUT));
        both.extend(frame(DATA, 0, stream, &[0, 0x7f, 0xff, 0xff, 0xff, 0x0a]));
        both
    }),
];

/// Nobody reads while these come in, as fast as they are taken.
#[test]
fn floods_of_frames_end_their_connection_or_cost_little() {
    let Some(mut victim) = Victim::start("frames", &[]) else { return };
    let count = u32::try_from(full(20_000, 500_000)).expect("a count");
    for Flood { name, opening, next, must_end } in FLOODS {
        let mut raw = Raw::open(victim.address(), &[]);
        let mut taken = raw.send(&opening());
        assert!(taken, "{name}: not even its opening was taken");
        let mut sent = 0;
        while taken && sent < count {
            let burst: Vec<u8> = (sent..(sent + 50).min(count)).flat_map(next).collect();
            taken = raw.send(&burst);
            sent += 50;
        }
        let verdict = raw.verdict(Duration::from_secs(1));
        eprintln!("{name}: {sent} sent, {verdict:?}");
        victim.is_well(name, 2 * GROWTH_MIB);
        assert!(!must_end || verdict != Verdict::Open, "{name}: the connection is still open");
    }
}

/// Small answers, too, wait for who opened no window.
#[test]
fn a_window_of_one_byte_holds_nobody_up() {
    let Some(mut victim) = Victim::start("windows", &[]) else { return };
    let range = grpc_frame(&[0x0a, 1, b'a']);
    let head = call("/etcdserverpb.KV/Range");
    let (mut connections, count) = (Vec::new(), full(2_000, 9_000));
    for _ in 0..4 {
        let mut raw = Raw::open(victim.address(), &[(INITIAL_WINDOW_SIZE, 1)]);
        let requests = (0..u32::try_from(count).expect("a count")).map(|at| {
            let mut asked = frame(HEADERS, END_HEADERS, 2 * at + 1, &head);
            asked.extend(frame(DATA, END_STREAM, 2 * at + 1, &range));
            asked
        });
        let sent = requests.take_while(|asked| raw.send(asked)).count();
        eprintln!("windows: {sent} requests sent");
        assert!(sent > 0, "the connection takes no request");
        connections.push(raw);
    }
    // What each waiting answer may cost: its stream, its request, its call.
    let streams_mib = i64::try_from((4 * count * (32 << 10)) >> 20).expect("a number");
    victim.is_well("windows", GROWTH_MIB + streams_mib);
}

/// TLS: connections that say nothing, half a greeting, or nonsense, beside clients that have a name.
#[test]
fn silent_and_senseless_handshakes_keep_nobody_out() {
    if !peers::available("process::handshakes", &["althing"]) {
        return;
    }
    let mut network = Network::start(1);
    let endpoint = network.replicas[0].endpoint.clone();
    let address = endpoint.trim_start_matches("https://");
    let process = network.process_id(0);
    let before = resident_mib(process);
    let (mut silent, mut nonsense, count) = (Vec::new(), Vec::new(), full(900, 3_000));
    for number in 0..count {
        let Ok(mut stream) = TcpStream::connect(address) else { continue };
        let said: &[u8] = match number % 3 {
            0 => &[],
            1 => &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
            _ => &[0xff; 600],
        };
        // The server may have hung up on nonsense.
        let _hung_up = stream.write_all(said);
        if number % 3 == 2 { &mut nonsense } else { &mut silent }.push(stream);
    }
    let open = silent.len() + nonsense.len();
    assert!(open > count / 2, "{open} of {count} connections came about");
    network.wait_until_ready(0);
    let grown = resident_mib(process) - before;
    eprintln!("handshakes: {open} open, resident memory grew by {grown} MiB");
    assert!(grown < GROWTH_MIB, "resident memory grew by {grown} MiB");
    // Some of either kind, early and late.
    for stream in silent.iter_mut().step_by(count / 9) {
        stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket");
        eventually("the silent ones are let go", || {
            let told = stream.read(&mut [0; 16]);
            !told.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        });
    }
    network.wait_until_ready(0);
    assert!(!network.replicas[0].output().contains("panicked"));
}

/// More connections than there are descriptors: the log and those that were there before keep theirs, and
/// who comes later is served once there are some again.
#[test]
fn more_connections_than_descriptors_stop_nothing() {
    if !peers::available("process::descriptors", &["althing"]) {
        return;
    }
    let home = tempfile::tempdir().expect("a temporary directory");
    let port = free_port();
    let flags = bad_input::flags(&home.path().join("data"), port);
    let mut command = peers::command("althing");
    let program = command.get_program().to_owned();
    command = {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "ulimit -n 160 && exec \"$0\" \"$@\""]).arg(program).args(&flags);
        shell.current_dir(home.path());
        shell
    };
    let mut process = Process::start("althing", command, &home.path().join("log"));
    let endpoint = format!("http://127.0.0.1:{port}");
    let answers = || {
        let client = Client::new(&endpoint, None);
        client.call_within("KV/Range", "key:'a'", Duration::from_secs(2)).is_ok()
    };
    eventually("it answers", answers);
    let early = Client::new(&endpoint, None);
    early.call("KV/Put", "key:'a' value:'1'").expect("a write");
    let mut open: Vec<TcpStream> =
        (0..300).filter_map(|_| TcpStream::connect(("127.0.0.1", port)).ok()).collect();
    let last = open.last_mut().expect("a connection");
    last.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
    let told = last.read(&mut [0; 1]);
    let turned_away = match &told {
        Ok(count) => *count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    };
    assert!(turned_away, "it was let in: {told:?}");
    assert!(!answers(), "there is no place for another");
    for number in 0..100 {
        let request = format!("key:'a' value:'{number}'");
        early.call("KV/Put", &request).expect("a write of who was there before");
    }
    assert!(!process.output().contains("client_accept_failed"), "descriptors ran out");
    drop(open);
    eventually("it answers again", answers);
    assert!(process.exited().is_none() && !process.output().contains("panicked"));
}
