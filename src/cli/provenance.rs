//! `althing blame KEY` and `althing history KEY`: who wrote a key, and when.

use std::time::Duration;

use comfy_table::{Table, presets::NOTHING};
use http::Method;

use super::connection::Connection;
use super::http::{Answer, Http, block_on};
use super::output::{Failure, Format, say, shown};
use crate::web::ChangePage;

#[derive(clap::Args)]
pub(super) struct Blame {
    /// The key.
    key: String,
    /// The last change at or below this revision.
    #[arg(long)]
    revision: Option<i64>,
    #[command(flatten)]
    connection: Connection,
    /// table or json.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(clap::Args)]
pub(super) struct History {
    /// The key.
    key: String,
    /// At most so many changes, the newest.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    connection: Connection,
    /// table or json.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn blame(blame: &Blame) -> Result<(), Failure> {
    let revision = blame.revision.map_or_else(String::new, |r| format!("&revision={r}"));
    let path = format!("/althing/v1/blame?key={}{revision}", percent(blame.key.as_bytes()));
    let answer = ask(&blame.connection, &path)?;
    if blame.output == Format::Json {
        say!("{}", answer.text());
        return Ok(());
    }
    let change: ChangePage = serde_json::from_slice(&answer.body)?;
    say!("{} at revision {}: {}", shown(blame.key.as_bytes()), change.revision, change.kind);
    say!("  {}", author(&change));
    match change.ordinal {
        Some(ordinal) => say!("  block {}, op {ordinal}", change.height),
        None => say!("  block {}", change.height),
    }
    Ok(())
}

pub(super) fn history(history: &History) -> Result<(), Failure> {
    let key = percent(history.key.as_bytes());
    let path = format!("/althing/v1/history?key={key}&limit={}", history.limit);
    let answer = ask(&history.connection, &path)?;
    if history.output == Format::Json {
        say!("{}", answer.text());
        return Ok(());
    }
    let changes: Vec<ChangePage> = serde_json::from_slice(&answer.body)?;
    if changes.is_empty() {
        return Err(anyhow::anyhow!("no change of this key is known").into());
    }
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["REVISION", "KIND", "BLOCK", "AUTHOR"]);
    for change in &changes {
        table.add_row([
            change.revision.to_string(),
            change.kind.clone(),
            change.height.to_string(),
            author(change),
        ]);
    }
    say!("{table}");
    Ok(())
}

fn ask(connection: &Connection, path: &str) -> anyhow::Result<Answer> {
    let http = Http::new(&connection.endpoint()?)?;
    block_on(http.ask(Method::GET, path, PATIENCE))?.and_then(|answer| match answer.status {
        200 => Ok(answer),
        404 | 503 => anyhow::bail!("{}", answer.text()),
        status => anyhow::bail!("the replica answered {status}: {}", answer.text()),
    })
}

/// Who, as far as it is proved, then as far as it is claimed. Names are hostile text.
fn author(change: &ChangePage) -> String {
    if let Some(lease) = change.expired_lease {
        return format!("lease {lease:x} expired");
    }
    let name = |name: &Option<String>| name.as_ref().map(|name| shown(name.as_bytes()));
    let organisation = name(&change.organisation).unwrap_or_else(|| "?".to_owned());
    let replica = change.replica.map_or_else(String::new, |id| format!(" (replica {id})"));
    let client = name(&change.client).map_or_else(String::new, |c| format!(", client {c}"));
    let user = name(&change.user).map_or_else(String::new, |u| format!(", user {u}"));
    format!("{organisation}{replica}{client}{user}")
}

/// A key in a URL's query: everything but letters, digits and `-._~` as %XX.
fn percent(bytes: &[u8]) -> String {
    use core::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            text.push(char::from(*byte));
        } else {
            write!(text, "%{byte:02X}").expect("a String takes every write");
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_travel_whatever_bytes_they_have() {
        assert_eq!(percent(b"/registry/a b&c=\xff"), "%2Fregistry%2Fa%20b%26c%3D%FF");
    }

    #[test]
    fn hostile_names_stay_on_their_line() {
        let change = ChangePage {
            revision: 2,
            height: 1,
            ordinal: Some(0),
            kind: "put".into(),
            organisation: Some("acme".into()),
            replica: Some(0),
            client: Some("eve\n\u{1b}[2J".into()),
            user: None,
            expired_lease: None,
        };
        assert_eq!(author(&change), "acme (replica 0), client eve\\n\\u{1b}[2J");
    }
}
