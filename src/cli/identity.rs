//! Making an organisation's home: keys, certificates, and the public file, which alone travels.

use std::path::PathBuf;

use anyhow::{Context, bail};

use super::certificates;
use crate::config::{Home, ListenUrl, PublicFile, SecretSeed, create_new, make_private_directory};

/// What a home is made for.
pub(super) struct Plan {
    pub name: String,
    pub client_urls: Vec<String>,
    pub peer_address: String,
    /// The home of another replica of the organisation, whose authority signs here too.
    pub authority: Option<PathBuf>,
}

/// Makes a home; nothing in it may be there before. Either all files are there afterwards or none.
pub(super) fn create(home: &Home, plan: &Plan) -> anyhow::Result<PublicFile> {
    let names = home_files(home, &plan.name);
    if let Some(taken) = names.iter().find(|path| path.symlink_metadata().is_ok()) {
        bail!(
            "{} exists already: {} is a home, and no key is overwritten; choose another --home, or \
             move this one away",
            taken.display(),
            home.directory().display()
        );
    }
    let hosts = hosts(plan)?;
    let draw = || SecretSeed::draw().context("the system gives no random bytes");
    let (replica, governance) = (draw()?, draw()?);
    let public = PublicFile {
        name: plan.name.clone(),
        key: replica.public_key(),
        governance_keys: vec![governance.public_key()],
        client_urls: plan.client_urls.clone(),
        peer_address: plan.peer_address.clone(),
    };
    public.check()?;
    let authority = plan.authority.as_ref().map(|path| authority(&Home::at(path))).transpose()?;
    let made_here = authority.is_none();
    let certificates = certificates::make(&plan.name, &hosts, authority)?;
    make_private_directory(home.directory())?;

    let mut made = Made(Vec::new());
    replica.save(&home.replica_key())?;
    made.0.push(home.replica_key());
    governance.save(&home.governance_key())?;
    made.0.push(home.governance_key());
    let pairs = [
        (home.ca_certificate(), home.ca_key(), &certificates.authority),
        (home.server_certificate(), home.server_key(), &certificates.server),
        (home.client_certificate(), home.client_key(), &certificates.client),
    ];
    for (certificate, key, pair) in pairs {
        // The authority's key stays in one home.
        if made_here || key != home.ca_key() {
            create_new(&key, pair.key.as_bytes(), 0o600)?;
            made.0.push(key);
        }
        create_new(&certificate, pair.certificate.as_bytes(), 0o644)?;
        made.0.push(certificate);
    }
    // Last: with it the home is complete.
    create_new(&home.public_file(&plan.name), public.to_json().as_bytes(), 0o644)?;
    made.0.clear();
    Ok(public)
}

fn authority(home: &Home) -> anyhow::Result<certificates::Pair> {
    let read = |path: PathBuf| {
        std::fs::read_to_string(&path).with_context(|| format!("--authority: {}", path.display()))
    };
    let key = read(home.ca_key())?.into();
    Ok(certificates::Pair { certificate: read(home.ca_certificate())?, key })
}

fn home_files(home: &Home, name: &str) -> [PathBuf; 9] {
    [
        home.replica_key(),
        home.governance_key(),
        home.ca_key(),
        home.ca_certificate(),
        home.server_key(),
        home.server_certificate(),
        home.client_key(),
        home.client_certificate(),
        home.public_file(name),
    ]
}

/// Files to take away again unless the work is finished.
struct Made(Vec<PathBuf>);

impl Drop for Made {
    fn drop(&mut self) {
        for path in &self.0 {
            // What cannot be removed is reported by the next attempt, which refuses it by name.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn hosts(plan: &Plan) -> anyhow::Result<Vec<String>> {
    let mut hosts = Vec::new();
    for url in &plan.client_urls {
        let parsed = ListenUrl::parse(url).context("--client-url")?;
        if !parsed.tls || parsed.port.is_none() {
            bail!("--client-url {url}: it must be https://HOST:PORT, organisations use TLS");
        }
        hosts.push(parsed.host);
    }
    Ok(hosts)
}
