use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::Method;
use serde::{Deserialize, Serialize};

use super::Web;
use super::answer::{JSON, found, method_not_allowed};
use crate::chain::EvidenceKind;
use crate::node::NodeStatus;
use crate::types::ReplicaId;

/// What `/althing/v1/status` says: this replica's own view, which it could lie about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusPage {
    /// The organisation's name.
    pub name: String,
    /// The replica's position in the genesis.
    pub replica: u16,
    /// Althing's version.
    pub version: String,
    /// The network, in hexadecimal.
    pub cluster_id: String,
    /// Voting replicas.
    pub n: usize,
    /// How many of them may lie.
    pub f: usize,
    /// How many of them decide.
    pub q: usize,
    /// The epoch.
    pub epoch: u64,
    /// The view in force, or the one asked for.
    pub view: u64,
    /// What this replica does in it.
    pub mode: String,
    /// The primary's name, if a quorum is in one view.
    pub primary: Option<String>,
    /// Whether a quorum was heard in normal mode of one view.
    pub has_leader: bool,
    /// Highest committed block.
    pub committed: u64,
    /// Highest executed block.
    pub executed: u64,
    /// The state's root after it, in hexadecimal.
    pub exec_root: String,
    /// Blocks behind the highest that any reachable replica says is committed.
    pub lag: u64,
    /// Voters in reach, this one included if it votes, minus the quorum.
    pub quorum_margin: i64,
    /// Peers whose link stands.
    pub peers_up: usize,
    /// The store's revision.
    pub revision: i64,
    /// The compact revision.
    pub compact_revision: i64,
    /// Keys in the store.
    pub keys: u64,
    /// Logical bytes, what the quota counts.
    pub logical_bytes: u64,
    /// The quota.
    pub quota_bytes: u64,
    /// Height of the newest checkpoint on disk.
    pub checkpoint: u64,
    /// Height of the newest checkpoint that a quorum holds.
    pub stable_checkpoint: u64,
    /// Bytes of log written since the process started.
    pub log_bytes: u64,
    /// Flushes of the log since the process started.
    pub syncs: u64,
    /// Ops admitted here and not yet executed.
    pub pending: u64,
    /// Bundles waiting for a block.
    pub pool_bundles: usize,
    /// Why this replica is quarantined, if it is.
    pub quarantined: Option<String>,
    /// Why this replica is fenced, if it is: its votes are lost.
    #[serde(default)]
    pub fenced: Option<String>,
    /// Who is proven to have broken the protocol, by what is on record and by the proofs this replica
    /// keeps.
    #[serde(default)]
    pub proven: Vec<ProvenLiar>,
    /// Signatures made for the protocol.
    pub signatures: u64,
    /// Signatures checked for the protocol.
    pub verifications: u64,
    /// View changes this replica asked for.
    pub view_changes: u64,
    /// The other replicas, as they last said.
    pub peers: Vec<PeerStatus>,
}

/// A replica against which there are proofs; `/evidence` lists them and has the files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvenLiar {
    /// The organisation's name.
    pub name: String,
    /// The replica's position in the genesis.
    pub replica: u16,
    /// What was proven, each kind once.
    pub kinds: Vec<String>,
    /// How many proofs this replica keeps.
    pub proofs: usize,
    /// How many are on record: in the replicated state, the same on every replica.
    #[serde(default)]
    pub recorded: usize,
}

/// Another replica, as its last STATUS showed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The organisation's name.
    pub name: String,
    /// The replica's position in the genesis.
    pub replica: u16,
    /// Whether the link stands.
    pub up: bool,
    /// Its view.
    pub view: u64,
    /// What it does.
    pub mode: String,
    /// Its committed height.
    pub committed: u64,
    /// Its executed height.
    pub executed: u64,
    /// Milliseconds since anything was heard of it; none if nothing ever was.
    pub age_ms: Option<u64>,
}

fn proven(web: &Web) -> Vec<ProvenLiar> {
    let mut proven: BTreeMap<ReplicaId, (BTreeSet<EvidenceKind>, usize, usize)> = BTreeMap::new();
    for kept in web.handle.evidence().values() {
        for accused in &kept.accused {
            let (kinds, kept_here, _) = proven.entry(*accused).or_default();
            kinds.insert(kept.kind);
            *kept_here += 1;
        }
    }
    let on_record = web.handle.read(|shared| shared.state.proofs.clone());
    for (_, proof) in on_record.list() {
        let (kinds, _, recorded) = proven.entry(proof.accused).or_default();
        kinds.insert(proof.kind);
        *recorded += 1;
    }
    let liar = |(id, (kinds, proofs, recorded)): (ReplicaId, _)| {
        let kinds: BTreeSet<EvidenceKind> = kinds;
        ProvenLiar {
            name: web.name(id),
            replica: id.0,
            kinds: kinds.into_iter().map(|kind| kind.name().to_owned()).collect(),
            proofs,
            recorded,
        }
    };
    proven.into_iter().map(liar).collect()
}

pub(super) async fn status(State(web): State<Web>, method: Method) -> Response {
    if method != Method::GET {
        return method_not_allowed();
    }
    let page = page(&web, &web.handle.status());
    let text = serde_json::to_string(&page).expect("plain fields have a JSON form");
    found(JSON, Body::from(text + "\n"))
}

fn page(web: &Web, status: &NodeStatus) -> StatusPage {
    let genesis = web.handle.genesis();
    let membership = web.handle.read(|shared| shared.state.membership().clone());
    let quorum = membership.quorum();
    let name = |id: ReplicaId| web.name(id);
    let core = &status.core;
    let peers: Vec<PeerStatus> = core
        .peers
        .iter()
        .map(|(id, peer)| PeerStatus {
            name: name(*id),
            replica: id.0,
            up: peer.up,
            view: peer.view.0,
            mode: mode(peer.mode),
            committed: peer.committed.0,
            executed: peer.executed.0,
            age_ms: peer.age_ms,
        })
        .collect();
    let reachable = peers.iter().filter(|peer| peer.up);
    let highest = reachable.map(|peer| peer.committed).max().unwrap_or(0);
    StatusPage {
        name: name(status.own),
        replica: status.own.0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster_id: genesis.cluster_id().to_string(),
        n: quorum.n(),
        f: quorum.f(),
        q: quorum.q(),
        epoch: core.epoch.0,
        view: core.view.0,
        mode: mode(core.mode),
        primary: core.primary.map(name),
        has_leader: core.has_leader,
        committed: core.committed.0,
        executed: core.executed.0,
        exec_root: core.exec_root.to_string(),
        lag: highest.max(core.committed.0) - core.executed.0.min(core.committed.0),
        quorum_margin: core.quorum_margin(status.own, &membership),
        peers_up: peers.iter().filter(|peer| peer.up).count(),
        revision: status.revision.0,
        compact_revision: status.compact_revision.0,
        keys: status.keys,
        logical_bytes: status.logical_bytes,
        quota_bytes: membership.parameters.quota_bytes,
        checkpoint: status.checkpoint.0,
        stable_checkpoint: status.core.stable_checkpoint.0,
        log_bytes: status.log_bytes,
        syncs: status.syncs,
        pending: status.pending,
        pool_bundles: core.pool_bundles,
        quarantined: status.quarantined.clone(),
        fenced: status.fenced.clone(),
        proven: proven(web),
        signatures: core.counters.signatures,
        verifications: core.counters.verifications,
        view_changes: core.counters.view_changes,
        peers,
    }
}

/// A mode's name in lower case.
fn mode(mode: impl core::fmt::Debug) -> String {
    format!("{mode:?}").to_ascii_lowercase()
}
