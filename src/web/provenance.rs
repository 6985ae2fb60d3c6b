use axum::Extension;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::Web;
use super::answer::{JSON, decoded, failure, found, method_not_allowed, parameter, parameters};
use crate::chain::ChangeKind;
use crate::node::{Provenance, WrittenBy};
use crate::tls::ClientIdentity;
use crate::types::Revision;

const HISTORY_DEFAULT: usize = 100;
const HISTORY_MAX: usize = 1_000;

/// One change of a key and who asked for it. Only the replica, hence its organisation, is proved;
/// client and user are what it claims (trust.md 3.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangePage {
    /// The revision the change made.
    pub revision: i64,
    /// The block.
    pub height: u64,
    /// The op in the block, counted over all entries from 0; none for the system's own.
    pub ordinal: Option<u32>,
    /// put or delete.
    pub kind: String,
    /// The organisation whose replica admitted the op.
    pub organisation: Option<String>,
    /// That replica.
    pub replica: Option<u16>,
    /// The client certificate's common name.
    pub client: Option<String>,
    /// The etcd user.
    pub user: Option<String>,
    /// The lease that expired.
    pub expired_lease: Option<i64>,
}

/// The last change of a key, or with `revision=R` the last at or below it.
pub(super) async fn blame(
    State(web): State<Web>,
    method: Method,
    identity: Option<Extension<ClientIdentity>>,
    RawQuery(query): RawQuery,
) -> Response {
    let query = query.as_deref();
    let bound = parameter(&parameters(query), "revision").map(str::parse::<i64>);
    let until = match bound {
        None => None,
        Some(Ok(revision)) => Some(Revision(revision)),
        Some(Err(_)) => return failure(StatusCode::BAD_REQUEST, "revision is a number"),
    };
    let limit = if until.is_none() { 1 } else { HISTORY_MAX };
    let mut changes = match search(&web, (&method, identity), query, limit).await {
        Ok(changes) => changes,
        Err(response) => return response,
    };
    changes.retain(|change| until.is_none_or(|until| change.revision <= until));
    match changes.first() {
        Some(change) => json(&page(&web, change)),
        None => failure(StatusCode::NOT_FOUND, "no change of this key is known"),
    }
}

/// The last changes of a key, newest first, at most `limit`.
pub(super) async fn history(
    State(web): State<Web>,
    method: Method,
    identity: Option<Extension<ClientIdentity>>,
    RawQuery(query): RawQuery,
) -> Response {
    let query = query.as_deref();
    let limit = match parameter(&parameters(query), "limit").map(str::parse::<usize>) {
        None => HISTORY_DEFAULT,
        Some(Ok(limit)) => limit.clamp(1, HISTORY_MAX),
        Some(Err(_)) => return failure(StatusCode::BAD_REQUEST, "limit is a number"),
    };
    match search(&web, (&method, identity), query, limit).await {
        Ok(changes) => json(&changes.iter().map(|one| page(&web, one)).collect::<Vec<_>>()),
        Err(response) => response,
    }
}

async fn search(
    web: &Web,
    (method, identity): (&Method, Option<Extension<ClientIdentity>>),
    query: Option<&str>,
    limit: usize,
) -> Result<Vec<Provenance>, Response> {
    if method != Method::GET {
        return Err(method_not_allowed());
    }
    let Some(key) = key(query) else {
        return Err(failure(StatusCode::BAD_REQUEST, "give ?key=KEY, with %xx for other bytes"));
    };
    let name = identity.and_then(|Extension(identity)| identity.common_name);
    if !web.handle.may_read(name.as_deref().unwrap_or_default(), &key) {
        let text = "permission denied: users and roles are on, and no client certificate names one that may \
                    read this key";
        return Err(failure(StatusCode::FORBIDDEN, text));
    }
    let found = web.handle.provenance(key, limit).await;
    found.map_err(|error| failure(StatusCode::SERVICE_UNAVAILABLE, &error))
}

/// A key is bytes, not text.
fn key(query: Option<&str>) -> Option<Bytes> {
    let mut pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| *name == "key")?;
    let key = decoded(value);
    (!key.is_empty()).then(|| Bytes::from(key))
}

fn page(web: &Web, change: &Provenance) -> ChangePage {
    let text = |bytes: &Bytes| {
        let given = (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes));
        given.map(std::borrow::Cow::into_owned)
    };
    let kind = match change.kind {
        ChangeKind::Put => "put",
        ChangeKind::Delete => "delete",
    };
    let mut page = ChangePage {
        revision: change.revision.0,
        height: change.height.0,
        ordinal: None,
        kind: kind.to_owned(),
        organisation: None,
        replica: None,
        client: None,
        user: None,
        expired_lease: None,
    };
    match &change.by {
        WrittenBy::Client { origin, client_name, user } => {
            page.ordinal = Some(change.ordinal);
            page.organisation = Some(web.name(*origin));
            page.replica = Some(origin.0);
            page.client = text(client_name);
            page.user = text(user);
        }
        WrittenBy::LeaseExpiry { lease } => page.expired_lease = Some(lease.0),
    }
    page
}

fn json(page: &impl Serialize) -> Response {
    let text = serde_json::to_string(page).expect("plain fields have a JSON form");
    found(JSON, Body::from(text + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_bytes() {
        let found = |query| key(Some(query)).map(|key| key.to_vec());
        assert_eq!(found("limit=3&key=%ff%00a+b"), Some(b"\xff\0a b".to_vec()));
        assert_eq!(found("key="), None);
        assert_eq!(found("limit=3"), None);
        assert_eq!(key(None), None);
    }
}
