//! Who is asking, and whether anyone may be answered now.

use std::sync::Arc;

use bytes::Bytes;
use http::{Extensions, HeaderMap};
use tonic::{Request, Status};

use crate::api::Api;
use crate::api::errors::Refusal;
use crate::apply::Reply;
use crate::apply::permission::{Need, Subject};
use crate::chain::{AuthOp, Author, Op};
use crate::node::Shared;
use crate::state::AuthError;
use crate::tls::ClientIdentity;
use crate::types::{Height, OrgId};

/// Metadata of a client that wants an error rather than an answer without a leader.
const REQUIRE_LEADER: (&str, &[u8]) = ("hasleader", b"true");

const CLIENT_API_VERSION: &str = "client-api-version";

/// Where a token is, the first one found (rpctypes/metadatafields.go).
const TOKEN: [&str; 2] = ["token", "authorization"];

/// The last number is given to no organisation.
const NOBODYS: OrgId = OrgId(u16::MAX);

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

/// What a client shows of itself, with each request or once for a stream.
#[derive(Clone)]
pub(super) struct Caller {
    token: Option<String>,
    common_name: Option<Arc<str>>,
}

impl Caller {
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        Self::from_parts(request.metadata().as_ref(), request.extensions())
    }

    pub(super) fn from_parts(headers: &HeaderMap, extensions: &Extensions) -> Self {
        let given = TOKEN.iter().find_map(|name| headers.get(*name));
        let token = given.map(|token| {
            let text = String::from_utf8_lossy(token.as_bytes());
            text.strip_prefix("Bearer ").unwrap_or(&text).to_owned()
        });
        let identity = extensions.get::<ClientIdentity>();
        let common_name = identity.and_then(|identity| identity.common_name.clone());
        Self { token, common_name }
    }

    /// The common name of the client's certificate, for the history.
    fn client_name(&self) -> Bytes {
        let name = self.common_name.as_deref().unwrap_or_default().as_bytes();
        Bytes::copy_from_slice(&name[..name.len().min(Author::NAME_BYTES_MAX)])
    }
}

impl Api {
    /// The organisation of this replica, whose users its clients are. A replica that is no member, not
    /// any more or not yet, answers nobody once any organisation asks for users: its own may.
    pub(super) fn organisation(&self, shared: &Shared) -> Result<OrgId, AuthError> {
        let own = shared.state.organisation_of(self.handle.own());
        let open = || shared.state.auth.stores().all(|(_, store)| !store.enabled);
        own.or_else(|| open().then_some(NOBODYS)).ok_or(AuthError::PermissionDenied)
    }

    /// Whether authentication is on for this replica's clients.
    pub(super) fn needs_users(&self) -> bool {
        let enabled = |shared: &Shared| {
            Ok::<_, AuthError>(shared.state.auth.store(self.organisation(shared)?).enabled)
        };
        self.handle.read(enabled).unwrap_or(true)
    }

    /// The author of what a caller asks for: the user that its token stands for, else the one that its
    /// certificate names (etcd's AuthInfoFromCtx).
    ///
    /// # Errors
    /// "invalid auth token".
    pub(super) async fn author(&self, caller: &Caller) -> Result<Author, Refusal> {
        let anonymous = Author { client_name: caller.client_name(), ..Author::default() };
        let store = |shared: &Shared| {
            let store = shared.state.auth.store(self.organisation(shared)?);
            Ok::<_, AuthError>((store.enabled, store.revision))
        };
        let (enabled, revision) = self.handle.read(store)?;
        if !enabled {
            return Ok(anonymous);
        }
        if let Some(token) = &caller.token {
            let (user, auth_revision) = self.user_of(token).await?;
            return Ok(Author { user, auth_revision, ..anonymous });
        }
        match &caller.common_name {
            // A longer name is nobody's: cut, it could be another's.
            Some(name) if self.settings.auth.common_name_is_user => Ok(Author {
                user: match name.len() {
                    0..=AuthOp::NAME_BYTES_MAX => Bytes::copy_from_slice(name.as_bytes()),
                    _ => Bytes::new(),
                },
                auth_revision: revision,
                ..anonymous
            }),
            _ => Ok(anonymous),
        }
    }

    /// Whom a token stands for, and the auth revision to act under: a simple token's is the present one.
    async fn user_of(&self, token: &str) -> Result<(Bytes, u64), Refusal> {
        let provider = &self.settings.auth.tokens;
        if let Some(claimed) = provider.claims(token) {
            return Ok(claimed);
        }
        let (digest, height) = provider.simple(token).ok_or(Refusal::InvalidAuthToken)?;
        let find = |shared: &Shared| {
            let (user, issued) = shared.tokens.find(&digest, provider.ttl_ms())?;
            let store = shared.state.auth.store(self.organisation(shared).ok()?);
            store.honours_token(&user, issued).then_some((user, store.revision))
        };
        let behind = |shared: &Shared| shared.state.counters.height < Height(height);
        if let Some(found) = self.handle.read(find) {
            return Ok(found);
        }
        if self.handle.read(behind) {
            // Given out by another replica in a block that this one has yet to execute.
            self.handle.linearizable().await?;
        }
        self.handle.read(find).ok_or(Refusal::InvalidAuthToken)
    }

    /// Runs a check and a read on one state.
    ///
    /// # Errors
    /// The check's.
    pub(super) fn permitted<R>(
        &self,
        author: &Author,
        check: impl FnOnce(&Subject<'_>) -> Result<(), AuthError>,
        read: impl FnOnce(&Shared) -> R,
    ) -> Result<R, Refusal> {
        self.handle.read(|shared| {
            let organisation = self.organisation(shared)?;
            check(&Subject::new(&shared.state, organisation, author))?;
            Ok(read(shared))
        })
    }

    /// Orders a write, unless its author may not do it: then nothing is ordered, so that who has no right
    /// fills no log. Apply decides; a replica that lags refuses nobody by old rules, for it asks the others
    /// first. While an alarm stands apply alone knows which refusal comes first.
    ///
    /// # Errors
    /// etcd's, and [`Refusal`]s of the node.
    pub(super) async fn order(
        &self,
        author: Author,
        op: Op,
        values: Vec<Bytes>,
    ) -> Result<Reply, Refusal> {
        let may = || self.permitted(&author, |subject| subject.may(&op), |_| ());
        let alarmed = |shared: &Shared| shared.state.alarms.list().next().is_some();
        if may().is_err() && !self.handle.read(alarmed) {
            self.handle.linearizable().await?;
            may()?;
        }
        Ok(self.handle.propose(author, op, values).await?)
    }

    /// The author of a request that asks for no key, if it may be asked at all.
    ///
    /// # Errors
    /// "invalid auth token", and what the need is not met with.
    pub(super) async fn author_with(&self, caller: &Caller, need: Need) -> Result<Author, Refusal> {
        let author = self.author(caller).await?;
        self.permitted(&author, |subject| subject.meets(need), |_| ())?;
        Ok(author)
    }
}
