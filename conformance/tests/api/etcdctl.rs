//! The unmodified etcdctl, command by command: what it prints on etcd and on Althing.
//!
//! `scripts/etcdctl.commands`: one command line each, quoted as in a shell; what follows ` <<< ` is its
//! standard input, with `\n` for a line end. Names of servers, ids and times are masked.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Stdio;

use conformance::cluster::Target;
use conformance::peers;
use serde_json::Value as Json;

use crate::script::assert_same;
use crate::{program_under_test, start};

#[test]
fn etcdctl_prints_the_same() {
    let program = program_under_test();
    let both = ["etcd", "etcdctl", &program];
    if !peers::available("api::etcdctl", &both) {
        return;
    }
    let commands = include_str!("scripts/etcdctl.commands");
    let expected = session(&start("etcd", &[]), commands);
    let found = session(&start(&program, &[]), commands);
    assert_same(&format!("etcdctl on etcd and {program}"), &expected, &found);
}

fn session(target: &Target, commands: &str) -> String {
    let mut transcript = String::new();
    for line in commands.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (command, input) = line.split_once(" <<< ").unwrap_or((line, ""));
        let mut child = target
            .etcdctl()
            .args(words(command))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("etcdctl starts");
        let mut pipe = child.stdin.take().expect("a pipe");
        // A command that does not read its input may have closed it.
        let _unread = pipe.write_all(input.replace("\\n", "\n").as_bytes());
        drop(pipe);
        let output = child.wait_with_output().expect("etcdctl ends");
        writeln!(transcript, "{line}").expect("text");
        let code = output.status.code().expect("an exit code");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let errors = errors.lines().filter(|line| !line.starts_with('{'));
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        for shown in printed.lines().chain(errors) {
            writeln!(transcript, "    {}", mask(shown, target)).expect("text");
        }
        writeln!(transcript, "    exit {code}").expect("text");
    }
    transcript
}

/// Splits at blanks outside single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in line.chars() {
        match character {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            other => words.last_mut().expect("one word").push(other),
        }
    }
    words
}

/// Replaces what belongs to one server or one moment.
fn mask(line: &str, target: &Target) -> String {
    if let Ok(mut json) = serde_json::from_str::<Json>(line) {
        mask_json(&mut json);
        return json.to_string();
    }
    let line = line.replace(&target.endpoint, "ENDPOINT");
    let words = line.split(' ').map(|word| {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let hex = bare.bytes().all(|b| b.is_ascii_hexdigit());
        let time = bare.starts_with(|c: char| c.is_ascii_digit())
            && (bare.ends_with("ms") || bare.ends_with("µs"));
        match bare {
            "" => word.to_owned(),
            _ if hex && (12..=16).contains(&bare.len()) => word.replace(bare, "ID"),
            _ if time => word.replace(bare, "TIME"),
            _ => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn mask_json(json: &mut Json) {
    const MASKED: [&str; 8] =
        ["cluster_id", "member_id", "raft_term", "ID", "id", "ttl", "took", "Endpoint"];
    match json {
        Json::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                match MASKED.contains(&name.as_str()) {
                    true => *value = Json::Null,
                    false => mask_json(value),
                }
            }
        }
        Json::Array(items) => items.iter_mut().for_each(mask_json),
        _ => {}
    }
}
