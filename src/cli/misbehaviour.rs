//! `althing misbehaviour`: proofs that a replica lied, as replicas keep them and as files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use comfy_table::{Table, presets::NOTHING};
use http::Method;

use super::connection::Connection;
use super::http::{Http, block_on};
use super::output::{Failure, Format, say};
use crate::chain::GenesisMember;
use crate::config::{GenesisFile, create_new};
use crate::crypto::Ed25519;
use crate::types::ReplicaId;
use crate::verify;
use crate::web::EvidenceItem;

/// Proof that a replica lied.
#[derive(clap::Subcommand)]
pub(super) enum Misbehaviour {
    /// List the proofs that a replica keeps, and those on record in the replicated state.
    List {
        #[command(flatten)]
        connection: Connection,
        /// table or json.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Check a proof that a replica keeps and say what it shows.
    Show {
        /// The proof's name, or enough of its beginning.
        digest: String,
        /// The genesis that says who the members are.
        #[arg(long)]
        trust: PathBuf,
        #[command(flatten)]
        connection: Connection,
    },
    /// Fetch a proof into a file.
    Export {
        /// The proof's name, or enough of its beginning.
        digest: String,
        /// Where to write it.
        #[arg(short, long)]
        output: PathBuf,
        #[command(flatten)]
        connection: Connection,
    },
    /// Check a proof with nothing but the genesis: whom it proves guilty, and of what.
    Verify {
        /// The proof.
        file: PathBuf,
        /// The genesis that says who the members are.
        #[arg(long)]
        trust: PathBuf,
    },
}

const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(command: &Misbehaviour) -> Result<(), Failure> {
    match command {
        Misbehaviour::List { connection, output } => {
            let items = block_on(list(&Http::new(&connection.endpoint()?)?))??;
            match output {
                Format::Json => say!("{}", serde_json::to_string_pretty(&items)?),
                Format::Table => print(&items),
            }
        }
        Misbehaviour::Show { digest, trust, connection } => {
            let (_, bytes) = fetch(connection, digest)?;
            report(bytes, trust)?;
        }
        Misbehaviour::Export { digest, output, connection } => {
            let (item, bytes) = fetch(connection, digest)?;
            create_new(output, &bytes, 0o644)?;
            say!("{} against {}: {}", item.kind, item.accused.join(", "), output.display());
        }
        Misbehaviour::Verify { file, trust } => {
            let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
            report(bytes.into(), trust).with_context(|| file.display().to_string())?;
        }
    }
    Ok(())
}

/// What a replica keeps.
pub(super) async fn list(http: &Http) -> anyhow::Result<Vec<EvidenceItem>> {
    Ok(serde_json::from_value(http.json("/evidence", PATIENCE).await?)?)
}

/// A proof's file.
pub(super) async fn download(http: &Http, digest: &str) -> anyhow::Result<Bytes> {
    let answer = http.ask(Method::GET, &format!("/evidence/{digest}"), PATIENCE).await?;
    if answer.status != 200 {
        bail!("the replica answered {}: {}", answer.status, answer.text());
    }
    Ok(answer.body)
}

fn fetch(connection: &Connection, digest: &str) -> anyhow::Result<(EvidenceItem, Bytes)> {
    let http = Http::new(&connection.endpoint()?)?;
    block_on(async {
        let mut found: Vec<EvidenceItem> = list(&http).await?;
        found.retain(|item| item.digest.starts_with(digest));
        let [item] = found.as_slice() else {
            bail!("{} proofs have a name that begins with {digest}, not one", found.len());
        };
        Ok((item.clone(), download(&http, &item.digest).await?))
    })?
}

fn print(items: &[EvidenceItem]) {
    if items.is_empty() {
        say!("no proof of misbehaviour is known here");
        return;
    }
    let mut table = Table::new();
    let header = ["DIGEST", "KIND", "PROVES GUILTY", "ON RECORD", "FILE"];
    table.load_style(NOTHING).set_header(header);
    for item in items {
        let recorded = item.recorded.map_or_else(|| "-".to_owned(), |at| format!("block {at}"));
        let file = if item.kept { "here" } else { "elsewhere" };
        let accused = item.accused.join(", ");
        table.add_row([&item.digest, &item.kind, &accused, &recorded, file]);
    }
    say!("{table}");
}

/// Checks a proof and prints what it shows.
pub(super) fn report(bytes: Bytes, genesis: &Path) -> anyhow::Result<()> {
    let file = GenesisFile::read(genesis).with_context(|| genesis.display().to_string())?;
    file.check_sealed().with_context(|| genesis.display().to_string())?;
    let genesis = &file.genesis;
    let cluster_id = genesis.cluster_id();
    // Checking needs a scheme and no secret: whose key it is does not matter.
    let scheme = Ed25519::from_seed(&[0; 32]);
    let finding = verify::evidence(bytes, genesis, &scheme)?;
    let names = |ids: &[ReplicaId]| -> String {
        let one = |id: &ReplicaId| {
            let member = genesis.members.iter().find(|member: &&GenesisMember| member.id == *id);
            member.map_or_else(|| format!("replica {id}"), |m| format!("{} (replica {id})", m.name))
        };
        ids.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    if finding.guilty.is_empty() {
        let least = file.quorum().f() + 1;
        say!("PROVEN: at least {least} of {} lied", names(&finding.suspects));
    } else {
        say!("PROVEN: {} broke the protocol", names(&finding.guilty));
    }
    say!("  {}: {}", finding.kind, finding.what);
    say!("  network {cluster_id}");
    Ok(())
}
