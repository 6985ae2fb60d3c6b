//! A change of members or parameters on its way: proposed as a file, signed offline with governance
//! keys, submitted with everybody's copies.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::Method;
use serde::{Deserialize, Serialize};

use super::connection::Connection;
use super::epoch::EpochFile;
use super::http::{Http, block_on};
use super::output::say;
use crate::chain::{ConfigAction, ConfigChange, Genesis, Network};
use crate::codec::{Decode, Encode};
use crate::config::{GenesisFile, Home, SecretSeed, create_new, to_hex};
use crate::types::Millis;

/// How long organisations have to sign, in block time.
const OPEN_MS: u64 = 7 * 24 * 3_600_000;
/// A request's 7 s, the way to the replica and back.
const PATIENCE: Duration = Duration::from_secs(15);

/// What every command that changes members or parameters takes.
#[derive(clap::Args)]
pub(super) struct Act {
    /// The genesis; all else is verified from it. Default: the home's.
    #[arg(long)]
    genesis: Option<PathBuf>,
    /// How every epoch ended, from `althing epoch export`. Default: asked for at the replica.
    #[arg(long)]
    epochs: Option<PathBuf>,
    /// Where to write the proposal, or with --sign the signed copy.
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Sign this proposal with the governance key of --home; needs no network.
    #[arg(long, value_name = "PROPOSAL", conflicts_with = "signatures")]
    sign: Option<PathBuf>,
    /// Submit: the signed copies of one proposal.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    signatures: Vec<PathBuf>,
    /// Take key files that others could read.
    #[arg(long)]
    allow_loose_permissions: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeJson {
    version: u16,
    cluster_id: String,
    /// For people; what counts is `change`, and every tool shows it from there.
    summary: String,
    signed_by: Vec<String>,
    change: String,
}

/// Where a change is made, and from which network.
pub(super) struct Ground {
    pub genesis: Genesis,
    pub network: Network,
}

impl Act {
    /// Proposes what `action` makes of the newest network, or signs, or submits. `fits` says whether a
    /// file holds the kind of change this command is for.
    pub fn run(
        &self,
        fits: fn(&ConfigAction) -> bool,
        action: impl FnOnce(&Ground, &Self) -> anyhow::Result<ConfigAction>,
    ) -> anyhow::Result<()> {
        let kind = |path: &Path, change: &ConfigChange| {
            if fits(&change.action) {
                return Ok(());
            }
            bail!("{} holds another kind of change: {}", path.display(), summary(&change.action))
        };
        if let Some(path) = &self.sign {
            let change = read(path, &self.genesis()?)?;
            kind(path, &change)?;
            return self.sign_file(change);
        }
        if let Some(first) = self.signatures.first() {
            let change = self.joined()?;
            kind(first, &change)?;
            return self.submit(&change);
        }
        let ground = self.ground()?;
        let change = ConfigChange {
            base: ground.network.membership.config_hash(),
            not_after_ms: Millis(now_ms() + OPEN_MS),
            action: action(&ground, self)?,
            attestation: None,
            votes: Vec::new(),
        };
        let output = self.output()?;
        write(output, &change, &ground.genesis, &[])?;
        let needed = ground.network.membership.quorum().q();
        say!("{}", summary(&change.action));
        say!("epoch {}, {}", ground.network.membership.epoch, output.display());
        match change.action {
            ConfigAction::RotateKey { .. } => {
                say!("Next: this replica's organisation signs it with --sign.");
            }
            _ => say!(
                "Next: organisations that hold {needed} voting replicas sign it with --sign; then \
                 submit it with --signatures."
            ),
        }
        Ok(())
    }

    fn output(&self) -> anyhow::Result<&Path> {
        self.output.as_deref().context("-o FILE says where to write it")
    }

    /// The home's directory, where keys lie.
    pub fn home(&self) -> anyhow::Result<Home> {
        Ok(Home::at(self.connection.home().context("--home says where the keys lie")?))
    }

    /// A secret of the home.
    pub fn secret(&self, path: &Path) -> anyhow::Result<SecretSeed> {
        Ok(SecretSeed::load(path, self.allow_loose_permissions)?)
    }

    fn genesis(&self) -> anyhow::Result<Genesis> {
        let path = match (&self.genesis, self.connection.home()) {
            (Some(path), _) => path.clone(),
            (None, Some(home)) => Home::at(home).genesis(),
            (None, None) => bail!("--genesis FILE says which network"),
        };
        let file = GenesisFile::read(&path).with_context(|| path.display().to_string())?;
        file.check_sealed().with_context(|| path.display().to_string())?;
        Ok(file.genesis)
    }

    /// The newest network, verified from the genesis.
    fn ground(&self) -> anyhow::Result<Ground> {
        let genesis = self.genesis()?;
        let file = match &self.epochs {
            Some(path) => EpochFile::read(path)?,
            None => EpochFile::fetch(&self.connection)?,
        };
        let network = file.verify(&genesis)?.pop().context("a network has an epoch")?;
        Ok(Ground { genesis, network })
    }

    fn sign_file(&self, mut change: ConfigChange) -> anyhow::Result<()> {
        let ground = self.ground_for_signing()?;
        let home = self.home()?;
        let secret = self.secret(&home.governance_key())?;
        let key = secret.public_key();
        let mut all = ground.network.organisations.iter();
        let known = all.find(|(_, organisation)| organisation.governance_keys.contains(&key));
        let Some((id, organisation)) = known else {
            bail!(
                "{} is no organisation's governance key ({key}); take the home of an organisation \
                 that is a member, or --epochs of a later epoch",
                home.governance_key().display()
            );
        };
        change.vote(*id, &secret.signer(), &ground.genesis.cluster_id());
        let names = voters(&change, &ground.network);
        write(self.output()?, &change, &ground.genesis, &names)?;
        say!("{} agrees: {}", organisation.name, summary(&change.action));
        Ok(())
    }

    /// Signing is offline: without an epoch file the genesis's governance keys count.
    fn ground_for_signing(&self) -> anyhow::Result<Ground> {
        let genesis = self.genesis()?;
        let network = match &self.epochs {
            None => Network::of(&genesis),
            Some(path) => {
                let mut all = EpochFile::read(path)?.verify(&genesis)?;
                all.pop().context("a network has an epoch")?
            }
        };
        Ok(Ground { genesis, network })
    }

    /// One change with the votes of all copies.
    fn joined(&self) -> anyhow::Result<ConfigChange> {
        let genesis = self.genesis()?;
        let mut joined: Option<ConfigChange> = None;
        for path in &self.signatures {
            let copy = read(path, &genesis)?;
            let Some(first) = &mut joined else {
                joined = Some(copy);
                continue;
            };
            let id = genesis.cluster_id();
            if first.signed_bytes(&id) != copy.signed_bytes(&id) {
                bail!("{} is a copy of another proposal", path.display());
            }
            copy.votes.into_iter().for_each(|vote| first.add_vote(vote));
        }
        joined.context("--signatures names no file")
    }

    fn submit(&self, change: &ConfigChange) -> anyhow::Result<()> {
        let http = Http::new(&self.connection.endpoint()?)?;
        let posted = http.send(Method::POST, "/althing/v1/change", (change.to_bytes(), PATIENCE));
        let answer = block_on(posted)??;
        if answer.status != 200 {
            bail!("not made ({}): {}", answer.status, answer.text());
        }
        say!("{}: {}", answer.text(), summary(&change.action));
        Ok(())
    }
}

fn voters(change: &ConfigChange, network: &Network) -> Vec<String> {
    let name = |id| network.organisations.get(&id).map(|organisation| organisation.name.clone());
    change.votes.iter().filter_map(|vote| name(vote.organisation)).collect()
}

fn write(
    path: &Path,
    change: &ConfigChange,
    genesis: &Genesis,
    signed_by: &[String],
) -> anyhow::Result<()> {
    let json = ChangeJson {
        version: 1,
        cluster_id: genesis.cluster_id().to_string(),
        summary: summary(&change.action),
        signed_by: signed_by.to_vec(),
        change: to_hex(&change.to_bytes()),
    };
    create_new(path, (serde_json::to_string_pretty(&json)? + "\n").as_bytes(), 0o644)?;
    Ok(())
}

fn read(path: &Path, genesis: &Genesis) -> anyhow::Result<ConfigChange> {
    let shown = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(shown)?;
    let json: ChangeJson = serde_json::from_str(&text).with_context(shown)?;
    let id = genesis.cluster_id().to_string();
    if json.version != 1 || json.cluster_id != id {
        bail!(
            "{} is for network {} (version {}), not {id}",
            shown(),
            json.cluster_id,
            json.version
        );
    }
    let bytes = from_hex(&json.change).with_context(|| format!("{}: no hexadecimal", shown()))?;
    ConfigChange::from_bytes(bytes).map_err(|error| anyhow::anyhow!("{}: {error}", shown()))
}

/// Bytes of lower-case hexadecimal digits.
pub(super) fn from_hex(text: &str) -> Option<Bytes> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let whole = text.len().is_multiple_of(2) && text.is_ascii();
    whole.then(|| pairs.map(byte).collect::<Option<Vec<u8>>>()).flatten().map(Bytes::from)
}

/// A change in words, from what is signed.
pub(super) fn summary(action: &ConfigAction) -> String {
    match action {
        ConfigAction::Add(new) => format!(
            "add {} {} of organisation {} at {} (key {})",
            if new.observer { "observer" } else { "learner" },
            new.name,
            new.organisation,
            new.peer_address,
            new.key
        ),
        ConfigAction::Promote { replica } => format!("let replica {replica} vote"),
        ConfigAction::Remove { replica, accept_smaller_f } => format!(
            "remove replica {replica}{}",
            if *accept_smaller_f { ", f may shrink" } else { "" }
        ),
        ConfigAction::Replace { promoted, removed } => {
            format!("let replica {promoted} vote in place of replica {removed}, which leaves")
        }
        ConfigAction::RotateKey { replica, key, .. } => {
            format!("replica {replica} signs with key {key} from now on")
        }
        ConfigAction::Parameters(parameters) => format!("set parameters: {parameters:?}"),
        ConfigAction::Reserve { peer_address, voting } => {
            let role = if *voting { "member" } else { "learner" };
            format!("expect a {role} at {peer_address}")
        }
        ConfigAction::Admit { replica, hello } => {
            format!("admit {} as replica {replica}, key {}", hello.name, hello.key)
        }
        ConfigAction::Move { replica, peer_address } => {
            format!("find replica {replica} at {peer_address}")
        }
    }
}

fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
