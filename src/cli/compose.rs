//! Joins node, API and web on the listeners that the settings name, until the process is told to
//! end.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use tokio::signal::unix::{SignalKind, signal};

use super::auto_compaction;
use super::serve::Prepared;
use crate::chain::Ownership;
use crate::config::{ClientSettings, Home, ListenUrl, TokenSettings};
use crate::crypto::{PublicKey, Scheme};
use crate::node::{Handle, Node, NodeConfig, vote_when_ready};
use crate::observe::Metrics;
use crate::tls::{ClientAuthentication, ListenerFiles, ListenerTls};
use crate::web::{self, Limits, Listener, Server, bind};
use crate::{api, types};

/// A stop that takes longer cuts connections: supervisors wait 20 s and more.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or SIGINT.
pub(super) fn run(mut prepared: Prepared) -> anyhow::Result<()> {
    prepare_process();
    // Links to peers run on this thread, while it waits to be told to end.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    // Every socket before the log is opened: a taken port changes nothing on disk.
    let client = &prepared.settings.client;
    let sockets = Sockets {
        grpc: bind_all(&client.listen)?,
        http: bind_all(&client.listen_http)?,
        metrics: bind_all(&client.listen_metrics)?,
    };
    let tls = client_tls(client)?;
    let peers = match prepared.peers.take() {
        Some(bound) => bound,
        None if prepared.alone() => lone_peers(&prepared),
        None => {
            let bound = bind_all(&prepared.settings.peer.listen)?;
            bound.into_iter().map(|(_, socket)| socket).collect()
        }
    };
    Metrics::install()?;
    let members = &prepared.genesis.genesis.members;
    let keys: Vec<PublicKey> = members.iter().map(|member| member.key).collect();
    let scheme: Arc<dyn Scheme> = Arc::new(prepared.secret.signer().with_points(&keys));
    let node = Node::start(NodeConfig {
        genesis: prepared.genesis.genesis.clone(),
        founded: Some(prepared.genesis.clone()),
        own: prepared.own,
        initial: prepared.settings.home.as_ref().map(|home| Home::at(home).initial_state()),
        known: prepared.known.clone(),
        scheme,
        data_directory: prepared.settings.data_dir.clone(),
        peer_listeners: peers,
        runtime: runtime.handle().clone(),
        history_retention_ms: prepared.settings.history_retention_ms,
    })
    .map_err(|why| anyhow::anyhow!("{why}"))?;
    let handle = node.handle();
    let auth = auth_settings(client)?;
    let listeners = listeners((&prepared, auth), &handle, sockets, &tls);
    let server = Server::start(listeners, &limits(client)).context("cannot serve clients")?;
    runtime.block_on(until_told(&prepared, &handle))?;
    // Peer links live in this runtime, and a primary that stops still has to pass its lead on.
    let stopping = runtime.spawn_blocking(move || {
        server.stop(STOP_WITHIN);
        node.stop();
    });
    drop(runtime.block_on(stopping));
    runtime.shutdown_timeout(Duration::from_secs(1));
    tracing::info!(event = "stopped", "stopped");
    Ok(())
}

/// Where a network of one listens for members that are added later. One of organisations grows by a new
/// start; one owner's may go without, as long as nobody is added.
fn lone_peers(prepared: &Prepared) -> Vec<TcpListener> {
    if prepared.genesis.genesis.ownership == Ownership::Many {
        return Vec::new();
    }
    match bind_all(&prepared.settings.peer.listen) {
        Ok(bound) => bound.into_iter().map(|(_, socket)| socket).collect(),
        Err(why) => {
            tracing::warn!(
                event = "peer_listener", %why,
                "no member can be added while --listen-peer-urls cannot be listened on"
            );
            Vec::new()
        }
    }
}

/// No core dump holds a key; as many descriptors as the system grants.
fn prepare_process() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(why) = setrlimit(Resource::Core, none) {
        tracing::warn!(event = "core_dumps", %why, "core dumps cannot be switched off");
    }
    let files = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: files.maximum, maximum: files.maximum };
    if let Err(why) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(event = "open_files", %why, "the limit of open files stays as it is");
    }
}

type Bound = Vec<(bool, TcpListener)>;

struct Sockets {
    grpc: Bound,
    http: Bound,
    metrics: Bound,
}

pub(super) fn bind_all(urls: &[ListenUrl]) -> anyhow::Result<Bound> {
    let mut bound = Vec::new();
    for url in urls {
        let port = url.port.with_context(|| format!("{url}: unix sockets are not there yet"))?;
        bound.extend(bind(&url.host, port)?.into_iter().map(|socket| (url.tls, socket)));
    }
    Ok(bound)
}

struct Tls {
    clients: Option<Arc<ListenerTls>>,
    /// Asks for no certificate: probes and scrapers have none.
    probes: Option<Arc<ListenerTls>>,
}

fn client_tls(client: &ClientSettings) -> anyhow::Result<Tls> {
    let (Some(certificate), Some(key)) = (&client.tls.certificate, &client.tls.key) else {
        return Ok(Tls { clients: None, probes: None });
    };
    let open = ListenerFiles {
        certificate: certificate.clone(),
        key: key.clone(),
        ..ListenerFiles::default()
    };
    let closed = ListenerFiles {
        trusted_ca: client.tls.trusted_ca.clone(),
        revocations: client.tls.revoked.clone(),
        client_authentication: if client.tls.client_certificate_required {
            ClientAuthentication::Required
        } else {
            ClientAuthentication::None
        },
        ..open.clone()
    };
    Ok(Tls {
        clients: Some(Arc::new(ListenerTls::load(closed)?)),
        probes: Some(Arc::new(ListenerTls::load(open)?)),
    })
}

fn limits(client: &ClientSettings) -> Limits {
    let default = Limits::default();
    let interval = Duration::from_millis(client.keepalive_interval_ms);
    Limits {
        streams_max: client.streams_max.unwrap_or(default.streams_max),
        keepalive_interval: (!interval.is_zero()).then_some(interval),
        keepalive_timeout: Duration::from_millis(client.keepalive_timeout_ms),
        ..default
    }
}

/// Reads the keys of `--auth-token=jwt`.
fn auth_settings(client: &ClientSettings) -> anyhow::Result<api::AuthSettings> {
    let read = |path: &Option<PathBuf>| {
        let path = path.as_ref().filter(|path| !path.as_os_str().is_empty());
        let read = |path: &PathBuf| {
            std::fs::read(path).with_context(|| format!("--auth-token: {}", path.display()))
        };
        path.map(read).transpose()
    };
    let tokens = match &client.auth.token {
        TokenSettings::None => api::Tokens::none(),
        TokenSettings::Simple => api::Tokens::simple_for(client.auth.token_ttl_ms),
        TokenSettings::Jwt { method, public_key, private_key, ttl_ms } => {
            let keys = api::JwtKeys {
                method: method.clone(),
                public_key: read(public_key)?,
                private_key: read(private_key)?,
                ttl_seconds: ttl_ms / 1000,
            };
            api::Tokens::jwt(&keys).map_err(|why| anyhow::anyhow!("--auth-token: {why}"))?
        }
    };
    Ok(api::AuthSettings {
        tokens,
        bcrypt_cost: client.auth.bcrypt_cost,
        common_name_is_user: client.tls.common_name_is_user,
    })
}

fn listeners(
    (prepared, auth): (&Prepared, api::AuthSettings),
    handle: &Handle,
    sockets: Sockets,
    tls: &Tls,
) -> Vec<Listener> {
    let client = &prepared.settings.client;
    let api_settings = api::Settings {
        request_bytes_max: client.request_bytes_max.map(|flag| flag as usize),
        txn_operations_max: client.txn_ops_max.map(|flag| flag as usize),
        strict_reconfiguration: prepared.settings.bootstrap.strict_reconfiguration,
        learners_max: prepared.settings.bootstrap.learners_max,
        progress_interval_ms: client.watch_progress_ms.max(100),
        auth,
    };
    let web_settings = web::Settings {
        etcd_version: api::ETCD_VERSION,
        member_id: api::member_id(&prepared.genesis.genesis.cluster_id(), prepared.own),
    };
    let api::Interface { grpc, rest } = api::routes(handle.clone(), api_settings);
    let mut pages = web::routes(handle.clone(), web_settings.clone());
    if client.rest {
        pages = pages.merge(rest);
    }
    let probes = web::probe_routes(handle.clone(), web_settings);
    // As etcd: own listeners for HTTP take HTTP away from the others.
    let first = if sockets.http.is_empty() { grpc.merge(pages.clone()) } else { grpc };
    let mut all = Vec::new();
    let mut add = |bound: Bound, router: &Router, tls: &Option<Arc<ListenerTls>>| {
        for (secure, socket) in bound {
            let tls = if secure { tls.clone() } else { None };
            all.push(Listener { socket, tls, router: router.clone() });
        }
    };
    add(sockets.grpc, &first, &tls.clients);
    add(sockets.http, &pages, &tls.clients);
    add(sockets.metrics, &probes, &tls.probes);
    all
}

async fn until_told(prepared: &Prepared, handle: &Handle) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let serving = async {
        say_when_ready(prepared, handle).await;
        let compaction = auto_compaction::run(handle, prepared.settings.auto_compaction);
        tokio::join!(handle.report_proofs(), compaction);
    };
    let work = async {
        tokio::join!(serving, vote_when_ready(handle));
    };
    let reason = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        () = work => "end of work",
    };
    tracing::info!(event = "stopping", reason, "stopping");
    Ok(())
}

/// The line that etcd's own test programs wait for, once it is true.
async fn say_when_ready(prepared: &Prepared, handle: &Handle) {
    while handle.linearizable().await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let id: types::ClusterId = prepared.genesis.genesis.cluster_id();
    for url in &prepared.settings.client.listen {
        tracing::info!(event = "ready", %url, network = %id, "ready to serve client requests");
    }
}
