//! The REST gateway: the same requests as JSON over HTTP/1.1, the same answers.
//!
//! `scripts/rest.txt` holds the requests, `recorded/rest.txt` what etcd 3.7.3 answered: status, content
//! type and body, its fields sorted, for protobuf's JSON has neither order nor a fixed use of blanks.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use conformance::cluster::Target;
use conformance::peers;
use serde_json::Value as Json;

use crate::script::assert_same;
use crate::{file, program_under_test, start};

/// A busy machine holds a line back for a second.
const QUIET: Duration = Duration::from_millis(2500);
/// An answer that is whole comes within this.
const PATIENCE: Duration = Duration::from_secs(60);
const FLAGS: [&str; 1] = ["--bcrypt-cost=4"];

/// Names of what belongs to one server or one moment.
const MASKED: [&str; 14] = [
    "cluster_id",
    "member_id",
    "raft_term",
    "token",
    "hash",
    "dbSize",
    "dbSizeInUse",
    "dbSizeQuota",
    "leader",
    "raftIndex",
    "raftTerm",
    "raftAppliedIndex",
    "storageVersion",
    "members",
];

#[test]
fn the_gateway_answers_as_etcds() {
    let program = program_under_test();
    let text = std::fs::read_to_string(file("scripts", "rest")).expect("a script");
    let recorded = file("recorded", "rest");
    if peers::available("api::rest on etcd", &["etcd"]) {
        let live = session(&start("etcd", &FLAGS), &text);
        if std::env::var_os("ALTHING_RECORD").is_some() {
            std::fs::write(&recorded, &live).expect("a recording");
        }
        let stored = std::fs::read_to_string(&recorded).unwrap_or_default();
        assert_same("rest: recording and live etcd", &stored, &live);
    }
    if peers::available(&format!("api::rest on {program}"), &[&program]) {
        let stored = std::fs::read_to_string(&recorded).expect("a recording");
        let found = session(&start(&program, &FLAGS), &text);
        assert_same(&format!("rest: etcd and {program}"), &stored, &found);
    }
}

fn session(target: &Target, script: &str) -> String {
    let mut out = String::new();
    let mut once: Option<String> = None;
    let mut token: Option<String> = None;
    for line in script.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        writeln!(out, "{line}").expect("text");
        let (head, rest) = line.split_once(' ').unwrap_or((line, ""));
        match head {
            "header" => once = Some(rest.to_owned()),
            "login" => token = Some(login(target, rest)),
            _ => {
                let mut headers: Vec<String> = once.take().into_iter().collect();
                headers.extend(token.iter().map(|token| format!("Authorization: {token}")));
                let how = if ["code", "stream"].contains(&head) { head } else { "" };
                let request = if how.is_empty() { line } else { rest };
                for shown in show(&ask(target, request, &headers, how == "stream"), how) {
                    writeln!(out, "    {shown}").expect("text");
                }
            }
        }
    }
    out
}

/// A token of a user, as `NAME PASSWORD`.
fn login(target: &Target, who: &str) -> String {
    let (name, password) = who.split_once(' ').expect("NAME PASSWORD");
    let request = format!(
        "POST /v3/auth/authenticate {}",
        serde_json::json!({"name": name, "password": password})
    );
    let answer = ask(target, &request, &[], false);
    let body: Json = serde_json::from_str(&answer.body).expect("JSON");
    body["token"].as_str().expect("a token").to_owned()
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// One request; a stream is read until it is quiet for a while.
fn ask(target: &Target, request: &str, headers: &[String], stream: bool) -> Answer {
    let mut words = request.splitn(3, ' ');
    let (method, path) = (words.next().expect("a method"), words.next().expect("a path"));
    let body = words.next().unwrap_or("");
    let (_, address) = target.endpoint.split_once("://").expect("an endpoint");
    let mut tcp = TcpStream::connect(address).expect("a connection");
    let wait = if stream { QUIET } else { PATIENCE };
    tcp.set_read_timeout(Some(wait)).expect("a time to wait");
    let mut text = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\
         Connection: close\r\n",
        body.len()
    );
    for header in headers {
        write!(text, "{header}\r\n").expect("text");
    }
    write!(text, "\r\n{body}").expect("text");
    tcp.write_all(text.as_bytes()).expect("it is sent");
    let mut bytes = Vec::new();
    let mut piece = [0; 16_384];
    loop {
        match tcp.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
            Err(_) if stream => break,
            Err(error) => panic!("{request}: no whole answer: {error}"),
        }
    }
    let text = String::from_utf8(bytes).expect("an answer in UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let mut answer = Answer { status, head: head.to_owned(), body: body.to_owned() };
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = conformance::client::unchunked(body);
    }
    answer
}

/// What is compared of an answer; how it is worded only where that is asked for.
fn show(answer: &Answer, how: &str) -> Vec<String> {
    let mut lines = vec![format!(
        "{} {}{}",
        answer.status,
        answer.header("content-type").unwrap_or("-"),
        if answer.header("grpc-metadata-content-type").is_some() { " by gRPC" } else { "" }
    )];
    let origins = answer.header("access-control-allow-origin");
    let allowed = ["methods", "headers"]
        .map(|what| answer.header(&format!("access-control-allow-{what}")).unwrap_or("none"));
    if (origins, allowed) != (Some("*"), ["POST, GET, OPTIONS, PUT, DELETE", ALLOWED]) {
        lines.push(format!("origins {origins:?} {allowed:?}"));
    }
    lines.extend(answer.header("www-authenticate").map(|why| format!("authenticate: {why}")));
    for line in answer.body.lines() {
        match serde_json::from_str::<Json>(line) {
            Ok(mut json) => {
                if how == "code" {
                    json["message"] = Json::Null;
                }
                mask(&mut json);
                lines.push(json.to_string());
            }
            Err(_) => lines.push(line.to_owned()),
        }
    }
    lines
}

const ALLOWED: &str = "accept, content-type, authorization";

fn mask(json: &mut Json) {
    match json {
        Json::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                match MASKED.contains(&name.as_str()) {
                    true => *value = Json::Null,
                    false => mask(value),
                }
            }
        }
        Json::Array(items) => items.iter_mut().for_each(mask),
        _ => {}
    }
}
