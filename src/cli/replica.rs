//! A running replica: node, API and web on their listeners, until the process is told to end.

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use super::serve::Prepared;
use crate::config::{ClientTls, ListenUrl, Settings};
use crate::crypto::Scheme;
use crate::node::{Handle, Node, NodeConfig};
use crate::observe::{LogFormat, LogSettings, Metrics, start_logging};
use crate::tls::{ClientAuthentication, ListenerFiles, ListenerTls};
use crate::web::{Limits, Listener, Server, bind};
use crate::{api, web};

/// Time open calls get to end after SIGTERM.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// Serves until SIGTERM or SIGINT.
pub(super) fn run(prepared: Prepared) -> anyhow::Result<ExitCode> {
    let Prepared { settings, genesis, own, secret } = prepared;
    let format = if settings.log.json { LogFormat::Json } else { LogFormat::Text };
    start_logging(&LogSettings { filter: settings.log.level.to_owned(), format })?;
    Metrics::install()?;
    for warning in &settings.warnings {
        tracing::warn!(event = "setting", "{warning}");
    }
    // This thread drives the links while it waits for a signal.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime for the links to other replicas")?;
    let peer_listeners =
        if genesis.genesis.members.len() > 1 { sockets(&settings.peer.listen)? } else { Vec::new() };
    // Bound before recovery, so that a taken port is said before anything is changed on disk.
    let clients = ClientSockets::bind(&settings)?;
    let scheme: Arc<dyn Scheme> = Arc::new(secret.signer());
    let node = Node::start(NodeConfig {
        genesis: genesis.genesis,
        own,
        scheme,
        data_directory: settings.data_dir.clone(),
        peer_listeners,
        runtime: runtime.handle().clone(),
    })?;
    let server = clients.serve(&settings, &node.handle())?;
    // etcd's end-to-end tests wait for these words.
    eprintln!("ready to serve client requests");
    tracing::info!(event = "ready", name = settings.name, "ready to serve client requests");
    runtime.block_on(told_to_end())?;
    tracing::info!(event = "stopping", "stopping");
    server.stop(STOP_WITHIN);
    node.stop();
    Ok(ExitCode::SUCCESS)
}

async fn told_to_end() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Bound sockets towards clients.
struct ClientSockets {
    /// gRPC and HTTP.
    both: Vec<(TcpListener, Option<Arc<ListenerTls>>)>,
    /// HTTP alone.
    http: Vec<(TcpListener, Option<Arc<ListenerTls>>)>,
    /// Probes and metrics.
    metrics: Vec<(TcpListener, Option<Arc<ListenerTls>>)>,
}

impl ClientSockets {
    fn bind(settings: &Settings) -> anyhow::Result<Self> {
        let client = &settings.client;
        let secured = client.listen.iter().chain(&client.listen_http).any(|url| url.tls);
        let tls = if secured { Some(listener_tls(&client.tls)?) } else { None };
        let open = |urls: &[ListenUrl]| -> anyhow::Result<Vec<_>> {
            let mut opened = Vec::new();
            for url in urls {
                let tls = if url.tls { tls.clone() } else { None };
                for socket in sockets(std::slice::from_ref(url))? {
                    opened.push((socket, tls.clone()));
                }
            }
            Ok(opened)
        };
        Ok(Self {
            both: open(&client.listen)?,
            http: open(&client.listen_http)?,
            metrics: open(&client.listen_metrics)?,
        })
    }

    fn serve(self, settings: &Settings, handle: &Handle) -> anyhow::Result<Server> {
        let parameters = &handle.genesis().parameters;
        let mut api_settings = api::Settings::new(parameters);
        api_settings.progress_interval_ms = settings.client.watch_progress_ms;
        if let Some(bytes) = settings.client.request_bytes_max {
            api_settings.request_bytes_max = bytes as usize;
        }
        if let Some(operations) = settings.client.txn_ops_max {
            api_settings.txn_operations_max = operations as usize;
        }
        let web_settings = web::Settings {
            etcd_version: api::ETCD_VERSION,
            member_id: api::member_id(&handle.genesis().cluster_id(), handle.own()),
        };
        let pages = web::routes(handle.clone(), web_settings.clone());
        let both = api::routes(handle.clone(), api_settings).merge(pages.clone());
        let probes = web::probe_routes(handle.clone(), web_settings);
        let mut listeners = Vec::new();
        for (sockets, router) in [(self.both, both), (self.http, pages), (self.metrics, probes)] {
            for (socket, tls) in sockets {
                listeners.push(Listener { socket, tls, router: router.clone() });
            }
        }
        let limits = Limits { streams_max: settings.client.streams_max, ..Limits::default() };
        Server::start(listeners, &limits).context("the client listeners cannot be served")
    }
}

fn sockets(urls: &[ListenUrl]) -> anyhow::Result<Vec<TcpListener>> {
    let mut sockets = Vec::new();
    for url in urls {
        let port = url.port.context("unix sockets are not there yet; listen on an address")?;
        sockets.extend(bind(&url.host, port)?);
    }
    Ok(sockets)
}

fn listener_tls(tls: &ClientTls) -> anyhow::Result<Arc<ListenerTls>> {
    let needs = |flag| format!("an https listener needs {flag}");
    let client_authentication = match (tls.client_certificate_required, &tls.trusted_ca) {
        (true, _) => ClientAuthentication::Required,
        (false, Some(_)) => ClientAuthentication::Optional,
        (false, None) => ClientAuthentication::None,
    };
    let files = ListenerFiles {
        certificate: tls.certificate.clone().with_context(|| needs("--cert-file"))?,
        key: tls.key.clone().with_context(|| needs("--key-file"))?,
        trusted_ca: tls.trusted_ca.clone(),
        revocations: tls.revoked.clone(),
        client_authentication,
    };
    Ok(Arc::new(ListenerTls::load(files)?))
}
