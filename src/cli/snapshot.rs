//! `althing snapshot save|verify`: backups that etcd's tools restore and anyone can check offline.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use sha2::{Digest, Sha256};

use super::connection::Connection;
use super::http::block_on;
use super::output::{Failure, say};
use crate::api::pb::etcdserverpb::SnapshotRequest;
use crate::api::pb::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::chain::Network;
use crate::config::GenesisFile;
use crate::storage::backup::{Backup, Proof};
use crate::storage::disk::DiskFile;
use crate::storage::disk::os::OsDisk;
use crate::verify;

#[derive(clap::Subcommand)]
pub(super) enum Snapshot {
    /// Save a file that stock etcd restores, with the signatures of a quorum of replicas in it. Its content
    /// is at most a minute old.
    Save {
        /// Where to; an existing file is replaced.
        #[arg(short, long)]
        output: PathBuf,
        #[command(flatten)]
        connection: Connection,
    },
    /// Check offline that a file's content is what a quorum of the network's replicas signed.
    Verify {
        /// From `althing snapshot save` or `etcdctl snapshot save`.
        file: PathBuf,
        /// The network's genesis, which alone is trusted.
        #[arg(long)]
        trust: PathBuf,
    },
}

/// Bytes hashed at once.
const STEP_BYTES: u64 = 1 << 20;
const DIGEST_BYTES: u64 = 32;

pub(super) fn run(snapshot: Snapshot) -> Result<(), Failure> {
    match snapshot {
        Snapshot::Save { output, connection } => {
            block_on(save(&connection, &output))??;
            let (_, backup) = open(&output)?;
            let proof = backup.proof()?;
            say!("saved        {}", output.display());
            say!("revision     {}", backup.revision()?);
            show_proof(&proof, None);
            say!("check it     althing snapshot verify {} --trust genesis.json", output.display());
        }
        Snapshot::Verify { file, trust } => check(&file, &trust)?,
    }
    Ok(())
}

async fn save(connection: &Connection, output: &Path) -> anyhow::Result<()> {
    let endpoint = connection.endpoint()?;
    let mut client = MaintenanceClient::with_origin(endpoint.grpc()?, endpoint.url.parse()?);
    let mut request = tonic::Request::new(SnapshotRequest {});
    request.metadata_mut().insert("althing-certified", "true".parse()?);
    let refused = |status: tonic::Status| {
        anyhow!("{}: {} ({:?})", endpoint.url, status.message(), status.code())
    };
    let mut blobs = client.snapshot(request).await.map_err(refused)?.into_inner();
    let mut name = output.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let mut file = std::fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(&mut file, 0o600);
    let file = file.write(true).create(true).truncate(true).open(&part);
    let mut file = file.with_context(|| part.display().to_string())?;
    let (mut hash, mut last) = (Sha256::new(), None);
    while let Some(answer) = blobs.message().await.map_err(refused)? {
        if let Some(content) = last.replace(answer.blob) {
            hash.update(&content);
            file.write_all(&content)?;
        }
    }
    let digest = last.context("the replica sent nothing")?;
    if hash.finalize()[..] != digest[..] {
        bail!("what arrived is not what the replica sent: the checksums differ; try again");
    }
    file.write_all(&digest)?;
    file.sync_all()?;
    std::fs::rename(&part, output).with_context(|| output.display().to_string())?;
    Ok(())
}

fn open(path: &Path) -> anyhow::Result<(Arc<dyn DiskFile>, Backup)> {
    let shown = || path.display().to_string();
    let file = OsDisk::open_file(path).with_context(shown)?;
    let backup = Backup::open(file.clone()).with_context(shown)?;
    Ok((file, backup))
}

fn check(path: &Path, trust: &Path) -> anyhow::Result<()> {
    let genesis = GenesisFile::read(trust).with_context(|| trust.display().to_string())?;
    genesis.check_sealed().with_context(|| trust.display().to_string())?;
    let (file, backup) = open(path)?;
    let proof = backup.proof()?;
    let Proof { manifest, certificate, epochs } = &proof;
    let network = verify::snapshot(&genesis.genesis, epochs, manifest, certificate)?;
    if backup.genesis() != manifest.cluster_id {
        bail!("the file names another network than the one that signed it");
    }
    let content = backup.check(manifest)?;
    let digest = backup.digest();
    if let Some(digest) = digest {
        check_digest(file.as_ref(), digest)?;
    }
    say!("network      {}", manifest.cluster_id);
    say!("revision     {}, compacted below {}", content.revision, content.compact_revision.max(0));
    say!(
        "content      {} keys, {} versions, {} leases in {} chunks, all as signed",
        content.keys,
        content.versions,
        content.leases,
        content.chunks
    );
    show_proof(&proof, Some(&network));
    let checksum = if digest.is_some() { "right" } else { "none appended" };
    say!("checksum     {checksum}");
    say!("OK");
    Ok(())
}

fn show_proof(proof: &Proof, network: Option<&Network>) {
    let id = &proof.certificate.id;
    let name = |replica: &crate::types::ReplicaId| {
        let address = network.and_then(|network| network.addresses.get(replica));
        address.map_or_else(|| replica.to_string(), |address| address.name.clone())
    };
    let signers: Vec<String> =
        proof.certificate.signatures.iter().map(|(replica, _)| name(replica)).collect();
    say!("height       {}", id.height);
    say!("root         {}", id.exec_root);
    say!("signers      {}", signers.join(", "));
}

/// The checksum that was appended is of everything in front of it.
fn check_digest(file: &dyn DiskFile, digest: &[u8; 32]) -> anyhow::Result<()> {
    let length = file.len()?.saturating_sub(DIGEST_BYTES);
    let mut hash = Sha256::new();
    let mut at = 0;
    while at < length {
        let step = STEP_BYTES.min(length - at);
        let mut bytes = vec![0; usize::try_from(step)?];
        file.read_at(at, &mut bytes)?;
        hash.update(&bytes);
        at += step;
    }
    if hash.finalize()[..] == digest[..] {
        return Ok(());
    }
    bail!(
        "the content is what the replicas signed, but the appended checksum is another one: bytes that \
         hold no content were changed, and etcdutl will refuse the file"
    )
}
