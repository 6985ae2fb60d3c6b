//! Making the demo's network: ports, four homes, one sealed genesis.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::state::{Organisation, State};
use crate::cli::genesis::{draw_salt, now};
use crate::cli::identity::{Plan, create};
use crate::cli::output::say;
use crate::config::{GenesisFile, Home, SecretSeed, assemble, create_new, make_private_directory};
use crate::crypto::Scheme;

/// Who takes part.
pub(super) const NAMES: [&str; 4] = ["acme", "birch", "cedar", "delta"];

const FIRST_PORT: u16 = 2379;
const BLOCK_STEP: u16 = 1000;
const ORGANISATION_STEP: u16 = 100;

/// Client and peer port of each organisation.
fn ports(base: u16) -> impl Iterator<Item = (u16, u16)> {
    (0..).zip(NAMES).map(move |(at, _): (u16, _)| {
        let client = base + at * ORGANISATION_STEP;
        (client, client + 1)
    })
}

/// Whether nobody listens there. The port is free again when this returns; who takes it in between
/// is found out by the replica, which then says so.
pub(super) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// The first block of ports that is free as a whole, and the ports that kept others from being it.
fn free_block() -> anyhow::Result<(u16, Vec<u16>)> {
    let mut taken = Vec::new();
    for block in 0..20 {
        let base = FIRST_PORT + block * BLOCK_STEP;
        let busy: Vec<u16> = ports(base)
            .flat_map(|(client, peer)| [client, peer])
            .filter(|p| !is_free(*p))
            .collect();
        if busy.is_empty() {
            return Ok((base, taken));
        }
        taken.extend(busy);
    }
    bail!("no free block of ports: {taken:?} are taken; end what listens there")
}

/// Makes a network in `home`, which must not exist; afterwards all of it is there or nothing.
pub(super) fn create_network(home: &Path) -> anyhow::Result<State> {
    let (base, taken) = free_block()?;
    if !taken.is_empty() {
        say!("Taken: port {}. Using the ports from {base} on.", list(&taken));
    }
    let staging = staging_directory(home)?;
    let built = build(&staging, base);
    let moved = built.and_then(|state| {
        std::fs::rename(&staging, home)
            .with_context(|| format!("cannot move the new network to {}", home.display()))?;
        Ok(state)
    });
    if moved.is_err() {
        // Nothing half made stays; the first error is the one to report.
        let _ = std::fs::remove_dir_all(&staging);
    }
    moved
}

fn list(ports: &[u16]) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn staging_directory(home: &Path) -> anyhow::Result<PathBuf> {
    let name = home.file_name().context("--home must name a directory")?.to_string_lossy();
    let staging = home.with_file_name(format!(".{name}.{}.new", std::process::id()));
    if staging.exists() {
        std::fs::remove_dir_all(&staging)
            .with_context(|| format!("cannot remove {}", staging.display()))?;
    }
    make_private_directory(&staging)?;
    Ok(staging)
}

fn build(directory: &Path, base: u16) -> anyhow::Result<State> {
    let mut organisations = Vec::new();
    let mut public = Vec::new();
    for (name, (client_port, peer_port)) in NAMES.iter().zip(ports(base)) {
        let plan = Plan {
            name: (*name).to_owned(),
            client_urls: vec![format!("https://127.0.0.1:{client_port}")],
            peer_address: format!("127.0.0.1:{peer_port}"),
            authority: None,
        };
        public.push(create(&Home::at(directory.join(name)), &plan)?);
        organisations.push(Organisation {
            name: (*name).to_owned(),
            client_port,
            peer_port,
            process: None,
        });
    }
    let mut file = assemble(public, draw_salt()?, now(), true)?;
    for name in NAMES {
        let home = Home::at(directory.join(name));
        let secret = SecretSeed::load(&home.replica_key(), false)?;
        file.add(name, secret.signer().sign(&file.genesis.signed_bytes()))?;
    }
    write_genesis(directory, &file)?;
    let state = State { version: 1, foreground: None, organisations };
    state.save(directory)?;
    Ok(state)
}

fn write_genesis(directory: &Path, file: &GenesisFile) -> anyhow::Result<()> {
    file.check_sealed()?;
    let text = file.to_json();
    create_new(&directory.join("genesis.json"), text.as_bytes(), 0o644)?;
    for name in NAMES {
        create_new(&Home::at(directory.join(name)).genesis(), text.as_bytes(), 0o644)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demo_network_is_complete_sealed_and_avoids_taken_ports() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let home = directory.path().join("althing-demo");
        // Whether or not something else has it, it is taken now.
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, FIRST_PORT));
        let state = create_network(&home).expect("made");
        assert_ne!(state.organisations[0].client_port, FIRST_PORT);
        assert_eq!(State::load(&home).expect("saved"), Some(state));
        let file = GenesisFile::read(&home.join("genesis.json")).expect("a genesis");
        file.check_sealed().expect("sealed");
        assert!(file.genesis.demo);
        assert_eq!(std::fs::read_dir(directory.path()).expect("listed").count(), 1);
        assert!(create_network(&home).is_err(), "an existing network is not replaced");
        assert_eq!(GenesisFile::read(&home.join("genesis.json")).expect("still there"), file);
    }
}
