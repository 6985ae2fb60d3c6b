//! HTTP beside gRPC on the client port: etcd's probes and metrics with etcd's words, and Althing's
//! own pages as JSON under `/althing/v1`. Also the accept loop that serves both.
//!
//! Nothing here changes replicated state; the two demo switches cut this replica's own links, and
//! exist only where the genesis says `demo`.

mod access;
mod answer;
mod block;
mod certificates;
mod change;
mod connection;
mod counting;
mod demo;
mod evidence;
mod health;
mod limits;
mod metrics;
mod provenance;
mod repair;
mod serve;
mod status;

pub use access::Access;
pub use certificates::CertificatePage;
pub use evidence::EvidenceItem;
pub use limits::Limits;
pub use provenance::ChangePage;
pub use serve::{BindError, Listener, Server, Socket, bind, bind_unix};
pub use status::{PeerStatus, ProvenLiar, StatusPage};

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::any;
use http::Method;

use crate::chain::AlarmKind;
use crate::node::Handle;
use crate::tls::ListenerTls;
use crate::types::ReplicaId;
use answer::{JSON, found, method_not_allowed};

/// What the pages say of this replica and the node does not know.
#[derive(Clone)]
pub struct Settings {
    /// The etcd version whose interface is served, as Status says it.
    pub etcd_version: &'static str,
    /// This replica's member id.
    pub member_id: u64,
    /// TLS of the client listeners, if they have it.
    pub tls: Option<Arc<ListenerTls>>,
}

#[derive(Clone)]
struct Web {
    handle: Handle,
    settings: Settings,
}

impl Web {
    /// A replica's name: its organisation's.
    fn name(&self, id: ReplicaId) -> String {
        let known = self.handle.read(|shared| {
            shared.state.network().addresses.get(&id).map(|address| address.name.clone())
        });
        let first = || self.handle.genesis().members.iter().find(|member| member.id == id);
        known.or_else(|| Some(first()?.name.clone())).unwrap_or_else(|| format!("replica-{id}"))
    }
}

/// Whether this replica found its state to differ from the network's.
fn corrupt(web: &Web) -> bool {
    let alarmed = web.handle.read(|shared| shared.state.alarms.is_raised(AlarmKind::Corrupt));
    alarmed || web.handle.is_quarantined()
}

/// Everything, for the client listeners.
pub fn routes(handle: Handle, settings: Settings) -> Router {
    let demo = handle.genesis().demo;
    let web = Web { handle, settings };
    let mut router = probes()
        .route("/version", any(version))
        .route("/althing/v1/status", any(status::status))
        .route("/althing/v1/certificates", any(certificates::certificates))
        .route("/althing/v1/blame", any(provenance::blame))
        .route("/althing/v1/history", any(provenance::history))
        .route("/althing/v1/block/{height}", any(block::block))
        .route("/althing/v1/network", any(change::network))
        .route("/althing/v1/epochs", any(change::epochs))
        .route("/althing/v1/change", any(change::change))
        .route("/evidence", any(evidence::list))
        .route("/evidence/{digest}", any(evidence::one))
        .route("/althing/v1/replica/repair", any(repair::repair));
    if demo {
        router = router
            .route("/althing/v1/demo/cut", any(demo::cut))
            .route("/althing/v1/demo/heal", any(demo::heal))
            .route("/althing/v1/demo/lie", any(demo::lie));
    }
    router.with_state(web)
}

/// Probes and metrics alone, for `--listen-metrics-urls`.
pub fn probe_routes(handle: Handle, settings: Settings) -> Router {
    probes().with_state(Web { handle, settings })
}

fn probes() -> Router<Web> {
    Router::new()
        .route("/health", any(health::health))
        .route("/livez", any(health::livez))
        .route("/livez/{check}", any(health::livez_one))
        .route("/readyz", any(health::readyz))
        .route("/readyz/{check}", any(health::readyz_one))
        .route("/metrics", any(metrics::metrics))
}

async fn version(State(web): State<Web>, method: Method) -> Response {
    if method != Method::GET {
        return method_not_allowed();
    }
    let server = web.settings.etcd_version;
    let (minor, _patch) = server.rsplit_once('.').unwrap_or((server, ""));
    // kubeadm reads the first two (etcd-surface.md 4); the order of the keys is etcd's.
    let text =
        format!(r#"{{"etcdserver":"{server}","etcdcluster":"{minor}.0","storage":"{minor}.0"}}"#);
    found(JSON, Body::from(text))
}
