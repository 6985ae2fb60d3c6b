//! `althing member`, `althing key` and `althing config`: what organisations change together.

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use super::change::{Act, Ground};
use super::connection::Connection;
use super::http::{Http, block_on};
use super::output::{Failure, say};
use crate::chain::{ConfigAction, NewReplica, Parameters, possession_bytes};
use crate::config::{PublicFile, SecretSeed};
use crate::crypto::Scheme;
use crate::types::ReplicaId;

const PATIENCE: Duration = Duration::from_secs(10);

#[derive(clap::Subcommand)]
pub(super) enum Member {
    /// Show who belongs to the network.
    List {
        #[command(flatten)]
        connection: Connection,
    },
    /// Add the replica of --home, as a learner: it follows and does not vote.
    Add {
        /// A member's organisation whose second replica this is; else the home's own, new one.
        #[arg(long)]
        organisation: Option<String>,
        /// The replica's name; default: the one of its public file.
        #[arg(long)]
        name: Option<String>,
        /// Never to be promoted: another endpoint of its organisation.
        #[arg(long)]
        observer: bool,
        #[command(flatten)]
        act: Act,
    },
    /// Let a learner vote; submit it through the learner itself, which attests its state.
    Promote {
        /// Its name.
        name: Option<String>,
        #[command(flatten)]
        act: Act,
    },
    /// Take a replica out.
    Remove {
        /// Its name.
        name: Option<String>,
        /// Though fewer faulty replicas are tolerated afterwards.
        #[arg(long)]
        accept_smaller_f: bool,
        #[command(flatten)]
        act: Act,
    },
    /// Let a learner vote in a voter's place.
    Replace {
        /// The voter that leaves.
        name: Option<String>,
        /// The learner.
        #[arg(long)]
        with: Option<String>,
        #[command(flatten)]
        act: Act,
    },
}

#[derive(clap::Subcommand)]
pub(super) enum Key {
    /// Give the replica of --home another key: replica.key.next, in force once the change is made.
    Rotate {
        #[command(flatten)]
        act: Act,
    },
}

#[derive(clap::Subcommand)]
pub(super) enum Config {
    /// Show the parameters in force.
    Get {
        #[command(flatten)]
        connection: Connection,
    },
    /// Propose other parameters, NAME=VALUE.
    Set {
        /// Such as view_timeout_ms=2000.
        settings: Vec<String>,
        #[command(flatten)]
        act: Act,
    },
}

pub(super) fn member(member: Member) -> Result<(), Failure> {
    match member {
        Member::List { connection } => list(&connection)?,
        Member::Add { organisation, name, observer, act } => {
            let fits = |action: &ConfigAction| matches!(action, ConfigAction::Add(_));
            act.run(fits, |ground, act| {
                let new = new_replica(ground, act, (organisation, name))?;
                Ok(ConfigAction::Add(NewReplica { observer, ..new }))
            })?;
        }
        Member::Promote { name, act } => {
            let fits = |action: &ConfigAction| matches!(action, ConfigAction::Promote { .. });
            act.run(fits, |ground, _| {
                Ok(ConfigAction::Promote { replica: named(ground, name.as_ref())? })
            })?;
        }
        Member::Remove { name, accept_smaller_f, act } => {
            let fits = |action: &ConfigAction| matches!(action, ConfigAction::Remove { .. });
            act.run(fits, |ground, _| {
                let replica = named(ground, name.as_ref())?;
                Ok(ConfigAction::Remove { replica, accept_smaller_f })
            })?;
        }
        Member::Replace { name, with, act } => {
            let fits = |action: &ConfigAction| matches!(action, ConfigAction::Replace { .. });
            act.run(fits, |ground, _| {
                let removed = named(ground, name.as_ref())?;
                let promoted = named(ground, with.as_ref()).context("--with LEARNER")?;
                Ok(ConfigAction::Replace { promoted, removed })
            })?;
        }
    }
    Ok(())
}

pub(super) fn key(key: Key) -> Result<(), Failure> {
    let Key::Rotate { act } = key;
    let fits = |action: &ConfigAction| matches!(action, ConfigAction::RotateKey { .. });
    act.run(fits, |ground, act| {
        let home = act.home()?;
        let old = act.secret(&home.replica_key())?.public_key();
        let replica = ground.network.member_with_key(&old);
        let replica = replica.with_context(|| format!("no member has this home's key {old}"))?;
        let new = SecretSeed::draw().context("the system gives no random bytes")?;
        new.save(&home.next_replica_key())?;
        let key = new.public_key();
        let bytes = possession_bytes(&ground.genesis.cluster_id(), &key);
        say!(
            "The new key lies in {}; keep both until the change is made and the replica was \
             started again.",
            home.next_replica_key().display()
        );
        Ok(ConfigAction::RotateKey { replica, key, possession: new.signer().sign(&bytes) })
    })?;
    Ok(())
}

pub(super) fn config(config: Config) -> Result<(), Failure> {
    match config {
        Config::Get { connection } => {
            let page = network_page(&connection)?;
            say!("{}", serde_json::to_string_pretty(&page["parameters"])?);
        }
        Config::Set { settings, act } => {
            let fits = |action: &ConfigAction| matches!(action, ConfigAction::Parameters(_));
            act.run(fits, |ground, _| {
                if settings.is_empty() {
                    bail!("name at least one parameter: NAME=VALUE");
                }
                let mut parameters = ground.network.membership.parameters.clone();
                settings.iter().try_for_each(|setting| set(&mut parameters, setting))?;
                Ok(ConfigAction::Parameters(parameters))
            })?;
        }
    }
    Ok(())
}

fn named(ground: &Ground, name: Option<&String>) -> anyhow::Result<ReplicaId> {
    let name = name.context("name the replica")?;
    let names = || {
        let all: Vec<&str> =
            ground.network.addresses.values().map(|address| address.name.as_str()).collect();
        all.join(", ")
    };
    let found = ground.network.member_named(name);
    found.with_context(|| format!("{name} is no member; members are {}", names()))
}

fn new_replica(
    ground: &Ground,
    act: &Act,
    (organisation, name): (Option<String>, Option<String>),
) -> anyhow::Result<NewReplica> {
    let home = act.home()?;
    let secret = act.secret(&home.replica_key())?;
    let listed = std::fs::read_dir(home.directory())?;
    let mut files = listed.filter_map(|entry| Some(entry.ok()?.path()));
    let public = files.find(|path| path.to_string_lossy().ends_with(".public.json"));
    let public = public.context("the home holds no NAME.public.json; run `althing org init`")?;
    let public = PublicFile::read(&public).with_context(|| public.display().to_string())?;
    let own = organisation.is_none();
    let organisation = organisation.unwrap_or_else(|| public.name.clone());
    let known = ground.network.organisation_named(&organisation).is_some();
    if !own && !known {
        bail!("{organisation} is no organisation of this network");
    }
    let key = secret.public_key();
    let bytes = possession_bytes(&ground.genesis.cluster_id(), &key);
    Ok(NewReplica {
        organisation,
        governance_keys: if known { Vec::new() } else { public.governance_keys },
        name: name.unwrap_or(public.name),
        key,
        possession: secret.signer().sign(&bytes),
        client_urls: public.client_urls,
        peer_address: public.peer_address,
        observer: false,
    })
}

fn set(parameters: &mut Parameters, setting: &str) -> anyhow::Result<()> {
    let (name, value) =
        setting.split_once('=').with_context(|| format!("{setting}: NAME=VALUE"))?;
    let number: u64 = value.parse().with_context(|| format!("{setting}: a number is wanted"))?;
    let small = u32::try_from(number).with_context(|| format!("{setting}: too large"));
    match name {
        "window" => parameters.window = small?,
        "time_bound_ms" => parameters.time_bound_ms = number,
        "view_timeout_ms" => parameters.view_timeout_ms = number,
        "request_bytes_max" => parameters.request_bytes_max = small?,
        "txn_ops_max" => parameters.txn_ops_max = small?,
        "quota_bytes" => parameters.quota_bytes = number,
        "checkpoint_log_bytes" => parameters.checkpoint_log_bytes = number,
        "checkpoint_state_factor" => parameters.checkpoint_state_factor = small?,
        "tenure_blocks" => parameters.tenure_blocks = small?,
        _ => bail!("{name} is no parameter; `althing config get` lists them"),
    }
    Ok(())
}

fn network_page(connection: &Connection) -> anyhow::Result<Value> {
    let http = Http::new(&connection.endpoint()?)?;
    block_on(http.json("/althing/v1/network", PATIENCE))?
}

fn list(connection: &Connection) -> anyhow::Result<()> {
    let page = network_page(connection)?;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    say!("epoch {}, n = {}, f = {}, q = {}", page["epoch"], page["n"], page["f"], page["q"]);
    for member in page["members"].as_array().into_iter().flatten() {
        let urls = member["client_urls"].as_array().into_iter().flatten().map(text);
        say!(
            "{:>3}  {}  {}  {}  {}  peers {}  key {}",
            text(&member["replica"]),
            text(&member["name"]),
            text(&member["organisation"]),
            text(&member["role"]),
            urls.collect::<Vec<_>>().join(","),
            text(&member["peer_address"]),
            text(&member["key"])
        );
    }
    Ok(())
}
