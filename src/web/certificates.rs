use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::Web;
use super::answer::{JSON, failure, found, method_not_allowed};
use crate::tls::{CertificateFacts, Role};

/// A certificate in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CertificatePage {
    /// `clients` (what they are shown), `authority` (who signs theirs), `revocations` (which of theirs count no
    /// more); the same behind `peer URLs`, for the exchange of members of one owner; `peers` (what this replica
    /// shows on links).
    pub r#use: String,
    /// Where it comes from; none for what the process made itself.
    pub file: Option<String>,
    /// Whose it is; of revocations how many there are.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Serial number in hexadecimal.
    pub serial: String,
    /// Unix seconds from which it is good.
    pub not_before_seconds: i64,
    /// Unix seconds from which it is not; the largest number for never.
    pub not_after_seconds: i64,
}

fn page(r#use: &str, facts: CertificateFacts) -> CertificatePage {
    CertificatePage {
        r#use: r#use.to_owned(),
        file: facts.file.map(|file| file.display().to_string()),
        subject: facts.subject,
        issuer: facts.issuer,
        serial: facts.serial,
        not_before_seconds: facts.not_before_seconds,
        not_after_seconds: facts.not_after_seconds,
    }
}

fn named(at: &str, role: Role) -> String {
    let what = match role {
        Role::Shown => return if at.is_empty() { "clients".to_owned() } else { at.to_owned() },
        Role::Authority => "authority",
        Role::Revocations => "revocations",
    };
    if at.is_empty() { what.to_owned() } else { format!("{at}: {what}") }
}

/// What the listeners use now, authorities and revoked certificates behind the certificate shown, and what
/// this replica shows its peers.
pub(super) async fn certificates(State(web): State<Web>, method: Method) -> Response {
    if method != Method::GET {
        return method_not_allowed();
    }
    let clients = web.settings.tls.as_ref().map(|tls| tls.facts()).unwrap_or_default();
    let pages = |at: &'static str, all: Vec<CertificateFacts>| {
        all.into_iter().map(move |facts| page(&named(at, facts.role), facts))
    };
    let rows = pages("", clients).chain(pages("peer URLs", web.handle.exchange_certificates()));
    let peers = web.handle.peer_certificate().map(|facts| page("peers", facts));
    match serde_json::to_string(&rows.chain(peers).collect::<Vec<_>>()) {
        Ok(text) => found(JSON, Body::from(text)),
        Err(why) => failure(StatusCode::INTERNAL_SERVER_ERROR, &why.to_string()),
    }
}
