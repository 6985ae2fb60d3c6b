use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use axum::Router;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access::Access;
use super::connection::{Accepted, Service, Stream, serve_connection};
use super::counting::Methods;
use super::limits::{Census, Limits};
use crate::observe::Metrics;
use crate::tls::ListenerTls;

/// How often the TLS files are looked at and histograms are emptied into their buckets, which
/// nobody may ever scrape.
const TEND_EVERY: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound socket and what answers on it.
pub struct Listener {
    /// Bound, as by [`bind`].
    pub socket: Socket,
    /// None for plain text.
    pub tls: Option<Arc<ListenerTls>>,
    /// gRPC, HTTP, or both.
    pub router: Router,
    /// Asked about HTTP requests before the router; None for probes alone.
    pub access: Option<Arc<Access>>,
}

/// A bound socket.
#[derive(Debug)]
pub enum Socket {
    /// An address and a port.
    Tcp(TcpListener),
    /// A file.
    Unix(UnixListener),
}

/// Why a socket could not be bound.
#[derive(Debug)]
pub struct BindError {
    address: String,
    error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.address, self.error)?;
        match self.error.kind() {
            io::ErrorKind::AddrInUse => {
                write!(f, "; another process listens there, stop it or choose another port")
            }
            io::ErrorKind::AddrNotAvailable => {
                write!(f, "; it is no address of this machine, choose one or 0.0.0.0")
            }
            io::ErrorKind::PermissionDenied => write!(f, "; choose a port above 1023"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for BindError {}

/// Binds every address that `host` stands for, on `port`.
///
/// # Errors
/// The host has no address, or one cannot be bound; the message says what to do.
pub fn bind(host: &str, port: u16) -> Result<Vec<TcpListener>, BindError> {
    let failed = |error| BindError { address: format!("{host}:{port}"), error };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<SocketAddr> = match bare.parse::<IpAddr>() {
        Ok(address) => vec![(address, port).into()],
        Err(_) => (bare, port).to_socket_addrs().map_err(failed)?.collect(),
    };
    let mut sockets = Vec::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in addresses {
        match TcpListener::bind(address) {
            Ok(socket) => sockets.push(socket),
            // `localhost` names ::1 on machines whose IPv6 is off; etcd binds what there is.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => last = error,
            Err(error) => return Err(failed(error)),
        }
    }
    if sockets.is_empty() { Err(failed(last)) } else { Ok(sockets) }
}

/// Binds a unix socket. A socket that is there already is of a process that ended, as in etcd; anything
/// else is left alone.
///
/// # Errors
/// The path cannot be bound; the message says what to do.
pub fn bind_unix(path: &Path) -> Result<UnixListener, BindError> {
    let failed = |error| BindError { address: path.display().to_string(), error };
    if path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket()) {
        std::fs::remove_file(path).map_err(failed)?;
    }
    UnixListener::bind(path).map_err(failed)
}

/// The listeners being served.
pub struct Server {
    stop: CancellationToken,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Serves the listeners on threads of its own: one runtime each, and a connection stays on the
    /// one with the fewest at its arrival (performance.md 4.5). The paths of `methods` are counted from 0.
    ///
    /// # Errors
    /// The system refuses a thread, a runtime or a socket.
    pub fn start(
        listeners: Vec<Listener>,
        limits: &Limits,
        methods: Vec<String>,
    ) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let mut threads = Vec::new();
        let mut workers = Vec::new();
        for number in 0..limits.threads.max(1) {
            let (sender, receiver) = unbounded_channel();
            let load = Arc::new(AtomicUsize::new(0));
            workers.push(Worker { sender, load: Arc::clone(&load) });
            let (stop, limits) = (stop.clone(), limits.clone());
            threads.push(spawn(&format!("client-{number}"), async move {
                work(receiver, load, limits, stop).await;
            })?);
        }
        let shared = Arc::new(Accepting {
            workers,
            census: Arc::new(Census::new(limits.clone())),
            handshakes: Arc::new(Semaphore::new(limits.handshakes_max)),
            methods: Arc::new(Methods::new(limits, &methods)),
            stop: stop.clone(),
        });
        for listener in &listeners {
            match &listener.socket {
                Socket::Tcp(socket) => socket.set_nonblocking(true)?,
                Socket::Unix(socket) => socket.set_nonblocking(true)?,
            }
        }
        threads.push(spawn("client-accept", async move {
            let tracker = TaskTracker::new();
            for listener in listeners {
                tracker.spawn(accept(Arc::clone(&shared), listener));
            }
            tracker.close();
            tracker.wait().await;
        })?);
        Ok(Self { stop, threads })
    }

    /// Stops accepting, tells every connection to finish (HTTP/2 by GOAWAY), and returns when they
    /// have, or when `within` is over: what is still open then is cut.
    pub fn stop(self, within: Duration) {
        self.stop.cancel();
        let deadline = std::time::Instant::now() + within + Duration::from_millis(500);
        for thread in self.threads {
            while !thread.is_finished() && std::time::Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// A thread with a runtime of its own, for one future.
fn spawn(
    name: &str,
    future: impl Future<Output = ()> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(name.to_owned()).spawn(move || runtime.block_on(future))
}

struct Worker {
    sender: UnboundedSender<Accepted>,
    /// Connections it serves.
    load: Arc<AtomicUsize>,
}

struct Accepting {
    workers: Vec<Worker>,
    census: Arc<Census>,
    handshakes: Arc<Semaphore>,
    methods: Arc<Methods>,
    stop: CancellationToken,
}

/// Accepts until the server stops. A failed accept, for want of descriptors for example, is a pause
/// and no end (RUSTSEC-2024-0376).
async fn accept(shared: Arc<Accepting>, listener: Listener) {
    let socket = match listener.socket {
        Socket::Tcp(socket) => tokio::net::TcpListener::from_std(socket).map(Either::Left),
        Socket::Unix(socket) => tokio::net::UnixListener::from_std(socket).map(Either::Right),
    };
    let socket = match socket {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(event = "listener_failed", %error);
            return;
        }
    };
    let service = Service {
        router: listener.router,
        tls: listener.tls,
        access: listener.access,
        handshakes: Arc::clone(&shared.handshakes),
        methods: Arc::clone(&shared.methods),
    };
    let mut tend = tokio::time::interval(TEND_EVERY);
    loop {
        let accepted = tokio::select! {
            accepted = accept_one(&socket) => accepted,
            _ = tend.tick() => {
                Metrics::installed().into_iter().for_each(Metrics::upkeep);
                service.tls.iter().for_each(|tls| tls.reload_if_changed());
                continue;
            }
            () = shared.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, address)) => hand_over(&shared, &service, stream, address),
            Err(error) => {
                tracing::warn!(event = "client_accept_failed", %error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

type AnyListener = Either<tokio::net::TcpListener, tokio::net::UnixListener>;

/// Who comes by a unix socket comes from this machine.
async fn accept_one(socket: &AnyListener) -> io::Result<(Stream, SocketAddr)> {
    match socket {
        Either::Left(socket) => {
            let (stream, address) = socket.accept().await?;
            Ok((Stream::Tcp(stream.into_std()?), address))
        }
        Either::Right(socket) => {
            let (stream, _unnamed) = socket.accept().await?;
            Ok((Stream::Unix(stream.into_std()?), (Ipv4Addr::LOCALHOST, 0).into()))
        }
    }
}

fn hand_over(shared: &Accepting, service: &Service, stream: Stream, address: SocketAddr) {
    let place = match shared.census.admit(address.ip()) {
        Ok(place) => place,
        Err(why) => {
            shared.census.refuse(why);
            tracing::debug!(event = "client_refused", %address, reason = ?why);
            return;
        }
    };
    let census = Arc::clone(&shared.census);
    let accepted = Accepted { stream, address, place, service: service.clone(), census };
    let idlest = shared.workers.iter().min_by_key(|worker| worker.load.load(Ordering::Relaxed));
    if let Some(worker) = idlest {
        worker.load.fetch_add(1, Ordering::Relaxed);
        // A worker that is gone has stopped with the server.
        let _stopped = worker.sender.send(accepted);
    }
}

/// One worker: serves what it is handed until the server stops and its connections have ended.
async fn work(
    mut receiver: UnboundedReceiver<Accepted>,
    load: Arc<AtomicUsize>,
    limits: Limits,
    stop: CancellationToken,
) {
    const STOP_WITHIN: Duration = Duration::from_secs(5);
    let limits = Arc::new(limits);
    let tracker = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = receiver.recv() => accepted,
            () = stop.cancelled() => None,
        };
        let Some(accepted) = accepted else { break };
        let (load, limits, stop) = (Arc::clone(&load), Arc::clone(&limits), stop.clone());
        tracker.spawn(async move {
            serve_connection(accepted, &limits, &stop).await;
            load.fetch_sub(1, Ordering::Relaxed);
        });
    }
    tracker.close();
    if tokio::time::timeout(STOP_WITHIN, tracker.wait()).await.is_err() {
        tracing::info!(event = "clients_cut", connections = tracker.len());
    }
}

#[cfg(test)]
mod tests;
