use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::Web;
use super::answer::{BYTES, JSON, failure, found, method_not_allowed};

/// One proof, as `/evidence` lists it. The file itself is at `/evidence/DIGEST`, and proves itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceItem {
    /// Its name.
    pub digest: String,
    /// What it proves, in a word.
    pub kind: String,
    /// The organisations it proves guilty.
    pub accused: Vec<String>,
}

pub(super) async fn list(State(web): State<Web>, method: Method) -> Response {
    if method != Method::GET {
        return method_not_allowed();
    }
    let kept = web.handle.evidence();
    let items: Vec<EvidenceItem> = kept
        .into_iter()
        .map(|(digest, kept)| EvidenceItem {
            digest,
            kind: kept.kind.to_owned(),
            accused: kept.accused.iter().map(|id| web.name(*id)).collect(),
        })
        .collect();
    let text = serde_json::to_string(&items).expect("plain fields have a JSON form");
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
        return failure(StatusCode::NOT_FOUND, "no such proof; GET /evidence lists them");
    }
    match web.handle.evidence_file(&digest) {
        Ok(bytes) => found(BYTES, Body::from(bytes)),
        Err(why) => failure(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}
