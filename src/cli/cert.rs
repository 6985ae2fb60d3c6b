//! `althing cert status`: the certificates a replica uses, and how long they are good.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use comfy_table::{Table, presets::NOTHING};

use super::connection::Connection;
use super::http::{Http, block_on};
use super::output::{Failure, Format, say};
use crate::web::CertificatePage;

#[derive(clap::Subcommand)]
pub(super) enum Cert {
    /// Show subject, serial number and days left of every certificate and revocation list in force.
    Status(Status),
}

#[derive(clap::Args)]
pub(super) struct Status {
    #[command(flatten)]
    connection: Connection,
    /// table or json.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

const PATIENCE: Duration = Duration::from_secs(5);
const DAY_SECONDS: i64 = 24 * 3_600;

pub(super) fn run(Cert::Status(status): &Cert) -> Result<(), Failure> {
    let endpoint = status.connection.endpoint()?;
    let json = block_on(async {
        Http::new(&endpoint)?.json("/althing/v1/certificates", PATIENCE).await
    })??;
    if status.output == Format::Json {
        say!("{}", serde_json::to_string_pretty(&json).map_err(anyhow::Error::from)?);
        return Ok(());
    }
    let page: Vec<CertificatePage> = serde_json::from_value(json).map_err(anyhow::Error::from)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["USE", "SUBJECT", "SERIAL", "DAYS LEFT", "FILE"]);
    for row in &page {
        let left = match row.not_after_seconds {
            i64::MAX => "-".to_owned(),
            until if until < now => "expired".to_owned(),
            until => until.saturating_sub(now).div_euclid(DAY_SECONDS).to_string(),
        };
        let file = row.file.as_deref().unwrap_or("made by the process");
        table.add_row([row.r#use.as_str(), &row.subject, &row.serial, &left, file]);
    }
    say!("{table}");
    Ok(())
}
