//! Frames between identities: one listener, one dialled connection per peer and direction. Frames
//! go out on the connection this replica dialled and come in on those it accepted. What a frame
//! means is nobody's business here, and every frame may be lost; the protocol sends again.
//!
//! A link's identity is settled by [`crate::tls::PeerTls`] before its first frame is read
//! (protocol.md 15), and queues are bounded in both directions.

mod accept;
mod ask;
mod dial;
mod frame;
mod lanes;
mod traffic;

pub use ask::{Answerer, Exchange, PeerListener, Strangers, ask};
pub use frame::{FrameLimits, frames_in};
pub use lanes::Lane;
pub use traffic::Traffic;

use core::time::Duration;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::crypto::PublicKey;
use crate::tls::{CertificateFacts, PeerTls};
use crate::types::ReplicaId;
use lanes::Lanes;
use traffic::Counters;

/// A peer to keep a link to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Who; whoever else answers there is refused.
    pub id: ReplicaId,
    /// For log lines.
    pub name: String,
    /// The member id in hexadecimal, as etcd's metrics label it.
    pub label: String,
    /// host:port each, resolved anew and tried in turn at each attempt.
    pub addresses: Vec<String>,
    /// Its replica key: links made with another one end when it changes.
    pub key: PublicKey,
}

/// What [`PeerNet::start`] needs.
pub struct PeerNetConfig {
    /// This replica's key and whom it accepts.
    pub tls: Arc<PeerTls>,
    /// Bound sockets to accept peers on.
    pub listeners: Vec<PeerListener>,
    /// All members but this replica.
    pub peers: Vec<PeerAddress>,
    /// The longest frames, by lane.
    pub frame_limits: FrameLimits,
    /// What may wait per peer and lane; above it frames are dropped.
    pub queue_bytes_max: usize,
    /// Answers who shares no network with this replica; none: such a connection is refused.
    pub strangers: Option<Exchange>,
    /// What may be received from a peer and not yet be settled by dropping its [`Receipt`]; above it
    /// the peer is not read from.
    pub unsettled_bytes_max: usize,
}

/// What happens on the links.
#[derive(Debug)]
pub enum NetEvent {
    /// Frames to this peer go out from now on.
    Up(ReplicaId),
    /// They do not, until the next `Up`; what waited is dropped.
    Down(ReplicaId),
    /// A frame from this peer. Its receipt is dropped once the frame has been dealt with.
    Frame(ReplicaId, Bytes, Receipt),
}

/// Holds a received frame's share of what its peer may have outstanding.
#[derive(Debug)]
pub struct Receipt {
    _permit: Option<OwnedSemaphorePermit>,
}

type Handler = dyn Fn(NetEvent) + Send + Sync;

/// The links to all peers. Dropping it ends them.
pub struct PeerNet {
    shared: Arc<Shared>,
}

struct Shared {
    tls: Arc<PeerTls>,
    peers: RwLock<BTreeMap<ReplicaId, Arc<Peer>>>,
    runtime: tokio::runtime::Handle,
    queue_bytes_max: usize,
    unsettled_bytes_max: usize,
    frame_limits: FrameLimits,
    strangers: Option<Exchange>,
    handler: Box<Handler>,
    /// Whether the demo has cut this replica off.
    cut: watch::Sender<bool>,
    stop: CancellationToken,
}

struct Peer {
    address: PeerAddress,
    lanes: Lanes,
    counters: Counters,
    unsettled: Arc<Semaphore>,
    /// The newest accepted connection; cancelled by its successor.
    accepted: Mutex<CancellationToken>,
    /// Cancelled once it is a peer no more.
    gone: CancellationToken,
}

impl PeerNet {
    /// What peers are shown of this replica.
    #[must_use]
    pub fn certificate(&self) -> Option<CertificateFacts> {
        self.shared.tls.facts()
    }

    /// Starts dialling and accepting on `runtime`. `handler` is called from its tasks and must not
    /// block; for one peer, calls come in order.
    ///
    /// # Errors
    /// A listener cannot be used.
    pub fn start(
        runtime: &tokio::runtime::Handle,
        config: PeerNetConfig,
        handler: impl Fn(NetEvent) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        // A frame of the longest kind must fit into every bound, or it would wait for ever.
        let frame_bytes_max = config.frame_limits.control_bytes.max(config.frame_limits.bulk_bytes);
        let queue_bytes_max = config.queue_bytes_max.max(frame_bytes_max);
        let unsettled_bytes_max =
            config.unsettled_bytes_max.max(frame_bytes_max + accept::FRAME_OVERHEAD_BYTES);
        let shared = Arc::new(Shared {
            tls: config.tls,
            peers: RwLock::default(),
            runtime: runtime.clone(),
            queue_bytes_max,
            unsettled_bytes_max,
            frame_limits: config.frame_limits,
            strangers: config.strangers,
            handler: Box::new(handler),
            cut: watch::Sender::new(false),
            stop: CancellationToken::new(),
        });
        let guard = runtime.enter();
        for listener in config.listeners {
            let (secure, listener) = (listener.secure, listener.into_tokio()?);
            runtime.spawn(accept::run(Arc::clone(&shared), listener, secure));
        }
        drop(guard);
        let net = Self { shared };
        net.set_peers(config.peers);
        Ok(net)
    }

    /// Links to exactly these from now on; those that stay as they are keep their links.
    pub fn set_peers(&self, wanted: Vec<PeerAddress>) {
        let shared = &self.shared;
        let mut peers = shared.peers.write().unwrap_or_else(PoisonError::into_inner);
        let mut old = std::mem::take(&mut *peers);
        for address in wanted {
            let id = address.id;
            let known = old.remove(&id).filter(|known| {
                let same = known.address == address;
                if !same {
                    known.gone.cancel();
                }
                same
            });
            let peer = known.unwrap_or_else(|| {
                let peer = Arc::new(shared.new_peer(address));
                shared.runtime.spawn(dial::run(Arc::clone(shared), Arc::clone(&peer)));
                peer
            });
            peers.insert(id, peer);
        }
        old.into_values().for_each(|peer| peer.gone.cancel());
    }

    /// Queues a frame; never waits. False if it was dropped: no link, queue full, unknown peer, or
    /// longer than its lane allows.
    pub fn send(&self, to: ReplicaId, frame: Bytes, lane: Lane) -> bool {
        let Some(peer) = self.shared.peer(to) else { return false };
        let queued = peer.lanes.push(frame, lane);
        if !queued {
            peer.counters.failed();
        }
        queued
    }

    /// Cuts this replica off from all peers, or lets it back. Links end, none is dialled or accepted.
    pub fn cut(&self, cut: bool) {
        self.shared.cut.send_replace(cut);
    }

    /// Whether it is cut off.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        *self.shared.cut.borrow()
    }

    /// What went over each link so far.
    #[must_use]
    pub fn traffic(&self) -> BTreeMap<ReplicaId, Traffic> {
        let peers = self.shared.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.iter().map(|(id, peer)| (*id, peer.counters.snapshot())).collect()
    }
}

impl Drop for PeerNet {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl Shared {
    fn new_peer(&self, address: PeerAddress) -> Peer {
        Peer {
            lanes: Lanes::new(self.frame_limits, self.queue_bytes_max),
            counters: Counters::new(&address.label),
            unsettled: Arc::new(Semaphore::new(self.unsettled_bytes_max)),
            accepted: Mutex::new(CancellationToken::new()),
            gone: CancellationToken::new(),
            address,
        }
    }

    fn peer(&self, id: ReplicaId) -> Option<Arc<Peer>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Resolves once links must end: the process stops, or the demo cuts this replica off.
    async fn ended(&self) {
        let mut cut = self.cut.subscribe();
        tokio::select! {
            () = self.stop.cancelled() => {}
            _ = cut.wait_for(|cut| *cut) => {}
        }
    }

    /// Waits while this replica is cut off; false once the process stops.
    async fn may_link(&self) -> bool {
        let mut cut = self.cut.subscribe();
        tokio::select! {
            () = self.stop.cancelled() => false,
            healed = cut.wait_for(|cut| !*cut) => healed.is_ok() && !self.stop.is_cancelled(),
        }
    }
}

/// How often a dialler asks whether its peer is there.
const PING_EVERY: Duration = Duration::from_secs(1);
/// Without an answer for so long, and some time for what was written before, a link is dead.
const PONG_WITHIN: Duration = Duration::from_secs(10);
/// An acceptor that hears nothing for so long, not even pings, takes its dialler for gone.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Connecting and shaking hands take no longer.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// After a connection that was refused, or ended within this time, its place stays taken so long:
/// nobody can make this replica shake hands, or write log lines, as fast as one can dial.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
