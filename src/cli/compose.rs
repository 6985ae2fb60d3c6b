//! Joins node, API and web on the listeners that the settings name, until the process is told to
//! end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use tokio::signal::unix::{SignalKind, signal};

use super::serve::{MeetingPlace, Prepared};
use super::{auto_compaction, voted_flags};
use crate::chain::Ownership;
use crate::config::{ClientSettings, ClientTls, Home, ListenUrl, Settings, TokenSettings};
use crate::crypto::{PublicKey, Scheme};
use crate::net::PeerListener;
use crate::node::{Handle, Node, NodeConfig, vote_when_ready};
use crate::observe::table::CLIENT_CERTIFICATE_EXPIRY;
use crate::tls::{
    ClientAuthentication, ExchangeFiles, ExchangeTls, ListenerFiles, ListenerTls, Versions,
};
use crate::web::{self, Access, Limits, Listener, Server, Socket, bind, bind_unix};
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
    let place = match prepared.place.take() {
        Some(place) => place,
        None => MeetingPlace {
            sockets: match prepared.alone() {
                true => lone_peers(&prepared),
                false => bind_peers(&prepared.settings.peer.listen)?,
            },
            exchange: exchange(&prepared.settings)?,
        },
    };
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
        peer_listeners: place.sockets,
        exchange: place.exchange,
        runtime: runtime.handle().clone(),
        history_retention_ms: prepared.settings.history_retention_ms,
        waits_for_disk: !prepared.settings.unsafe_no_fsync,
    })
    .map_err(|why| anyhow::anyhow!("{why}"))?;
    let handle = node.handle();
    let auth = auth_settings(client)?;
    let listeners = listeners((&prepared, auth), &handle, sockets, &tls);
    let server = Server::start(listeners, &limits(client), api::method_paths());
    let server = server.context("cannot serve clients")?;
    runtime.block_on(until_told(&prepared, &handle))?;
    tell_supervisor(sd_notify::NotifyState::Stopping);
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
fn lone_peers(prepared: &Prepared) -> Vec<PeerListener> {
    if prepared.genesis.genesis.ownership == Ownership::Many {
        return Vec::new();
    }
    match bind_peers(&prepared.settings.peer.listen) {
        Ok(bound) => bound,
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

/// systemd, if it asked to be told.
fn tell_supervisor(state: sd_notify::NotifyState<'_>) {
    if std::env::var_os("NOTIFY_SOCKET").is_none_or(|socket| socket.is_empty()) {
        return;
    }
    if let Err(why) = sd_notify::notify(&[state]) {
        tracing::warn!(event = "supervisor", %why, "the supervisor cannot be told");
    }
}

type Bound = Vec<(bool, Socket)>;

struct Sockets {
    grpc: Bound,
    http: Bound,
    metrics: Bound,
}

fn bind_all(urls: &[ListenUrl]) -> anyhow::Result<Bound> {
    let mut bound = Vec::new();
    for url in urls {
        match url.port {
            Some(port) => {
                let sockets = bind(&url.host, port)?.into_iter();
                bound.extend(sockets.map(|socket| (url.tls, Socket::Tcp(socket))));
            }
            None => bound.push((url.tls, Socket::Unix(bind_unix(Path::new(&url.host))?))),
        }
    }
    Ok(bound)
}

pub(super) fn bind_peers(urls: &[ListenUrl]) -> anyhow::Result<Vec<PeerListener>> {
    let mut bound = Vec::new();
    for url in urls {
        let port = url.port.with_context(|| format!("{url}: peers meet by TCP alone"))?;
        let sockets = bind(&url.host, port)?.into_iter();
        bound.extend(sockets.map(|socket| PeerListener { socket, secure: url.tls }));
    }
    Ok(bound)
}

/// How members of one owner find each other at https peer URLs.
pub(super) fn exchange(settings: &Settings) -> anyhow::Result<Arc<ExchangeTls>> {
    let (tls, client) = (&settings.peer.tls, &settings.client.tls);
    let files = ExchangeFiles {
        certificate: tls.certificate.clone(),
        client: tls.client.clone(),
        trusted_ca: tls.trusted_ca.clone(),
        certificate_required: tls.certificate_required,
        revocations: tls.revoked.clone(),
        allowed_hostnames: tls.allowed_hostnames.clone(),
        allowed_common_names: tls.allowed_common_names.clone(),
        any_address: tls.any_address,
        self_made: tls.automatic,
        cipher_suites: client.cipher_suites.clone(),
        versions: versions(client),
    };
    Ok(Arc::new(ExchangeTls::load(files)?))
}

fn versions(client: &ClientTls) -> Versions {
    match (client.tls12, client.tls13) {
        (true, false) => Versions::Tls12,
        (false, true) => Versions::Tls13,
        _ => Versions::Both,
    }
}

/// One object for gRPC, HTTP and metrics, so that no listener is weaker than another.
fn client_tls(client: &ClientSettings) -> anyhow::Result<Option<Arc<ListenerTls>>> {
    let (Some(certificate), Some(key)) = (&client.tls.certificate, &client.tls.key) else {
        return Ok(None);
    };
    let files = ListenerFiles {
        certificate: certificate.clone(),
        key: key.clone(),
        trusted_ca: client.tls.trusted_ca.clone(),
        revocations: client.tls.revoked.clone(),
        client_authentication: if client.tls.client_certificate_required {
            ClientAuthentication::Required
        } else {
            ClientAuthentication::None
        },
        allowed_hostnames: client.tls.allowed_hostnames.clone(),
        allowed_common_names: client.tls.allowed_common_names.clone(),
        cipher_suites: client.tls.cipher_suites.clone(),
        versions: versions(&client.tls),
        expiry: Some(&CLIENT_CERTIFICATE_EXPIRY),
    };
    Ok(Some(Arc::new(ListenerTls::load(files)?)))
}

/// Descriptors that no client gets: those of the log, of peers, of the runtimes.
const DESCRIPTORS_KEPT: u64 = 256;

/// Connections that leave enough descriptors for everything else: who has none left for its log stops.
fn connections_max(default: usize) -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let spare = files.map(|files| files - DESCRIPTORS_KEPT.min(files / 2));
    spare.and_then(|spare| usize::try_from(spare).ok()).map_or(default, |spare| spare.min(default))
}

fn limits(client: &ClientSettings) -> Limits {
    let default = Limits::default();
    let interval = Duration::from_millis(client.keepalive_interval_ms);
    Limits {
        connections_max: connections_max(default.connections_max),
        streams_max: client.streams_max.unwrap_or(default.streams_max),
        keepalive_interval: (!interval.is_zero()).then_some(interval),
        keepalive_timeout: Duration::from_millis(client.keepalive_timeout_ms),
        times_calls: client.metrics_extensive,
        slow_call: Duration::from_millis(client.slow_request_ms),
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
    tls: &Option<Arc<ListenerTls>>,
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
        tls: tls.clone(),
    };
    let api::Interface { grpc, rest } = api::routes(handle.clone(), api_settings);
    let pages = web::routes(handle.clone(), web_settings.clone());
    let pages = if client.rest { pages.merge(rest) } else { pages };
    let probes = web::probe_routes(handle.clone(), web_settings);
    // As etcd: own listeners for HTTP take HTTP away from the others.
    let first = if sockets.http.is_empty() { grpc.merge(pages.clone()) } else { grpc };
    let mut all = Vec::new();
    let mut add = |bound: Bound, router: &Router, access: &Option<Arc<Access>>| {
        for (secure, socket) in bound {
            let tls = tls.clone().filter(|_| secure);
            all.push(Listener { socket, tls, router: router.clone(), access: access.clone() });
        }
    };
    let access = Access { hosts: client.host_whitelist.clone(), origins: client.cors.clone() };
    let access = Some(Arc::new(access));
    add(sockets.grpc, &first, &access);
    add(sockets.http, &pages, &access);
    add(sockets.metrics, &probes, &None);
    all
}

async fn until_told(prepared: &Prepared, handle: &Handle) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let serving = async {
        voted_flags::apply(&prepared.settings, handle).await;
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
    tell_supervisor(sd_notify::NotifyState::Ready);
}
