//! Scripts of requests, and transcripts of what was answered.
//!
//! One step per line; a line that begins with blanks continues the one before; `#` is a comment.
//! ```text
//! KV/Put key:'a' value:'1'                 a unary call, its request in protobuf text
//! KV/Put key:'a' value:REPEAT(x,1000)      a long literal
//! Lease/LeaseGrant TTL:5 | mask ID         fields of the reply that are not compared
//! KV/Put key:'' | code                     only the code of an error is compared
//! gather KV/RangeStream key:'a'            a server stream: its messages merged
//! open w Watch/Watch                       a stream called w
//! send w create_request{key:'a'}
//! read w                                   what arrives until 400 ms are quiet
//! close w
//! drop w                                   the client cancels it
//! sleep 1500                               milliseconds
//! login alice 'her password'               steps from here on are hers, if she is let in
//! as alice                                 hers again, by the token she got before
//! as nobody                                without a token
//! token XYZ                                with this one
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use conformance::client::{Client, Failure, Received, Stream, field, number};
use conformance::cluster::Target;
use prost_reflect::{DynamicMessage, ReflectMessage, Value};

/// A busy machine holds a message back for a second.
const QUIET: Duration = Duration::from_millis(1500);
const LINE_BYTES_MAX: usize = 2_000;

/// One line of a script.
pub struct Step {
    text: String,
    action: Action,
}

enum Action {
    Call { method: String, request: String, mask: Vec<String>, code_only: bool },
    Gather { method: String, request: String },
    Open { name: String, method: String },
    Send { name: String, request: String },
    Read { name: String },
    Close { name: String },
    Drop { name: String },
    Sleep(Duration),
    Login { user: String, password: String },
    As { user: String },
    Token(String),
}

/// Reads a script.
pub fn parse(text: &str) -> Vec<Step> {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines().filter(|l| !l.trim().is_empty() && !l.trim_start().starts_with('#')) {
        match lines.last_mut() {
            Some(last) if line.starts_with(' ') => {
                last.push(' ');
                last.push_str(line.trim());
            }
            _ => lines.push(line.trim().to_owned()),
        }
    }
    lines.into_iter().map(|text| Step { action: action(&text), text }).collect()
}

fn action(line: &str) -> Action {
    let (head, rest) = line.split_once(' ').unwrap_or((line, ""));
    let rest = expand(rest.trim());
    let pair = || rest.split_once(' ').unwrap_or((&rest, ""));
    match head {
        "gather" => {
            let (method, request) = pair();
            Action::Gather { method: method.into(), request: request.into() }
        }
        "open" => Action::Open { name: pair().0.into(), method: pair().1.into() },
        "send" => Action::Send { name: pair().0.into(), request: pair().1.into() },
        "read" => Action::Read { name: rest },
        "close" => Action::Close { name: rest },
        "drop" => Action::Drop { name: rest },
        "sleep" => Action::Sleep(Duration::from_millis(rest.parse().expect("milliseconds"))),
        "login" => Action::Login { user: pair().0.into(), password: pair().1.into() },
        "as" => Action::As { user: rest },
        "token" => Action::Token(rest),
        method => {
            let (request, options) = rest.rsplit_once("| ").unwrap_or((&rest, ""));
            let mask = options.strip_prefix("mask ").unwrap_or("");
            Action::Call {
                method: method.into(),
                request: request.trim_end().into(),
                mask: mask.split(',').filter(|f| !f.is_empty()).map(str::to_owned).collect(),
                code_only: options == "code",
            }
        }
    }
}

/// Replaces `REPEAT(text,count)` by a literal.
fn expand(text: &str) -> String {
    let Some((before, rest)) = text.split_once("REPEAT(") else {
        return text.to_owned();
    };
    let (inside, after) = rest.split_once(')').expect("REPEAT(text,count)");
    let (piece, count) = inside.split_once(',').expect("REPEAT(text,count)");
    let count: usize = count.trim().parse().expect("a count");
    format!("{before}'{}'{}", piece.repeat(count), expand(after))
}

/// Runs `steps` on `target`: per step its line, then indented what was answered.
pub fn transcript(target: &Target, steps: &[Step]) -> String {
    on_client(&target.client(), steps)
}

/// Like [`transcript`], on an open connection.
pub fn on_client(client: &Client, steps: &[Step]) -> String {
    let mut streams: BTreeMap<String, Stream> = BTreeMap::new();
    let mut tokens: BTreeMap<String, String> = BTreeMap::new();
    let mut out = String::new();
    for step in steps {
        writeln!(out, "{}", shorten(&step.text)).expect("text");
        let lines = match &step.action {
            Action::Login { user, password } => login(client, &mut tokens, user, password),
            Action::As { user } => {
                client.set_token(tokens.get(user).map(String::as_str));
                Vec::new()
            }
            action => perform(client, &mut streams, action),
        };
        for line in lines {
            writeln!(out, "    {}", shorten(&line)).expect("text");
        }
    }
    out
}

fn perform(
    client: &Client,
    streams: &mut BTreeMap<String, Stream>,
    action: &Action,
) -> Vec<String> {
    match action {
        Action::Call { method, request, mask, code_only } => {
            let answer = client.call(method, request);
            vec![match answer {
                Ok(message) => reply_text(message, mask),
                Err(failure) if *code_only => format!("error {}", failure.code),
                Err(failure) => failure_text(&failure),
            }]
        }
        Action::Gather { method, request } => gather(client, method, request),
        Action::Open { name, method } => {
            let stream = client.open(method).unwrap_or_else(|f| panic!("{method}: {f:?}"));
            streams.insert(name.clone(), stream);
            Vec::new()
        }
        Action::Send { name, request } => {
            streams[name].send(request);
            Vec::new()
        }
        Action::Read { name } => read(streams.get_mut(name).expect("an open stream")),
        Action::Close { name } => {
            streams.get_mut(name).expect("an open stream").close();
            Vec::new()
        }
        Action::Drop { name } => {
            streams.remove(name).expect("an open stream").cancel();
            Vec::new()
        }
        Action::Sleep(time) => {
            std::thread::sleep(*time);
            Vec::new()
        }
        Action::Token(token) => {
            client.set_token(Some(token));
            Vec::new()
        }
        Action::Login { .. } | Action::As { .. } => unreachable!("whose tokens there are"),
    }
}

fn login(
    client: &Client,
    tokens: &mut BTreeMap<String, String>,
    user: &str,
    password: &str,
) -> Vec<String> {
    client.set_token(None);
    let request = format!("name:'{user}' password:{password}");
    match client.call("Auth/Authenticate", &request) {
        Ok(reply) => {
            let token = field(&reply, "token").as_str().expect("text").to_owned();
            client.set_token(Some(&token));
            tokens.insert(user.to_owned(), token);
            vec![reply_text(reply, &["token".to_owned()])]
        }
        Err(failure) => vec![failure_text(&failure)],
    }
}

/// All messages of a server stream merged into one, as etcd promises for RangeStream.
pub fn gather(client: &Client, method: &str, request: &str) -> Vec<String> {
    let mut stream = client.open(method).unwrap_or_else(|f| panic!("{method}: {f:?}"));
    stream.send(request);
    stream.close();
    let mut merged: Option<DynamicMessage> = None;
    let mut lines = Vec::new();
    loop {
        match stream.receive(Duration::from_secs(30)) {
            Received::Message(message) => match &mut merged {
                None => merged = Some(message),
                Some(whole) => {
                    use prost::Message as _;
                    let bytes = message.encode_to_vec();
                    whole.merge(bytes.as_slice()).expect("the same message type");
                }
            },
            Received::Nothing => lines.push("no end within 30 s".to_owned()),
            Received::End(end) => {
                lines.extend(merged.take().map(|message| reply_text(message, &[])));
                lines.extend(end.map(|failure| failure_text(&failure)));
                return lines;
            }
        }
    }
}

/// Everything that arrives until nothing does. Events come out one per line with their watch id,
/// because how they are packed into responses is timing; within a watch the order stays.
pub fn read(stream: &mut Stream) -> Vec<String> {
    let mut lines: Vec<(i64, String)> = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        match stream.receive(QUIET) {
            Received::Nothing => break,
            Received::End(end) => {
                let text = end.map_or("end".to_owned(), |failure| failure_text(&failure));
                lines.push((i64::MAX, text));
                break;
            }
            Received::Message(message) => {
                if message.descriptor().name() == "WatchResponse" {
                    lines.extend(watch_lines(message));
                } else {
                    lines.push((0, reply_text(message, &[])));
                }
            }
        }
    }
    lines.sort_by_key(|(id, _)| *id);
    lines.into_iter().map(|(_, line)| line).collect()
}

fn watch_lines(mut response: DynamicMessage) -> Vec<(i64, String)> {
    let id = number(&response, "watch_id");
    let header = number(&response, "header.revision");
    let events = field(&response, "events");
    let events = events.as_list().expect("events");
    let mut lines: Vec<(i64, String)> = Vec::new();
    for event in events {
        let event = event.as_message().expect("an event");
        let revision = number(event, "kv.mod_revision");
        let early = if header < revision { " BEFORE ITS REVISION" } else { "" };
        lines.push((id, format!("watch {id} event {}{early}", event.to_text_format())));
    }
    let control = field(&response, "created") == Value::Bool(true)
        || field(&response, "canceled") == Value::Bool(true);
    if control || events.is_empty() {
        response.clear_field_by_name("events");
        lines.push((id, reply_text(response, &[])));
    }
    lines
}

fn failure_text(failure: &Failure) -> String {
    format!("error {} {:?}", failure.code, failure.message)
}

/// The reply without what names the server or the moment.
pub fn reply_text(mut message: DynamicMessage, mask: &[String]) -> String {
    for name in mask {
        message.clear_field_by_name(name);
    }
    mask_headers(&mut message);
    message.to_text_format()
}

fn mask_headers(message: &mut DynamicMessage) {
    if message.descriptor().name() == "ResponseHeader" {
        for name in ["cluster_id", "member_id", "raft_term"] {
            message.clear_field_by_name(name);
        }
    }
    let fields: Vec<_> =
        message.descriptor().fields().filter(|field| message.has_field(field)).collect();
    for descriptor in &fields {
        match message.get_field_mut(descriptor) {
            Value::Message(inner) => mask_headers(inner),
            Value::List(items) => {
                for item in items {
                    if let Value::Message(inner) = item {
                        mask_headers(inner);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Long lines keep their beginning, length and hash.
fn shorten(line: &str) -> String {
    if line.len() <= LINE_BYTES_MAX {
        return line.to_owned();
    }
    let hash = blake3::hash(line.as_bytes()).to_hex();
    let head: String = line.chars().take(200).collect();
    format!("{head}... {} bytes, {}", line.len(), &hash[..16])
}

/// Compares two transcripts and reports every step that differs.
pub fn assert_same(what: &str, expected: &str, found: &str) {
    let expected_steps = steps_of(expected);
    let found_steps = steps_of(found);
    let mut report = String::new();
    let count = expected_steps.len().max(found_steps.len());
    let mut differing = 0;
    for index in 0..count {
        let (left, right) = (expected_steps.get(index), found_steps.get(index));
        if left != right {
            differing += 1;
            writeln!(
                report,
                "-- step {}\nexpected: {}\nfound:    {}",
                index + 1,
                left.map_or("", String::as_str),
                right.map_or("", String::as_str)
            )
            .expect("text");
        }
    }
    assert!(differing == 0, "{what}: {differing} of {count} steps differ\n{report}");
}

fn steps_of(transcript: &str) -> Vec<String> {
    let mut steps: Vec<String> = Vec::new();
    for line in transcript.lines() {
        match steps.last_mut() {
            Some(last) if line.starts_with(' ') => {
                last.push('\n');
                last.push_str(line);
            }
            _ => steps.push(line.to_owned()),
        }
    }
    steps
}
