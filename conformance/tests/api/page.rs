//! `docs/compatibility.md`: RPC by RPC, flag by flag, suite by suite, from what the tests are made
//! of and what `conformance/suites/record.sh` kept of their runs. `ALTHING_RECORD=1 cargo test -p
//! conformance --test api page` writes it; without, this compares.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use althing::config::{FLAGS, Scope, Section};
use conformance::client::contract;
use conformance::differences;

use crate::etcdctl::commands;

const HEAD: &str = "# Compatibility with etcd 3.7

What a client of etcd finds. Compared with a live etcd 3.7.3 by `conformance/tests/api` (the \
    same requests to both, replies,
codes and messages equal but for ids) and used by Kubernetes 1.37.1 in `conformance/tests/kube`.

This page is generated: `ALTHING_RECORD=1 cargo test -p conformance --test api page`. Its \
    numbers are counted in the tests' own
sources and in `conformance/results.tsv`, to which `conformance/suites/record.sh` adds what a \
    run printed.

";
/// What is to be known of a method beside that it is there.
const NOTES: &[(&str, &str)] = &[
    ("Cluster/MemberAdd", "of a network of one owner; else PermissionDenied, `althing member`"),
    ("Cluster/MemberRemove", "the same"),
    ("Cluster/MemberUpdate", "the same"),
    ("Cluster/MemberPromote", "the same"),
    (
        "Maintenance/Defragment",
        "orders a checkpoint of all replicas, at most one a minute and replica",
    ),
    ("Maintenance/MoveLeader", "to the next primary in turn"),
    ("Maintenance/Downgrade", "no target can be reached"),
    (
        "Maintenance/Snapshot",
        "of a checkpoint that a quorum signed, or, within a minute of one, of the state as it is; no \
         members and alarms in it ([more](operating/backup.md))",
    ),
    ("Auth/Authenticate", "simple tokens, JWT, common name as user ([page](operating/auth.md))"),
];
/// Which commands of etcdctl end in which call.
const COMMANDS: &[(&str, &[&str])] = &[
    ("KV/Range", &["get"]),
    ("KV/Put", &["put"]),
    ("KV/DeleteRange", &["del"]),
    ("KV/Txn", &["txn"]),
    ("KV/Compact", &["compaction"]),
    ("Watch/Watch", &["watch", "make-mirror"]),
    ("Lease/LeaseGrant", &["lease grant"]),
    ("Lease/LeaseRevoke", &["lease revoke"]),
    ("Lease/LeaseKeepAlive", &["lease keep-alive"]),
    ("Lease/LeaseTimeToLive", &["lease timetolive"]),
    ("Lease/LeaseLeases", &["lease list"]),
    ("Cluster/MemberAdd", &["member add"]),
    ("Cluster/MemberRemove", &["member remove"]),
    ("Cluster/MemberUpdate", &["member update"]),
    ("Cluster/MemberPromote", &["member promote"]),
    ("Cluster/MemberList", &["member list"]),
    ("Maintenance/Alarm", &["alarm list", "alarm disarm"]),
    ("Maintenance/Status", &["endpoint status"]),
    ("Maintenance/Defragment", &["defrag"]),
    ("Maintenance/HashKV", &["endpoint hashkv"]),
    ("Maintenance/MoveLeader", &["move-leader"]),
    ("Maintenance/Snapshot", &["snapshot save"]),
    ("Maintenance/Downgrade", &["downgrade validate", "downgrade enable", "downgrade cancel"]),
    ("Auth/AuthEnable", &["auth enable"]),
    ("Auth/AuthDisable", &["auth disable"]),
    ("Auth/AuthStatus", &["auth status"]),
    ("Auth/Authenticate", &["--user"]),
    ("Auth/UserAdd", &["user add"]),
    ("Auth/UserGet", &["user get"]),
    ("Auth/UserList", &["user list"]),
    ("Auth/UserDelete", &["user delete"]),
    ("Auth/UserChangePassword", &["user passwd"]),
    ("Auth/UserGrantRole", &["user grant-role"]),
    ("Auth/UserRevokeRole", &["user revoke-role"]),
    ("Auth/RoleAdd", &["role add"]),
    ("Auth/RoleGet", &["role get"]),
    ("Auth/RoleList", &["role list"]),
    ("Auth/RoleDelete", &["role delete"]),
    ("Auth/RoleGrantPermission", &["role grant-permission"]),
    ("Auth/RoleRevokePermission", &["role revoke-permission"]),
];
/// The suites, by their rows in `results.tsv`: what each is, and what it leaves out.
const SUITES: &[(&str, &str, &str)] = &[
    (
        "api",
        "`conformance/tests/api`: recorded requests, REST, HTTP, flags, etcdctl and random \
        programs beside etcd 3.7.3",
        "the rows below",
    ),
    (
        "differential",
        "random programs beside etcd 3.7.3, at n = 1 and with each request to any of four replicas",
        "the rows below; at n = 4 users: each organisation has its own",
    ),
    (
        "etcdctl",
        "every command of etcdctl in every form of `-w`, beside etcd 3.7.3",
        "`check perf`, which etcd's `benchmark` runs",
    ),
    (
        "tests/common",
        "etcd's own suite, end to end, one and three members, plain, TLS, automatic TLS",
        "`conformance/suites/common.skip`",
    ),
    (
        "etcd-client",
        "the tests inside the Rust crate etcd-client 0.21.1",
        "`test_cluster`, which wants a cluster of its own scripts",
    ),
    (
        "benchmark",
        "etcd's `benchmark` in every mode that talks to a server, and `etcdctl check perf`, \
        without an error",
        "`mvcc`, which opens a file itself",
    ),
    ("kube", "Kubernetes 1.37.1 on it, alone and on four replicas, primary killed and not", ""),
    ("robustness", "traffic and validators of etcd's robustness tests", ""),
    ("envtest", "controller-runtime's envtest on a program named `etcd`", ""),
    ("kwok", "kwok on a program named `etcd`", ""),
];

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `folder` with this ending, in order.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn stem(path: &Path) -> String {
    path.file_stem().expect("a file").to_string_lossy().into_owned()
}

/// Requests that scripts send, by method and script.
fn scripted() -> BTreeMap<String, BTreeMap<String, usize>> {
    let mut all: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for path in files(&here().join("tests/api/scripts"), "txt") {
        let text = fs::read_to_string(&path).expect("a script");
        let mut streams: BTreeMap<&str, &str> = BTreeMap::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let method = match words.next() {
                Some("gather") => words.next(),
                Some("open") => {
                    if let (Some(name), Some(method)) = (words.next(), words.next()) {
                        streams.insert(name, method);
                    }
                    None
                }
                Some("send") => words.next().and_then(|name| streams.get(name).copied()),
                word => word,
            };
            let Some((service, method)) = method.and_then(|method| method.split_once('/')) else {
                continue;
            };
            let service = service.rsplit('.').next().unwrap_or(service);
            let of = all.entry(format!("{service}/{method}")).or_default();
            *of.entry(stem(&path)).or_default() += 1;
        }
    }
    all
}

/// Those of `sources` that name `what`.
fn named_in(sources: &[(String, String)], what: &str) -> Vec<String> {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
    let names = |text: &str| text.match_indices(what).any(|(at, _)| ends(&text[at + what.len()..]));
    let found = sources.iter().filter(|(_, text)| names(text)).map(|(name, _)| name.clone());
    found.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Name and text of every test in Rust, but for this one and the random programs.
fn sources() -> Vec<(String, String)> {
    let tests = here().join("tests");
    let mut all = Vec::new();
    for kind in ["api", "kube", "process"] {
        for path in files(&tests.join(kind), "rs") {
            let shown = path.strip_prefix(&tests).expect("below it").with_extension("");
            let shown = shown.display().to_string();
            if shown != "api/page" && !shown.contains("differential") {
                all.push((shown, fs::read_to_string(&path).expect("a test")));
            }
        }
    }
    all
}

/// The column of commands is believed, so each of them must be run; `--user` is a flag, which scripts set.
fn every_command_is_run_by_a_script() {
    let run = commands::run();
    for (method, all) in COMMANDS {
        for name in all.iter().filter(|name| **name != "--user") {
            assert!(run.contains_key(*name), "{method}: no script runs etcdctl {name}");
        }
    }
}

fn rpcs() -> String {
    let (scripted, sources) = (scripted(), sources());
    let random: String = files(&here().join("tests/api/differential"), "rs")
        .iter()
        .map(|path| fs::read_to_string(path).expect("a test"))
        .collect();
    let gateway = fs::read_to_string(here().join("../src/api/gateway.rs")).expect("the gateway");
    let (mut rows, mut methods, mut requests) = (String::new(), 0, 0);
    for service in contract().services() {
        for method in service.methods() {
            let name = format!("{}/{}", service.name(), method.name());
            let scripts = scripted.get(&name).cloned().unwrap_or_default();
            let count: usize = scripts.values().sum();
            let at_random =
                random.contains(&format!("{name} ")) || random.contains(&format!("{name}\""));
            let commands =
                COMMANDS.iter().find(|(of, _)| *of == name).map_or(&[][..], |(_, all)| all);
            let others = named_in(&sources, &name);
            let tested = count + commands.len() + others.len() + usize::from(at_random);
            assert!(tested > 0, "no test sends {name}");
            let paths =
                gateway.matches(&format!("\"{}/{}\"", service.full_name(), method.name())).count();
            let listed: Vec<String> =
                scripts.iter().map(|(file, n)| format!("{file} {n}")).collect();
            let commands: Vec<String> = commands.iter().map(|name| format!("`{name}`")).collect();
            let note = NOTES.iter().find(|(of, _)| *of == name).map_or("", |(_, note)| note);
            let cells = [
                name,
                listed.join(", "),
                if at_random { "yes".to_owned() } else { String::new() },
                commands.join(", "),
                others.join(", "),
                if paths == 0 { String::new() } else { paths.to_string() },
                note.to_owned(),
            ];
            let _ = writeln!(rows, "| {} |", cells.join(" | "));
            (methods, requests) = (methods + 1, requests + count);
        }
    }
    let named = NOTES.iter().map(|(name, _)| name).chain(COMMANDS.iter().map(|(name, _)| name));
    named.for_each(|name| drop(conformance::client::find_method(name)));
    every_command_is_run_by_a_script();
    let rest = fs::read_to_string(here().join("tests/api/scripts/rest.txt")).expect("a script");
    let rest = rest.lines().filter(|line| line.contains(" /v3")).count();
    format!(
        "## RPCs\nAll {methods} methods of etcd's services and of gRPC's health service are \
        there; none answers \
         Unimplemented. {requests} requests are recorded from etcd 3.7.3 and {rest} over REST; a \
         recording is checked \
         against a live etcd before Althing is.\n\n\
         | RPC | recorded requests, by script | in random programs | in etcdctl's scripts | in \
         tests | REST paths | |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n{rows}\n\
         REST paths are there under `/v3/` and `/v3beta/`: JSON over HTTP/1.1 and HTTP/2, \
         streams as lines. HTTP on the \
         client port: `/version`, `/health`, `/livez`, `/readyz` with their sub-paths, \
         `/metrics`.\n\n"
    )
}

fn suites() -> String {
    let text = fs::read_to_string(here().join("results.tsv")).unwrap_or_default();
    let mut results: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split('\t').collect();
        assert_eq!(cells.len(), 6, "a row of results.tsv: {line}");
        results.insert(cells[0], cells);
    }
    let mut rows = String::new();
    for (name, what, left_out) in SUITES {
        let Some(cells) = results.remove(name) else { continue };
        let [_, day, commit, passed, failed, counted] = cells[..] else { unreachable!() };
        let _ = writeln!(
            rows,
            "| {what} | {passed} | {failed} | {counted} | {left_out} | {day}, {commit} |"
        );
    }
    assert!(results.is_empty(), "suites that this page does not know: {:?}", results.keys());
    format!(
        "## Suites\nHow they are run is in [testing](testing.md), \"Compared with etcd\"; what \
        each printed last, as \
         `conformance/suites/record.sh` kept it:\n\n\
         | suite | passed | failed | counted besides | left out | run |\n\
         | --- | --- | --- | --- | --- | --- |\n{rows}\n"
    )
}

fn flags() -> String {
    let sources = sources();
    let (mut rows, mut kinds) = (String::new(), BTreeMap::<&str, usize>::new());
    for flag in FLAGS.iter().filter(|flag| flag.section != Section::Althing) {
        let (kind, why) = match flag.scope {
            Scope::Local => ("local", ""),
            Scope::Admission => ("admission", ""),
            Scope::Voted => ("voted", ""),
            Scope::Ignored(why) => ("no effect", why),
            Scope::Refused(why) => ("refused", why),
        };
        *kinds.entry(kind).or_default() += 1;
        let tests = named_in(&sources, &format!("--{}", flag.name));
        let _ = writeln!(rows, "| `--{}` | {kind} | {why} | {} |", flag.name, tests.join(", "));
    }
    let total: usize = kinds.values().sum();
    let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    format!(
        "## Flags\nAll {total} flags of etcd 3.7.3 are taken, with its defaults, its variables \
        `ETCD_*`, its keys of \
         `--config-file` and its exit codes (`conformance/tests/api/flags.rs` compares them with \
         etcd's own `--help`): {}. \
         What the words mean, and what each does, is on [the page of flags](operating/flags.md); \
         the last column names \
         tests that set it.\n\n\
         | flag | here | why | in tests |\n| --- | --- | --- | --- |\n{rows}\n",
        kinds.join(", ")
    )
}

#[test]
fn the_page_of_compatibility_is_what_the_tests_say() {
    let section = differences::section();
    assert!(!section.contains("|  |"), "every difference has its reason");
    let counted = [HEAD, &rpcs(), &suites(), &flags()].concat();
    let page = [&counted[..], &section].concat();
    let path = here().join("../docs/compatibility.md");
    if std::env::var_os("ALTHING_RECORD").is_some() {
        fs::write(&path, &page).expect("the page");
    }
    let written = fs::read_to_string(&path).expect("the page");
    let anew = "docs/compatibility.md is not what it is made from; ALTHING_RECORD=1 cargo test -p \
         conformance --test api page writes it anew";
    // No column of the differences names a test: they are compared as they stand.
    let differs = section.lines().find(|line| !written.contains(line));
    let before = written.strip_suffix(&section);
    let before = before.unwrap_or_else(|| panic!("{anew}. First difference: {differs:?}"));
    let (written, counted) = (compared(before), compared(&counted));
    let differs = written.iter().zip(&counted).find(|(one, other)| one != other);
    assert!(written == counted, "{anew}. First: {differs:?}");
}

/// What is counted, without the columns that name tests: a new test elsewhere makes no page wrong.
fn compared(page: &str) -> Vec<String> {
    let line = |line: &str| {
        let cells: Vec<&str> = line.split(" | ").collect();
        match cells.len() {
            4 if line.starts_with("| `--") => cells[..3].join(" | "),
            7 => [&cells[..4], &cells[5..]].concat().join(" | "),
            _ => line.to_owned(),
        }
    };
    page.lines().map(line).collect()
}
