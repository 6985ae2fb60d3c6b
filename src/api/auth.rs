//! etcd's Auth service: users, roles and permissions of this replica's organisation.

use core::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tonic::{Request, Response, Status, async_trait};

use crate::api::errors::Refusal;
use crate::api::guesses::Turn;
use crate::api::identity::Caller;
use crate::api::pb::{authpb, etcdserverpb as pb};
use crate::api::{Api, identity, tokens};
use crate::apply::Reply;
use crate::apply::permission::Need;
use crate::chain::{AuthOp, Author, Op, Parameters, Permission, PermissionKind, ValueSlot};
use crate::state::{AuthError, AuthStore};
use crate::tls::ClientIdentity;
use crate::types::{Digest, Height, Revision};

/// The service.
pub(super) struct AuthService(pub(super) Arc<Api>);

/// The role that has every permission, and what etcd shows as its permission.
const ROOT_ROLE: &str = "root";

fn other_kind() -> Status {
    Status::internal("the reply is of another kind than the request")
}

/// etcd has no bound of its own.
fn name(name: &str) -> Result<Bytes, Refusal> {
    match name.len() {
        0..=AuthOp::NAME_BYTES_MAX => Ok(Bytes::copy_from_slice(name.as_bytes())),
        _ => Err(Refusal::RequestTooLarge),
    }
}

fn key(key: Bytes) -> Result<Bytes, Refusal> {
    if key.len() > Parameters::KEY_BYTES_MAX { Err(Refusal::RequestTooLarge) } else { Ok(key) }
}

fn text(name: &Bytes) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// The slot of the only value of an op.
fn slot() -> ValueSlot {
    ValueSlot { index: 0, commitment: Digest::ZERO }
}

impl Api {
    /// Who asks to change users or roles. What this replica would refuse is asked again behind what the
    /// others have acknowledged, so that nobody is refused by old rules, and no password is hashed for
    /// who may not set it.
    async fn manager<T>(&self, request: &Request<T>) -> Result<Author, Status> {
        identity::admit(self, request)?;
        let caller = Caller::of(request);
        match self.author_with(&caller, Need::Root).await {
            Ok(author) => Ok(author),
            Err(_) => {
                self.barrier().await?;
                Ok(self.author_with(&caller, Need::Root).await?)
            }
        }
    }

    async fn order_auth(
        &self,
        author: Author,
        op: AuthOp,
        values: Vec<Bytes>,
    ) -> Result<(Revision, u64, Height), Status> {
        let op = Op::Auth(Box::new(op));
        let reply = self.handle.propose(author, op, values).await.map_err(Refusal::from)?;
        match reply {
            Reply::Auth { revision, auth_revision, height } => {
                Ok((revision, auth_revision, height))
            }
            other => Err(Self::revision_of(other).err().unwrap_or_else(other_kind)),
        }
    }

    /// Orders a change, once its asker may make it; the header of its answer.
    async fn change_auth<T>(
        &self,
        request: &Request<T>,
        op: AuthOp,
    ) -> Result<Option<pb::ResponseHeader>, Status> {
        let author = self.manager(request).await?;
        let (revision, ..) = self.order_auth(author, op, Vec::new()).await?;
        Ok(Some(self.header(revision)))
    }

    /// Reads this organisation's store behind what is acknowledged, if `check` lets the asker; etcd
    /// orders even these reads.
    async fn read_auth<T, R>(
        &self,
        request: &Request<T>,
        check: impl FnOnce(&AuthStore, &Author) -> Result<(), AuthError>,
        read: impl FnOnce(&AuthStore) -> Result<R, AuthError>,
    ) -> Result<(Option<pb::ResponseHeader>, R), Status> {
        identity::admit(self, request)?;
        self.barrier().await?;
        let author = self.author(&Caller::of(request)).await?;
        let answer = self.handle.read(|shared| {
            let store = shared.state.auth.store(self.organisation(shared)?);
            check(store, &author)?;
            Ok::<_, AuthError>((shared.state.kv.revision(), read(store)?))
        });
        let (revision, answer) = answer.map_err(Refusal::from)?;
        Ok((Some(self.header(revision)), answer))
    }

    /// A token for who knows the password. What is compared here is compared again by every replica:
    /// the login is refused if the user has changed meanwhile, and tried anew.
    async fn login(
        &self,
        user: &str,
        password: &str,
        turn: &Turn,
    ) -> Result<(Revision, String), Status> {
        loop {
            let (hashed, revision) = self.password_of(user)?;
            let known = hashed.is_some();
            let same = self.passwords.compare(password.to_owned(), hashed).await?;
            if !(known && same) {
                self.guesses.wrong(turn);
                return Err(Refusal::AuthFailed.into());
            }
            self.guesses.right(turn);
            let now = self.handle.read(|shared| shared.tokens.unix_seconds());
            let provider = &self.settings.auth.tokens;
            match provider.sign(user, revision, now) {
                Some(Ok(token)) => {
                    return Ok((self.handle.read(|shared| shared.state.kv.revision()), token));
                }
                Some(Err(())) => {
                    let text = "auth: token signing attempted with verify-only key";
                    return Err(Status::unknown(text));
                }
                None if !provider.given_out() => return Err(Refusal::AuthFailed.into()),
                None => {}
            }
            let secret = tokens::secret().ok_or_else(|| Status::internal("no random source"))?;
            let token = AuthOp::token_digest(secret.as_bytes());
            let op = AuthOp::Authenticate { user: name(user)?, token };
            let done = self.order_auth(Author::default(), op, Vec::new()).await?;
            let (kv_revision, auth_revision, height) = done;
            if auth_revision == revision {
                return Ok((kv_revision, tokens::simple_token(&secret, height)));
            }
        }
    }

    /// A user's password hash, none if there is no such user, and the auth revision.
    fn password_of(&self, user: &str) -> Result<(Option<Bytes>, u64), Refusal> {
        self.handle.read(|shared| {
            let store = shared.state.auth.store(self.organisation(shared)?);
            if !store.enabled {
                return Err(Refusal::AuthNotEnabled);
            }
            let hashed = match store.users.get(user.as_bytes()) {
                None => None,
                Some(user) => match &user.password {
                    None => return Err(Refusal::NoPasswordUser),
                    Some(value) => Some(value.bytes.clone()),
                },
            };
            Ok((hashed, store.revision))
        })
    }
}

/// etcd's IsAdminPermitted.
fn root_only(store: &AuthStore, author: &Author) -> Result<(), AuthError> {
    store.check_root(&author.user)
}

fn wire(permission: &Permission) -> authpb::Permission {
    let kind = match permission.kind {
        PermissionKind::Read => authpb::permission::Type::Read,
        PermissionKind::Write => authpb::permission::Type::Write,
        PermissionKind::ReadWrite => authpb::permission::Type::Readwrite,
    };
    authpb::Permission {
        perm_type: kind.into(),
        key: permission.key.clone(),
        range_end: permission.range_end.clone(),
    }
}

fn permission(given: authpb::Permission) -> Result<Permission, Refusal> {
    let kind = match authpb::permission::Type::try_from(given.perm_type) {
        Ok(authpb::permission::Type::Read) => PermissionKind::Read,
        Ok(authpb::permission::Type::Write) => PermissionKind::Write,
        Ok(authpb::permission::Type::Readwrite) => PermissionKind::ReadWrite,
        Err(_) => return Err(Refusal::InvalidAuthManagement),
    };
    Ok(Permission { kind, key: key(given.key)?, range_end: key(given.range_end)? })
}

fn role_page(store: &AuthStore, role: &str) -> Result<Vec<authpb::Permission>, AuthError> {
    let found = store.roles.get(role.as_bytes()).ok_or(AuthError::RoleNotFound)?;
    if role == ROOT_ROLE {
        let (key, range_end) = (Bytes::new(), Bytes::from_static(&[0]));
        return Ok(vec![wire(&Permission { kind: PermissionKind::ReadWrite, key, range_end })]);
    }
    Ok(found.permissions.iter().map(wire).collect())
}

#[async_trait]
impl pb::auth_server::Auth for AuthService {
    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        let header = self.0.change_auth(&request, AuthOp::Enable).await?;
        Ok(Response::new(pb::AuthEnableResponse { header }))
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        let header = self.0.change_auth(&request, AuthOp::Disable).await?;
        Ok(Response::new(pb::AuthDisableResponse { header }))
    }

    async fn auth_status(
        &self,
        request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        let read = |store: &AuthStore| Ok((store.enabled, store.revision));
        let (header, (enabled, auth_revision)) =
            self.0.read_auth(&request, |_, _| Ok(()), read).await?;
        Ok(Response::new(pb::AuthStatusResponse { header, enabled, auth_revision }))
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        let api = &self.0;
        identity::admit(api, &request)?;
        api.barrier().await?;
        let identity = request.extensions().get::<ClientIdentity>();
        let address = identity.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |known| known.address.ip());
        let pb::AuthenticateRequest { name, password } = request.into_inner();
        let turn = api.guesses.turn(address, &name).await?;
        let (revision, token) = api.login(&name, &password, &turn).await?;
        Ok(Response::new(pb::AuthenticateResponse { header: Some(api.header(revision)), token }))
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        let api = &self.0;
        let author = api.manager(&request).await?;
        let pb::AuthUserAddRequest { name: user, password, options, .. } = request.into_inner();
        let name = name(&user)?;
        let no_password = options.is_some_and(|options| options.no_password);
        let (op, values) = if no_password {
            (AuthOp::UserAdd { name, password: None }, Vec::new())
        } else {
            let hashed = api.passwords.hash(password).await?;
            (AuthOp::UserAdd { name, password: Some(slot()) }, vec![hashed])
        };
        let (revision, ..) = api.order_auth(author, op, values).await?;
        Ok(Response::new(pb::AuthUserAddResponse { header: Some(api.header(revision)) }))
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        let user = request.get_ref().name.clone();
        let check = |store: &AuthStore, author: &Author| {
            let own = author.user == user.as_bytes();
            root_only(store, author).or_else(|error| if own { Ok(()) } else { Err(error) })
        };
        let read = |store: &AuthStore| {
            let found = store.users.get(user.as_bytes()).ok_or(AuthError::UserNotFound)?;
            Ok(found.roles.iter().map(text).collect())
        };
        let (header, roles) = self.0.read_auth(&request, check, read).await?;
        Ok(Response::new(pb::AuthUserGetResponse { header, roles }))
    }

    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        let read = |store: &AuthStore| Ok(store.users.keys().map(text).collect());
        let (header, users) = self.0.read_auth(&request, root_only, read).await?;
        Ok(Response::new(pb::AuthUserListResponse { header, users }))
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        let op = AuthOp::UserDelete { name: name(&request.get_ref().name)? };
        let header = self.0.change_auth(&request, op).await?;
        Ok(Response::new(pb::AuthUserDeleteResponse { header }))
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        let api = &self.0;
        let author = api.manager(&request).await?;
        let pb::AuthUserChangePasswordRequest { name: user, password, hashed_password } =
            request.into_inner();
        let name = name(&user)?;
        // etcd takes a hash that the client made, if there is no password.
        let hashed = if password.is_empty() {
            STANDARD.decode(&hashed_password).ok().map(Bytes::from)
        } else {
            Some(api.passwords.hash(password).await?)
        };
        let op = AuthOp::UserChangePassword { name, password: hashed.as_ref().map(|_| slot()) };
        let (revision, ..) = api.order_auth(author, op, hashed.into_iter().collect()).await?;
        let header = Some(api.header(revision));
        Ok(Response::new(pb::AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        let pb::AuthUserGrantRoleRequest { user, role } = request.get_ref();
        let op = AuthOp::UserGrantRole { user: name(user)?, role: name(role)? };
        let header = self.0.change_auth(&request, op).await?;
        Ok(Response::new(pb::AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        let pb::AuthUserRevokeRoleRequest { name: user, role } = request.get_ref();
        let op = AuthOp::UserRevokeRole { user: name(user)?, role: name(role)? };
        let header = self.0.change_auth(&request, op).await?;
        Ok(Response::new(pb::AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        let op = AuthOp::RoleAdd { name: name(&request.get_ref().name)? };
        let header = self.0.change_auth(&request, op).await?;
        Ok(Response::new(pb::AuthRoleAddResponse { header }))
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        let role = request.get_ref().role.clone();
        let check = |store: &AuthStore, author: &Author| {
            let user = store.users.get(&author.user);
            let own = user.is_some_and(|user| user.roles.contains(role.as_bytes()));
            root_only(store, author).or_else(|error| if own { Ok(()) } else { Err(error) })
        };
        let read = |store: &AuthStore| role_page(store, &role);
        let (header, perm) = self.0.read_auth(&request, check, read).await?;
        Ok(Response::new(pb::AuthRoleGetResponse { header, perm }))
    }

    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        let read = |store: &AuthStore| Ok(store.roles.keys().map(text).collect());
        let (header, roles) = self.0.read_auth(&request, root_only, read).await?;
        Ok(Response::new(pb::AuthRoleListResponse { header, roles }))
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        let op = AuthOp::RoleDelete { name: name(&request.get_ref().role)? };
        let header = self.0.change_auth(&request, op).await?;
        Ok(Response::new(pb::AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        let pb::AuthRoleGrantPermissionRequest { name: role, perm } = request.get_ref();
        let permission = perm.clone().map(permission).transpose()?;
        let op = AuthOp::RoleGrantPermission { role: name(role)?, permission };
        let header = self.0.change_auth(&request, op).await?;
        Ok(Response::new(pb::AuthRoleGrantPermissionResponse { header }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        let pb::AuthRoleRevokePermissionRequest { role, key: start, range_end } =
            request.get_ref().clone();
        let (key, range_end) = (key(start)?, key(range_end)?);
        let op = AuthOp::RoleRevokePermission { role: name(&role)?, key, range_end };
        let header = self.0.change_auth(&request, op).await?;
        Ok(Response::new(pb::AuthRoleRevokePermissionResponse { header }))
    }
}
