//! `althing genesis assemble|sign|seal|show`: the ceremony in which organisations agree to a
//! network without any private key leaving its home (ecosystem.md 2.2).

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::output::{Failure, say};
use crate::config::{
    GenesisFile, Home, PublicFile, SecretSeed, SignatureFile, assemble, create_new, replace,
};
use crate::crypto::Scheme;
use crate::node::InitialSnapshot;
use crate::types::Millis;

/// The file that starts a network.
#[derive(clap::Subcommand)]
pub(super) enum Genesis {
    /// Join the organisations' public files into a genesis nobody has signed yet.
    Assemble {
        /// NAME.public.json of every organisation.
        #[arg(required = true)]
        public: Vec<PathBuf>,
        /// Where to write the genesis.
        #[arg(short, long)]
        output: PathBuf,
        /// Start with the keys, revisions and leases of this file of `etcdctl snapshot save`.
        #[arg(long, value_name = "FILE")]
        from_snapshot: Option<PathBuf>,
    },
    /// Agree to a genesis with this organisation's replica key.
    Sign {
        /// The genesis as assembled.
        genesis: PathBuf,
        /// The organisation's home.
        #[arg(long, env = "ALTHING_HOME")]
        home: PathBuf,
        /// Where to write the signature.
        #[arg(short, long)]
        output: PathBuf,
        /// Take key files that others could read.
        #[arg(long)]
        allow_loose_permissions: bool,
    },
    /// Put all signatures into the genesis, or say whose are missing.
    Seal {
        /// The genesis; it is changed only when all signatures are there.
        genesis: PathBuf,
        /// NAME.sig of every organisation.
        #[arg(required = true)]
        signatures: Vec<PathBuf>,
    },
    /// Show a genesis: members, sizes, id, who has signed.
    Show {
        /// The genesis.
        genesis: PathBuf,
    },
}

pub(super) fn run(command: Genesis) -> Result<(), Failure> {
    match command {
        Genesis::Assemble { public, output, from_snapshot } => {
            assemble_files(&public, &output, from_snapshot.as_deref())?;
        }
        Genesis::Sign { genesis, home, output, allow_loose_permissions } => {
            sign(&genesis, &Home::at(home), &output, allow_loose_permissions)?;
        }
        Genesis::Seal { genesis, signatures } => seal(&genesis, &signatures)?,
        Genesis::Show { genesis } => print(&read(&genesis)?),
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<GenesisFile> {
    GenesisFile::read(path).with_context(|| path.display().to_string())
}

fn assemble_files(paths: &[PathBuf], output: &Path, snapshot: Option<&Path>) -> anyhow::Result<()> {
    let read = |path: &PathBuf| PublicFile::read(path).with_context(|| path.display().to_string());
    let files = paths.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let mut file = assemble(files, draw_salt()?, now(), false)?;
    if let Some(path) = snapshot {
        found_on(&mut file, path)?;
    }
    create_new(output, file.to_json().as_bytes(), 0o644)?;
    print(&file);
    say!(
        "Next: each organisation compares the cluster id with the others by another way than it got \
         this file, then runs `althing genesis sign {} --home HOME -o NAME.sig`.",
        output.display()
    );
    Ok(())
}

/// The network starts with what a snapshot of etcd holds.
fn found_on(file: &mut GenesisFile, path: &Path) -> anyhow::Result<()> {
    let shown = || path.display().to_string();
    let snapshot = InitialSnapshot::open(path).with_context(shown)?;
    let found = snapshot.check(&file.genesis).with_context(shown)?;
    file.genesis.initial = Some(found.digest);
    say!("snapshot    revision {}, {} keys, {} leases", found.revision, found.keys, found.leases);
    say!("Users and roles are not taken over: each organisation adds its own.");
    Ok(())
}

/// Who agrees has the very file that the genesis names.
fn check_initial(genesis: &crate::chain::Genesis, home: &Home) -> anyhow::Result<()> {
    let Some(wanted) = genesis.initial else { return Ok(()) };
    let path = home.initial_state();
    let shown = || format!("the genesis names a snapshot, which belongs into {}", path.display());
    let found = InitialSnapshot::open(&path).with_context(shown)?.digest();
    if found != wanted {
        bail!(
            "{} is another snapshot than the genesis names: {found}, not {wanted}",
            path.display()
        );
    }
    Ok(())
}

/// 32 random bytes that make every genesis another network.
pub(super) fn draw_salt() -> anyhow::Result<[u8; 32]> {
    let mut salt = [0; 32];
    getrandom::fill(&mut salt).context("the system gives no random bytes")?;
    Ok(salt)
}

/// The wall clock.
pub(super) fn now() -> Millis {
    Millis(u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0))
}

fn sign(genesis: &Path, home: &Home, output: &Path, loose: bool) -> anyhow::Result<()> {
    let file = read(genesis)?;
    let secret = SecretSeed::load(&home.replica_key(), loose)?;
    let member = file.member_of(&secret.public_key())?;
    let name = member.name.clone();
    let public = home.public_file(&name);
    let own = PublicFile::read(&public).with_context(|| public.display().to_string())?;
    if let Some(field) = own.difference(member) {
        bail!(
            "the genesis has other {field} for {name} than {}; not signed: whoever assembled it had \
             another file",
            public.display()
        );
    }
    check_initial(&file.genesis, home)?;
    let signature = SignatureFile {
        name,
        cluster_id: file.genesis.cluster_id(),
        signature: secret.signer().sign(&file.genesis.signed_bytes()),
    };
    create_new(output, signature.to_json().as_bytes(), 0o644)?;
    print(&file);
    say!("{} agreed to this network: {}", signature.name, output.display());
    Ok(())
}

fn seal(genesis: &Path, signatures: &[PathBuf]) -> anyhow::Result<()> {
    let mut file = read(genesis)?;
    for path in signatures {
        let added = SignatureFile::read(path).and_then(|signature| signature.add_to(&mut file));
        added.with_context(|| path.display().to_string())?;
    }
    file.check_sealed()?;
    replace(genesis, file.to_json().as_bytes(), 0o644)?;
    print(&file);
    say!(
        "Sealed. Every organisation takes a copy and runs `althing serve --genesis {} --home HOME \
         --data-dir DIR`.",
        genesis.display()
    );
    Ok(())
}

fn print(file: &GenesisFile) {
    let quorum = file.quorum();
    let genesis = &file.genesis;
    say!("cluster id  {}", genesis.cluster_id());
    if let Some(digest) = genesis.initial {
        say!("first state the snapshot {digest}, in every home as initial.db");
    }
    say!("n = {}, f = {}, q = {}", quorum.n(), quorum.f(), quorum.q());
    say!("{}", promise(quorum.n(), quorum.f()));
    for member in &genesis.members {
        let signed = file.signatures.contains_key(&member.id);
        say!(
            "{:>3}  {}  {}  peers {}  key {}  {}",
            member.id,
            member.name,
            member.client_urls.join(","),
            member.peer_address,
            member.key,
            if signed { "signed" } else { "not signed" }
        );
    }
}

/// What a network of `n` with `f` promises, in a sentence.
pub(super) fn promise(n: usize, f: usize) -> String {
    match (n, f) {
        (1, _) => "One replica: no fault is tolerated.".to_owned(),
        (_, 0) => "No replica may lie (f = 0): only crashes are tolerated.".to_owned(),
        _ => format!("{n} organisations, {f} may be dishonest."),
    }
}

#[cfg(test)]
#[path = "ceremony_tests.rs"]
mod tests;
