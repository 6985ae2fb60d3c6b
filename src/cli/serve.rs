//! `althing serve`, also what the program does with etcd's flags alone: settings, identity, then
//! node, API and web on their listeners.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use tokio::runtime::Runtime;

use super::epoch::EpochFile;
use super::output::{Failure, say};
use super::{compose, drop_in, version};
use crate::chain::{Address, Genesis, Network, Ownership};
use crate::config::{
    self, GenesisFile, Home, ListenUrl, SecretSeed, Settings, help, voted_differences,
};
use crate::net::PeerListener;
use crate::node;
use crate::observe::{
    LogFormat, LogOutput, LogSettings, LoggingError, Metrics, Rotation, start_logging,
};
use crate::tls::ExchangeTls;
use crate::types::ReplicaId;

pub(super) const FLAGS_TITLE: &str = "\nFlags of `althing serve`, etcd's included:";

/// Everything that is known before the first socket is opened.
pub(super) struct Prepared {
    /// Complete: listeners, TLS files and names of the genesis are filled in.
    pub settings: Settings,
    /// Sealed, and this replica is in it.
    pub genesis: GenesisFile,
    /// Which member this is.
    pub own: ReplicaId,
    /// The network of the epoch file, if there is one: who joins finds its peers in it.
    pub known: Option<Network>,
    /// Signs for it.
    pub secret: SecretSeed,
    /// Where peers are met, if they had to be met before.
    pub place: Option<MeetingPlace>,
}

impl Prepared {
    /// Two of etcd's unsafe flags concern a replica that is alone, and no other.
    fn check_unsafe(&mut self) -> anyhow::Result<()> {
        if self.alone() {
            return Ok(());
        }
        if core::mem::take(&mut self.settings.unsafe_no_fsync) {
            let why = "the other replicas count on what this one acknowledges";
            self.settings.warnings.push(format!("--unsafe-no-fsync has no effect: {why}"));
        }
        if self.settings.force_new_cluster {
            bail!("--force-new-cluster: a network is not taken from its members by one of them");
        }
        Ok(())
    }

    /// Whether no other replica is known.
    pub fn alone(&self) -> bool {
        let first = self.genesis.genesis.members.len();
        self.known.as_ref().map_or(first, |known| known.membership.members.len()) == 1
    }
}

/// Parses flags, then serves until the process is told to end.
pub(super) fn run(arguments: &[String]) -> Result<ExitCode, Failure> {
    let asks = |names: &[&str]| arguments.iter().any(|argument| names.contains(&argument.as_str()));
    if asks(&["-h", "-help", "--help"]) {
        say!("{}", help());
        return Ok(ExitCode::SUCCESS);
    }
    if asks(&["-version", "--version"]) {
        say!("{}", version::text().trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let environment: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let settings = Settings::parse(arguments, &environment)
        .map_err(|error| if error.is_usage() { Failure::usage(error) } else { error.into() })?;
    start_logging(&log_settings(&settings)).map_err(|error| match error {
        // etcd panics over it, and Go's panics end with 2.
        LoggingError::Filter { .. } => Failure::usage(error),
        error => error.into(),
    })?;
    Metrics::install()?;
    let mut prepared = prepare(settings)?;
    prepared.check_unsafe()?;
    for warning in &prepared.settings.warnings {
        tracing::warn!(event = "setting", "{warning}");
    }
    compose::run(prepared)?;
    Ok(ExitCode::SUCCESS)
}

fn log_settings(settings: &Settings) -> LogSettings {
    let format = if settings.log.json { LogFormat::Json } else { LogFormat::Text };
    let output = |output: &config::LogOutput| match (output, &settings.log.rotation) {
        (config::LogOutput::Stderr, _) => LogOutput::Stderr,
        (config::LogOutput::Stdout, _) => LogOutput::Stdout,
        (config::LogOutput::File(path), None) => LogOutput::File(path.clone()),
        (config::LogOutput::File(path), Some(rotation)) => LogOutput::Rotated(
            path.clone(),
            Rotation {
                bytes_max: rotation.bytes_max,
                days_max: rotation.days_max,
                files_max: rotation.files_max,
                compress: rotation.compress,
            },
        ),
    };
    let outputs = settings.log.outputs.iter().map(output).collect();
    LogSettings { filter: settings.log.filter.clone(), format, outputs }
}

/// Finds out who this replica is and fills in what the genesis and the home say.
pub(super) fn prepare(mut settings: Settings) -> anyhow::Result<Prepared> {
    let (genesis, secret, place) = match settings.genesis.clone() {
        None => found(&mut settings)?,
        Some(path) => {
            let read = GenesisFile::read(&path).with_context(|| path.display().to_string())?;
            read.check_sealed().with_context(|| path.display().to_string())?;
            let home = Home::at(settings.home.clone().context("--genesis needs --home")?);
            let known = newest_network(&home, &read)?;
            let secret = own_secret(&home, known.as_ref(), settings.allow_loose_permissions)?;
            let (own, member) = own_address(known.as_ref(), &read, &secret)?;
            from_genesis(&mut settings, &member, &home)?;
            warn_of_voted(&mut settings, &read.genesis, known.as_ref());
            let (genesis, place) = (read, None);
            return Ok(warn_of_small(Prepared { settings, genesis, own, known, secret, place }));
        }
    };
    let known = newest_network(&drop_in::home(&settings), &genesis)?;
    let (own, member) = own_address(known.as_ref(), &genesis, &secret)?;
    drop_in::compare_with(&mut settings, &genesis, &member.name);
    Ok(warn_of_small(Prepared { settings, genesis, own, known, secret, place }))
}

type Founded = (GenesisFile, SecretSeed, Option<MeetingPlace>);

/// Where other members are met, and how strangers are.
pub(super) struct MeetingPlace {
    pub sockets: Vec<PeerListener>,
    pub exchange: Arc<ExchangeTls>,
}

/// The network that etcd's flags alone name, founded or joined if this replica is not in it yet; then
/// the peer sockets are bound already.
fn found(settings: &mut Settings) -> anyhow::Result<Founded> {
    match drop_in::start(settings)? {
        drop_in::Start::Founded(file, secret) => Ok((file, secret, None)),
        drop_in::Start::Founding(founder, secret) => {
            let (place, runtime) = meeting_place(settings)?;
            let founding = node::found(*founder, &place.sockets, &place.exchange);
            let file = runtime.block_on(founding)?;
            let (network, n) = (file.genesis.cluster_id(), file.quorum().n());
            tracing::info!(event = "founded", %network, n, "all members signed the genesis");
            Ok((file, secret, Some(place)))
        }
        drop_in::Start::Joining(joiner, secret) => {
            let (place, runtime) = meeting_place(settings)?;
            let joining = node::join(joiner, &place.sockets, &place.exchange);
            let joined = runtime.block_on(joining)?;
            drop_in::keep(settings, &joined)?;
            let network = joined.file.genesis.cluster_id();
            tracing::info!(event = "joined", %network, "the network let this member in");
            Ok((joined.file, secret, Some(place)))
        }
    }
}

/// What finding the other members takes, after the warnings: it may last.
fn meeting_place(settings: &mut Settings) -> anyhow::Result<(MeetingPlace, Runtime)> {
    for warning in settings.warnings.drain(..) {
        tracing::warn!(event = "setting", "{warning}");
    }
    let exchange = compose::exchange(settings)?;
    let sockets = compose::bind_peers(&settings.peer.listen)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok((MeetingPlace { sockets, exchange }, runtime.context("cannot start the runtime")?))
}

/// The network of HOME/epochs.json, which a replica needs that the genesis does not know.
fn newest_network(home: &Home, file: &GenesisFile) -> anyhow::Result<Option<Network>> {
    let path = home.epochs();
    if !path.exists() {
        return Ok(None);
    }
    let networks = EpochFile::read(&path)?.verify(&file.genesis);
    Ok(networks.with_context(|| path.display().to_string())?.pop())
}

/// The home's key, or the next one once the network knows it as this replica's.
fn own_secret(home: &Home, known: Option<&Network>, loose: bool) -> anyhow::Result<SecretSeed> {
    let next = home.next_replica_key();
    if next.exists() {
        let secret = SecretSeed::load(&next, loose)?;
        let key = secret.public_key();
        if known.is_some_and(|network| network.member_with_key(&key).is_some()) {
            return Ok(secret);
        }
    }
    Ok(SecretSeed::load(&home.replica_key(), loose)?)
}

/// Which member has this key, by the newest network that is known, else by the genesis.
fn own_address(
    known: Option<&Network>,
    file: &GenesisFile,
    secret: &SecretSeed,
) -> anyhow::Result<(ReplicaId, Address)> {
    let key = secret.public_key();
    if let Some(network) = known
        && let Some(id) = network.member_with_key(&key)
        && let Some(address) = network.addresses.get(&id)
    {
        return Ok((id, address.clone()));
    }
    let member = file.member_of(&key).with_context(|| {
        "if it was added later, put `althing epoch export` of a member into the home as epochs.json"
    })?;
    let first = Network::of(&file.genesis);
    let address = first.addresses.get(&member.id).context("the genesis names its members")?;
    Ok((member.id, address.clone()))
}

fn warn_of_small(mut prepared: Prepared) -> Prepared {
    let Prepared { settings, genesis, known, .. } = &mut prepared;
    let quorum = known.as_ref().map_or(genesis.quorum(), |known| known.membership.quorum());
    if quorum.f() == 0 {
        let n = quorum.n();
        let crashes = n - quorum.q();
        settings.warnings.push(format!(
            "n = {n}, f = 0: no replica of this network may lie or be taken over; {crashes} may \
             crash"
        ));
    }
    prepared
}

fn from_genesis(settings: &mut Settings, member: &Address, home: &Home) -> anyhow::Result<()> {
    settings.name.clone_from(&member.name);
    if settings.client.listen.is_empty() {
        settings.client.listen = listeners(&member.client_urls)?;
    }
    if settings.client.advertise.is_empty() {
        settings.client.advertise.clone_from(&member.client_urls);
    }
    if settings.peer.listen.is_empty() {
        settings.peer.listen = listeners(&[format!("https://{}", member.peer_address)])?;
    }
    let tls = &mut settings.client.tls;
    if tls.certificate.is_none() {
        tls.certificate = Some(home.server_certificate());
        tls.key = Some(home.server_key());
    }
    // Without an explicit CA the organisation's own is asked for: a client without a certificate
    // has no name, and no write is without an author.
    if tls.trusted_ca.is_none() {
        tls.trusted_ca = Some(home.ca_certificate());
        tls.client_certificate_required = true;
        tls.common_name_is_user = true;
    }
    Ok(())
}

fn listeners(urls: &[String]) -> anyhow::Result<Vec<ListenUrl>> {
    let listener = |url: &String| Ok(ListenUrl::parse(url)?.widened());
    urls.iter().map(listener).collect()
}

fn warn_of_voted(settings: &mut Settings, genesis: &Genesis, known: Option<&Network>) {
    if genesis.ownership == Ownership::One {
        return;
    }
    let in_force = known.map_or(&genesis.parameters, |network| &network.membership.parameters);
    for flag in voted_differences(settings, in_force) {
        settings.warnings.push(format!(
            "--{flag} differs from the network's value, which counts; organisations change it by \
             `althing config set`"
        ));
    }
}
