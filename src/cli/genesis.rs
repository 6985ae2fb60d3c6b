//! `althing genesis assemble|sign|seal|show`: the ceremony in which organisations agree to a
//! network without any private key leaving its home (ecosystem.md 2.2).

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::output::{Failure, say};
use crate::config::{
    GenesisFile, Home, PublicFile, SecretSeed, SignatureFile, assemble, create_new, replace,
};
use crate::crypto::Scheme;
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
        Genesis::Assemble { public, output } => assemble_files(&public, &output)?,
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

fn assemble_files(paths: &[PathBuf], output: &Path) -> anyhow::Result<()> {
    let read = |path: &PathBuf| PublicFile::read(path).with_context(|| path.display().to_string());
    let files = paths.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let file = assemble(files, draw_salt()?, now(), false)?;
    create_new(output, file.to_json().as_bytes(), 0o644)?;
    print(&file);
    say!(
        "Next: each organisation compares the cluster id with the others by another way than it got \
         this file, then runs `althing genesis sign {} --home HOME -o NAME.sig`.",
        output.display()
    );
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
