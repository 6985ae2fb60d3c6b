//! `althing demo lie NAME`: one organisation contradicts itself for real, the others prove it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use http::Method;

use super::state::{Organisation, State};
use super::table;
use crate::api::pb::etcdserverpb::{DeleteRangeRequest, kv_client::KvClient};
use crate::cli::http::{Endpoint, block_on};
use crate::cli::misbehaviour::{download, list, report};
use crate::cli::output::{Failure, say};
use crate::config::{Home, create_new};

/// A proof that reaches only the next view takes a view change or two.
const ROUNDS: usize = 60;
/// Against whom enough is known nothing new is kept: then an old proof will do.
const ROUNDS_FOR_MORE: usize = 8;
const PAUSE: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(5);

/// Who of the honest holds which proof against the liar.
type Proofs = BTreeMap<String, BTreeSet<String>>;

pub(super) fn run(home: &Path, shown_home: &Path, name: &str) -> Result<(), Failure> {
    let state = State::existing(home)?;
    let liar = state.organisation(name)?;
    if liar.running().is_none() {
        return Err(anyhow::anyhow!("{name} is not running").into());
    }
    let honest: Vec<&Organisation> =
        state.organisations.iter().filter(|o| o.name != name && o.running().is_some()).collect();
    let (digest, holders, bytes) = block_on(scene(home, liar, &honest))??;
    let short: String = digest.chars().take(12).collect();
    let file = format!("{short}.evidence");
    let path = home.join(&file);
    if !path.exists() {
        create_new(&path, &bytes, 0o644)?;
    }
    let genesis = home.join("genesis.json");
    report(bytes, &genesis)?;
    say!("  held by {}", holders.into_iter().collect::<Vec<_>>().join(", "));
    let program = std::env::current_exe()?;
    say!(
        "check it alone: {} misbehaviour verify {} --trust {}",
        program.display(),
        shown_home.join(file).display(),
        shown_home.join("genesis.json").display()
    );
    Ok(())
}

async fn scene(
    home: &Path,
    liar: &Organisation,
    honest: &[&Organisation],
) -> anyhow::Result<(String, BTreeSet<String>, Bytes)> {
    let Some(client) = honest.first() else { bail!("nobody else runs who could find it out") };
    let before = proofs(home, liar, honest).await?;
    let answer =
        table::http(home, liar)?.ask(Method::POST, "/althing/v1/demo/lie", PATIENCE).await?;
    if answer.status != 200 {
        bail!("{} answered {}: {}", liar.name, answer.status, answer.text());
    }
    say!("{} now tells every second replica another story", liar.name);
    let mut found = Proofs::new();
    for _ in 0..if before.is_empty() { ROUNDS } else { ROUNDS_FOR_MORE } {
        // There is something to lie about only while blocks are ordered. Deleting nothing is a block.
        order_nothing(home, client).await;
        tokio::time::sleep(PAUSE).await;
        found = proofs(home, liar, honest).await?;
        found.retain(|digest, _| !before.contains_key(digest));
        if found.values().any(|holders| holders.len() == honest.len()) {
            break;
        }
    }
    let all = if found.is_empty() { before } else { found };
    let best = all.into_iter().max_by_key(|(_, holders)| holders.len());
    let Some((digest, holders)) = best else {
        bail!("no proof turned up in time; is the network ordering at all?");
    };
    let holder = honest.iter().find(|o| holders.contains(&o.name)).unwrap_or(client);
    let bytes = download(&table::http(home, holder)?, &digest).await?;
    Ok((digest, holders, bytes))
}

async fn proofs(
    home: &Path,
    liar: &Organisation,
    honest: &[&Organisation],
) -> anyhow::Result<Proofs> {
    let mut proofs = Proofs::new();
    for organisation in honest {
        // One that does not answer has nothing to show.
        let items = list(&table::http(home, organisation)?).await.unwrap_or_default();
        for item in items.into_iter().filter(|item| item.kept && item.accused.contains(&liar.name))
        {
            proofs.entry(item.digest).or_default().insert(organisation.name.clone());
        }
    }
    Ok(proofs)
}

async fn order_nothing(home: &Path, client: &Organisation) {
    let files = Home::at(home.join(&client.name));
    let endpoint = Endpoint::of_home(&client.client_url(), &files);
    let ask = async {
        let mut kv = KvClient::with_origin(endpoint.grpc()?, endpoint.url.parse()?);
        let request =
            DeleteRangeRequest { key: "althing/demo/nothing".into(), ..Default::default() };
        kv.delete_range(request).await?;
        anyhow::Ok(())
    };
    // A view change may be under way; the next round asks again.
    let _ = tokio::time::timeout(PATIENCE, ask).await;
}
