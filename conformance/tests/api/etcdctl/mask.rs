//! What belongs to one server or one moment, taken out of what etcdctl printed.

use serde_json::Value as Json;

use super::commands;

/// Fields of `-w json` and `-w fields` that are of one server or one moment.
const FIELDS: [&str; 28] = [
    "cluster_id",
    "member_id",
    "raft_term",
    "ID",
    "id",
    "ttl",
    "took",
    "Endpoint",
    "leader",
    "lease",
    "raftIndex",
    "raftAppliedIndex",
    "raftTerm",
    "dbSize",
    "dbSizeInUse",
    "hash",
    "ClusterID",
    "MemberID",
    "RaftTerm",
    "TTL",
    "Took",
    "Leader",
    "Lease",
    "RaftIndex",
    "RaftAppliedIndex",
    "DBSize",
    "DBSizeInUse",
    "Hash",
];
/// The same as columns of `-w table`.
const COLUMNS: [&str; 9] = [
    "ID",
    "DB SIZE",
    "IN USE",
    "PERCENTAGE NOT IN USE",
    "RAFT TERM",
    "RAFT INDEX",
    "RAFT APPLIED INDEX",
    "TOOK",
    "HASH",
];
/// The same as columns of `-w simple`.
const PLACES: [(&str, &[usize]); 2] =
    [("endpoint status", &[1, 4, 5, 6, 10, 11, 12]), ("endpoint hashkv", &[1])];

/// Commands that list members.
const LISTS: [&str; 4] = ["member list", "endpoint status", "endpoint health", "endpoint hashkv"];

/// What a session knows of its server.
pub struct Mask<'a> {
    pub endpoint: &'a str,
    pub folder: &'a str,
}

impl Mask<'_> {
    /// The lines to compare of what `words` printed.
    pub fn output(&self, words: &[String], printed: &[u8]) -> Vec<String> {
        let form = commands::form(words).map_or("simple", String::as_str);
        let command = commands::name(words);
        if form == "protobuf" {
            return vec![without_header(printed)];
        }
        let text = String::from_utf8_lossy(printed).replace('\r', "\n");
        if command == "check datascale" {
            return datascale(&text);
        }
        let mut headers: Option<Vec<String>> = None;
        let mut lines = Vec::new();
        for line in text.lines() {
            if is_border(line) {
                continue;
            }
            if let Some(cells) = cells(line) {
                let headers = headers.get_or_insert_with(|| cells.clone());
                let shown = cells.iter().zip(&*headers).map(|(cell, header)| {
                    let masked = COLUMNS.contains(&header.as_str()) && cell != header;
                    if masked { "-".to_owned() } else { self.line(cell) }
                });
                lines.push(shown.collect::<Vec<_>>().join(" | "));
                continue;
            }
            let places = PLACES.iter().find(|(of, _)| form == "simple" && *of == command);
            lines.push(match places {
                Some((_, places)) => self.line(&hide(line, places)),
                None => self.line(line),
            });
        }
        // Members come in the order of their ids.
        if LISTS.contains(&command.as_str()) {
            match form {
                "simple" | "table" => lines.sort(),
                "fields" => {
                    // A header would stand in one member's block.
                    let header = ["ClusterID :", "MemberID :", "RaftTerm :"];
                    lines.retain(|line| !header.iter().any(|name| line.starts_with(name)));
                    let text = lines.join("\n");
                    let mut blocks: Vec<&str> = text.split("\n\n").map(str::trim).collect();
                    blocks.sort_unstable();
                    return blocks.into_iter().map(str::to_owned).collect();
                }
                _ => {}
            }
        }
        lines
    }

    /// One line of text, JSON or `"Name" : value`.
    pub fn line(&self, line: &str) -> String {
        if let Ok(mut json) = serde_json::from_str::<Json>(line)
            && (json.is_object() || json.is_array())
        {
            self.json(&mut json);
            return json.to_string();
        }
        if let Some((name, value)) = line.strip_prefix('"').and_then(|l| l.split_once("\" : "))
            && FIELDS.contains(&name)
        {
            let none = ["0", ""].contains(&value);
            return format!("{name} : {}", if none { value } else { "-" });
        }
        let line = line.replace(self.endpoint, "ENDPOINT").replace(self.folder, "DIR");
        // etcd makes an id of the URLs and the second: who adds them twice in one hears of the id.
        let line = line.replace("member ID already exist", "Peer URLs already exists");
        // A short id is filled up with blanks.
        let line = ports(&line).replace("Member  ", "Member ");
        if let Some(list) = line.strip_prefix("ETCD_INITIAL_CLUSTER=") {
            let mut members: Vec<&str> = list.trim_matches('"').split(',').collect();
            members.sort_unstable();
            return format!("ETCD_INITIAL_CLUSTER={}", members.join(","));
        }
        let words =
            line.split(' ').map(|word| if is_time(word) { "TIME".into() } else { ids(word) });
        words.collect::<Vec<_>>().join(" ")
    }

    fn json(&self, json: &mut Json) {
        match json {
            Json::Object(fields) => {
                for (name, value) in fields.iter_mut() {
                    // A key that ends with the id of a lease.
                    let long = value.as_str().is_some_and(|text| text.len() >= 24);
                    match FIELDS.contains(&name.as_str()) || name == "key" && long {
                        true => *value = Json::Null,
                        false => self.json(value),
                    }
                    if let ("members", Json::Array(members)) = (name.as_str(), value) {
                        members.sort_by_cached_key(Json::to_string);
                    }
                }
            }
            Json::Array(items) => items.iter_mut().for_each(|item| self.json(item)),
            Json::String(text) if text.starts_with("http") => *text = ports(text),
            Json::String(text) => *text = ids(text),
            _ => {}
        }
    }
}

fn is_border(line: &str) -> bool {
    !line.is_empty() && line.chars().all(|c| "+-─┌┐└┘├┤┬┴┼═".contains(c))
}

fn cells(line: &str) -> Option<Vec<String>> {
    let bar = ['|', '│'].into_iter().find(|bar| line.starts_with(*bar))?;
    let inside = line.trim_matches(bar);
    Some(inside.split(bar).map(|cell| cell.trim().to_owned()).collect())
}

fn hide(line: &str, places: &[usize]) -> String {
    let cells = line.split(", ").enumerate();
    let shown = cells.map(|(at, cell)| if places.contains(&at) { "-" } else { cell });
    shown.collect::<Vec<_>>().join(", ")
}

/// `127.0.0.1:PORT` wherever it stands.
fn ports(text: &str) -> String {
    let mut parts = text.split("127.0.0.1:");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        shown.push_str("127.0.0.1:PORT");
        shown.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    shown
}

fn is_time(word: &str) -> bool {
    let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
    let number = bare.strip_suffix("ms").or(bare.strip_suffix("µs")).or(bare.strip_suffix('s'));
    number.is_some_and(|number| number.parse::<f64>().is_ok())
}

/// Long numbers in a word, hexadecimal or not, and how much a lease has left.
fn ids(word: &str) -> String {
    if word.starts_with("remaining(") {
        return "remaining(TIME)".to_owned();
    }
    let mut shown = String::new();
    let mut rest = word;
    while !rest.is_empty() {
        let length = |is: fn(char) -> bool| rest.find(|c| !is(c)).unwrap_or(rest.len());
        let run = length(|c| c.is_ascii_alphanumeric());
        let (token, after) = match run {
            0 => rest.split_at(length(|c| !c.is_ascii_alphanumeric())),
            _ => rest.split_at(run),
        };
        let hex = token.len() <= 16 && token.bytes().all(|b| b.is_ascii_hexdigit());
        let decimal = token.bytes().all(|b| b.is_ascii_digit());
        let id = token.len() >= 12 && (hex || decimal && token.len() <= 20);
        shown.push_str(if id { "ID" } else { token });
        rest = after;
    }
    shown
}

/// The last line, without how much it was.
fn datascale(text: &str) -> Vec<String> {
    let told =
        text.lines().filter(|line| line.starts_with("Start") || line.contains("memory used"));
    told.map(|line| line.split(" used ").next().unwrap_or(line).to_owned()).collect()
}

/// The bytes of a message in hexadecimal, without its first field, the header.
fn without_header(bytes: &[u8]) -> String {
    let body = match bytes {
        [0x0a, length, rest @ ..] if *length < 0x80 && rest.len() >= usize::from(*length) => {
            &rest[usize::from(*length)..]
        }
        other => other,
    };
    body.iter().map(|byte| format!("{byte:02x}")).collect()
}
