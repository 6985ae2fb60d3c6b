use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::Web;
use super::answer::{BYTES, JSON, failure, found, method_not_allowed};
use crate::chain::EvidenceKind;
use crate::types::{Digest, ReplicaId};

/// One proof, as `/evidence` lists it. The file itself is at `/evidence/DIGEST`, and proves itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceItem {
    /// Its name.
    pub digest: String,
    /// What it proves, in a word.
    pub kind: String,
    /// The organisations it proves guilty.
    pub accused: Vec<String>,
    /// The block it is written down in, for all to see; none if in none.
    #[serde(default)]
    pub recorded: Option<u64>,
    /// Whether the replica that answers keeps the file.
    #[serde(default)]
    pub kept: bool,
}

/// The proofs that a replica keeps or that are on record, by digest.
pub(super) fn items(web: &Web) -> Vec<EvidenceItem> {
    let item = |digest: &Digest, kind: EvidenceKind, accused: &[ReplicaId]| EvidenceItem {
        digest: digest.to_string(),
        kind: kind.name().to_owned(),
        accused: accused.iter().map(|id| web.name(*id)).collect(),
        recorded: None,
        kept: false,
    };
    let mut all = BTreeMap::new();
    for kept in web.handle.evidence().values() {
        let found = item(&kept.digest, kept.kind, &kept.accused);
        all.insert(kept.digest, EvidenceItem { kept: true, ..found });
    }
    let proofs = web.handle.read(|shared| shared.state.proofs.clone());
    for (digest, proof) in proofs.list() {
        let one = all.entry(*digest);
        let one = one.or_insert_with(|| item(digest, proof.kind, &[proof.accused]));
        one.recorded = Some(proof.height.0);
    }
    all.into_values().collect()
}

pub(super) async fn list(State(web): State<Web>, method: Method) -> Response {
    if method != Method::GET {
        return method_not_allowed();
    }
    let text = serde_json::to_string(&items(&web)).expect("plain fields have a JSON form");
    found(JSON, Body::from(text + "\n"))
}

pub(super) async fn one(
    State(web): State<Web>,
    method: Method,
    Path(digest): Path<String>,
) -> Response {
    if method != Method::GET {
        return method_not_allowed();
    }
    if !web.handle.evidence().contains_key(&digest) {
        return failure(
            StatusCode::NOT_FOUND,
            "no such proof is kept here; GET /evidence lists them",
        );
    }
    match web.handle.evidence_file(&digest) {
        Ok(bytes) => found(BYTES, Body::from(bytes)),
        Err(why) => failure(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}
