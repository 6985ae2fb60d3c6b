//! `althing status`: what a replica says of the network, or what each replica of a demo says of
//! itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use comfy_table::{Table, presets::NOTHING};

use super::connection::Connection;
use super::demo;
use super::http::{Endpoint, Http, block_on};
use super::output::{Failure, Format, say};
use crate::web::StatusPage;

#[derive(clap::Args)]
pub(super) struct Status {
    #[command(flatten)]
    connection: Connection,
    /// table or json.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn run(status: &Status) -> Result<(), Failure> {
    let beside = status.connection.home().and_then(Path::parent);
    let demo = match beside {
        Some(directory) => demo::endpoints(directory)?,
        None => demo::endpoints(Path::new("althing-demo"))?,
    };
    let all = match demo {
        Some(endpoints) => endpoints,
        None => vec![(None, status.connection.endpoint()?)],
    };
    let pages = block_on(async {
        let mut pages = Vec::new();
        for (name, endpoint) in all {
            pages.push((name, ask(&endpoint).await));
        }
        pages
    })?;
    if pages.iter().all(|(_, page)| page.is_err()) {
        let first = pages.into_iter().find_map(|(_, page)| page.err());
        return Err(first.unwrap_or_else(|| anyhow::anyhow!("nobody was asked")).into());
    }
    match status.output {
        Format::Json => print_json(&pages)?,
        Format::Table => print_table(&pages),
    }
    Ok(())
}

type Pages = [(Option<String>, anyhow::Result<StatusPage>)];

async fn ask(endpoint: &Endpoint) -> anyhow::Result<StatusPage> {
    let json = Http::new(endpoint)?.json("/althing/v1/status", PATIENCE).await?;
    Ok(serde_json::from_value(json)?)
}

fn print_json(pages: &Pages) -> anyhow::Result<()> {
    let one = |(name, page): &(Option<String>, anyhow::Result<StatusPage>)| match page {
        Ok(page) => serde_json::to_value(page),
        Err(why) => Ok(serde_json::json!({ "name": name, "error": format!("{why:#}") })),
    };
    let all = pages.iter().map(one).collect::<Result<Vec<_>, _>>()?;
    say!("{}", serde_json::to_string_pretty(&all)?);
    Ok(())
}

const HEADER: [&str; 10] =
    ["NAME", "MODE", "VIEW", "PRIMARY", "COMMITTED", "EXECUTED", "LAG", "ROOT", "PEERS", "MARGIN"];

fn print_table(pages: &Pages) {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(HEADER);
    for (name, page) in pages {
        match page {
            Ok(page) => {
                table.add_row(own_row(page));
                // Alone, a replica also tells what it last heard of the others.
                if pages.len() == 1 {
                    table.add_rows(peer_rows(page));
                }
            }
            Err(_) => {
                let name = name.clone().unwrap_or_default();
                table.add_row(vec![name, "no answer".to_owned()]);
            }
        }
    }
    say!("{table}");
    let Some(page) = pages.iter().find_map(|(_, page)| page.as_ref().ok()) else { return };
    say!("network {}: n = {}, f = {}, q = {}", page.cluster_id, page.n, page.f, page.q);
    for (_, page) in pages {
        if let Ok(StatusPage { name, quarantined: Some(why), .. }) = page {
            say!("{name} is QUARANTINED: {why}");
        }
        if let Ok(StatusPage { name, fenced: Some(why), .. }) = page {
            say!("{name} is FENCED until its REJOIN is committed: {why}");
        }
    }
    say_proven(pages);
}

/// Each liar once, whoever keeps the proofs.
fn say_proven(pages: &Pages) {
    let mut proven: BTreeMap<&str, (BTreeSet<&str>, BTreeSet<&str>, usize)> = BTreeMap::new();
    for page in pages.iter().filter_map(|(_, page)| page.as_ref().ok()) {
        for liar in &page.proven {
            let (kinds, holders, recorded) = proven.entry(&liar.name).or_default();
            kinds.extend(liar.kinds.iter().map(String::as_str));
            if liar.proofs > 0 {
                holders.insert(&page.name);
            }
            *recorded = liar.recorded.max(*recorded);
        }
    }
    for (name, (kinds, holders, recorded)) in proven {
        let list = |names: BTreeSet<&str>| names.into_iter().collect::<Vec<_>>().join(", ");
        let (kinds, holders) = (list(kinds), list(holders));
        say!(
            "{name} is PROVEN to have lied ({kinds}), {recorded} proofs on record, files at {holders}: \
             althing misbehaviour list"
        );
    }
}

fn own_row(page: &StatusPage) -> Vec<String> {
    vec![
        page.name.clone(),
        page.mode.clone(),
        page.view.to_string(),
        page.primary.clone().unwrap_or_else(|| "-".to_owned()),
        page.committed.to_string(),
        page.executed.to_string(),
        page.lag.to_string(),
        page.exec_root.chars().take(12).collect(),
        format!("{}/{}", page.peers_up, page.n.saturating_sub(1)),
        page.quorum_margin.to_string(),
    ]
}

fn peer_rows(page: &StatusPage) -> Vec<Vec<String>> {
    let row = |peer: &crate::web::PeerStatus| {
        let mode = if peer.up { peer.mode.clone() } else { "unreachable".to_owned() };
        let behind = page.committed.saturating_sub(peer.executed);
        vec![
            peer.name.clone(),
            mode,
            peer.view.to_string(),
            String::new(),
            peer.committed.to_string(),
            peer.executed.to_string(),
            behind.to_string(),
            String::new(),
            String::new(),
            peer.age_ms.map_or_else(String::new, |ms| format!("(heard {ms} ms ago)")),
        ]
    };
    page.peers.iter().map(row).collect()
}
