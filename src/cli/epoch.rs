//! `althing epoch list|export|verify`: how every epoch ended, verified from the genesis alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::change::{from_hex, summary};
use super::connection::Connection;
use super::http::{Http, block_on};
use super::output::{Failure, say};
use crate::chain::{EpochProof, Genesis, Network};
use crate::codec::{Decode, Encode};
use crate::config::{GenesisFile, replace, to_hex};
use crate::verify;

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(clap::Subcommand)]
pub(super) enum Epoch {
    /// Show every epoch: how it ended, who votes in it.
    List {
        /// The genesis, which alone is trusted.
        #[arg(long)]
        genesis: PathBuf,
        #[command(flatten)]
        connection: Connection,
    },
    /// Write the proofs to a file, verified; a joining replica needs it as HOME/epochs.json.
    Export {
        /// The genesis, which alone is trusted.
        #[arg(long)]
        genesis: PathBuf,
        /// Where to write them.
        #[arg(short, long)]
        output: PathBuf,
        #[command(flatten)]
        connection: Connection,
    },
    /// Check a file of proofs against the genesis; needs no network.
    Verify {
        /// From `althing epoch export`.
        file: PathBuf,
        /// The genesis, which alone is trusted.
        #[arg(long)]
        genesis: PathBuf,
    },
}

/// Proofs as a replica or a file has them: nothing is believed before [`EpochFile::verify`].
pub(super) struct EpochFile {
    proofs: Vec<EpochProof>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EpochsJson {
    version: u16,
    cluster_id: String,
    epochs: Vec<String>,
}

impl EpochFile {
    pub fn of(proofs: Vec<EpochProof>) -> Self {
        Self { proofs }
    }

    pub fn write(&self, path: &Path, genesis: &Genesis) -> anyhow::Result<()> {
        let json = EpochsJson {
            version: 1,
            cluster_id: genesis.cluster_id().to_string(),
            epochs: self.proofs.iter().map(|proof| to_hex(&proof.to_bytes())).collect(),
        };
        let text = serde_json::to_string_pretty(&json)? + "\n";
        Ok(replace(path, text.as_bytes(), 0o644)?)
    }

    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let json: EpochsJson =
            serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        if json.version != 1 {
            bail!("{} has version {}; this program reads 1", path.display(), json.version);
        }
        Self::decode(&json.epochs).with_context(|| path.display().to_string())
    }

    pub fn fetch(connection: &Connection) -> anyhow::Result<Self> {
        let http = Http::new(&connection.endpoint()?)?;
        let page = block_on(http.json("/althing/v1/epochs", PATIENCE))??;
        Self::decode(&serde_json::from_value::<Vec<String>>(page)?)
    }

    fn decode(texts: &[String]) -> anyhow::Result<Self> {
        let proof = |text: &String| {
            let bytes = from_hex(text).context("an epoch proof is not hexadecimal")?;
            EpochProof::from_bytes(bytes).map_err(|error| anyhow::anyhow!("epoch proof: {error}"))
        };
        Ok(Self { proofs: texts.iter().map(proof).collect::<anyhow::Result<_>>()? })
    }

    /// The network of every epoch.
    pub fn verify(&self, genesis: &Genesis) -> anyhow::Result<Vec<Network>> {
        Ok(verify::epochs(genesis, &self.proofs)?)
    }
}

pub(super) fn run(epoch: Epoch) -> Result<(), Failure> {
    match epoch {
        Epoch::List { genesis, connection } => {
            let genesis = read_genesis(&genesis)?;
            print(&genesis, &EpochFile::fetch(&connection)?)?;
        }
        Epoch::Export { genesis, output, connection } => {
            let genesis = read_genesis(&genesis)?;
            let file = EpochFile::fetch(&connection)?;
            let networks = file.verify(&genesis)?;
            file.write(&output, &genesis)?;
            say!("{} epochs, verified: {}", networks.len(), output.display());
        }
        Epoch::Verify { file, genesis } => {
            print(&read_genesis(&genesis)?, &EpochFile::read(&file)?)?;
        }
    }
    Ok(())
}

fn read_genesis(path: &Path) -> anyhow::Result<Genesis> {
    let file = GenesisFile::read(path).with_context(|| path.display().to_string())?;
    file.check_sealed().with_context(|| path.display().to_string())?;
    Ok(file.genesis)
}

fn print(genesis: &Genesis, file: &EpochFile) -> anyhow::Result<()> {
    let networks = file.verify(genesis)?;
    say!("cluster id {}", genesis.cluster_id());
    for (at, network) in networks.iter().enumerate() {
        let quorum = network.membership.quorum();
        let (n, f, q) = (quorum.n(), quorum.f(), quorum.q());
        let names = network.addresses.iter().map(|(id, address)| {
            let votes = network.membership.voter(*id).is_some();
            if votes { address.name.clone() } else { format!("({})", address.name) }
        });
        let names: Vec<String> = names.collect();
        say!("epoch {at}: n = {n}, f = {f}, q = {q}: {}", names.join(", "));
        let Some(proof) = file.proofs.get(at) else { continue };
        let change = proof.block.config_change().context("a verified proof holds a change")?;
        say!("  ended by block {}: {}", proof.block.header.height, summary(&change.action));
    }
    say!("verified: {} epochs from the genesis alone", networks.len());
    Ok(())
}
