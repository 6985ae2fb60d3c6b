//! Who is asking, and whether anyone may be answered now.

use bytes::Bytes;
use tonic::{Request, Status};

use crate::api::Api;
use crate::api::errors::Refusal;
use crate::chain::Author;
use crate::tls::ClientIdentity;

/// Metadata of a client that wants an error rather than an answer without a leader.
const REQUIRE_LEADER: (&str, &[u8]) = ("hasleader", b"true");

const CLIENT_API_VERSION: &str = "client-api-version";

/// Whether the client asked for a leader (clientv3's WithRequireLeader).
pub(super) fn requires_leader<T>(request: &Request<T>) -> bool {
    let (key, value) = REQUIRE_LEADER;
    request.metadata().get(key).is_some_and(|given| given.as_encoded_bytes() == value)
}

/// The checks of etcd's interceptors (`v3rpc/interceptor.go`), before any request is looked at.
///
/// # Errors
/// "invalid client api version", "no leader" for who requires one, "corrupt cluster" while this
/// replica is quarantined.
pub(super) fn admit<T>(api: &Api, request: &Request<T>) -> Result<(), Status> {
    let version = request.metadata().get(CLIENT_API_VERSION);
    if version.is_some_and(|version| str::from_utf8(version.as_encoded_bytes()).is_err()) {
        return Err(Refusal::InvalidClientApiVersion.into());
    }
    let health = api.health();
    if health.quarantined {
        return Err(Refusal::Corrupt.into());
    }
    if !health.has_leader && requires_leader(request) {
        return Err(Refusal::NoLeader.into());
    }
    Ok(())
}

/// The author of what this request writes: the common name of the client's certificate.
pub(super) fn author<T>(request: &Request<T>) -> Author {
    let identity = request.extensions().get::<ClientIdentity>();
    let name = identity.and_then(|identity| identity.common_name.as_deref()).unwrap_or_default();
    let name = &name.as_bytes()[..name.len().min(Author::NAME_BYTES_MAX)];
    Author { client_name: Bytes::copy_from_slice(name), ..Author::default() }
}
