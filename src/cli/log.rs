//! `althing log verify`: the chain in a data directory, checked from end to end without a server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};

use super::output::{Failure, say};
use crate::chain::{CheckpointCertificate, EpochProof, Record};
use crate::config::{GenesisFile, Home};
use crate::crypto::Ed25519;
use crate::storage::checkpoint::candidates;
use crate::storage::disk::Disk;
use crate::storage::disk::os::OsDisk;
use crate::storage::identity;
use crate::storage::log::{BlockReader, LogSettings, Placed, written_segments};
use crate::types::{ClusterId, Height};
use crate::verify::ChainCheck;

/// What can be done with a log at rest or in use; nothing is changed.
#[derive(clap::Subcommand)]
pub(super) enum Log {
    /// Check every block the data directory holds: parents, bodies, values that are not erased, and
    /// the certificates that prove them.
    Verify {
        /// The replica's home.
        #[arg(long, env = "ALTHING_HOME")]
        home: PathBuf,
        /// The network's genesis; default `genesis.json` in the home.
        #[arg(long)]
        genesis: Option<PathBuf>,
        /// The data directory; default `data` in the home.
        #[arg(long)]
        data_dir: Option<PathBuf>,
    },
}

/// Blocks read at once.
const PAGE_BLOCKS: u64 = 1024;
const PAGE_BYTES: usize = 8 << 20;

pub(super) fn run(command: &Log) -> Result<(), Failure> {
    let Log::Verify { home, genesis, data_dir } = command;
    let path = genesis.clone().unwrap_or_else(|| Home::at(home).genesis());
    let genesis = GenesisFile::read(&path).with_context(|| path.display().to_string())?;
    let data = data_dir.clone().unwrap_or_else(|| home.join("data"));
    verify(&genesis, &data)?;
    Ok(())
}

fn verify(genesis: &GenesisFile, data: &std::path::Path) -> anyhow::Result<()> {
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::open_read_only(data)?);
    let cluster_id = genesis.genesis.cluster_id();
    let (found, replica) = identity::read(disk.as_ref())?;
    if found != cluster_id {
        bail!("{} belongs to network {found}, the genesis is of {cluster_id}", data.display());
    }
    let settings = LogSettings::new(cluster_id, replica, [0; 16]);
    let segments = written_segments(disk.as_ref(), &settings)?;
    let Some(last) = segments.last().copied() else {
        bail!("{} holds no log", data.display());
    };
    // What is behind the last whole record is zeros, or being written by a running replica.
    let end = Placed { segment: last, offset: u32::MAX };
    let mut reader = BlockReader::new(disk.clone(), settings, end);
    // Only checks: no key of this replica is needed.
    let scheme = Ed25519::from_seed(&[0; 32]);
    let (proofs, stable) = certified(&reader, disk.as_ref(), &segments, &cluster_id)?;
    let networks = EpochProof::check_all(&genesis.genesis, &proofs, &scheme)?;
    let mut check = ChainCheck::new(cluster_id, &networks, &scheme);
    let Some(first) = reader.first_height()? else {
        bail!("{} holds no block", data.display());
    };
    let mut next = first;
    while let Some(page) = reader.read_blocks(next, next.plus(PAGE_BLOCKS), PAGE_BYTES)? {
        check.page(&page.blocks, &page.certificate)?;
        next = page.certificate.height.next();
    }
    for certificate in &stable {
        check.checkpoint(certificate)?;
    }
    let count = check.count();
    if next == first {
        bail!("no certificate proves a block of {}", data.display());
    }
    say!("network      {cluster_id}");
    say!("replica      {replica}");
    say!("blocks       {first} to {}, each follows the one before it", Height(next.0 - 1));
    say!(
        "erased       {} of {} have lost their values, as pruning does",
        count.erased,
        count.blocks
    );
    say!(
        "certificates {} of blocks, {} of checkpoints, all hold",
        count.certificates,
        count.checkpoints
    );
    Ok(())
}

/// Epoch proofs and checkpoint certificates of the log, those included that only a checkpoint carries.
fn certified(
    reader: &BlockReader,
    disk: &dyn Disk,
    segments: &[u32],
    cluster_id: &ClusterId,
) -> anyhow::Result<(Vec<EpochProof>, Vec<CheckpointCertificate>)> {
    let mut records: Vec<Record> = Vec::new();
    for checkpoint in candidates(disk, cluster_id)?.whole {
        let carried = checkpoint.replay.carried.records();
        records.extend(carried.into_iter().map(|(_, record)| record));
    }
    for segment in segments {
        let mut found = reader.records(*segment)?;
        // The open segment may end in a record that is being written.
        while let Ok(Some((_, _, record))) = found.next() {
            if matches!(record, Record::EpochStart(_) | Record::CheckpointStable(_)) {
                records.push(record);
            }
        }
    }
    let (mut proofs, mut stable) = (BTreeMap::new(), BTreeMap::new());
    for record in records {
        match record {
            Record::EpochStart(proof) => drop(proofs.insert(proof.block.header.epoch, proof)),
            Record::CheckpointStable(found) => drop(stable.insert(found.id.height, found)),
            _ => {}
        }
    }
    Ok((proofs.into_values().collect(), stable.into_values().collect()))
}
