use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::Web;
use super::answer::{JSON, failure, found, method_not_allowed};
use crate::tls::CertificateFacts;

/// A certificate in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CertificatePage {
    /// `clients` (what they are shown), `authority` (who signs theirs), `peers` (what peers are shown).
    pub r#use: String,
    /// Where it comes from; none for what the process made itself.
    pub file: Option<String>,
    /// Whose it is.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Serial number in hexadecimal.
    pub serial: String,
    /// Unix seconds from which it is good.
    pub not_before_seconds: i64,
    /// Unix seconds from which it is not.
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

/// What the listeners use now, authorities behind the certificate shown, and this replica's own for
/// peers.
pub(super) async fn certificates(State(web): State<Web>, method: Method) -> Response {
    if method != Method::GET {
        return method_not_allowed();
    }
    let facts = web.settings.tls.as_ref().map(|tls| tls.facts()).unwrap_or_default();
    let named = |index| if index == 0 { "clients" } else { "authority" };
    let rows = facts.into_iter().enumerate().map(|(index, facts)| page(named(index), facts));
    let peers = web.handle.peer_certificate().map(|facts| page("peers", facts));
    match serde_json::to_string(&rows.chain(peers).collect::<Vec<_>>()) {
        Ok(text) => found(JSON, Body::from(text)),
        Err(why) => failure(StatusCode::INTERNAL_SERVER_ERROR, &why.to_string()),
    }
}
