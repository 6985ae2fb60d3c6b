//! etcd's gRPC services: decode, check, name the caller, ask the node, put its reply into etcd's
//! words. The only module that knows protobuf.
//!
//! A write becomes an [`Op`](crate::chain::Op) and goes to [`Handle::propose`]; a read takes
//! references under the shared lock and resolves them outside it; a watch is a cursor over the
//! ring.

pub mod pb;
mod auth;
mod cluster;
#[allow(
    clippy::disallowed_methods,
    reason = "what a caller leaves behind is cleaned up by a task that outlives his request"
)]
mod concurrency;
mod convert;
#[allow(
    clippy::disallowed_methods,
    reason = "leaders are looked for by a task that ends when nobody reads them"
)]
mod election;
mod errors;
mod follow;
mod gateway;
#[allow(clippy::disallowed_types, reason = "logins on all runtimes meet in one table")]
mod guesses;
mod hash;
mod health;
mod holding;
mod identity;
mod kv;
mod lease;
mod lock;
mod maintenance;
mod methods;
mod passwords;
mod range_stream;
mod snapshot;
mod tokens;
mod validate;
#[allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "streams of all runtimes meet in one table, and one task looks at each block for them"
)]
mod wakes;
mod watch;
mod watch_rights;

use std::sync::Arc;

use axum::Router;
use axum::response::IntoResponse;
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::service::Routes;

pub use methods::method_paths;
pub use tokens::{JwtKeys, Tokens};

pub use convert::{ETCD_VERSION, cluster_id, member_id};

use crate::api::convert::Names;
use crate::api::errors::Refusal;
use crate::api::guesses::Guesses;
use crate::api::holding::Budget;
use crate::api::passwords::Passwords;
use crate::api::pb::{etcdserverpb as etcd, v3electionpb, v3lockpb};
use crate::api::wakes::Wakes;
use crate::apply::Reply;
use crate::node::Handle;
use crate::types::Revision;

/// What a request may be larger than `request_bytes_max` before it is not even decoded (etcd's
/// grpcOverheadBytes).
const OVERHEAD_BYTES: usize = 512 << 10;

/// The settings of the client side that are local to a replica.
#[derive(Clone)]
pub struct Settings {
    /// `--max-request-bytes`, where it is less than the network allows.
    pub request_bytes_max: Option<usize>,
    /// `--max-txn-ops`, likewise.
    pub txn_operations_max: Option<usize>,
    /// `--strict-reconfig-check`: no change of members that could lose the quorum.
    pub strict_reconfiguration: bool,
    /// `--max-learners`.
    pub learners_max: usize,
    /// `--watch-progress-notify-interval`, at least 100.
    pub progress_interval_ms: u64,
    /// How users prove themselves.
    pub auth: AuthSettings,
}

/// How users prove themselves to this replica.
#[derive(Clone)]
pub struct AuthSettings {
    /// `--auth-token` and `--auth-token-ttl`.
    pub tokens: Tokens,
    /// `--bcrypt-cost`.
    pub bcrypt_cost: u32,
    /// Whether a certificate's common name is the user's, where no token is shown.
    pub common_name_is_user: bool,
}

impl AuthSettings {
    /// etcd's defaults.
    #[must_use]
    pub fn new() -> Self {
        let tokens = Tokens::simple_for(300_000);
        Self { tokens, bcrypt_cost: 10, common_name_is_user: false }
    }
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self::new()
    }
}

/// What all services share.
struct Api {
    handle: Handle,
    settings: Settings,
    names: Names,
    wakes: Arc<Wakes>,
    passwords: Passwords,
    guesses: Guesses,
    budget: Budget,
    /// The right to read all keys for HashKV: one at a time.
    hashing: Semaphore,
}

/// What decides whether a request is answered at all.
struct Health {
    has_leader: bool,
    quarantined: bool,
}

impl Api {
    fn header(&self, revision: Revision) -> etcd::ResponseHeader {
        self.names.header(&self.handle, revision)
    }

    /// The alarms raised in the replicated state, and CORRUPT for this replica while it is
    /// quarantined: that one is local, for a diverged replica orders nothing.
    fn alarms(&self) -> Vec<(u64, crate::chain::AlarmKind)> {
        let mut alarms: Vec<_> = self.handle.read(|shared| shared.state.alarms.list().collect());
        let own = (self.names.own(), crate::chain::AlarmKind::Corrupt);
        if self.handle.is_quarantined() && !alarms.contains(&own) {
            alarms.push(own);
        }
        alarms
    }

    /// A header at the store's revision.
    fn header_now(&self) -> etcd::ResponseHeader {
        self.header(self.handle.read(|shared| shared.state.kv.revision()))
    }

    /// Most bytes of a request: organisations may change what the network allows while this replica runs.
    fn request_bytes_max(&self) -> usize {
        let allowed = self.parameter(|parameters| parameters.request_bytes_max);
        self.settings.request_bytes_max.map_or(allowed, |flag| flag.min(allowed))
    }

    /// Most ops of a transaction, likewise.
    fn txn_operations_max(&self) -> usize {
        let allowed = self.parameter(|parameters| parameters.txn_ops_max);
        self.settings.txn_operations_max.map_or(allowed, |flag| flag.min(allowed))
    }

    fn parameter(&self, which: impl Fn(&crate::chain::Parameters) -> u32) -> usize {
        self.handle.read(|shared| which(&shared.state.network().membership.parameters)) as usize
    }

    fn health(&self) -> Health {
        Health { has_leader: self.handle.has_leader(), quarantined: self.handle.is_quarantined() }
    }

    /// Returns once this replica knows what was acknowledged anywhere before.
    async fn barrier(&self) -> Result<(), Status> {
        self.handle.linearizable().await.map_err(|error| Refusal::from(error).into())
    }

    /// The revision of a reply of which nothing else is wanted.
    fn revision_of(reply: Reply) -> Result<Revision, Status> {
        match reply {
            Reply::Put { revision, .. }
            | Reply::DeleteRange { revision, .. }
            | Reply::Range { revision, .. }
            | Reply::Txn { revision, .. }
            | Reply::Compact { revision }
            | Reply::LeaseGrant { revision, .. }
            | Reply::LeaseRevoke { revision }
            | Reply::LeaseKeepAlive { revision, .. }
            | Reply::Alarm { revision, .. }
            | Reply::Checkpoint { revision, .. }
            | Reply::Auth { revision, .. }
            | Reply::Evidence { revision, .. }
            | Reply::Config { revision, .. } => Ok(revision),
            Reply::Error { error, .. } => Err(Refusal::from(error).into()),
        }
    }
}

/// etcd's interface, to be served beside the pages on the client port.
pub struct Interface {
    /// All gRPC services.
    pub grpc: Router,
    /// The same as JSON over HTTP, under `/v3`.
    pub rest: Router,
}

/// etcd's interface to this replica.
pub fn routes(handle: Handle, settings: Settings) -> Interface {
    let names = Names::new(&handle);
    let wakes = Arc::new(Wakes::new(handle.clone()));
    let passwords = Passwords::new(settings.auth.bcrypt_cost);
    let (guesses, budget, hashing) = (Guesses::default(), Budget::new(), Semaphore::new(1));
    let api = Arc::new(Api { handle, settings, names, wakes, passwords, guesses, budget, hashing });
    let bytes_max = api.request_bytes_max() + OVERHEAD_BYTES;
    let kv = etcd::kv_server::KvServer::new(kv::KvService(Arc::clone(&api)));
    let watch = etcd::watch_server::WatchServer::new(watch::WatchService(Arc::clone(&api)));
    let lease = etcd::lease_server::LeaseServer::new(lease::LeaseService(Arc::clone(&api)));
    let cluster =
        etcd::cluster_server::ClusterServer::new(cluster::ClusterService(Arc::clone(&api)));
    let maintenance = maintenance::MaintenanceService(Arc::clone(&api));
    let maintenance = etcd::maintenance_server::MaintenanceServer::new(maintenance);
    let auth = etcd::auth_server::AuthServer::new(auth::AuthService(Arc::clone(&api)));
    let lock = v3lockpb::lock_server::LockServer::new(lock::LockService(Arc::clone(&api)));
    let election = election::ElectionService(Arc::clone(&api));
    let election = v3electionpb::election_server::ElectionServer::new(election);
    let health =
        tonic_health::pb::health_server::HealthServer::new(health::HealthService(Arc::clone(&api)));
    let grpc = Routes::default()
        .add_service(kv.max_decoding_message_size(bytes_max))
        .add_service(watch.max_decoding_message_size(bytes_max))
        .add_service(lease.max_decoding_message_size(bytes_max))
        .add_service(cluster.max_decoding_message_size(bytes_max))
        .add_service(maintenance.max_decoding_message_size(bytes_max))
        .add_service(auth.max_decoding_message_size(bytes_max))
        .add_service(lock.max_decoding_message_size(bytes_max))
        .add_service(election.max_decoding_message_size(bytes_max))
        .add_service(health.max_decoding_message_size(bytes_max))
        .into_axum_router()
        .fallback(unknown)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&api), methods::guard))
        .layer(axum::middleware::map_response(name_oversize))
        .layer(axum::middleware::map_response(holding::in_pieces));
    let rest = gateway::routes(api, grpc.clone());
    Interface { grpc, rest }
}

/// What no service and no page answers: gRPC and HTTP each say it in their own way, as etcd does.
async fn unknown(request: axum::extract::Request) -> axum::response::Response {
    let kind = request.headers().get(http::header::CONTENT_TYPE);
    let path = request.uri().path().trim_start_matches('/');
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        let service = path.split('/').next().unwrap_or_default();
        return Status::unimplemented(format!("unknown service {service}")).into_http();
    }
    let text = [(http::header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    (http::StatusCode::NOT_FOUND, text, "404 page not found\n").into_response()
}

/// A request too large to decode is refused in the words of Go's gRPC, on which kube-apiserver
/// decides what to tell its user.
async fn name_oversize(mut response: axum::response::Response) -> axum::response::Response {
    const DECODER: &str = "Error, decoded message length too large: found ";
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    let Some(sizes) = status.message().strip_prefix(DECODER) else { return response };
    let mut numbers = sizes.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    let (found, limit) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let text = format!("grpc: received message larger than max ({found} vs. {limit})");
    let status = Status::resource_exhausted(text);
    // The three headers of a refusal are replaced; a text of digits and letters is a header value.
    let _ = status.add_header(response.headers_mut());
    response
}
