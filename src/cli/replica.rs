//! `althing replica repair`: one command for a replica that found itself damaged or diverged.

use std::time::{Duration, Instant};

use anyhow::bail;
use http::Method;

use super::connection::Connection;
use super::http::{Http, block_on};
use super::output::{Failure, say};
use crate::web::StatusPage;

/// What can be done to one replica.
#[derive(clap::Subcommand)]
pub(super) enum Replica {
    /// Have a quarantined replica (alarm CORRUPT) set its damaged log and state aside and fetch the
    /// others'. It runs while the replica runs, and waits until the replica votes again.
    Repair(Repair),
}

#[derive(clap::Args)]
pub(super) struct Repair {
    #[command(flatten)]
    connection: Connection,
    /// Return once the repair has begun.
    #[arg(long)]
    no_wait: bool,
    /// Give up waiting after this many seconds; the repair goes on.
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    timeout: u64,
}

const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub(super) fn run(command: &Replica) -> Result<(), Failure> {
    let Replica::Repair(repair) = command;
    let http = Http::new(&repair.connection.endpoint()?)?;
    block_on(async {
        let path = "/althing/v1/replica/repair";
        let answer = http.ask(Method::POST, path, PATIENCE).await?;
        if answer.status != 200 {
            bail!("the replica does not repair itself: {}", answer.text());
        }
        say!("The damaged log and state were set aside in `damaged` below the data directory.");
        if repair.no_wait {
            return Ok(());
        }
        wait(&http, Duration::from_secs(repair.timeout)).await
    })??;
    Ok(())
}

/// Says what the replica does until it votes and serves again.
async fn wait(http: &Http, patience: Duration) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut said = String::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if began.elapsed() > patience {
            bail!("it does not vote yet; the repair goes on, see `althing status`");
        }
        // It may be busy reading; what it says next counts.
        let Ok(json) = http.json("/althing/v1/status", PATIENCE).await else { continue };
        let page: StatusPage = serde_json::from_value(json)?;
        if page.quarantined.is_none() && page.mode == "normal" {
            say!("{} votes again at height {}.", page.name, page.executed);
            return Ok(());
        }
        let now = format!("{}, executed {} of {}", page.mode, page.executed, page.committed);
        if now != said {
            say!("{now}");
            said = now;
        }
    }
}
