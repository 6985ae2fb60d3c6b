//! `althing block get HEIGHT`: a block as a replica keeps it, with the certificate that proves it.

use std::time::Duration;

use serde_json::Value;

use super::connection::Connection;
use super::http::{Http, block_on};
use super::output::{Failure, Format, say, shown};

#[derive(clap::Subcommand)]
pub(super) enum Block {
    /// Show one block: header, who admitted what, certificate. Keys and values are left out.
    Get {
        /// From 1.
        height: u64,
        #[command(flatten)]
        connection: Connection,
        /// table or json.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn run(block: &Block) -> Result<(), Failure> {
    let Block::Get { height, connection, output } = block;
    let http = Http::new(&connection.endpoint()?)?;
    let page = block_on(http.json(&format!("/althing/v1/block/{height}"), PATIENCE))??;
    match output {
        Format::Json => say!("{}", serde_json::to_string_pretty(&page)?),
        Format::Table => print(&page),
    }
    Ok(())
}

/// A field as text; what is missing shows as a dash.
fn text(page: &Value, field: &str) -> String {
    match page.get(field) {
        Some(Value::String(text)) => shown(text.as_bytes()),
        Some(Value::Array(items)) => {
            let texts = items.iter().map(|item| {
                item.as_str().map_or_else(|| item.to_string(), |text| shown(text.as_bytes()))
            });
            texts.collect::<Vec<_>>().join(", ")
        }
        Some(Value::Null) | None => "-".to_owned(),
        Some(other) => other.to_string(),
    }
}

fn print(page: &Value) {
    let fields = [
        "height",
        "hash",
        "parent",
        "epoch",
        "view",
        "proposer",
        "time_ms",
        "ops",
        "body_root",
        "exec_height",
        "exec_root",
        "config_hash",
    ];
    for field in fields {
        say!("{field:<12} {}", text(page, field));
    }
    let certificate = page.get("certificate").unwrap_or(&Value::Null);
    say!(
        "{:<12} block {} in view {}, signed by {}",
        "certificate",
        text(certificate, "height"),
        text(certificate, "view"),
        text(certificate, "signers")
    );
    for entry in page.get("entries").and_then(Value::as_array).into_iter().flatten() {
        say!(
            "{:<12} {} by {}, {} ops, clients {}",
            "entry",
            text(entry, "kind"),
            text(entry, "replica"),
            text(entry, "ops"),
            text(entry, "clients")
        );
    }
}
