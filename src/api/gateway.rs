//! etcd's REST gateway under /v3: JSON over HTTP, each request put to the gRPC services of this replica in
//! its words and answered in theirs (grpc-gateway's runtime with the options of etcd's embed/serve.go).
//!
//! Nothing is written by hand for a method: the contract's descriptors say how its messages look as JSON.

mod json;
mod requests;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::any;
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use tokio_stream::{Stream, StreamExt};
use tonic::client::Grpc;
use tonic::{Code, Status, Streaming};

use crate::api::Api;
use crate::api::holding::in_pieces;
use crate::tls::ClientIdentity;
use json::DynamicCodec;
use requests::Requests;

/// Paths behind `/v3/`, and the method of each.
const PATHS: &[(&str, &str)] = &[
    ("kv/range", "etcdserverpb.KV/Range"),
    ("kv/put", "etcdserverpb.KV/Put"),
    ("kv/deleterange", "etcdserverpb.KV/DeleteRange"),
    ("kv/txn", "etcdserverpb.KV/Txn"),
    ("kv/compaction", "etcdserverpb.KV/Compact"),
    ("watch", "etcdserverpb.Watch/Watch"),
    ("lease/grant", "etcdserverpb.Lease/LeaseGrant"),
    ("lease/revoke", "etcdserverpb.Lease/LeaseRevoke"),
    ("kv/lease/revoke", "etcdserverpb.Lease/LeaseRevoke"),
    ("lease/keepalive", "etcdserverpb.Lease/LeaseKeepAlive"),
    ("lease/timetolive", "etcdserverpb.Lease/LeaseTimeToLive"),
    ("kv/lease/timetolive", "etcdserverpb.Lease/LeaseTimeToLive"),
    ("lease/leases", "etcdserverpb.Lease/LeaseLeases"),
    ("kv/lease/leases", "etcdserverpb.Lease/LeaseLeases"),
    ("cluster/member/add", "etcdserverpb.Cluster/MemberAdd"),
    ("cluster/member/remove", "etcdserverpb.Cluster/MemberRemove"),
    ("cluster/member/update", "etcdserverpb.Cluster/MemberUpdate"),
    ("cluster/member/list", "etcdserverpb.Cluster/MemberList"),
    ("cluster/member/promote", "etcdserverpb.Cluster/MemberPromote"),
    ("maintenance/alarm", "etcdserverpb.Maintenance/Alarm"),
    ("maintenance/status", "etcdserverpb.Maintenance/Status"),
    ("maintenance/defragment", "etcdserverpb.Maintenance/Defragment"),
    ("maintenance/hash", "etcdserverpb.Maintenance/Hash"),
    ("maintenance/hashkv", "etcdserverpb.Maintenance/HashKV"),
    ("maintenance/snapshot", "etcdserverpb.Maintenance/Snapshot"),
    ("maintenance/transfer-leadership", "etcdserverpb.Maintenance/MoveLeader"),
    ("maintenance/downgrade", "etcdserverpb.Maintenance/Downgrade"),
    ("auth/enable", "etcdserverpb.Auth/AuthEnable"),
    ("auth/disable", "etcdserverpb.Auth/AuthDisable"),
    ("auth/status", "etcdserverpb.Auth/AuthStatus"),
    ("auth/authenticate", "etcdserverpb.Auth/Authenticate"),
    ("auth/user/add", "etcdserverpb.Auth/UserAdd"),
    ("auth/user/get", "etcdserverpb.Auth/UserGet"),
    ("auth/user/list", "etcdserverpb.Auth/UserList"),
    ("auth/user/delete", "etcdserverpb.Auth/UserDelete"),
    ("auth/user/changepw", "etcdserverpb.Auth/UserChangePassword"),
    ("auth/user/grant", "etcdserverpb.Auth/UserGrantRole"),
    ("auth/user/revoke", "etcdserverpb.Auth/UserRevokeRole"),
    ("auth/role/add", "etcdserverpb.Auth/RoleAdd"),
    ("auth/role/get", "etcdserverpb.Auth/RoleGet"),
    ("auth/role/list", "etcdserverpb.Auth/RoleList"),
    ("auth/role/delete", "etcdserverpb.Auth/RoleDelete"),
    ("auth/role/grant", "etcdserverpb.Auth/RoleGrantPermission"),
    ("auth/role/revoke", "etcdserverpb.Auth/RoleRevokePermission"),
    ("lock/lock", "v3lockpb.Lock/Lock"),
    ("lock/unlock", "v3lockpb.Lock/Unlock"),
    ("election/campaign", "v3electionpb.Election/Campaign"),
    ("election/proclaim", "v3electionpb.Election/Proclaim"),
    ("election/leader", "v3electionpb.Election/Leader"),
    ("election/observe", "v3electionpb.Election/Observe"),
    ("election/resign", "v3electionpb.Election/Resign"),
];

/// Headers that are metadata of the call behind this prefix.
const METADATA: &str = "grpc-metadata-";

/// What a client with a certificate is told who may take it for a user's.
const NO_COMMON_NAME: &str = "CommonName of client sending a request against gateway will be ignored \
                              and not used as expected\n";

struct Gateway {
    api: Arc<Api>,
    /// The services, behind the same guards as for gRPC.
    services: Router,
    pool: DescriptorPool,
}

/// The gateway to `services`.
pub(super) fn routes(api: Arc<Api>, services: Router) -> Router {
    let descriptors = include_bytes!(concat!(env!("OUT_DIR"), "/etcd.bin"));
    let pool = DescriptorPool::decode(&descriptors[..]).expect("the build wrote it");
    let gateway = Arc::new(Gateway { api, services, pool });
    Router::new()
        .route("/v3/", any(answer))
        .route("/v3/{*path}", any(answer))
        // As it was called before etcd 3.4.
        .route("/v3beta/{*path}", any(answer))
        .with_state(gateway)
}

async fn answer(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let identity = request.extensions().get::<ClientIdentity>().cloned();
    if gateway.mistakes_a_name(identity.as_ref()) {
        let mut response = Response::new(Body::from(NO_COMMON_NAME));
        *response.status_mut() = StatusCode::BAD_REQUEST;
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, text);
        return response;
    }
    match gateway.perform(request, identity).await {
        Ok(response) => response,
        Err(status) => refusal(&status),
    }
}

impl Gateway {
    /// A certificate's name is a user's on direct gRPC alone (CVE-2018-16886).
    fn mistakes_a_name(&self, identity: Option<&ClientIdentity>) -> bool {
        let named = identity.is_some_and(|identity| identity.common_name.is_some());
        named && self.api.settings.auth.common_name_is_user && self.api.needs_users()
    }

    fn method(&self, path: &str) -> Option<MethodDescriptor> {
        let path = path.strip_prefix("/v3/").or_else(|| path.strip_prefix("/v3beta/"))?;
        let (_, method) = PATHS.iter().find(|(known, _)| *known == path)?;
        let (service, name) = method.split_once('/')?;
        let service = self.pool.get_service_by_name(service)?;
        service.methods().find(|method| method.name() == name)
    }

    async fn perform(
        &self,
        request: Request,
        identity: Option<ClientIdentity>,
    ) -> Result<Response, Status> {
        let found = self.method(request.uri().path());
        let method = found.ok_or_else(|| Status::not_found("Not Found"))?;
        if request.method() != Method::POST {
            return Err(Status::unimplemented("Method Not Allowed"));
        }
        let call = Call::of(request.headers(), identity)?;
        let bytes_max = 2 * (self.api.request_bytes_max() + crate::api::OVERHEAD_BYTES);
        let mut requests = Requests::new(method.input(), request.into_body(), bytes_max);
        let mut grpc = Grpc::new(self.services.clone())
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX);
        let codec = DynamicCodec { output: method.output() };
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let path = PathAndQuery::try_from(path).map_err(|_| Status::internal("a method's path"))?;
        let limit = call.limit;
        if !method.is_server_streaming() {
            let message = requests.only().await?;
            let reply = within(limit, grpc.unary(call.request(message), path, codec)).await?;
            let text = json::to_json(reply.get_ref())?;
            let held = self.api.budget.wait_for(text.len() as u64).await?;
            let mut response = answered(Body::from(text));
            response.extensions_mut().insert(held);
            return Ok(in_pieces(response).await);
        }
        let opened = if method.is_client_streaming() {
            // A request that cannot be read is refused before the stream begins; a later one ends what
            // is asked, as in etcd.
            let first = requests.next().await.transpose()?;
            let rest = requests.map_while(Result::ok);
            let all = tokio_stream::iter(first).chain(rest);
            within(limit, grpc.streaming(call.request(all), path, codec)).await
        } else {
            let message = requests.only().await?;
            within(limit, grpc.server_streaming(call.request(message), path, codec)).await
        };
        let mut replies = match opened {
            Ok(opened) => opened.into_inner(),
            Err(status) => return Ok(broken(&status)),
        };
        // The head of the answer waits for the first line: until then a code can be told.
        match within(limit, replies.message()).await {
            // A stream of nothing has no head either.
            Ok(None) => Ok(Response::new(Body::empty())),
            Ok(first) => Ok(answered(Body::from_stream(Lines { first, replies, ended: false }))),
            Err(status) => Ok(broken(&status)),
        }
    }
}

/// What a request says beside its message.
struct Call {
    metadata: HeaderMap,
    identity: Option<ClientIdentity>,
    limit: Option<Duration>,
}

impl Call {
    /// The caller's token, and what else is marked as metadata (runtime.AnnotateContext).
    fn of(headers: &HeaderMap, identity: Option<ClientIdentity>) -> Result<Self, Status> {
        let mut metadata = HeaderMap::new();
        for (name, value) in headers {
            let name = match name.as_str().strip_prefix(METADATA) {
                Some(name) => HeaderName::try_from(name).ok(),
                None => (name == header::AUTHORIZATION).then(|| name.clone()),
            };
            if let Some(name) = name {
                metadata.append(name, value.clone());
            }
        }
        let limit = headers.get("grpc-timeout").map(|given| {
            let given = given.to_str().unwrap_or_default();
            let wrong = || Status::invalid_argument(format!("invalid grpc-timeout: {given}"));
            timeout(given).ok_or_else(wrong)
        });
        Ok(Self { metadata, identity, limit: limit.transpose()? })
    }

    fn request<T>(self, message: T) -> tonic::Request<T> {
        let mut extensions = tonic::Extensions::new();
        if let Some(identity) = self.identity {
            extensions.insert(identity);
        }
        let metadata = tonic::metadata::MetadataMap::from_headers(self.metadata);
        tonic::Request::from_parts(metadata, extensions, message)
    }
}

/// gRPC's text for a time span: digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number.checked_mul(3600)?)),
        "M" => Some(Duration::from_secs(number.checked_mul(60)?)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

async fn within<T>(
    limit: Option<Duration>,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let Some(limit) = limit.filter(|limit| !limit.is_zero()) else { return work.await };
    let late = |_| Err(Status::deadline_exceeded("context deadline exceeded"));
    tokio::time::timeout(limit, work).await.unwrap_or_else(late)
}

fn answered(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let grpc = HeaderValue::from_static("application/grpc");
    headers.insert("grpc-metadata-content-type", grpc);
    response
}

fn refused(status: &Status, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = http_status(status.code());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn refusal(status: &Status) -> Response {
    let mut response = refused(status, json::status(status));
    if status.code() == Code::Unauthenticated
        && let Ok(why) = HeaderValue::from_str(status.message())
    {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, why);
    }
    response
}

/// A stream that ends before it began.
fn broken(status: &Status) -> Response {
    refused(status, json::error_line(status))
}

/// runtime.HTTPStatusFromCode.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        // "Client closed request", which has no name.
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The replies of a stream, a line of JSON each; what goes wrong is the last.
struct Lines {
    first: Option<DynamicMessage>,
    replies: Streaming<DynamicMessage>,
    ended: bool,
}

impl Stream for Lines {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let reply = match self.first.take() {
            Some(first) => Some(Ok(first)),
            None => match Pin::new(&mut self.replies).poll_next(context) {
                Poll::Ready(reply) => reply,
                Poll::Pending => return Poll::Pending,
            },
        };
        let line = reply.map(|reply| reply.and_then(|reply| json::result_line(&reply)));
        self.ended = !matches!(line, Some(Ok(_)));
        Poll::Ready(line.map(|line| Ok(line.unwrap_or_else(|why| json::error_line(&why)).into())))
    }
}

#[cfg(test)]
mod tests;
